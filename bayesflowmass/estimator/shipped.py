"""Trained models that come with the package: masses without any training."""

from __future__ import annotations

import os
from pathlib import Path

DEFAULT_MODEL = "sky"
"""What `bayesflowmass infer` uses when no model is named."""

SHIPPED_COMPLETE = "sky_complete"
"""What it uses when told that the sample is complete."""

SHIPPED_GALAXIES = "sky_galaxies"
"""Reads the galaxies themselves; narrower, and says who is a member."""

SHIPPED = {
    DEFAULT_MODEL: "observed clusters, of which any share of the galaxies is seen",
    SHIPPED_COMPLETE: "observed clusters, of which all galaxies to some depth are seen: it counts them",
    SHIPPED_GALAXIES: "observed clusters as sky, with positions on the sky: it reads the galaxies themselves",
}

_FOLDER = Path(__file__).parents[1] / "models"


def shipped_models() -> dict[str, Path]:
    """Name and folder of each model that is there."""
    return {name: _FOLDER / name for name in SHIPPED if (_FOLDER / name / "model.json").is_file()}


def model_folder(model: str | os.PathLike[str]) -> Path:
    """The folder of a model: a path, or the name of a shipped model where no model has that path."""
    path = Path(model)
    return path if (path / "model.json").exists() else shipped_models().get(str(model), path)


def choose_model(model: str | os.PathLike[str] | None, complete: bool = False) -> Path:
    """The folder of the model: as named, else the shipped one for samples that are complete or not.

    Raises:
        ValueError: a model was named and ``complete`` chooses another, the package comes without models, or a model
            in the folder of work has the name of the one that is meant.
    """
    if model is not None:
        if complete and str(model) != SHIPPED_COMPLETE:
            raise ValueError(
                f"--complete chooses the shipped model '{SHIPPED_COMPLETE}', but --model is '{model}'; leave one of"
                " them out."
            )
        return Path(model)
    name = SHIPPED_COMPLETE if complete else DEFAULT_MODEL
    if name not in shipped_models():
        raise ValueError(
            f"This installation comes without the model '{name}'; train one with `bayesflowmass train --config"
            f" {name}.yaml` and name its folder with --model."
        )
    if model_folder(name) == Path(name):
        raise ValueError(
            f"No --model was named, and the folder '{name}' here holds a model of the same name as the shipped one; "
            f"take it with --model {name}, or run the command elsewhere for the shipped one."
        )
    return Path(name)
