"""Is a catalogue as a whole drawn from what the model was trained on? An exact permutation test.

Held-out training clusters and the catalogue are pooled. If both come from one distribution, then within a class
of richness every choice of which clusters are "the catalogue" is equally probable. The statistic is the largest
of many standardised mean differences (of each feature, of its square, of uncorrelated combinations, of the strangeness
score); its distribution over random choices gives p-values that are exact for any number of clusters, and that control
the error of the whole family (Westfall & Young 1993), so that the feature with the largest difference may be named.

The test is conditional on the number of galaxies of each cluster. At a given number the masses still depend on
the population: clusters of the mass function are lighter than those of a training set that is flat in log mass.
That is no fault of a catalogue, so the test is made against both populations (held-out clusters thinned to the
mass function by rejection, which keeps the test exact), and the larger p-value counts. Mocks know their population and
the limits of its masses: they are tested against that one alone.

A p-value says whether there is a difference, not whether it matters: with thousands of clusters a shift of a twentieth
of a standard deviation is seen. So the size of the largest difference that is shown stands beside it.

Of several projections of one halo one is taken: they are not exchangeable with clusters of different haloes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bayesflowmass.common.arrays import FloatArray, IntArray

ALARM = 0.01
"""p-value below which clusters are flagged and a difference of a catalogue counts as shown: one false alarm in a
hundred."""


# Means of features are compared within these limits, so that a few outliers do not hide what the others say.
_LIMIT = 5.0
# Numbers up to which rows are gathered; beyond, a matrix product is faster and smaller.
_GATHERED = 20_000_000


@dataclass(frozen=True)
class Difference:
    """What distinguishes a catalogue most.

    Attributes:
        name: of the feature, or of a combination.
        kind: ``"mean"`` or ``"spread"``.
        shift: mean of the catalogue minus that of catalogue and held-out clusters together, in standard deviations of
            training clusters of that richness (of the squares, for ``"spread"``).
        p_value: corrected for all differences that were looked at.
    """

    name: str
    kind: str
    shift: float
    p_value: float


@dataclass(frozen=True)
class CatalogueVerdict:
    """Result of the test.

    Attributes:
        p_value: probability of so large a difference if the catalogue is like the training set.
        effect: largest |shift| among the differences that are shown at 1 %, in standard deviations; 0 where none is.
        population: against which it was found, ``"training"`` or ``"hmf"``: the one that explains the catalogue better.
        n_clusters, n_haloes: of the catalogue; n_held_out: training clusters that it was compared with.
        differences: the largest, first; at most three.
    """

    p_value: float
    effect: float
    population: str
    n_clusters: int
    n_haloes: int
    n_held_out: int
    differences: tuple[Difference, ...]


def permutation_test(
    features: FloatArray,
    whitened: FloatArray,
    score: FloatArray,
    kind: IntArray,
    held_out: tuple[FloatArray, FloatArray, FloatArray, IntArray],
    names: Sequence[str],
    *,
    n_permutations: int = 999,
    seed: int = 0,
) -> tuple[float, float, tuple[Difference, ...]]:
    """p-value, effect and largest differences between a catalogue and held-out clusters.

    Args:
        features, whitened: (n, K); score: (n,); kind: classes of richness (n,), of the catalogue.
        held_out: the same four of the held-out clusters.
        names: of the features (K,).
        n_permutations: random choices; the smallest p-value is 1 / (n_permutations + 1).
        seed: of them.
    """
    ours, theirs = _columns(features, whitened, score), _columns(*held_out[:3])
    sums = np.zeros((n_permutations + 1, ours.shape[1]))
    variance = np.zeros(ours.shape[1])
    rng = np.random.default_rng(seed)
    for one in np.unique(kind):
        mine = ours[kind == one]
        pool = np.concatenate([mine, theirs[held_out[3] == one]])
        n, total = len(mine), len(pool)
        centred = (pool - pool.mean(axis=0)).astype(np.float32)
        sums[0] += centred[:n].sum(axis=0)
        # Of the sum of n drawn without replacement.
        variance += n * (total - n) / max(total - 1, 1) * pool.var(axis=0)
        if total > n:
            sums[1:] += _sums_of_choices(centred, n, n_permutations, rng)
    spread = np.sqrt(variance)
    standard = np.where(spread > 1e-9, sums / np.maximum(spread, 1e-9), 0.0)
    largest = np.abs(standard).max(axis=1)
    null = np.sort(largest[1:])

    def p_of(value: float) -> float:
        # Sums in single precision: equal choices of clusters must count as equal.
        return float((1 + null.size - np.searchsorted(null, value - 1e-4, side="left")) / (null.size + 1))

    shifts = sums[0] / len(ours)
    shown = np.array([p_of(float(abs(value))) <= ALARM for value in standard[0]])
    effect = float(np.abs(shifts[shown]).max(initial=0.0))
    differences = []
    for column in np.argsort(-np.abs(standard[0]))[:3]:
        name, sort = _name(int(column), names)
        shift = float(shifts[column])
        differences.append(Difference(name, sort, shift, p_of(float(abs(standard[0, column])))))
    return p_of(float(largest[0])), effect, tuple(differences)


def _sums_of_choices(
    values: npt.NDArray[np.float32], n: int, n_choices: int, rng: np.random.Generator
) -> FloatArray:
    """Sums (n_choices, c) over n rows of values (m, c), chosen at random without replacement."""
    keys = rng.random((n_choices, len(values)), dtype=np.float32)
    chosen = np.argpartition(keys, n - 1, axis=1)[:, :n]
    if n_choices * n * values.shape[1] <= _GATHERED:
        return np.asarray(values[chosen].sum(axis=1), dtype=np.float64)
    indicator = np.zeros(keys.shape, dtype=np.float32)
    np.put_along_axis(indicator, chosen, 1.0, axis=1)
    return np.asarray(indicator @ values, dtype=np.float64)


def _columns(features: FloatArray, whitened: FloatArray, score: FloatArray) -> FloatArray:
    bounded = np.clip(features, -_LIMIT, _LIMIT)
    return np.concatenate(
        [
            bounded,
            np.clip(features**2, 0.0, _LIMIT**2),
            np.clip(whitened, -_LIMIT, _LIMIT),
            np.clip(score, -_LIMIT, _LIMIT)[:, None],
        ],
        axis=1,
    )


def _name(column: int, names: Sequence[str]) -> tuple[str, str]:
    block, place = divmod(column, len(names))
    if block == 0:
        return names[place], "mean"
    if block == 1:
        return names[place], "spread"
    return ("a combination of summaries" if block == 2 else "the strangeness of single clusters"), "mean"
