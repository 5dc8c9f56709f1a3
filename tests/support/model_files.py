"""Model folders with another description, as a damaged disk or another version would leave them."""

from __future__ import annotations

import json
from pathlib import Path

from bayesflowmass.estimator.description import signed_description

__all__ = ["as_version_0_1", "edited", "signed"]


def edited(path: Path, **changes) -> None:
    """Change a JSON file, and nothing else."""
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def signed(model: Path, **changes) -> None:
    """Change a description as one who knows how it is signed."""
    values = json.loads((model / "model.json").read_text(encoding="utf-8"))
    own = {name: values[name] for name in values if name not in ("format", "format_version", "sha256")}
    (model / "model.json").write_bytes(signed_description(own | changes))


def as_version_0_1(model: Path, **changes) -> None:
    """The description as version 0.1 wrote it: format 1, and the hash of the weights only."""
    values = json.loads((model / "model.json").read_text(encoding="utf-8"))
    del values["sha256"]
    (model / "model.json").write_text(
        json.dumps(values | {"format_version": 1} | changes, indent=1), encoding="utf-8"
    )
