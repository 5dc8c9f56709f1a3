"""The probability that a cluster of given mass and redshift is selected, estimated on mocks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.polynomial.chebyshev import chebvander2d

from bayesflowmass.common.arrays import BoolArray, FloatArray

# Where all clusters are selected the logit has no finite optimum; this prior precision bounds it.
_RIDGE = 1e-3
_STEPS = 100


class SelectionProbability:
    """P(select | log10 mass, z): logistic regression on a polynomial of both.

    The logit is a Chebyshev series in log10 M200c [Msun/h] and redshift over the range of the mocks, fitted by
    maximum likelihood (Newton). Where all mocks are at one redshift it does not depend on z.

    Args:
        log10_mass: of mock clusters (n,), **selected or not**.
        redshift: theirs (n,).
        selected: which of them were selected (n,).
        degree: of the polynomial in mass.
        redshift_degree: of the polynomial in redshift.

    Raises:
        ValueError: shapes disagree, there are fewer clusters than coefficients, or the fit fails.
    """

    def __init__(
        self,
        log10_mass: npt.ArrayLike,
        redshift: npt.ArrayLike,
        selected: npt.ArrayLike,
        *,
        degree: int = 6,
        redshift_degree: int = 2,
    ) -> None:
        mass = np.asarray(log10_mass, dtype=np.float64)
        z = np.broadcast_to(np.asarray(redshift, dtype=np.float64), mass.shape)
        seen = np.asarray(selected, dtype=bool)
        if mass.ndim != 1 or seen.shape != mass.shape:
            raise ValueError(
                f"selection: masses have shape {mass.shape} and `selected` {seen.shape}; one of each per "
                "mock cluster is expected."
            )
        self.log10_mass_range = float(mass.min()), float(mass.max())
        self.redshift_range = float(z.min()), float(z.max())
        self._degrees = (degree, redshift_degree if self.redshift_range[0] < self.redshift_range[1] else 0)
        if mass.size < 10 * (degree + 1) * (self._degrees[1] + 1):
            raise ValueError(
                f"selection: {mass.size} mock clusters are too few for polynomials of degree "
                f"{self._degrees}; simulate more."
            )
        self._coefficients = _fit_logistic(self._features(mass, z), seen)

    def __call__(self, log10_mass: npt.ArrayLike, redshift: npt.ArrayLike) -> FloatArray:
        """P at log10 masses and redshifts that broadcast.

        Raises:
            ValueError: outside the range of the mocks.
        """
        from scipy.special import expit

        mass, z = np.broadcast_arrays(
            np.asarray(log10_mass, dtype=np.float64), np.asarray(redshift, dtype=np.float64)
        )
        # The range is that of random draws: the limits they were drawn between lie a little beyond.
        for name, values, (low, high), margin in (
            ("log10 mass", mass, self.log10_mass_range, 0.02),
            ("redshift", z, self.redshift_range, 0.002),
        ):
            if values.size and not (values.min() >= low - margin and values.max() <= high + margin):
                raise ValueError(
                    f"selection: {name} {values.min():g} to {values.max():g} leaves the range of the mocks, "
                    f"{low:g} to {high:g}; simulate there."
                )
        return np.asarray(expit(self._features(mass.ravel(), z.ravel()) @ self._coefficients)).reshape(
            mass.shape
        )

    def _features(self, mass: FloatArray, redshift: FloatArray) -> FloatArray:
        unit = [
            2.0 * (values - low) / max(high - low, 1e-12) - 1.0
            for values, (low, high) in ((mass, self.log10_mass_range), (redshift, self.redshift_range))
        ]
        return np.asarray(chebvander2d(unit[0], unit[1], self._degrees))


def _fit_logistic(features: FloatArray, selected: BoolArray) -> FloatArray:
    from scipy.special import expit

    coefficients = np.zeros(features.shape[1])
    objective = _objective(features, selected, coefficients)
    for _ in range(_STEPS):
        p = expit(features @ coefficients)
        gradient = features.T @ (selected - p) - _RIDGE * coefficients
        curvature = (features * (p * (1.0 - p))[:, None]).T @ features + _RIDGE * np.eye(features.shape[1])
        step = np.linalg.solve(curvature, gradient)
        if float(gradient @ step) < 1e-10:
            return coefficients
        size = 1.0
        while _objective(features, selected, coefficients + size * step) < objective and size > 1e-6:
            size *= 0.5
        coefficients = coefficients + size * step
        objective = _objective(features, selected, coefficients)
    raise ValueError("selection: the logistic regression did not converge; lower the degree or add mocks.")


def _objective(features: FloatArray, selected: BoolArray, coefficients: FloatArray) -> float:
    """Log-likelihood with the ridge; concave."""
    logit = features @ coefficients
    log_likelihood = -np.logaddexp(0.0, np.where(selected, -logit, logit)).sum()
    return float(log_likelihood - 0.5 * _RIDGE * coefficients @ coefficients)
