"""From attributions to interlopers: a score for each galaxy, and how well it finds those that are none.

No attribution is a membership: a galaxy in the core that happens to be slow lowers the mass, and an interloper far
out changes nothing. Attributions become a score through a logistic regression on clusters of known membership.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.cosmology import circular_velocity_delta, radius_delta
from bayesflowmass.diagnostics import bootstrap_errors

__all__ = ["InterloperScore", "fit_interloper_score", "phase_space_features", "roc_areas"]

FloatArray = npt.NDArray[np.float64]

_STEPS = 100
_TOLERANCE = 1e-8
_REACH = 4.0  # standard deviations: a cubic means nothing far outside the clusters it was fitted on.


@dataclass(frozen=True)
class InterloperScore:
    """Log odds that a galaxy is an interloper: a polynomial of named features, by logistic regression.

    Attributes:
        features: their names, in order.
        degree: of the polynomial, all products of features up to it.
        centre, scale: mean and standard deviation of each feature where it was fitted (k,).
        coefficients: one for each product of features.
    """

    features: tuple[str, ...]
    degree: int
    centre: FloatArray
    scale: FloatArray
    coefficients: FloatArray

    def log_odds(self, values: Mapping[str, npt.ArrayLike]) -> FloatArray:
        """ln[p / (1 - p)] of being an interloper, (n,); others than the own features may be there.

        Raises:
            ValueError: a feature is missing or not finite.
        """
        x = _matrix(values, self.features)
        result: FloatArray = _products(x, self.centre, self.scale, self.degree) @ self.coefficients
        return result

    def probability(self, values: Mapping[str, npt.ArrayLike]) -> FloatArray:
        """Probability of being an interloper (n,), for clusters like those it was fitted on."""
        return np.asarray(expit(self.log_odds(values)), dtype=np.float64)


def fit_interloper_score(
    values: Mapping[str, npt.ArrayLike],
    is_interloper: npt.ArrayLike,
    *,
    degree: int = 3,
    ridge: float = 1.0,
) -> InterloperScore:
    """Fit an interloper score by penalised maximum likelihood (Newton's method; the optimum is unique).

    Args:
        values: feature -> one number for each galaxy (n,), from clusters of known membership.
        is_interloper: (n,) booleans.
        degree: of the polynomial.
        ridge: penalty on the squares of the coefficients of standardised products, except the constant.

    Raises:
        ValueError: features are missing, differ in length, are not finite or do not vary, or all galaxies are
            of one kind.
    """
    names = tuple(values)
    if not names:
        raise ValueError("an interloper score needs at least one feature")
    x, y = _matrix(values, names), np.asarray(is_interloper, dtype=np.float64)
    if y.shape != (len(x),):
        raise ValueError(f"is_interloper has shape {y.shape}; the features have {len(x)} galaxies")
    if y.min(initial=1.0) == y.max(initial=0.0):
        raise ValueError("an interloper score is fitted on members and interlopers; found one kind only")
    centre, scale = x.mean(0), x.std(0)
    if not (scale > 0.0).all():
        raise ValueError(f"feature {names[int(np.argmin(scale))]!r} does not vary")
    design = _products(x, centre, scale, degree)
    penalty = np.full(design.shape[1], ridge)
    penalty[0] = 0.0
    coefficients = np.zeros(design.shape[1])
    value = _objective(design, y, penalty, coefficients)
    for _ in range(_STEPS):
        p = expit(design @ coefficients)
        curvature = design.T @ (design * (p * (1.0 - p))[:, None]) + np.diag(penalty)
        step = np.linalg.solve(curvature, design.T @ (y - p) - penalty * coefficients)
        # Halved until it helps: a full Newton step may overshoot far from the optimum.
        while (new := _objective(design, y, penalty, coefficients + step)) < value - 1e-9 * abs(value):
            step = 0.5 * step
        coefficients, value = coefficients + step, new
        if np.abs(step).max() < _TOLERANCE:
            break
    return InterloperScore(names, degree, centre, scale, coefficients)


def phase_space_features(
    catalog: ClusterCatalog, log10_mass: npt.ArrayLike, leave_one_out: npt.ArrayLike | None = None
) -> dict[str, FloatArray]:
    """Features of each galaxy (n_galaxies_total,), of which scores take some.

    ``r_proj`` [comoving Mpc/h], ``speed`` |v_los| [km/s] and ``dispersion``, the standard deviation of v_los about
    zero in its cluster [km/s]; ``log10_richness`` of its cluster; ``r_scaled`` and ``v_scaled``, the former two over
    R200c and V200c of the given mass; ``attribution``, the change of the mass times the number of galaxies, of order
    one for all clusters [dex].

    Args:
        catalog: clusters.
        log10_mass: estimated log10 M200c [Msun/h], (n,).
        leave_one_out: what `leave_one_out` gives; without it there is no ``attribution``.

    Raises:
        CatalogError: a shape does not fit the catalogue.
    """
    rows = catalog.galaxy_rows
    mass = np.asarray(log10_mass, dtype=np.float64)
    if mass.shape != (len(catalog),):
        raise CatalogError(
            f"log10_mass has shape {mass.shape}; {len(catalog)} clusters need ({len(catalog)},)."
        )
    count = np.asarray(catalog.n_galaxies, dtype=np.float64)
    radius, speed = catalog.r_proj.astype(np.float64), np.abs(catalog.galaxies("v_los").astype(np.float64))
    redshift = np.asarray(catalog.column("redshift"), dtype=np.float64)
    cosmology = catalog.metadata.cosmology
    v200 = circular_velocity_delta(mass, redshift, cosmology=cosmology)
    r200 = radius_delta(mass, redshift, cosmology=cosmology)
    dispersion = np.sqrt(np.bincount(rows, speed**2, minlength=len(catalog)) / np.maximum(count, 1.0))
    features = {
        "r_proj": radius,
        "speed": speed,
        "dispersion": dispersion[rows],
        "log10_richness": np.log10(np.maximum(count, 1.0))[rows],
        "r_scaled": radius / r200[rows],
        "v_scaled": speed / v200[rows],
    }
    if leave_one_out is not None:
        change = np.asarray(leave_one_out, dtype=np.float64)
        if change.shape != radius.shape:
            raise CatalogError(
                f"leave_one_out has shape {change.shape}; the catalogue has {radius.size} galaxies."
            )
        features["attribution"] = change * count[rows]
    return features


def roc_areas(
    scores: Mapping[str, npt.ArrayLike],
    is_interloper: npt.ArrayLike,
    rows: npt.ArrayLike,
    halo_id: npt.ArrayLike,
    *,
    reference: str | None = None,
    n_resamples: int = 200,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Areas under the ROC curve of scores that should be high for interlopers, with errors over haloes.

    ``area`` compares every interloper with every member (the Mann-Whitney statistic, ties count half); ``within``
    only those of the same cluster, so that knowing which clusters have many interlopers is worth nothing.

    Args:
        scores: name -> one number for each galaxy (n_galaxies,).
        is_interloper: (n_galaxies,).
        rows: cluster of each galaxy, from 0, (n_galaxies,).
        halo_id: of each cluster (n,).
        reference: name of a score; ``difference`` and ``difference_within`` are then those from it, with errors of
            the same resamples.
        n_resamples, seed: of the bootstrap.

    Returns:
        name -> numbers, each with its standard error ``<number>_se``.

    Raises:
        ValueError: shapes differ, a score is not finite, or there is no interloper or no member.
    """
    truth, cluster = np.asarray(is_interloper, dtype=bool), np.asarray(rows, dtype=np.int64)
    haloes = np.asarray(halo_id)
    if not truth.any() or truth.all():
        raise ValueError("an area under the curve needs members and interlopers; found one kind only")
    prepared = {name: _Ranked.of(name, score, truth, cluster, len(haloes)) for name, score in scores.items()}

    def statistics(weights: FloatArray) -> dict[str, FloatArray]:
        result = {}
        for name, ranked in prepared.items():
            result[f"area {name}"] = ranked.area(weights)
            result[f"within {name}"] = ranked.area_within(weights)
        if reference is not None:
            for name in prepared:
                for kind, short in (("area", "difference"), ("within", "difference_within")):
                    result[f"{short} {name}"] = result[f"{kind} {name}"] - result[f"{kind} {reference}"]
        return result

    point = statistics(np.ones((1, len(haloes))))
    errors = bootstrap_errors(statistics, haloes, n_resamples, seed)
    table: dict[str, dict[str, float]] = {name: {} for name in prepared}
    for key, value in point.items():
        kind, name = key.split(" ", 1)
        table[name][kind] = float(value[0])
        table[name][f"{kind}_se"] = float(errors[key])
    return table


@dataclass(frozen=True)
class _Ranked:
    """One score, sorted: what weighted areas need."""

    cluster: npt.NDArray[np.int64]
    truth: npt.NDArray[np.bool_]
    starts: npt.NDArray[np.int64]
    won: FloatArray
    pairs: FloatArray

    @classmethod
    def of(
        cls,
        name: str,
        score: npt.ArrayLike,
        truth: npt.NDArray[np.bool_],
        cluster: npt.NDArray[np.int64],
        n: int,
    ) -> _Ranked:
        values = np.asarray(score, dtype=np.float64)
        if values.shape != truth.shape or not np.isfinite(values).all():
            raise ValueError(
                f"score {name!r} must be one finite number for each of the {truth.size} galaxies"
            )
        order = np.argsort(values, kind="stable")
        starts = np.flatnonzero(np.diff(values[order], prepend=-np.inf) > 0.0)
        won, pairs = np.zeros(n), np.zeros(n)
        by_cluster = np.lexsort((values, cluster))
        ends = np.searchsorted(cluster[by_cluster], np.arange(n + 1))
        for k in range(n):
            mine = by_cluster[ends[k] : ends[k + 1]]
            positive = truth[mine]
            pairs[k] = positive.sum() * (~positive).sum()
            if pairs[k]:
                ties = np.flatnonzero(np.diff(values[mine], prepend=-np.inf) > 0.0)
                won[k] = _won(positive[None].astype(np.float64), (~positive)[None].astype(np.float64), ties)[
                    0
                ]
        return cls(cluster[order], truth[order], starts, won, pairs)

    def area(self, weights: FloatArray) -> FloatArray:
        each = weights[:, self.cluster]
        positive, negative = each * self.truth, each * ~self.truth
        total = positive.sum(1) * negative.sum(1)
        result: FloatArray = _won(positive, negative, self.starts) / np.where(total > 0.0, total, np.nan)
        return result

    def area_within(self, weights: FloatArray) -> FloatArray:
        total = weights @ self.pairs
        result: FloatArray = (weights @ self.won) / np.where(total > 0.0, total, np.nan)
        return result


def _won(positive: FloatArray, negative: FloatArray, starts: npt.NDArray[np.int64]) -> FloatArray:
    """Weight of pairs that positives win, (b,), from weights in the order of the score; ties begin at starts."""
    ours, theirs = np.add.reduceat(positive, starts, axis=1), np.add.reduceat(negative, starts, axis=1)
    below = np.cumsum(theirs, axis=1) - theirs
    won: FloatArray = (ours * (below + 0.5 * theirs)).sum(1)
    return won


def _matrix(values: Mapping[str, npt.ArrayLike], names: tuple[str, ...]) -> FloatArray:
    missing = [name for name in names if name not in values]
    if missing:
        raise ValueError(f"feature {missing[0]!r} is missing; there are {', '.join(values) or 'none'}")
    columns = [np.asarray(values[name], dtype=np.float64) for name in names]
    if any(column.shape != columns[0].shape or column.ndim != 1 for column in columns):
        raise ValueError("features must be vectors of one length")
    x = np.stack(columns, 1)
    if not np.isfinite(x).all():
        raise ValueError(f"feature {names[int(np.argmin(np.isfinite(x).all(0)))]!r} is not finite everywhere")
    return x


def _products(x: FloatArray, centre: FloatArray, scale: FloatArray, degree: int) -> FloatArray:
    z = np.clip((x - centre) / scale, -_REACH, _REACH)
    columns = [np.ones(len(z))]
    for k in range(1, degree + 1):
        columns += [
            z[:, list(which)].prod(1) for which in combinations_with_replacement(range(z.shape[1]), k)
        ]
    return np.stack(columns, 1)


def _objective(design: FloatArray, y: FloatArray, penalty: FloatArray, coefficients: FloatArray) -> float:
    logit = design @ coefficients
    return float((y * logit - np.logaddexp(0.0, logit)).sum() - 0.5 * (penalty * coefficients**2).sum())
