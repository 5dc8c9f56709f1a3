"""Masses from the velocity dispersion: the M-sigma relation in its three forms.

With x = log10(E(z) M200c), M200c in Msun/h, and s = log10(sigma_v) in km/s:

* ``inverse``: s = a + b x fitted on x over a sample flat in log mass, then inverted, x = (s - a) / b. Unbiased at
  fixed true mass; the scatter is that of s divided by b, so that a shallow (contaminated) relation is costly. The form
  of Ho et al. 2019 (arXiv:1902.05950).
* ``regression``: x = a + b s fitted on s over the same sample. The best linear guess, and biased at fixed true mass
  towards the middle of the sample.
* ``evrard``: sigma_v = 1082.9 km/s (E(z) M / 1e15)^0.3361 (Evrard et al. 2008, arXiv:astro-ph/0702241), of dark
  matter in three dimensions, inverted; nothing is fitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from bayesflowmass.baselines.dispersion import DispersionKind, velocity_dispersion
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.cosmology import MDPL2, Cosmology, efunc, velocity_dispersion_evrard

MSigmaForm = Literal["inverse", "regression", "evrard"]


@dataclass(frozen=True)
class MSigmaRelation:
    """log10 M = intercept + slope log10 sigma_v - log10 E(z), with the scatter of its training sample.

    Attributes:
        form: how it came about.
        dispersion: "std" (ddof = 1), "gapper", "biweight" or "clipped".
        intercept: log10 of Msun/h at sigma_v = 1 km/s.
        slope: d log10 M / d log10 sigma_v.
        scatter: root mean square of log10(M_true / M_pred) on the training sample [dex], the width of a
            Gaussian error.
        cosmology: of E(z).
    """

    form: MSigmaForm
    dispersion: DispersionKind
    intercept: float
    slope: float
    scatter: float
    cosmology: Cosmology = MDPL2

    def predict(self, v_los: ArrayLike, n_galaxies: ArrayLike, redshift: ArrayLike) -> FloatArray:
        """log10 M200c [Msun/h] of ragged clusters.

        Args:
            v_los: [km/s], shape (n_gal,).
            n_galaxies: shape (n,).
            redshift: shape (n,) or a number.

        Raises:
            ValueError: a cluster has fewer than two galaxies or no velocity dispersion at all.
        """
        log10_sigma = _log10_dispersion(v_los, n_galaxies, self.dispersion)
        return np.asarray(
            self.intercept + self.slope * log10_sigma - np.log10(efunc(redshift, self.cosmology))
        )


def fit_msigma(
    form: MSigmaForm,
    v_los: ArrayLike,
    n_galaxies: ArrayLike,
    redshift: ArrayLike,
    log10_mass: ArrayLike,
    *,
    dispersion: DispersionKind = "std",
    cosmology: Cosmology = MDPL2,
) -> MSigmaRelation:
    """Fit one form of the M-sigma relation; for ``evrard`` the sample gives the width of the error alone.

    Args:
        form: "inverse", "regression" or "evrard".
        v_los: [km/s], shape (n_gal,).
        n_galaxies: shape (n,).
        redshift: shape (n,) or a number.
        log10_mass: log10 M200c [Msun/h], shape (n,); flat over the range of interest.
        dispersion: "std", "gapper", "biweight" or "clipped".
        cosmology: of E(z).

    Raises:
        ValueError: unknown form, fewer than three clusters, or masses or dispersions that are all equal.
    """
    if form not in get_args(MSigmaForm):
        raise ValueError(
            f"The M-sigma form '{form}' is unknown; it is one of {', '.join(get_args(MSigmaForm))}."
        )
    s = _log10_dispersion(v_los, n_galaxies, dispersion)
    log10_e = np.log10(efunc(redshift, cosmology))
    x = np.asarray(log10_mass, dtype=np.float64) + log10_e
    if s.size < 3 or np.ptp(x) == 0 or np.ptp(s) == 0:
        raise ValueError(f"An M-sigma relation needs at least three different clusters; found {s.size}.")
    if form == "evrard":
        at_15, at_14 = np.log10(velocity_dispersion_evrard(np.array([15.0, 14.0]), 0.0, cosmology))
        slope = 1.0 / (at_15 - at_14)
        intercept = 15.0 - slope * at_15
    elif form == "inverse":
        b, a = np.polyfit(x, s, 1)
        slope, intercept = 1.0 / b, -a / b
    else:
        slope, intercept = np.polyfit(s, x, 1)
    scatter = np.sqrt(np.mean((x - intercept - slope * s) ** 2))
    return MSigmaRelation(form, dispersion, float(intercept), float(slope), float(scatter), cosmology)


def _log10_dispersion(v_los: ArrayLike, n_galaxies: ArrayLike, kind: DispersionKind) -> FloatArray:
    sigma = velocity_dispersion(v_los, n_galaxies, kind)
    still = np.flatnonzero(~(sigma > 0))
    if still.size:
        raise ValueError(
            f"All velocities of cluster {still[0]} are equal ({still.size} such clusters): it has no "
            "dispersion."
        )
    return np.asarray(np.log10(sigma))
