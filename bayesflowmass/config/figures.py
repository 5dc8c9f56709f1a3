"""Settings of `figures`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from bayesflowmass.config.posteriors import ModelTestSettings, OutFolder

__all__ = ["FiguresSettings"]


class FiguresSettings(ModelTestSettings):
    """`bayesflowmass figures`: the figures of the paper, drawn with your models and your test set."""

    pure: Path | None = Field(None, description="model folder of the model of pure clusters")
    also: tuple[Path, ...] = Field((), description="further model folders, for figure 6")
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
    out: OutFolder = Field(Path("figures"), description="folder for the figures")
    bootstrap: int = Field(200, gt=1, description="bootstrap samples over haloes, for the errors of figure 6")
