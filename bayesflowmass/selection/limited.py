"""Samples limited in mass by an observable of another survey: Sunyaev-Zel'dovich signal, X-ray luminosity or flux."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.cosmology import comoving_distance, convert_mass, efunc

LIMITED = ("sz", "xray")
"""Kinds of `LimitedSample`, as they begin the text of one."""

_MPC_CM = 3.0857e24
# L500 [1e44 erg/s, 0.1-2.4 keV] = 10^0.274 E(z)^(7/3) (M500 / 3e14 Msun)^1.64; the flux to infinity is 1/0.91 of it.
_LOG_LUMINOSITY, _SLOPE, _PIVOT, _WITHIN, _H = 0.274, 1.64, 3e14, 0.91, 0.7
_SCATTER = 0.1
_NODES = 64


@dataclass(frozen=True)
class LimitedSample:
    """P(select | log10 mass, z) = Phi((log10 M200c - m_lim) / s): a threshold with lognormal scatter of the observable.

    A threshold in mass is the same at every redshift. A limit of X-ray flux (0.1-2.4 keV) follows z by the L500-M500 of
    Piffaretti et al. 2011 (arXiv:1007.1916), which MCXC masses are made with, without K correction.

    Args:
        threshold: log10 M200c [Msun/h] at which half of the clusters are selected; below 1, a flux [erg/s/cm^2].
        scatter: s [dex of mass]. X-ray luminosities scatter by 0.38 in ln L at fixed mass (Pratt et al. 2009), so by
            0.10 dex in mass; SZ signals by less, to which their noise is added.

    Raises:
        ValueError: a number has no meaning.
    """

    threshold: float
    scatter: float = _SCATTER

    def __post_init__(self) -> None:
        mass, flux = 12.0 <= self.threshold <= 16.5, 1e-16 <= self.threshold <= 1e-9
        if not (mass or flux) or not 0.0 < self.scatter <= 2.0:
            raise ValueError(
                f"a limited sample has the threshold {self.threshold:g} and the scatter {self.scatter:g}; expected"
                " log10 M200c [Msun/h], 12 to 16.5, or a flux, 1e-16 to 1e-9 erg/s/cm^2, and a scatter of 0 to 2 dex."
            )

    @classmethod
    def from_text(cls, text: str) -> LimitedSample:
        """That of ``"sz:14.5"``, ``"xray:14.2,0.15"`` (threshold and scatter) or ``"xray:3e-12"`` (a flux).

        Raises:
            ValueError: the text is another.
        """
        kind, _, rest = text.partition(":")
        try:
            numbers = [float(word) for word in rest.split(",")]
            if kind not in LIMITED or len(numbers) > 2 or (kind == "sz" and numbers[0] < 1.0):
                raise ValueError
        except ValueError:
            raise ValueError(
                f"the prior {text!r} is not understood; expected such as sz:14.5 or xray:14.2,0.15 (log10 M200c"
                " [Msun/h] at which half is in the sample, and its scatter in dex), or xray:3e-12 (a flux)."
            ) from None
        return cls(*numbers)

    def limit(self, redshift: npt.ArrayLike) -> FloatArray:
        """m_lim, log10 M200c [Msun/h], at redshifts."""
        z = np.asarray(redshift, dtype=np.float64)
        if self.threshold > 1.0:
            return np.full(z.shape, self.threshold)
        log_m500 = (np.log10(self.luminosity(z) / efunc(z) ** (7.0 / 3.0)) - _LOG_LUMINOSITY) / _SLOPE
        return convert_mass(log_m500 + math.log10(_PIVOT * _H), z, "500c", "200c")

    def luminosity(self, redshift: npt.ArrayLike) -> FloatArray:
        """L500 [1e44 erg/s, h = 0.7] of a flux limit at redshifts."""
        z = np.asarray(redshift, dtype=np.float64)
        distance = comoving_distance(z) * (1.0 + z) / _H * _MPC_CM
        return np.asarray(_WITHIN * 4.0 * math.pi * distance**2 * self.threshold / 1e44)

    def __call__(self, log10_mass: npt.ArrayLike, redshift: npt.ArrayLike) -> FloatArray:
        """P at log10 masses and redshifts that broadcast."""
        from scipy.special import ndtr

        limit: FloatArray | float = self.threshold
        if self.threshold < 1.0:
            z = np.asarray(redshift, dtype=np.float64)
            nodes = np.geomspace(z.min(), z.max(), _NODES)
            limit = np.interp(np.log(z), np.log(nodes), self.limit(nodes))
        return np.asarray(ndtr((np.asarray(log10_mass, dtype=np.float64) - limit) / self.scatter))
