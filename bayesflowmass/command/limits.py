"""Numbers in settings that are bounded: beyond, a command would take all memory or time and give nothing more."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from bayesflowmass.common.devices import check_device_name

Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""Of random numbers, as torch takes it."""

Device = Annotated[str, AfterValidator(check_device_name)]
"""auto, cpu, cuda or cuda:1."""

Draws = Annotated[int, Field(gt=1, le=10_000)]
"""Draws of the weights: 10 000 leave sigma_epistemic a Monte Carlo error of less than a per cent."""

Resamples = Annotated[int, Field(gt=1, le=100_000)]
"""Bootstrap samples: 100 000 leave a standard error with an error of a quarter of a per cent."""

Clusters = Annotated[int, Field(gt=0, le=10_000_000)]
"""Mock clusters of one catalogue: ten million take some hundred GB."""

Sightlines = Annotated[int, Field(gt=0, le=10_000)]
"""Lines of sight of one halo: neighbouring ones of 10 000 are two degrees apart and show the same."""
