"""How many lines of sight each halo of a box gets, so that masses are flat in the catalogue."""

from __future__ import annotations

import numpy as np

from bayesflowmass.common.arrays import FloatArray, IntArray

_BIN_WIDTH = 0.1
_FEWEST_IN_BIN = 8


def flat_lines(
    log10_mass: FloatArray, volume: float, target_density: float, max_lines: int, seed: int
) -> IntArray:
    """Lines of sight (n,) of each host, for ``10**target_density`` of them per dex and (Mpc/h)^3.

    Expected numbers (`flattening_weights`) are rounded up or down by systematic sampling along mass, so that
    every interval of mass holds its share to within one line: hosts of common mass get one line in few of them,
    rare hosts get many.

    Args:
        log10_mass: (n,) masses of all hosts in the range.
        volume: of the box [(Mpc/h)^3].
        target_density: log10 of the lines per dex and (Mpc/h)^3.
        max_lines: most lines of one host.
        seed: of the rounding.
    """
    expected = flattening_weights(log10_mass, 10.0**target_density * volume, max_lines)
    order = np.argsort(log10_mass, kind="stable")
    upper = np.cumsum(expected[order]) + np.random.default_rng([seed, 0]).random()
    whole = np.floor(upper).astype(np.int64)
    result = np.zeros(log10_mass.size, dtype=np.int64)
    result[order] = np.diff(whole, prepend=np.int64(0))
    return np.minimum(result, max_lines)


def flattening_weights(log10_mass: FloatArray, lines_per_dex: float, max_lines: int) -> FloatArray:
    """Expected lines (n,) of each host: wanted density over that of the hosts of its mass, at most max_lines.

    The density of hosts is log-linear between the bins of `mass_bins`, and the weights of a bin are scaled so
    that it gets what it should exactly (unless max_lines forbids).
    """
    edges, counts = mass_bins(log10_mass)
    widths = np.diff(edges)
    log_density = np.log(counts / widths)
    if widths.size == 1:
        density = np.full(log10_mass.size, float(counts[0] / widths[0]))
    else:
        centres = 0.5 * (edges[1:] + edges[:-1])
        piece = np.clip(np.searchsorted(centres, log10_mass) - 1, 0, centres.size - 2)
        slope = np.diff(log_density) / np.diff(centres)
        density = np.exp(log_density[piece] + slope[piece] * (log10_mass - centres[piece]))
    weights = lines_per_dex / density
    bins = np.clip(np.searchsorted(edges, log10_mass, side="right") - 1, 0, widths.size - 1)
    given = np.bincount(bins, weights, widths.size)
    weights *= (lines_per_dex * widths / given)[bins]
    return np.minimum(weights, float(max_lines))


def mass_bins(log10_mass: FloatArray) -> tuple[FloatArray, IntArray]:
    """Edges (k + 1,) of bins of about 0.1 dex from the smallest to the largest mass, and the hosts in each (k,).

    Bins with fewer than eight hosts are joined with the next one below (the lowest with the one above).

    Raises:
        ValueError: if all masses are equal.
    """
    low, high = float(log10_mass.min()), float(log10_mass.max())
    if not low < high:
        raise ValueError(
            f"all {log10_mass.size} hosts have log10_mass {low:g}; a flat distribution needs a range of masses."
        )
    edges = list(np.linspace(low, high, max(1, round((high - low) / _BIN_WIDTH)) + 1))
    counts = [int(n) for n in np.histogram(log10_mass, edges)[0]]
    index = len(counts) - 1
    while index >= 0 and len(counts) > 1:
        if counts[index] < _FEWEST_IN_BIN:
            lower = index - 1 if index > 0 else 0
            counts[lower : lower + 2] = [counts[lower] + counts[lower + 1]]
            del edges[lower + 1]
        index -= 1
    return np.asarray(edges), np.asarray(counts, dtype=np.int64)
