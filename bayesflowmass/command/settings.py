"""Settings from YAML files; the settings themselves are of :mod:`bayesflowmass.common.settings`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from bayesflowmass.common.settings import ConfigError

_MOST_BYTES = 2**20


def config_path(name: str) -> Path:
    """Path of a configuration that comes with the package, such as ``default.yaml``."""
    here = Path(__file__).parents[1]
    for folder in (here / "configs", here.parent / "configs"):
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(f"There is no configuration '{name}' in the package; give the path of a YAML file.")


class _Loader(yaml.SafeLoader):
    """Plain values that are one thing only: YAML 1.1 reads 010 as 8, 1:30 as 90, ``no`` as false and the last of two
    equal keys; 2e-3 without a point is text to it. Aliases, of which a few lines make gigabytes, no setting needs.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(None, None, "aliases (*name) are not read; write the value", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(None, None, "a key is one word", key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(None, None, f"the key '{key.value}' stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _refuse(loader: yaml.SafeLoader, node: Any) -> Any:
    problem = f"{node.value} is one number to some programs and another to others; write a plain number"
    raise yaml.MarkedYAMLError(None, None, problem, node.start_mark)


_DIGITS = list("-+.0123456789")
_AMBIGUOUS = "!ambiguous"
# The plain values of YAML 1.2, in the order in which they are tried.
_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    (_AMBIGUOUS, r"[-+]?0[0-9_]+|[-+]?0[bxo][0-9a-fA-F_]+|[-+]?[0-9][0-9_]*(:[0-9]+)+(\.[0-9]*)?", _DIGITS),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("tag:yaml.org,2002:int", r"[-+]?(0|[1-9][0-9]*)", _DIGITS),
    ("tag:yaml.org,2002:float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", _DIGITS),
    ("tag:yaml.org,2002:float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first)
_Loader.add_constructor(_AMBIGUOUS, _refuse)


def parse_yaml(text: str) -> Any:
    """The value that a YAML text stands for.

    Raises:
        yaml.YAMLError: it is not YAML, or not one thing only.
        RecursionError: it is nested a thousandfold.
    """
    # _Loader is a SafeLoader: it makes plain values only.
    try:
        return yaml.load(text, Loader=_Loader)
    except ValueError:
        raise yaml.YAMLError("a number has more digits than Python reads") from None


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file of settings; ``paper.yaml`` and other shipped names work from anywhere."""
    path = Path(path)
    if not path.exists():
        if path.parent == Path() and path.suffix == ".yaml":
            path = config_path(path.name)
        else:
            raise ConfigError(f"The configuration '{path}' does not exist.")
    # A pipe has no size and is read once.
    with path.open("rb") as stream:
        text = stream.read(_MOST_BYTES + 1)
    if len(text) > _MOST_BYTES:
        raise ConfigError(f"'{path}' has more than {_MOST_BYTES} bytes; settings have some thousand.")
    try:
        content = parse_yaml(text.decode("utf-8"))
    except RecursionError:
        raise ConfigError(f"'{path}' is nested too deeply for settings.") from None
    except (yaml.YAMLError, ValueError) as error:
        found = " ".join(re.sub(r'\s+in "<unicode string>"', "", str(error)).split())
        raise ConfigError(f"'{path}' cannot be read as YAML: {found}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"'{path}' holds a {type(content).__name__}; expected 'key: value' lines.")
    return content
