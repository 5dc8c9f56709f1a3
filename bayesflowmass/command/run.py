"""From a command line to settings, and from an exception to one sentence and an exit code."""

from __future__ import annotations

import argparse
import difflib
import errno
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from bayesflowmass.command.paths import check_paths, word_of_path
from bayesflowmass.command.settings import load_yaml, parse_yaml
from bayesflowmass.common.files import reason_of
from bayesflowmass.common.processes import ProcessLostError, launched
from bayesflowmass.common.settings import Settings, build_settings
from bayesflowmass.common.terminal import complain, plain, say_aside, settle

S = TypeVar("S", bound=Settings)

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
# Time [s] in which a launcher notices that a process failed.
TURN = 3.0

_NUMBERS = {int: "N", float: "X"}
"""What stands for a number in ``--help``."""

# Of files and disks that a user chose; None: of libraries that say it in words only.
_OF_FILES = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.ENOENT, errno.EACCES, errno.EPERM),
    *(errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EEXIST, errno.ENOTEMPTY, None),
}


def run_command(
    kind: type[S],
    body: Callable[[S], object],
    argv: Sequence[str] | None = None,
    *,
    prog: str,
    default_config: str | None = None,
) -> int:
    """Parse the command line into settings of type ``kind``, run ``body`` on them, return the exit code.

    0: done. 2: bad input, a file or disk that cannot be read or written, or too little memory, with one sentence on
    standard error. 130: Ctrl-C. Any other exception is a mistake of ours and keeps its traceback.
    """
    try:
        settings = parse_settings(kind, argv, prog=prog, default_config=default_config)
        check_paths(settings)
        with _home():
            body(settings)
    except KeyboardInterrupt as interrupt:
        say_aside(f"{prog}: interrupted. {interrupt}")
        return EXIT_INTERRUPTED
    except OSError as error:
        if error.errno not in _OF_FILES:
            raise
        where = f" ('{error.filename}')" if error.filename else ""
        return _refuse(f"{prog}: error: {reason_of(error)}{where}.")
    except MemoryError as error:
        return _refuse(
            f"{prog}: error: there is not enough memory ({error or 'none is left'}); ask for less at once."
        )
    except ValueError as error:
        return _refuse(f"{prog}: error: {error}", alone=isinstance(error, ProcessLostError))
    finally:
        settle()
    return 0


def _refuse(text: str, alone: bool = False) -> int:
    """Say an error, once: what all processes found, the first has said before the launcher ends the others."""
    if not (alone or launched().is_first):
        time.sleep(TURN)
    complain(text)
    return EXIT_BAD_INPUT


@contextmanager
def _home() -> Iterator[None]:
    """A home folder for the libraries that look for one: a user of a container may have none, and no name either."""
    try:
        Path.home()
    except RuntimeError:
        with tempfile.TemporaryDirectory(prefix="bayesflowmass-home-") as folder:
            os.environ["HOME"] = folder
            try:
                yield
            finally:
                del os.environ["HOME"]
    else:
        yield


def parse_settings(
    kind: type[S], argv: Sequence[str] | None = None, *, prog: str, default_config: str | None = None
) -> S:
    """Settings from ``--config FILE.yaml`` (or the named default) with flags on top.

    Each field is a flag, ``--seed``; a field of a section is dotted, ``--fit.max-updates``. Exits with code 2
    and one sentence on an unknown flag.
    """
    parser = _Parser(prog=prog, description=kind.__doc__, allow_abbrev=False)
    origin = f"default: {default_config}" if default_config else "optional"
    parser.add_argument(
        "--config", default=argparse.SUPPRESS, metavar="FILE", help=f"YAML file of these settings ({origin})"
    )
    _add_flags(parser, kind, prefix="")
    flags = vars(parser.parse_args(argv))
    config = flags.pop("config", default_config)
    values = load_yaml(config) if config else {}
    for section, field in kind.model_fields.items():
        # `weights: laplace` in the file and `--weights.which last` on top of it.
        shorthand = getattr(field.annotation, "shorthand", None)
        if shorthand is not None and isinstance(values.get(section), str):
            values[section] = {shorthand: values[section]}
    for name, value in flags.items():
        _set(values, name.split("."), value)
    return build_settings(kind, values, source=f"'{config}' and flags" if config else "the flags")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the page of usage that hides it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # `--position 150.1 -2.5e-1`: before Python 3.14 numbers with an exponent are taken for flags.
        self._negative_number_matcher = re.compile(r"^-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")

    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(plain(message), file)

    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ").split()
        if message.startswith("unrecognized"):
            flags = [flag for action in self._actions for flag in action.option_strings]
            near = difflib.get_close_matches(unknown[0].split("=")[0], flags, n=1)
            hint = f"did you mean {near[0]}?" if near else "see --help."
            message = f"there is no '{unknown[0]}'; {hint}"
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: error: {message}\n")


def _add_flags(parser: argparse._ActionsContainer, kind: type[Settings], prefix: str) -> None:
    for name, field in kind.listed_fields().items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Settings):
            group = parser.add_argument_group(name, (annotation.__doc__ or "").strip().splitlines()[0])
            _add_flags(group, annotation, prefix=f"{prefix}{name}.")
            continue
        flags = [f"--{prefix}{name.replace('_', '-')}"]
        if name == getattr(kind, "shorthand", None):
            flags.insert(0, f"--{prefix.rstrip('.')}")
        parser.add_argument(*flags, **_flag_options(prefix + name, field))


def _flag_options(dest: str, field: FieldInfo) -> dict[str, Any]:
    """argparse options of one field; absent flags leave no trace, so that the YAML file shows through."""
    default = field.get_default(call_default_factory=True)
    text = (field.description or "").replace("%", "%%")
    if default is PydanticUndefined:
        text += " (required)"
    elif default is not None and default != {} and default != ():
        text += f" (default: {_show(default)})".replace("%", "%%")
    options: dict[str, Any] = {"dest": dest, "default": argparse.SUPPRESS, "help": text}
    base = _without_none(field.annotation)
    if base is bool:
        return options | {"action": argparse.BooleanOptionalAction}
    if get_origin(base) is dict:
        action = _KeyTexts if get_args(base)[1] is str else _KeyValues
        return options | {"nargs": "+", "action": action, "metavar": "KEY=VALUE"}
    if get_origin(base) is tuple:
        base, *others = get_args(base)
        options["nargs"] = "*" if Ellipsis in others else 1 + len(others)
    base = get_args(base)[0] if get_origin(base) is Annotated else base
    choices = _literals(base)
    if choices:
        return options | {"metavar": "{" + ",".join(choices) + "}"}
    metavar = word_of_path(field) or _NUMBERS.get(base, dest.rsplit(".", 1)[-1].upper())
    # Text stays text where text is wanted, whatever YAML makes of `no` or `1e3`.
    return options | {"type": str if base in (str, Path) else _parse, "metavar": metavar}


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, type(int | None)):
        kept = [a for a in get_args(annotation) if a is not type(None)]
        return kept[0] if len(kept) == 1 else Any
    return annotation


def _literals(annotation: Any) -> list[str]:
    return [str(a) for a in get_args(annotation)] if get_origin(annotation) is Literal else []


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(_show(v) for v in value)
    if isinstance(value, Settings):
        return ", ".join(f"{k}={v}" for k, v in value)
    return str(value)


def _parse(text: str) -> Any:
    try:
        return parse_yaml(text)
    except (yaml.YAMLError, RecursionError):
        return text


class _KeyValues(argparse.Action):
    """Collects ``KEY=VALUE`` words over repeated uses of a flag."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        collected = dict(getattr(namespace, self.dest, {}))
        for word in values:
            key, equals, value = word.partition("=")
            if not equals:
                parser.error(f"{option_string} needs KEY=VALUE, found '{word}'")
            collected[key] = self.value_of(value)
        setattr(namespace, self.dest, collected)

    def value_of(self, text: str) -> Any:
        return _parse(text)


class _KeyTexts(_KeyValues):
    """The same for values that are text, such as names of columns."""

    def value_of(self, text: str) -> str:
        return text


def _set(values: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        nested = values.get(part)
        values[part] = nested = dict(nested) if isinstance(nested, dict) else {}
        values = nested
    if isinstance(value, dict) and isinstance(values.get(path[-1]), dict):
        value = values[path[-1]] | value
    values[path[-1]] = value
