"""What is compared between a box and the mocks, each number with its error over clusters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from bayesflowmass.common.arrays import BoolArray, FloatArray, IntArray
from benchmarks.nbody_judge.samples import LINES, R_MAX, Sample

__all__ = [
    "Measured",
    "count_scatter",
    "far_share",
    "infall",
    "measure",
    "outsiders",
    "speeds",
    "with_errors",
]

RADII = np.array([0.8, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0])
"""Shells [comoving Mpc/h]."""
APERTURES = np.array([0.0, 0.4, 0.8, 1.2, R_MAX])
SPEEDS = np.array([0.0, 250.0, 500.0, 1000.0, 1500.0, 2000.0, 2500.0])
"""Bins of |v| [km/s], as far as the cylinder reaches."""
_RESAMPLED = 200


@dataclass(frozen=True)
class Measured:
    """Values and their standard errors, over clusters drawn anew."""

    value: FloatArray
    error: FloatArray


def with_errors(statistic: Callable[[FloatArray], FloatArray], n: int, seed: int = 0) -> Measured:
    """A statistic of weighted clusters, and its scatter where ``n`` clusters are drawn with replacement."""
    rng = np.random.default_rng(seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = [
            statistic(np.bincount(rng.integers(0, n, n), minlength=n).astype(np.float64))
            for _ in range(_RESAMPLED)
        ]
        return Measured(statistic(np.ones(n)), np.array(drawn).std(axis=0))


def speeds(v_max: float) -> FloatArray:
    """Edges of the bins of |v| in a cylinder [km/s]."""
    return SPEEDS[v_max >= SPEEDS]


def _sums(
    cluster: IntArray, cell: IntArray, n: int, n_cells: int, weight: FloatArray | BoolArray | None = None
) -> FloatArray:
    """Sums (n, n_cells) over the galaxies of each cluster in each cell; cells out of range are left out."""
    inside = (cell >= 0) & (cell < n_cells)
    w = None if weight is None else np.asarray(weight, dtype=np.float64)[inside]
    flat = np.bincount(cluster[inside] * n_cells + cell[inside], w, n * n_cells)
    return np.asarray(flat, dtype=np.float64).reshape(n, n_cells)


def infall(sample: Sample, centrals: bool = False) -> tuple[Measured, Measured]:
    """Mean radial velocity (without the Hubble flow) and its dispersion in the shells of ``RADII`` [km/s].

    Args:
        centrals: of the centrals of other haloes only, from 2 Mpc/h on: nearer, galaxies that live alone belong to
            the cluster in the mocks.
    """
    n = sample.r200.size
    used = sample.central & (sample.r > 2.0) if centrals else np.ones(sample.r.size, dtype=bool)
    cell = np.digitize(sample.r[used], RADII) - 1
    moments = [
        _sums(sample.halo[used], cell, n, RADII.size - 1, sample.v_r[used] ** power) for power in range(3)
    ]

    def mean(w: FloatArray) -> FloatArray:
        return np.asarray(w @ moments[1] / (w @ moments[0]))

    def dispersion(w: FloatArray) -> FloatArray:
        return np.sqrt(w @ moments[2] / (w @ moments[0]) - mean(w) ** 2)

    return with_errors(mean, n), with_errors(dispersion, n)


def outsiders(sample: Sample, by: str, beyond: float = 1.0, per: str = "all") -> Measured:
    """Galaxies of the cylinders that lie beyond ``beyond`` x R200c in space, by projected radius or by \\|v\\|.

    Args:
        by: ``"R"`` (bins ``APERTURES``) or ``"v"`` (`speeds`).
        per: ``"all"``: as a share of all galaxies of the bin; ``"member"``: over the galaxies inside R200c of the
            whole cylinder; ``"outsider"``: over all outsiders, which is their distribution.
    """
    edges, values = (APERTURES, sample.R) if by == "R" else (speeds(sample.v_max), sample.v)
    n, cell, cluster = sample.r200.size, np.digitize(values, edges) - 1, sample.line // LINES
    out = sample.distance >= beyond
    number = _sums(cluster, cell, n, edges.size - 1, out)
    below = _sums(cluster, cell, n, edges.size - 1)
    if per != "all":
        which = out if per == "outsider" else sample.distance < 1.0
        below = _sums(cluster, np.zeros_like(cell), n, 1, which)
    return with_errors(lambda w: w @ number / (w @ below), n)


def far_share(sample: Sample, beyond: float) -> Measured:
    """Share of all galaxies of the cylinders that lie beyond ``beyond`` x R200c."""
    cluster, n = sample.line // LINES, sample.r200.size
    number, below = np.bincount(cluster, sample.distance >= beyond, n), np.bincount(cluster, minlength=n)
    return with_errors(lambda w: np.array([w @ number / (w @ below)]), n)


def count_scatter(sample: Sample, v_range: tuple[float, float], beyond: float | None) -> Measured:
    """How counts differ between lines of sight, at fixed mass of the cluster.

    A trend of the counts with log mass (a straight line) is taken out. Poisson noise is taken out of the scatters,
    which makes them independent of how many galaxies there are; a negative one means less than Poisson.

    Args:
        beyond: count galaxies beyond so many R200c only; None counts all.

    Returns:
        Mean count of a line of sight; variance over mean; scatter over the mean beyond Poisson's, over all lines of
        sight and between those of one cluster.
    """
    n = sample.r200.size
    chosen = (sample.v >= v_range[0]) & (sample.v < v_range[1])
    if beyond is not None:
        chosen &= sample.distance >= beyond
    count = np.bincount(sample.line[chosen], minlength=n * LINES).reshape(n, LINES).astype(np.float64)
    mass = sample.log10_mass - sample.log10_mass.mean()
    slope = (mass @ count.mean(axis=1)) / max(float(mass @ mass), 1e-12)
    flat = count - slope * mass[:, None]
    inner = flat.var(axis=1, ddof=1)

    def statistic(w: FloatArray) -> FloatArray:
        total = w.sum()
        mean = (w @ count).sum() / (LINES * total)
        centre = (w @ flat).sum() / (LINES * total)
        variance = (w @ (flat - centre) ** 2).sum() / (LINES * total - 1.0)
        return np.array([mean, variance / mean, _beyond(variance, mean), _beyond(w @ inner / total, mean)])

    return with_errors(statistic, n)


def _beyond(variance: float, mean: float) -> float:
    excess = (variance - mean) / mean**2
    return float(np.sign(excess) * np.sqrt(abs(excess)))


def measure(sample: Sample) -> Mapping[str, Measured]:
    """Everything that page and picture show of one sample."""
    mean, dispersion = infall(sample)
    central_mean, central_dispersion = infall(sample, centrals=True)
    return {
        "infall of centrals": central_mean,
        "dispersion of centrals": central_dispersion,
        "infall": mean,
        "dispersion": dispersion,
        "share R": outsiders(sample, "R"),
        "share v": outsiders(sample, "v"),
        "speeds": outsiders(sample, "v", per="outsider"),
        "far speeds": outsiders(sample, "v", beyond=2.0, per="outsider"),
        "per member R": outsiders(sample, "R", beyond=2.0, per="member"),
        "per member v": outsiders(sample, "v", beyond=2.0, per="member"),
        "share": far_share(sample, 1.0),
        "share 2": far_share(sample, 2.0),
        "all": count_scatter(sample, (0.0, sample.v_max), None),
        "near": count_scatter(sample, (0.0, 1000.0), 1.0),
        "middle": count_scatter(sample, (0.0, 1000.0), 2.0),
        "fast": count_scatter(sample, (1000.0, sample.v_max), 1.0),
    }
