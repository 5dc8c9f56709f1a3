"""Settings of `recalibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from bayesflowmass.config.posteriors import DrawSettings, OutFolder

__all__ = ["RecalibrateSettings"]


class RecalibrateSettings(DrawSettings):
    """`bayesflowmass recalibrate`: make stated probabilities come true on clusters of known mass."""

    model: Path = Field(description="model folder")
    catalog: Path = Field(
        description="clusters with log10_mass that neither trained nor will test the model (parquet)"
    )
    out: OutFolder = Field(description="folder for the recalibrated model")
    prior: Literal["flat", "hmf"] | None = Field(
        None,
        description="prior on log10 mass; default: the population of the catalogue, and nothing else can be right",
    )
    conformal_fraction: float = Field(
        0.3, gt=0, lt=1, description="share of the haloes kept for conformal intervals and for the verdict"
    )
    bin_width: float = Field(0.25, gt=0, description="of the bins of predicted mass [dex]")
    min_count: int = Field(500, ge=100, description="fewest clusters of a bin; neighbours are merged")
