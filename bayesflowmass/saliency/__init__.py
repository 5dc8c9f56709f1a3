"""What a mass rests on: attribution of log10 M200c to structures in phase space and to single galaxies.

- `masked_map`: equation 9 of Kodi Ramanah et al. (2020), a hole in the image about every pixel;
- `leave_one_out`: the change of the mass when a galaxy is removed, everything computed anew;
- `galaxy_gradients`: exact derivatives of the mass with respect to R_proj and v_los of each galaxy.

docs/interpretation.md says what each can and cannot tell.
"""

from bayesflowmass.saliency.gradients import GalaxyGradients, galaxy_gradients
from bayesflowmass.saliency.map import MaskedMap, masked_map
from bayesflowmass.saliency.removal import leave_one_out

__all__ = ["GalaxyGradients", "MaskedMap", "galaxy_gradients", "leave_one_out", "masked_map"]
