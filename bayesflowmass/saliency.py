"""What a mass rests on: attribution of log10 M200c to structures in phase space and to single galaxies.

- `masked_map`: equation 9 of Kodi Ramanah et al. (2020), a hole in the image about every pixel;
- `leave_one_out`: the change of the mass when a galaxy is removed, everything computed anew;
- `galaxy_gradients`: exact derivatives of the mass with respect to R_proj and v_los of each galaxy;
- `fit_interloper_score`, `roc_areas`: interlopers from attributions, and how well they are found;
- `partial_correlations`: what the errors of masses go with, of all that mocks know.

docs/interpretation.md says what each can and cannot tell.
"""

from bayesflowmass.saliency_gradients import GalaxyGradients, galaxy_gradients
from bayesflowmass.saliency_interlopers import (
    InterloperScore,
    fit_interloper_score,
    phase_space_features,
    roc_areas,
)
from bayesflowmass.saliency_map import MaskedMap, masked_map
from bayesflowmass.saliency_removal import leave_one_out
from bayesflowmass.saliency_residuals import LATENT_TRUTHS, latent_truths, partial_correlations

__all__ = [
    "LATENT_TRUTHS",
    "GalaxyGradients",
    "InterloperScore",
    "MaskedMap",
    "fit_interloper_score",
    "galaxy_gradients",
    "latent_truths",
    "leave_one_out",
    "masked_map",
    "partial_correlations",
    "phase_space_features",
    "roc_areas",
]
