"""The caustic technique of Diaferio (1999, MNRAS 309, 610) for clusters of known centre.

As Serra et al. (2011, MNRAS 412, 800) carry it out: an adaptive kernel density of (R, v), its smoothing by
least-squares cross-validation, the level at which the mean square of the escape speed inside <R> is four times that of
the velocities, and a bound on the slope of the amplitude A(R). The galaxies that <R> and <v^2> are taken from are
those inside 2.7 sigma(R) (`remove_interlopers`) and not those of a binary tree. ``causticsnupy`` 1.0.4 does the same
with the tree; it needs a numpy before 2.4, so it is not called here.
"""

from __future__ import annotations

import numpy as np

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.arrays import BoolArray, FloatArray

_Q = 25.0
"""Kernels are this much wider in velocity than in H0 R."""
_STEEPEST, _REPLACED = 2.0, 0.25
"""Largest d ln A / d ln R, and what takes its place."""
_SMOOTHINGS = np.geomspace(0.08, 2.0, 20)
_LEVELS = np.geomspace(1e-3, 1.0, 200)
_R_NODES, _V_NODES = 41, 81


def kernel_density(x: FloatArray, y: FloatArray, at: FloatArray, width: FloatArray) -> FloatArray:
    """Triweight kernels of widths (n,) at galaxies x, y (n,), mirrored at x = 0: at points (m, 2), (m,)."""
    total = np.zeros(len(at))
    for sign in (1.0, -1.0):
        square = (at[:, :1] - sign * x) ** 2 + (at[:, 1:] - y) ** 2
        total += (np.maximum(1.0 - square / width**2, 0.0) ** 3 / width**2).sum(1)
    return 4.0 / np.pi * total / (2 * len(x))


def widths(x: FloatArray, y: FloatArray) -> FloatArray:
    """Widths (n,) of adaptive kernels, the smoothing chosen by least-squares cross-validation."""
    own = np.stack([x, y], 1)
    optimal = 6.24 * len(x) ** (-1 / 6) * np.sqrt(0.5 * (x.var() + y.var()))
    pilot = kernel_density(x, y, own, np.full(len(x), optimal))
    local = optimal * np.sqrt(np.exp(np.log(pilot).mean()) / pilot)
    best, least = local, np.inf
    for smoothing in _SMOOTHINGS:
        width = smoothing * local
        axes = (
            np.linspace(0.0, (x + width).max(), _R_NODES),
            np.linspace((y - width).min(), (y + width).max(), _V_NODES),
        )
        mesh = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], 1)
        square = kernel_density(x, y, mesh, width).reshape(_R_NODES, _V_NODES) ** 2
        integral = np.trapezoid(np.trapezoid(square, axes[1]), axes[0])
        # Without the galaxy itself, whose kernel has its peak there.
        others = kernel_density(x, y, own, width) - 4.0 / np.pi / width**2 / (2 * len(x))
        loss = integral - 2.0 * others.mean() * len(x) / (len(x) - 1)
        if loss < least:
            best, least = width, loss
    return best


def bounded(amplitude: FloatArray, r: FloatArray) -> FloatArray:
    """Amplitudes (levels, nodes) that end at their first zero and do not rise faster than they may."""
    result = amplitude * np.cumprod(amplitude > 0.0, axis=1)
    for i in range(1, len(r) - 1):
        here, there = result[:, i], result[:, i + 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = r[i] / here * (there - here) / (r[i + 1] - r[i])
        steep = (here > 0.0) & (there > 0.0) & (slope > _STEEPEST)
        result[:, i + 1] = np.where(steep, here * (r[i + 1] / r[i]) ** _REPLACED, there)
    return result


def amplitude(r: FloatArray, v: FloatArray, chosen: BoolArray, r_max: float, v_max: float) -> FloatArray:
    """A [km/s] at each galaxy of a cluster.

    Args:
        r: proper distances from the centre [Mpc/h].
        v: velocities about that of the cluster [km/s].
        chosen: galaxies that <R> and <v^2> are taken from.
        r_max, v_max: limits of the density.
    """
    nodes, speeds = np.linspace(0.0, r_max, _R_NODES), np.linspace(0.0, v_max, _V_NODES)
    x, y = 100.0 * r, v / _Q
    width = widths(x, y)
    sides = []
    for sign in (1.0, -1.0):
        mesh = np.stack(
            [axis.ravel() for axis in np.meshgrid(100.0 * nodes, sign * speeds / _Q, indexing="ij")], 1
        )
        sides.append(kernel_density(x, y, mesh, width).reshape(_R_NODES, _V_NODES))
    # The contour nearest to v = 0, of both sides: where the smaller of the two first falls below the level.
    falling = np.minimum.accumulate(np.minimum(*sides), axis=1)
    inside = np.zeros_like(falling)
    inside[:, 1:] = np.cumsum(0.5 * np.diff(speeds) * (sum(sides)[:, 1:] + sum(sides)[:, :-1]), axis=1)
    levels = falling.max() * _LEVELS
    found = np.stack([np.interp(-levels, -line, speeds, left=0.0, right=v_max) for line in falling], axis=1)
    found = bounded(found, nodes)
    weight = np.stack([np.interp(found[:, i], speeds, inside[i]) for i in range(_R_NODES)], axis=1)
    near = nodes <= max(r[chosen].mean(), nodes[2])
    total = weight[:, near].sum(1)
    escape = (found**2 * weight)[:, near].sum(1) / np.where(total > 0.0, total, np.inf)
    level = np.argmin(np.where(total > 0.0, np.abs(escape - 4.0 * np.mean(v[chosen] ** 2)), np.inf))
    return np.interp(r, nodes, found[level])


def caustic_amplitudes(catalog: ClusterCatalog, kept: BoolArray) -> FloatArray:
    """A [km/s] at each galaxy of a catalogue (n_galaxies_total,).

    Args:
        catalog: clusters with velocities about their own.
        kept: galaxies that <R> and <v^2> are taken from.
    """
    result = np.zeros(catalog.n_galaxies_total)
    proper = 1.0 + np.asarray(catalog.column("redshift"), dtype=np.float64)
    v = np.asarray(catalog.galaxies("v_los"), dtype=np.float64)
    r_max, v_max = (float(catalog.metadata.selection[name]) for name in ("r_max", "v_max"))
    for row in range(len(catalog)):
        part = slice(*catalog.offsets[row : row + 2])
        radius = np.asarray(catalog.r_proj[part], dtype=np.float64) / proper[row]
        result[part] = amplitude(radius, v[part], kept[part], r_max / proper[row], v_max)
    return result
