"""Settings that commands share: how posteriors of a model are made, on which clusters, and where results go."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from bayesflowmass.command.settings import Settings
from bayesflowmass.common.outputs import check_can_write, check_folder, check_table_path
from bayesflowmass.estimator.shipped import SHIPPED

__all__ = [
    "DrawSettings",
    "InputPath",
    "ModelPath",
    "ModelTestSettings",
    "OutFile",
    "OutFolder",
    "OutTable",
    "PosteriorSettings",
]


def _readable(path: Path) -> Path:
    try:
        found = path.stat()
    except OSError as error:
        raise ValueError(f"{(error.strerror or str(error)).lower()}") from None
    if not os.access(path, os.R_OK):
        raise ValueError("it may not be read by you")
    if path.is_file() and found.st_size == 0:
        raise ValueError("the file is empty")
    return path


def _model(path: Path) -> Path:
    if path.exists() or str(path) in SHIPPED:
        return path
    raise ValueError(f"there is no such folder, and the models of the package are {', '.join(SHIPPED)}")


InputPath = Annotated[Path, AfterValidator(_readable)]
"""A file or folder that is there; what is in it, readers say."""

ModelPath = Annotated[Path, AfterValidator(_model)]
"""A model folder, or the name of a model that ships with the package."""

OutFile = Annotated[Path, AfterValidator(check_can_write)]
"""A file that can be written."""

OutTable = Annotated[Path, AfterValidator(check_table_path)]
"""A table that can be written: the ending says its format."""

OutFolder = Annotated[Path, AfterValidator(check_folder)]
"""A folder to write into; it need not exist."""


class DrawSettings(Settings):
    """Draws of the weights, and where they run."""

    listed_last: ClassVar[tuple[str, ...]] = ("n_draws", "seed", "device", "progress")

    n_draws: int | None = Field(
        None, gt=1, description="draws of the weights; default: 31, or all that a model has"
    )
    seed: int = Field(0, ge=0, description="random seed")
    device: str = Field("auto", description="auto, cpu or cuda")
    progress: bool = Field(True, description="show a progress bar")


class PosteriorSettings(DrawSettings):
    """Posteriors under one of the priors that have a name."""

    listed_last: ClassVar[tuple[str, ...]] = ("prior", *DrawSettings.listed_last)

    prior: Literal["flat", "hmf"] = Field("flat", description="prior on log10 mass")


class ModelTestSettings(PosteriorSettings):
    """One model on one catalogue of known masses."""

    model: ModelPath = Field(description="model folder")
    catalog: InputPath = Field(description="test catalogue with log10_mass (parquet)")
