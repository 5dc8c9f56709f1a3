"""Published accuracies on mocks of the same kind (MDPL2, cylinder of 1.6 Mpc/h and 2500 km/s), for
comparison.

Other clusters, other galaxies, other training sets: numbers to stand beside, not to be compared to the
    third digit.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedResult:
    """Accuracy as published, in dex; None where it was not.

    Attributes:
        name: of the method.
        source: of the numbers.
        mean_residual: of log10(M_true / M_pred), over the whole test set.
        scatter: standard deviation, over the whole test set.
        scatter_14_15: for 14 <= log10 M <= 15.
        mean_abs_residual_14p8_15p2: for 14.8 <= log10 M < 15.2.
        sigma_N, sigma_0: of equation 8.

    The M-sigma of Ho et al. is the inverse fit.
    """

    name: str
    source: str
    mean_residual: float | None = None
    scatter: float | None = None
    scatter_14_15: float | None = None
    mean_abs_residual_14p8_15p2: float | None = None
    sigma_N: float | None = None
    sigma_0: float | None = None


_PAPER = "Kodi Ramanah et al. 2020, arXiv:2003.05951"
_HO = "Ho et al. 2019, arXiv:1902.05950, and its code"

PUBLISHED: dict[str, tuple[PublishedResult, ...]] = {
    "pure": (PublishedResult("flow", _PAPER, 0.007, 0.058, None, None, 0.05, 0.05),),
    "contaminated": (
        PublishedResult("flow", _PAPER, 0.028, 0.126, 0.089, 0.067, 0.07, 0.05),
        PublishedResult("CNN 2-D", _HO, scatter_14_15=0.131),
        PublishedResult("CNN 1-D", _HO, scatter_14_15=0.172),
        PublishedResult("M-sigma", _HO, scatter_14_15=0.372),
    ),
}
