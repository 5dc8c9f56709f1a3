"""Settings from YAML files; the settings themselves are of :mod:`bayesflowmass.common.settings`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from bayesflowmass.common.settings import ConfigError, Settings, build_settings

__all__ = ["ConfigError", "Settings", "build_settings", "config_path", "load_yaml", "parse_yaml"]


def config_path(name: str) -> Path:
    """Path of a configuration that comes with the package, such as ``default.yaml``."""
    here = Path(__file__).parents[1]
    for folder in (here / "configs", here.parent / "configs"):
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(f"There is no configuration '{name}' in the package; give the path of a YAML file.")


class _Loader(yaml.SafeLoader):
    """YAML 1.2 floats: in 1.1, 2e-3 without a point is a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def parse_yaml(text: str) -> Any:
    """The value that a YAML text stands for; 2e-3 is a number.

    Raises:
        yaml.YAMLError: it is not YAML.
    """
    # _Loader is a SafeLoader: it makes plain values only.
    return yaml.load(text, Loader=_Loader)


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file of settings; ``paper.yaml`` and other shipped names work from anywhere."""
    path = Path(path)
    if not path.is_file():
        if path.parent == Path() and path.suffix == ".yaml":
            path = config_path(path.name)
        else:
            raise ConfigError(f"The configuration '{path}' does not exist.")
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"'{path}' is not a YAML file: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"'{path}' holds a {type(content).__name__}; expected 'key: value' lines.")
    return content
