"""Settings that commands share: how posteriors of a model are made, and on which clusters."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from bayesflowmass.command.limits import Device, Draws, Seed
from bayesflowmass.command.paths import InputPath, ModelPath
from bayesflowmass.common.settings import Settings


class DrawSettings(Settings):
    """Draws of the weights, and where they run."""

    listed_last: ClassVar[tuple[str, ...]] = ("n_draws", "seed", "device", "progress")

    n_draws: Draws | None = Field(
        None, description="draws of the weights; default: 31, or all that a model has"
    )
    seed: Seed = Field(0, description="random seed")
    device: Device = Field("auto", description="auto, cpu or cuda")
    progress: bool = Field(True, description="show a progress bar")


class PosteriorSettings(DrawSettings):
    """Posteriors under one of the priors that have a name."""

    listed_last: ClassVar[tuple[str, ...]] = ("prior", *DrawSettings.listed_last)

    prior: Literal["flat", "hmf"] = Field("flat", description="prior on log10 mass")


class ModelTestSettings(PosteriorSettings):
    """One model on one catalogue of known masses."""

    model: ModelPath = Field(description="model folder, or the name of a shipped model")
    catalog: InputPath = Field(description="test catalogue with log10_mass (parquet)")
