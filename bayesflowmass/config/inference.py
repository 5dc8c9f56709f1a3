"""Settings of `infer` and `inspect`: files of users."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from bayesflowmass.config.base import Settings
from bayesflowmass.config.posteriors import PosteriorSettings

__all__ = ["InferSettings", "InspectSettings"]


class InferSettings(PosteriorSettings):
    """`bayesflowmass infer`: masses of the clusters of a catalogue or of tables."""

    model: Path | None = Field(
        None,
        description="model folder, or the name of a shipped model; default: sky, which needs no training",
    )
    complete: bool = Field(
        False,
        description="all galaxies to some depth are in the table: use the shipped model that counts them",
    )
    galaxies: Path = Field(description="catalogue (parquet), or table of galaxies")
    clusters: Path | None = Field(None, description="table of clusters")
    out: Path = Field(Path("masses.ecsv"), description="table to write (ecsv, fits, votable, parquet)")
    selection: Path | None = Field(
        None, description="table log10_mass, probability of being in the sample, which multiplies the prior"
    )
    pdf: bool = Field(False, description="add each PDF on a grid")
    cards: Path | None = Field(None, description="folder for one page (PDF and PNG) of each cluster")
    mdef: Literal["200c", "500c", "vir", "200m"] = Field("200c", description="mass definition")
    units: Literal["Msun/h", "Msun"] = Field("Msun/h", description="unit of mass")
    h: float | None = Field(None, gt=0, description="Hubble parameter for Msun; default: the model's")
    column: dict[str, str] = Field(default_factory=dict, description="OURS=THEIRS, names of columns")
    unit: dict[str, str] = Field(
        default_factory=dict, description="OURS=UNIT, units of columns, such as 'r_proj=proper kpc'"
    )
    cluster_id: str | None = Field(None, description="all galaxies belong to this cluster")
    redshift: float | None = Field(None, description="redshift of all clusters, where tables have none")
    cleaned: bool = Field(False, description="interlopers were removed from this catalogue")
    mode: Literal["paper", "survey", "mixed"] | None = Field(
        None, description="interloper mode of the data; mixed: not known"
    )
    assume: dict[str, float] = Field(
        default_factory=dict,
        description="PARAMETER=VALUE of the mocks taken as known, e.g. velocity_bias=1.0",
    )


class InspectSettings(Settings):
    """`bayesflowmass inspect FILE`: what a file is, what is wrong with it, and which command takes it."""

    file: Path = Field(description="table, catalogue, N-body box, model folder or settings")
    clusters: Path | None = Field(None, description="table of clusters that goes with a table of galaxies")
    column: dict[str, str] = Field(default_factory=dict, description="OURS=THEIRS, names of columns")
    unit: dict[str, str] = Field(default_factory=dict, description="OURS=UNIT, units of columns")
    cluster_id: str | None = Field(None, description="all galaxies belong to this cluster")
    redshift: float | None = Field(None, description="redshift of all clusters, where tables have none")
    quick: bool = Field(False, description="of an N-body box, look at the first part only")
