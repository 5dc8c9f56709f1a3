"""Settings of `evaluate`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from bayesflowmass.config.posteriors import ModelTestSettings, OutFolder

__all__ = ["EvaluateSettings"]


class EvaluateSettings(ModelTestSettings):
    """`bayesflowmass evaluate`: accuracy and calibration on a catalogue of known masses."""

    out: OutFolder = Field(Path("evaluation"), description="folder for metrics.json and figures")
    baseline_catalog: Path | None = Field(
        None, description="catalogue to fit the baselines on; simulated when absent"
    )
    bootstrap: int = Field(200, gt=1, description="bootstrap samples over haloes")
