"""What the errors of the masses go with: partial correlations of residuals with the latent truths of mocks.

Section 7 of Kodi Ramanah et al. (2020, arXiv:2003.05951) asks whether masses draw on substructure; mocks know it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.diagnostics import bootstrap_errors

__all__ = ["LATENT_TRUTHS", "latent_truths", "partial_correlations"]

FloatArray = npt.NDArray[np.float64]

LATENT_TRUTHS = {
    "substructure": "share of members in infalling clumps",
    "concentration": "log10 concentration c200c",
    "elongation": "1 - minor to major axis of the galaxies",
    "orientation": "|cos| of the angle between major axis and line of sight",
    "interlopers": "share of interlopers in the cylinder",
    "dispersion": "log10 3-D velocity dispersion of members at their mass",
    "richness": "log10 number of members at their mass",
}
"""Latent truths by name, in the order of tables and figures."""


def latent_truths(catalog: ClusterCatalog) -> dict[str, FloatArray]:
    """The latent truths `LATENT_TRUTHS` of mock clusters, each (n,).

    Raises:
        CatalogError: the catalogue lacks one of the columns that `simulate_catalog` writes.
    """

    def column(name: str) -> FloatArray:
        return np.asarray(catalog.column(name), dtype=np.float64)

    mass = column("log10_mass")
    return {
        "substructure": column("substructure_fraction"),
        "concentration": np.log10(column("concentration")),
        "elongation": 1.0 - column("axis_ratio_s"),
        "orientation": np.abs(column("los_angle_cos")),
        "interlopers": column("interloper_fraction"),
        "dispersion": _at_fixed_mass(np.log10(column("sigma_v_true")), mass),
        "richness": _at_fixed_mass(np.log10(np.maximum(column("richness_true"), 1.0)), mass),
    }


def partial_correlations(
    residual: npt.ArrayLike,
    latents: Mapping[str, npt.ArrayLike],
    log10_mass: npt.ArrayLike,
    *,
    halo_id: npt.ArrayLike,
    n_resamples: int = 200,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Rank correlations of residuals with latent quantities at fixed mass, with bootstrap errors over haloes.

    ``alone``: Spearman's partial correlation with the mass held fixed (its rank and the square of it);
    ``joint``: with the other latents held fixed too; ``slope``: change of the residual [dex] for one standard
    deviation of the latent, all others and the mass held fixed, by least squares. Under key ``"all"``:
    ``explained``, the share of the variance of the residual at fixed mass that all latents explain linearly.

    Args:
        residual: log10(M_true / M_pred) [dex], (n,).
        latents: name -> (n,).
        log10_mass: what is held fixed, log10 M200c [Msun/h]: the true one asks what moves the estimate of a cluster,
            the estimated one what is wrong with a cluster of that estimate.
        halo_id: (n,).
        n_resamples, seed: of the bootstrap.

    Raises:
        ValueError: shapes differ, a number is not finite, or a latent does not vary.
    """
    y, mass = np.asarray(residual, dtype=np.float64), np.asarray(log10_mass, dtype=np.float64)
    names = list(latents)
    columns = [np.asarray(latents[name], dtype=np.float64) for name in names]
    for name, values in zip(["residual", "log10_mass", *names], [y, mass, *columns], strict=True):
        if values.shape != y.shape or not np.isfinite(values).all():
            raise ValueError(f"{name} must have one finite number for each of the {y.size} clusters")
        if np.ptp(values) == 0.0:
            raise ValueError(f"{name} does not vary, so nothing correlates with it")
    ranks = np.stack([_ranks(values) for values in (y, *columns)], 1)
    plain = np.stack([y, *(_standardised(values) for values in columns)], 1)
    fixed_rank, fixed = (np.stack([m, m**2], 1) for m in (_ranks(mass), _standardised(mass)))

    def statistics(weights: FloatArray) -> dict[str, FloatArray]:
        result: dict[str, list[float]] = {}
        for w in weights:
            rest = _residuals(ranks, fixed_rank, w)
            covariance = (rest * w[:, None]).T @ rest
            scale = np.sqrt(np.diag(covariance))
            precision = np.linalg.inv(covariance / np.outer(scale, scale))
            linear = _residuals(plain, fixed, w)
            normal = (linear * w[:, None]).T @ linear
            slopes = np.linalg.solve(normal[1:, 1:], normal[1:, 0])
            for k, name in enumerate(names, start=1):
                result.setdefault(f"alone {name}", []).append(covariance[0, k] / (scale[0] * scale[k]))
                joint = -precision[0, k] / np.sqrt(precision[0, 0] * precision[k, k])
                result.setdefault(f"joint {name}", []).append(joint)
                result.setdefault(f"slope {name}", []).append(slopes[k - 1])
            result.setdefault("explained all", []).append(float(slopes @ normal[1:, 0] / normal[0, 0]))
        return {key: np.array(values) for key, values in result.items()}

    point = statistics(np.ones((1, y.size)))
    errors = bootstrap_errors(statistics, halo_id, n_resamples, seed)
    table: dict[str, dict[str, float]] = {name: {} for name in [*names, "all"]}
    for key, value in point.items():
        kind, name = key.split(" ", 1)
        table[name][kind] = float(value[0])
        table[name][f"{kind}_se"] = float(errors[key])
    return table


def _residuals(values: FloatArray, fixed: FloatArray, weights: FloatArray) -> FloatArray:
    """What a weighted linear fit on the fixed columns, and a constant, leaves of each column."""
    design = np.column_stack([np.ones(len(fixed)), fixed])
    weighted = design * weights[:, None]
    coefficients = np.linalg.solve(weighted.T @ design, weighted.T @ values)
    left: FloatArray = values - design @ coefficients
    return left


def _ranks(values: FloatArray) -> FloatArray:
    """Ranks from -1 to 1, ties at their mean."""
    return np.asarray(2.0 * (rankdata(values) - 0.5) / values.size - 1.0, dtype=np.float64)


def _standardised(values: FloatArray) -> FloatArray:
    z: FloatArray = (values - values.mean()) / values.std()
    return z


def _at_fixed_mass(values: FloatArray, mass: FloatArray) -> FloatArray:
    """Deviations from a quadratic in the mass."""
    degree = min(2, np.unique(mass).size - 1)
    if degree < 1:
        return values - float(values.mean())
    fitted: FloatArray = np.polynomial.Polynomial.fit(mass, values, degree)(mass)
    return values - fitted
