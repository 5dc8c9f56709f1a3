"""Settings of `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from bayesflowmass.config.base import Settings

__all__ = ["EvaluateSettings"]


class EvaluateSettings(Settings):
    """`bayesflowmass evaluate`: accuracy and calibration on a catalogue of known masses."""

    model: Path = Field(description="model folder")
    catalog: Path = Field(description="test catalogue with log10_mass (parquet)")
    out: Path = Field(Path("evaluation"), description="folder for metrics.json and figures")
    prior: Literal["flat", "hmf"] = Field("flat", description="prior on log10 mass")
    baseline_catalog: Path | None = Field(
        None, description="catalogue to fit the baselines on; simulated when absent"
    )
    bootstrap: int = Field(200, gt=1, description="bootstrap samples over haloes")
    n_draws: int | None = Field(
        None, gt=1, description="draws of the weights; default: 31, or all that a model has"
    )
    seed: int = Field(0, ge=0, description="random seed")
    device: str = Field("auto", description="auto, cpu or cuda")
    progress: bool = Field(True, description="show a progress bar")

    @field_validator("out")
    @classmethod
    def _not_a_file(cls, out: Path) -> Path:
        if out.is_file():
            raise ValueError(f"'{out}' is a file; give a folder")
        return out
