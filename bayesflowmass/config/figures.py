"""Settings of `figures`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from bayesflowmass.config.base import Settings

__all__ = ["FiguresSettings"]


class FiguresSettings(Settings):
    """`bayesflowmass figures`: the figures of the paper, drawn with your models and your test set."""

    model: Path = Field(description="model folder")
    pure: Path | None = Field(None, description="model folder of the model of pure clusters")
    also: tuple[Path, ...] = Field((), description="further model folders, for figure 6")
    catalog: Path = Field(description="test catalogue with log10_mass (parquet)")
    pure_catalog: Path | None = Field(
        None, description="test catalogue of pure clusters; simulated like --catalog when absent"
    )
    training_catalog: Path | None = Field(
        None, description="catalogue that the model was trained on; 5000 clusters are simulated when absent"
    )
    masses: Path | None = Field(None, description="table of masses of observed clusters, written by infer")
    literature: Path | None = Field(
        None,
        description="table cluster_id, log10_mass, lower, upper of the same clusters (dex), for figure 8",
    )
    out: Path = Field(Path("figures"), description="folder for the figures")
    prior: Literal["flat", "hmf"] = Field("flat", description="prior on log10 mass")
    bootstrap: int = Field(200, gt=1, description="bootstrap samples over haloes, for the errors of figure 6")
    n_draws: int | None = Field(
        None, gt=1, description="draws of the weights; default: 31, or all that a model has"
    )
    seed: int = Field(0, ge=0, description="random seed")
    device: str = Field("auto", description="auto, cpu or cuda")
    progress: bool = Field(True, description="show progress bars")

    @field_validator("out")
    @classmethod
    def _not_a_file(cls, out: Path) -> Path:
        if out.is_file():
            raise ValueError(f"'{out}' is a file; give a folder")
        return out
