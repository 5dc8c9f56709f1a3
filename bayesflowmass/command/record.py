"""What a command was asked to do, kept beside what it wrote: ``run.json``, and ``settings.yaml`` of a training
run.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from bayesflowmass.common.files import write_whole
from bayesflowmass.common.run_folder import RECORD, SETTINGS
from bayesflowmass.common.settings import Settings
from bayesflowmass.common.version import __version__

# Another value of these gives no other result.
_NO_RESULT = frozenset({"progress", "resume"})
_PACKAGES = ("torch", "pyro-ppl", "numpy", "scipy", "astropy", "colossus", "arviz", "pyarrow", "matplotlib")


def command_line(prog: str, settings: Settings) -> str:
    """The command that gives these settings, with a flag for each value that differs from its default.

    Values without a flag, such as lists of sections, are left out: a command that has them needs a file
    (`write_settings`).

    Args:
        prog: ``"bayesflowmass evaluate"``.
        settings: flat settings, of a command without sections.
    """
    words = prog.split()
    for name, field in type(settings).listed_fields().items():
        value = getattr(settings, name)
        if name in _NO_RESULT or value is None or value == field.get_default(call_default_factory=True):
            continue
        words += _flag(name.replace("_", "-"), value)
    return shlex.join(words)


def describe_run(prog: str, settings: Settings, command: str | None = None) -> dict[str, Any]:
    """Command, settings, date and versions, JSON-able.

    Args:
        prog: ``"bayesflowmass evaluate"``.
        settings: all of them, defaults included.
        command: that repeats the run; default: `command_line`.
    """
    return {
        "command": command or command_line(prog, settings),
        "settings": settings.model_dump(mode="json"),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def write_record(folder: str | Path, prog: str, settings: Settings, command: str | None = None) -> Path:
    """Write ``run.json`` into a folder, whole or not at all; arguments as of `describe_run`."""
    text = json.dumps(describe_run(prog, settings, command), indent=1)
    return write_whole(Path(folder) / RECORD, text + "\n")


def write_settings(folder: str | Path, prog: str, settings: Settings) -> Path:
    """Write ``settings.yaml``, which ``--config`` takes: all settings, defaults included."""
    values = settings.model_dump(mode="json", exclude=set(_NO_RESULT))
    heading = f"# {prog} --config {SETTINGS}, bayesflowmass {__version__}\n"
    return write_whole(Path(folder) / SETTINGS, heading + yaml.safe_dump(values, sort_keys=False))


def _flag(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if isinstance(value, dict):
        return [f"--{name}", *(f"{key}={entry}" for key, entry in value.items())]
    if isinstance(value, (tuple, list)):
        return [f"--{name}", *map(str, value)]
    return [f"--{name}", str(value)]
