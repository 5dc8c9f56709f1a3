"""Which parameters of a module are random: by pattern, by type of layer, or the last layers."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence

from torch import nn

Choice = str | Sequence[str] | type[nn.Module]


def choose(module: nn.Module, which: Choice = "all") -> tuple[str, ...]:
    """Names of the random parameters of ``module``, in the order of ``module.named_parameters()``.

    Args:
        module: any torch module.
        which: ``"all"``; ``"last"`` or ``"last:K"``, weights and biases of the last K linear layers on each
            path (see :func:`linear_paths`); one or more glob patterns over parameter names, such as
            ``"*.bias"``; or a type of module, such as ``torch.nn.Conv2d``, whose parameters are meant.

    Raises:
        ValueError: if nothing is chosen, or K is not a positive number.
    """
    names = [name for name, _ in module.named_parameters()]
    if isinstance(which, str):
        last = re.fullmatch(r"last(?::(.*))?", which)
        if last:
            chosen = _last(module, "1" if last[1] is None else last[1])
        else:
            chosen = set(names) if which == "all" else _matching(names, [which])
    elif isinstance(which, type):
        chosen = {
            f"{prefix}.{name}" if prefix else name
            for prefix, part in module.named_modules()
            if isinstance(part, which)
            for name, _ in part.named_parameters()
        }
    else:
        chosen = _matching(names, which)
    found = tuple(name for name in names if name in chosen)
    if not found:
        raise ValueError(
            f"The choice {which!r} matches no parameter of {type(module).__name__};"
            f" its parameters are {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}."
        )
    return found


def exactly(names: Sequence[str]) -> list[str]:
    """Patterns that match these names and nothing else: brackets in a name are not a pattern."""
    return [name.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]") for name in names]


def linear_paths(module: nn.Module) -> list[list[str]]:
    """The linear layers along each path through ``module``, names in the order in which they act.

    Torch modules do not know their own graph; these rules stand in for it. A child named ``trunk`` comes
    first and its siblings are branches that read it; the items of a ModuleList or ModuleDict are branches;
    the children of any other module follow one another as they were registered.
    """
    return _paths(module, "", lambda part: isinstance(part, nn.Linear))


def top_layers(module: nn.Module) -> str:
    """``"last:2"``, or ``"last"`` where one of two layers would be the first on its path: it reads the input itself."""
    random = {name.rpartition(".")[0] for name in choose(module, "last:2")}
    paths = _paths(module, "", lambda part: any(True for _ in part.parameters(recurse=False)))
    return "last" if any(path and path[0] in random for path in paths) else "last:2"


def _paths(module: nn.Module, prefix: str, counts: Callable[[nn.Module], bool]) -> list[list[str]]:
    """The modules that count along each path, see :func:`linear_paths`; what is inside of one is not looked at."""
    if counts(module):
        return [[prefix]]
    children = dict(module.named_children())
    found = {
        name: _paths(child, f"{prefix}.{name}" if prefix else name, counts)
        for name, child in children.items()
    }
    trunk = found.pop("trunk", [])
    parallel = "trunk" in children or isinstance(module, nn.ModuleList | nn.ModuleDict)
    paths: list[list[str]] = []
    for branch in found.values():
        if parallel:
            paths += branch
        elif branch:
            paths = [[*before, *after] for before in paths or [[]] for after in branch]
    if trunk:
        paths = [[*before, *after] for before in trunk for after in paths or [[]]]
    return paths


def _last(module: nn.Module, count: str) -> set[str]:
    if not count.isdigit() or int(count) < 1:
        raise ValueError(f"The choice 'last:{count}' needs a positive number of layers, such as last:2.")
    layers = {name for path in linear_paths(module) for name in path[-int(count) :]}
    return {
        f"{name}.{part}" if name else part
        for name in layers
        for part, _ in module.get_submodule(name).named_parameters()
    }


def _matching(names: Sequence[str], patterns: Sequence[str]) -> set[str]:
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise ValueError(
                f"The pattern {pattern!r} matches no parameter; names look like {', '.join(names[:4])}."
            )
    return {name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)}
