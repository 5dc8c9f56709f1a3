"""Settings that are typed and strict about names; a problem becomes one sentence that names the key."""

from __future__ import annotations

import difflib
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

_MOST_SHOWN = 80


class ConfigError(ValueError):
    """A configuration that cannot be used; the message says which key, what was found and what to do."""


class Settings(BaseModel):
    """Base of all settings: immutable, and strict about names."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    listed_last: ClassVar[tuple[str, ...]] = ()
    """Fields that come after those of the command itself, though pydantic puts inherited fields first."""

    @classmethod
    def listed_fields(cls) -> dict[str, FieldInfo]:
        """The fields in the order in which users see them: in help, messages and recorded commands."""
        first = [name for name in cls.model_fields if name not in cls.listed_last]
        return {name: cls.model_fields[name] for name in (*first, *cls.listed_last)}


S = TypeVar("S", bound=Settings)


def build_settings(kind: type[S], values: dict[str, Any], source: str = "the settings") -> S:
    """Validate ``values`` as settings of type ``kind``; a problem becomes one sentence that names the key."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(" ".join(_sentence(kind, e, source) for e in error.errors()[:3])) from None


def _valid_keys(kind: type[Settings], location: tuple[Any, ...]) -> list[str]:
    for part in location:
        field = kind.model_fields.get(str(part))
        if field is None or not (
            isinstance(field.annotation, type) and issubclass(field.annotation, Settings)
        ):
            break
        kind = field.annotation
    return list(kind.listed_fields())


def _shown(value: object) -> str:
    """A value as a message quotes it: its beginning, where it is long."""
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 20]}... ({len(text)} characters)"


def _sentence(kind: type[Settings], error: Any, source: str) -> str:
    location = tuple(error["loc"])
    name = ".".join(str(part) for part in location)
    if error["type"] == "extra_forbidden":
        keys = _valid_keys(kind, location[:-1])
        near = difflib.get_close_matches(str(location[-1]), keys, n=1, cutoff=0.5)
        remedy = f"did you mean '{near[0]}'?" if near else f"valid keys are {', '.join(keys)}."
        return f"Unknown key '{name}' in {source}; {remedy}"
    if error["type"] == "missing":
        flag = name.replace("_", "-")
        return f"'{name}' is missing from {source}; give it as --{flag} or in the configuration."
    message = error["msg"].removeprefix("Value error, ").rstrip(".")
    if not location:
        return f"In {source}: {message}."
    if error["type"] == "value_error" and isinstance(error["input"], dict):
        return f"In '{name}' of {source}: {message}."
    return f"'{name}' in {source} is {_shown(error['input'])}: {message[0].lower()}{message[1:]}."
