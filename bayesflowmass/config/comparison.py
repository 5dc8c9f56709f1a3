"""Settings of `compare`."""

from __future__ import annotations

import itertools
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from bayesflowmass.config.posteriors import OutFolder, PosteriorSettings

__all__ = ["CompareSettings"]


class CompareSettings(PosteriorSettings):
    """`bayesflowmass compare`: any number of models on one catalogue of known masses."""

    models: tuple[str, ...] = Field(
        (),
        description="models: RUN, or LABEL=RUN,RUN,... for trainings with several seeds; RUN is a model folder or a "
        "parquet file of predictions; folders NAME-0, NAME-1, ... are seeds of NAME",
    )
    work: Path | None = Field(
        None,
        description="instead of models: folder with SET/METHOD-SEED/predictions.parquet, and test.parquet",
    )
    sets: tuple[str, ...] = Field((), description="sets of the work folder; default: all")
    methods: tuple[str, ...] = Field((), description="methods of the work folder; default: all")
    predictions: str = Field("predictions.parquet", description="name of the files in the work folder")
    catalog: Path | None = Field(None, description="test catalogue with log10_mass (parquet)")
    out: OutFolder = Field(
        Path("comparison"), description="folder for comparison.json, comparison.md and figures"
    )
    reference: str | None = Field(
        None,
        description="label of the model that others are compared with; default: the first without uncertain weights",
    )
    edges: tuple[float, ...] = Field(
        (14.0, 14.3, 14.7, 15.0, 15.4), description="edges of the mass bins, log10 M200c [Msun/h]"
    )
    baselines: bool = Field(False, description="M-sigma relations and galaxy count among the models")
    baseline_catalog: Path | None = Field(
        None, description="catalogue to fit the baselines on; simulated when absent"
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="familywise error rate of the verdicts")
    tolerance_log_score: float = Field(0.02, ge=0, description="loss of log score that counts as none [nats]")
    tolerance_crps: float = Field(0.002, ge=0, description="loss of CRPS that counts as none [dex]")
    seed: int = Field(0, ge=0, description="random seed of the draws and of the simulated baseline clusters")

    @field_validator("edges")
    @classmethod
    def _increasing(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        if len(edges) < 2 or any(a >= b for a, b in itertools.pairwise(edges)):
            raise ValueError("at least two edges, increasing, are expected")
        return edges

    @model_validator(mode="after")
    def _one_source(self) -> CompareSettings:
        if bool(self.models) == (self.work is not None):
            raise ValueError("either --models or --work says what to compare; give one of them")
        return self
