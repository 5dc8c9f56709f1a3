"""Masses of the box's clusters by a shipped model, and what the galaxies beyond R_vir alone do to them.

The members of a mesh are too slow, so that masses of the box's clusters are low whatever its surroundings are. The
surroundings are judged by swaps: members of a mock cluster with the galaxies beyond R_vir of the box's cluster of the
same mass, beside the same members with those of another mock cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluation import posterior_columns
from bayesflowmass.mocks import MockParameters, simulate_catalog
from bayesflowmass.selection import completeness
from benchmarks.nbody_judge.comparison import Measured, with_errors
from benchmarks.nbody_judge.samples import LINES, R_MAX, Clusters
from benchmarks.shift import told

__all__ = ["judge_masses", "like_masses", "mass_table", "swapped"]

PRESET, MODE = "sky", "survey"
SHARES = (1.0, 0.25)
"""Shares of the galaxies that are seen."""
CASES: Mapping[str, str] = {
    "box": "box, as it is",
    "mock": "mocks, as they are",
    "mock, mock": "mocks, surroundings of another mock",
    "mock, box": "mocks, surroundings of the box",
    "box, mock": "box, surroundings of a mock",
}
"""Catalogues, named by whose members and whose surroundings they hold."""
SWAPS = (("mock, box", "mock, mock"), ("box", "box, mock"))
"""The same members with the box's surroundings, less with those of a mock."""


def swapped(inner: ClusterCatalog, outer: ClusterCatalog) -> ClusterCatalog:
    """Row by row, the galaxies inside R_vir of one catalogue with those beyond R_vir of another."""
    inner = inner.filter_galaxies(np.asarray(inner.galaxies("gal_is_member")))
    outer = outer.filter_galaxies(~np.asarray(outer.galaxies("gal_is_member")))
    row = np.concatenate([inner.galaxy_rows, outer.galaxy_rows])
    order = np.argsort(row, kind="stable")
    galaxies = {
        name: np.concatenate([inner.galaxies(name), outer.galaxies(name)])[order]
        for name in ("x", "y", "v_los", "gal_is_member")
    }
    clusters = {name: inner.column(name) for name in ("redshift", "log10_mass")}
    clusters["cluster_id"] = np.arange(len(inner))
    number = np.bincount(row, minlength=len(inner))
    return ClusterCatalog.from_arrays(clusters, galaxies, number, inner.metadata)


def like_masses(mass: FloatArray, projection: IntArray, masses: FloatArray) -> tuple[IntArray, IntArray]:
    """Rows of two mocks, of a mass like that of each line of sight; no two lines of a cluster share one."""
    order = np.argsort(masses, kind="stable")
    first = np.searchsorted(masses[order], mass) - LINES + 2 * projection
    first = np.clip(first, 2 * projection, masses.size - 2 * (LINES - projection))
    return order[first], order[first + 1]


def judge_masses(
    estimator: MassEstimator, box: Path, clusters: Clusters, n_mocks: int, seed: int
) -> dict[float, dict[str, Measured]]:
    """For each share of galaxies seen and each of `CASES`: mean number, bias, scatter, coverage at 68 and 95 %.

    Args:
        box: catalogue of the box's clusters in mode ``survey``, thinned as the preset ``sky``.
        n_mocks: mock clusters of these masses, each seen once.
    """
    seen = ClusterCatalog.read(box)
    mocks = simulate_catalog(
        n_mocks,
        masses="hmf",
        log10_mass_range=clusters.masses,
        mode=MODE,
        redshift=clusters.redshift,
        parameters=MockParameters.preset(PRESET),
        r_max=R_MAX,
        v_max=clusters.v_max,
        min_galaxies=3,
        seed=seed,
    )
    mass = np.asarray(seen.column("log10_mass"), dtype=np.float64)
    lines = np.asarray(seen.column("projection"), dtype=np.int64)
    mine, other = (
        mocks[rows] for rows in like_masses(mass, lines, np.asarray(mocks.column("log10_mass"), float))
    )
    halo = np.unique(np.asarray(seen.column("halo_id")), return_inverse=True)[1]
    result = {}
    for share in SHARES:
        # Before the swaps, so that these compare the same members.
        box_seen, mock, another = (completeness(one, share, seed) for one in (seen, mine, other))
        catalogues = {
            "box": swapped(box_seen, box_seen),
            "mock": swapped(mock, mock),
            "mock, mock": swapped(mock, another),
            "mock, box": swapped(mock, box_seen),
            "box, mock": swapped(box_seen, another),
        }
        result[share] = _measure(estimator, catalogues, halo, share, seed)
    return result


def _measure(
    estimator: MassEstimator,
    catalogues: Mapping[str, ClusterCatalog],
    halo: IntArray,
    share: float,
    seed: int,
) -> dict[str, Measured]:
    """Of all cases, and of the swaps; a line of sight without a mass in some case is left out of all."""
    columns = {"median": lambda p, _: p.median, "pit": lambda p, part: p.cdf(part.column("log10_mass"))}
    found = {}
    for name, whole in catalogues.items():
        catalog = told(estimator, whole, mode=MODE, completeness=share)
        found[name] = posterior_columns(estimator, catalog, columns, seed=seed)
        found[name]["residual"] = found[name]["median"] - np.asarray(catalog.column("log10_mass"), float)
        found[name]["n"] = catalog.n_galaxies.astype(np.float64)
    usable = np.isfinite([one["residual"] for one in found.values()]).all(axis=0)
    n = int(halo.max()) + 1

    def means(values: Sequence[FloatArray]) -> Measured:
        sums = [np.bincount(halo[usable], one[usable], n) for one in (np.ones(halo.size), *values)]
        return with_errors(lambda w: np.array([w @ one / (w @ sums[0]) for one in sums[1:]]), n)

    result = {}
    for name, one in found.items():
        inside = [(np.abs(one["pit"] - 0.5) < 0.5 * level).astype(float) for level in (0.68, 0.95)]
        measured = means([one["n"], one["residual"], one["residual"] ** 2, *inside])
        scatter = np.sqrt(measured.value[2] - measured.value[1] ** 2)
        error = measured.error.copy()
        error[2] /= 2.0 * scatter
        result[name] = Measured(np.r_[measured.value[:2], scatter, measured.value[3:]], error)
    for with_box, without in SWAPS:
        result[f"{with_box} - {without}"] = means([found[with_box]["residual"] - found[without]["residual"]])
    return result


def mass_table(results: Mapping[float, Mapping[str, Measured]]) -> str:
    """Markdown: a row for each share and case, then the swaps."""
    lines = [
        "| galaxies seen | clusters | galaxies of a cylinder | bias [dex] | scatter | in 68 % | in 95 % |"
    ]
    lines.append("|" + "---|" * 7)
    for share, cases in results.items():
        for name, text in CASES.items():
            value, error = cases[name].value, cases[name].error
            cells = [
                f"{value[0]:.1f}",
                f"{value[1]:+.3f} ± {error[1]:.3f}",
                f"{value[2]:.3f} ± {error[2]:.3f}",
            ]
            cells += [f"{100 * value[k]:.0f} ± {100 * error[k]:.0f}" for k in (3, 4)]
            lines.append(f"| {100 * share:.0f} % | {text} | " + " | ".join(cells) + " |")
    lines.append(
        "\nThe box's surroundings instead of a mock's move the masses of the same members, in dex, by:\n"
    )
    for share, cases in results.items():
        for (with_box, without), whose in zip(SWAPS, ("mocks' members", "the box's members"), strict=True):
            moved = cases[f"{with_box} - {without}"]
            seen = f"{100 * share:.0f} % of the galaxies"
            lines.append(f"- {seen}, {whose}: {moved.value[0]:+.3f} ± {moved.error[0]:.3f}.")
    return "\n".join(lines)
