"""Domain randomisation: parameters of the mocks that nobody knows well, drawn anew for each halo.

A network trained on one value of such a parameter reports a width that is right only if the sky has that value.
Trained on values drawn from a prior, it reports the width averaged over the prior (docs/sky_training.md).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType

import numpy as np

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.mocks.parameters import MockParameters

PRIORS: Mapping[str, tuple[float, float, str]] = MappingProxyType(
    {
        "velocity_bias": (
            0.95,
            1.10,
            "galaxies over dark matter, by simulation and tracer; 1.05 moves every mass by 0.064 dex",
        ),
        "richness_scatter": (
            0.10,
            0.25,
            "unknown for galaxies of any survey; moves estimates from the count",
        ),
        "richness_at_1e14": (
            32.0,
            70.0,
            "satellites at fixed depth of Zehavi 2005, Zheng 2007 and Zehavi 2011, which differ by so much",
        ),
        "orbit_loss": (
            0.35,
            0.75,
            "loss of faint galaxies: profiles from hydrodynamical runs to MDPL2 + SAG",
        ),
        "infall_amplitude": (0.8, 1.2, "the mean infall profile is good to about a fifth"),
        "infall_region_amplitude": (
            1.5,
            3.5,
            "amplitudes of 1-2.5 are published for matter, galaxies cluster more",
        ),
        "axis_ratio_q": (
            0.68,
            0.78,
            "Wojtak 2013: mean axis ratio in space 0.66 with an error of 0.07 for each",
        ),
        "axis_ratio_s": (0.55, 0.65, "the same"),
        "velocity_shape_exponent": (0.35, 0.65, "from the starting value to the one that meets Wojtak 2013"),
        "velocity_bias_slope": (-0.10, 0.0, "bright galaxies are slower (Bayliss et al. 2017), or not"),
    }
)
"""Parameters that can be drawn halo by halo: default limits of a uniform prior, and why these."""


class Randomisation:
    """Uniform priors of mock parameters, from which each halo draws its own values.

    Satellites of neighbouring haloes share the velocity bias and the richness scatter of the cluster they are
    seen with: these are properties of the tracer and of the universe, not of the halo.

    Args:
        priors: ``{parameter: (low, high)}`` for names of `PRIORS`; units and allowed ranges are those of
            `MockParameters`.

    Raises:
        ValueError: a name cannot be randomised, or limits are not two increasing numbers in the allowed range.
    """

    def __init__(self, priors: Mapping[str, tuple[float, float]]) -> None:
        info = {item.name: item.metadata["info"] for item in fields(MockParameters)}
        checked = {}
        for name, limits in priors.items():
            if name not in PRIORS:
                near = difflib.get_close_matches(name, PRIORS, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(PRIORS)}."
                raise ValueError(f"randomise: '{name}' cannot be drawn for each halo; {hint}")
            bottom, top = info[name].low, info[name].high
            try:
                low, high = (float(value) for value in limits)
            except (TypeError, ValueError):
                low = high = math.nan
            if not bottom <= low <= high <= top:
                raise ValueError(
                    f"randomise: {name} is {limits!r}; expected two numbers, the smaller first, from {bottom:g}"
                    f" to {top:g}."
                )
            checked[name] = (low, high)
        # One order of drawing, whatever the order in which a file names the parameters.
        self.priors: Mapping[str, tuple[float, float]] = MappingProxyType(
            {name: checked[name] for name in PRIORS if name in checked}
        )

    def __reduce__(self) -> tuple[type[Randomisation], tuple[dict[str, tuple[float, float]]]]:
        return Randomisation, (dict(self.priors),)

    def __bool__(self) -> bool:
        return bool(self.priors)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Randomisation) and dict(self.priors) == dict(other.priors)

    def __hash__(self) -> int:
        return hash(tuple(self.priors.items()))

    def __repr__(self) -> str:
        return f"Randomisation({dict(self.priors)})"

    def draw(self, n: int, rng: np.random.Generator) -> dict[str, FloatArray]:
        """Values (n,) of each parameter."""
        return {name: rng.uniform(low, high, n) for name, (low, high) in self.priors.items()}

    def to_dict(self) -> dict[str, list[float]]:
        """JSON-able dictionary."""
        return {name: list(limits) for name, limits in self.priors.items()}
