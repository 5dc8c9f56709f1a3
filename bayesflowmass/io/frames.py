"""Redshifts in the frame of the Sun and in that of the cosmic microwave background."""

from __future__ import annotations

import numpy as np

from bayesflowmass.catalog import CatalogError
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.cosmology import SPEED_OF_LIGHT

FRAMES = ("heliocentric", "cmb")

# The Sun moves at 369.82 km/s towards l = 264.021, b = 48.253 deg (Planck 2018 I, arXiv:1807.06205); ICRS:
_SPEED = 369.82
_RA, _DEC = 167.94191, -6.94426


def to_cmb(z: FloatArray, ra: FloatArray, dec: FloatArray, frame: str = "heliocentric") -> FloatArray:
    """1 + z_cmb = (1 + z) / [gamma (1 - beta cos theta)], theta the angle from the apex of the Sun's motion.

    Seen near the apex a heliocentric redshift is too small, by up to 0.0012: that is 6 % of the distance at
    z = 0.02. A velocity in the rest frame of a cluster changes only by the difference over its face.

    Args:
        z: redshifts (n,).
        ra, dec: degrees (n,).
        frame: of ``z``; ``"cmb"`` returns them unchanged.
    """
    if frame not in FRAMES:
        raise CatalogError(f"the frame of redshifts is {frame!r}; expected one of {', '.join(FRAMES)}.")
    if frame == "cmb":
        return z
    latitude, apex = np.radians(dec), np.radians(_DEC)
    along = np.sin(latitude) * np.sin(apex) + np.cos(latitude) * np.cos(apex) * np.cos(np.radians(ra - _RA))
    beta = _SPEED / SPEED_OF_LIGHT
    in_cmb: FloatArray = (1.0 + z) * np.sqrt(1.0 - beta**2) / (1.0 - beta * along) - 1.0
    return in_cmb
