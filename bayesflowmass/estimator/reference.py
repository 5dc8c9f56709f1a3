"""What training clusters look like, kept with the model so that flags compare data with them.

Thresholds come from the training set itself: an offset is flagged when it exceeds the quantile `LEVEL` of
training clusters of that richness, an empty outer region when only 1 - `CLEANED_LEVEL` of them are so empty, an
outermost galaxy so near when `SMALL_FIELD` of those observed to the edge of the cylinder are so small.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.estimator.statistics import MINIMUM_GALAXIES, ClusterStatistics, cluster_statistics

LEVEL = 0.995
CLEANED_LEVEL = 0.999
SMALL_FIELD = 0.05
EMPTY_SHARE = 0.15
EMPTY_SIGNIFICANCE = 3.3
_CLUSTERS_PER_BIN = 400
_OUTER_FRACTIONS = (0.6, 0.9)
_MOST_BINS = 12


@dataclass(frozen=True)
class Reference:
    """Quantiles and counts of training clusters, as plain numbers (JSON-able).

    Attributes:
        aperture: r_max [comoving Mpc/h] and v_max [km/s] of the cylinder.
        richness: galaxies of the clusters (geometric mean) in each bin of richness, increasing.
        velocity_offset: quantile `LEVEL` in each bin, in units of the dispersion (`ClusterStatistics`).
        position_offset: likewise, in units of the rms position.
        outer_fractions: velocities, in units of v_max, beyond which outer galaxies are counted.
        outer_model: for each of them (a, b, c, alpha): the count follows a negative binomial law with mean
            exp(a + b ln N + c ln sigma) and variance mean + alpha mean^2.
        outer_threshold: for each of them, the probability of so few or fewer that one training cluster in a
            thousand stays below.
        outermost: quantile `SMALL_FIELD` in each bin of the distance of the outermost galaxy [comoving Mpc/h], of
            clusters observed to the edge of the cylinder; none: not known.
        richness_model: (a, b, low, high): ln N - a - b ln sigma lies between low and high for `LEVEL`
            of them.
    """

    aperture: tuple[float, float]
    richness: tuple[float, ...]
    velocity_offset: tuple[float, ...]
    position_offset: tuple[float, ...]
    outer_fractions: tuple[float, ...]
    outer_model: tuple[tuple[float, float, float, float], ...]
    outer_threshold: tuple[float, ...]
    richness_model: tuple[float, float, float, float]
    outermost: tuple[float, ...] = ()

    @classmethod
    def from_catalog(cls, catalog: ClusterCatalog) -> Reference | None:
        """Measure training clusters; None where too few (< 100) have enough galaxies to measure."""
        selection = catalog.metadata.selection
        r_max = float(selection.get("r_max") or (catalog.r_proj.max() if len(catalog.r_proj) else 1.0))
        v_max = float(selection.get("v_max") or np.abs(catalog.galaxies("v_los")).max(initial=1.0))
        measured = cluster_statistics(catalog, r_max=r_max, v_max=v_max, outer_fractions=_OUTER_FRACTIONS)
        good = np.isfinite(measured.dispersion) & np.isfinite(measured.position_offset)
        if good.sum() < 100:
            return None
        log_n = np.log(measured.n_galaxies[good].astype(np.float64))
        log_sigma = np.log(measured.dispersion[good])
        n_bins = int(np.clip(good.sum() // _CLUSTERS_PER_BIN, 1, _MOST_BINS))
        order = np.array_split(np.argsort(log_n, kind="stable"), n_bins)
        offset_v, offset_r = measured.velocity_offset[good], measured.position_offset[good]
        whole = np.full(good.sum(), True)
        if catalog.has("aperture"):
            whole = np.asarray(catalog.column("aperture"))[good] >= r_max
        outermost = [measured.outermost[good][bin_[whole[bin_]]] for bin_ in order]
        slope, intercept = np.polyfit(log_sigma, log_n, 1)
        low, high = np.quantile(log_n - intercept - slope * log_sigma, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        reference = cls(
            aperture=(r_max, v_max),
            richness=tuple(float(np.exp(log_n[bin_].mean())) for bin_ in order),
            velocity_offset=tuple(float(np.quantile(offset_v[bin_], LEVEL)) for bin_ in order),
            position_offset=tuple(float(np.quantile(offset_r[bin_], LEVEL)) for bin_ in order),
            outer_fractions=_OUTER_FRACTIONS,
            outer_model=tuple(
                _fit_counts(counts[good], log_n, log_sigma) for counts in measured.outer_counts
            ),
            outer_threshold=(0.0,) * len(_OUTER_FRACTIONS),
            richness_model=(float(intercept), float(slope), float(low), float(high)),
            outermost=tuple(float(np.quantile(values, SMALL_FIELD)) for values in outermost if values.size),
        )
        lowest = np.quantile(reference.outer_probability(measured)[:, good], 1.0 - CLEANED_LEVEL, axis=1)
        return replace(reference, outer_threshold=tuple(float(value) for value in lowest))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Reference:
        """Inverse of `dataclasses.asdict` after a round trip through JSON.

        Raises:
            ValueError: the keys are not those of a reference.
        """
        values = {"outermost": ()} | dict(values)
        names = [f.name for f in fields(cls)]
        if sorted(values) != sorted(names):
            raise ValueError(f"Reference: the keys are {sorted(values)}; expected {sorted(names)}.")
        plain = {name: tuple(values[name]) for name in names}
        plain["outer_model"] = tuple(tuple(row) for row in values["outer_model"])
        return cls(**plain)

    def measure(self, catalog: ClusterCatalog) -> ClusterStatistics:
        """The same statistics for other clusters."""
        r_max, v_max = self.aperture
        return cluster_statistics(catalog, r_max=r_max, v_max=v_max, outer_fractions=self.outer_fractions)

    def velocity_centre_off(self, measured: ClusterStatistics) -> BoolArray:
        """Clusters whose velocity offset is beyond the quantile `LEVEL` of training clusters."""
        return measured.velocity_offset > self._threshold(measured, self.velocity_offset)

    def position_centre_off(self, measured: ClusterStatistics) -> BoolArray:
        """Clusters whose position offset is beyond the quantile `LEVEL` of training clusters."""
        return measured.position_offset > self._threshold(measured, self.position_offset)

    def field_small(self, measured: ClusterStatistics) -> BoolArray:
        """Clusters whose outermost galaxy is nearer than the quantile `SMALL_FIELD` of those seen to the edge.

        Of N galaxies with N(< R) ~ R^g the quantile has ln(R / r_max) ~ 1 / N: so it goes on below the poorest bin.
        """
        if len(self.outermost) != len(self.richness):
            return np.zeros(len(measured.outermost), dtype=bool)
        n = np.maximum(measured.n_galaxies, 1).astype(np.float64)
        level = np.interp(np.log(n), np.log(self.richness), self.outermost) / self.aperture[0]
        level **= np.maximum(self.richness[0] / n, 1.0)
        return (measured.outermost < self.aperture[0] * level) & (measured.n_galaxies >= MINIMUM_GALAXIES)

    def looks_cleaned(self, measured: ClusterStatistics, together: bool | None = None) -> BoolArray:
        """Clusters that miss the interlopers that training clusters have; see docs/flags.md.

        A single cluster is flagged where its outer region (R > r_max / 2, |v| above one of `outer_fractions`)
        is emptier than that of all but 0.1 % of the training set: only rich clusters can be. All are flagged
        where the clusters too light to have members there hold together less than 15 % of the interlopers
        expected, by more than 3.3 standard deviations.

        Args:
            measured: of clusters.
            together: `together_empty` of the catalogue that they are a part of; default: they are all of it.
        """
        alone = self.outer_probability(measured) < np.array(self.outer_threshold)[:, None]
        together = self.together_empty(measured) if together is None else together
        return np.asarray(alone.any(axis=0) | together)

    def together_empty(self, measured: ClusterStatistics) -> bool:
        """Whether the light clusters of a catalogue miss the interlopers of training clusters (`looks_cleaned`)."""
        return self.too_empty(self.outer_sums(measured))

    def outer_sums(self, measured: ClusterStatistics) -> FloatArray:
        """Galaxies found, expected, and the variance of their number, over the light clusters (fractions, 3)."""
        sums = []
        for fraction, model, counts in zip(
            self.outer_fractions, self.outer_model, measured.outer_counts, strict=True
        ):
            mean = _expected(measured, model)
            light = np.isfinite(mean) & (3.0 * measured.dispersion < fraction * self.aperture[1])
            sums.append([part[light].sum() for part in (counts, mean, mean + model[3] * mean**2)])
        return np.array(sums, dtype=np.float64)

    @staticmethod
    def too_empty(sums: FloatArray) -> bool:
        """`together_empty` from the `outer_sums` of a catalogue, which add up over its parts."""
        found, expected, variance = sums.T
        lacking = (found < EMPTY_SHARE * expected) & (
            expected - found > EMPTY_SIGNIFICANCE * np.sqrt(variance)
        )
        return bool(lacking.any())

    def outer_probability(self, measured: ClusterStatistics) -> FloatArray:
        """P(count <= observed) in training clusters of that richness and dispersion (fractions, n)."""
        from scipy import stats

        result = np.ones_like(measured.outer_counts)
        for row, counts, model in zip(result, measured.outer_counts, self.outer_model, strict=True):
            mean, shape = _expected(measured, model), 1.0 / max(model[3], 1e-6)
            known = np.isfinite(mean)
            row[known] = stats.nbinom.cdf(counts[known], shape, shape / (shape + mean[known]))
        return result

    def implausible_richness(self, measured: ClusterStatistics) -> BoolArray:
        """Clusters with far fewer or more galaxies than training clusters of that velocity dispersion."""
        intercept, slope, low, high = self.richness_model
        log_n = np.log(np.maximum(measured.n_galaxies, 1).astype(np.float64))
        residual = log_n - intercept - slope * np.log(measured.dispersion)
        return (residual < low) | (residual > high)

    def _threshold(self, measured: ClusterStatistics, quantiles: tuple[float, ...]) -> FloatArray:
        """Threshold at the richness of each cluster; below the poorest bin it grows as 1/sqrt(N)."""
        n = np.maximum(measured.n_galaxies, 1).astype(np.float64)
        level = np.interp(np.log(n), np.log(self.richness), quantiles)
        return level * np.sqrt(np.maximum(self.richness[0] / n, 1.0))


def _expected(measured: ClusterStatistics, model: tuple[float, float, float, float]) -> FloatArray:
    """Mean count at the richness and dispersion of each cluster; NaN where there is no dispersion."""
    a, b, c, _ = model
    n = np.maximum(measured.n_galaxies, 1).astype(np.float64)
    return np.exp(a + b * np.log(n) + c * np.log(measured.dispersion))


def _fit_counts(
    counts: FloatArray, log_n: FloatArray, log_sigma: FloatArray
) -> tuple[float, float, float, float]:
    """Poisson regression of the counts by Newton steps, and the overdispersion of its residuals."""
    design = np.stack([np.ones_like(log_n), log_n, log_sigma], axis=1)
    coefficients = np.zeros(3)
    coefficients[:2] = np.log(max(counts.mean(), 1e-3)) - log_n.mean(), 1.0
    for _ in range(50):
        mean = np.exp(np.clip(design @ coefficients, -20.0, 20.0))
        # A little ridge keeps the step finite where N and sigma carry the same information.
        hessian = design.T @ (design * mean[:, None]) + 1e-6 * np.eye(3)
        step = np.linalg.solve(hessian, design.T @ (counts - mean))
        coefficients = coefficients + np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-10:
            break
    mean = np.exp(np.clip(design @ coefficients, -20.0, 20.0))
    alpha = max(float(np.sum((counts - mean) ** 2 - mean) / np.sum(mean**2)), 0.0)
    a, b, c = (float(value) for value in coefficients)
    return a, b, c, alpha
