"""Mock and sky agree about the method: the same virial estimator beside ours, on SDSS clusters and on mocks cut alike.

Clusters are chosen by their number of galaxies alone. What is compared needs no true mass: D = log10 M_virial - log10 M
(ours, the posterior median) on the sky and on the mocks, its median, scatter and pull D / sigma (ours), with bootstrap
errors over clusters. The mocks follow the mass function and have what the survey has by its own description:

* the preset `sky`, galaxies brighter than the volume limit, M_r - 5 log10 h = -20.09 (Pan et al. 2012);
* fibre collisions: of galaxies closer than 55 arcsec one has no redshift, but for the third of them where plates
  overlap (Blanton et al. 2003, AJ 125, 2276; Strauss et al. 2002, AJ 124, 1810); and 3 % lost to collisions with
  galaxies outside the cylinder;
* redshift errors of 30 km/s, centres off by 0.1 Mpc/h along each axis and 150 km/s, as two catalogues of the same
  clusters differ (1.5-4 arcmin, 80-305 km/s);
* the redshifts of the sky's clusters.

Centres and velocity centres are then found again on both by one function (`selection.recentre`), and a cluster whose
centre runs away by more than 0.4 Mpc/h or 500 km/s, or whose cylinder has a richer peak elsewhere (more than a quarter
more galaxies within 0.5 Mpc/h and 1000 km/s of one of them), is left out of both: a catalogue of clusters lists the
neighbour, and the mass function is full of groups beside clusters.

No number here was adjusted to a mass, or to D.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree
from scipy.stats import spearmanr

from bayesflowmass.baselines.dynamical import dynamical_mass, without_interlopers
from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.cosmology import transverse_mpc_h_per_radian
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.infer import infer
from bayesflowmass.io import load_catalog
from bayesflowmass.mocks import MockParameters, simulate_catalog
from bayesflowmass.selection import (
    completeness,
    cylinder,
    magnitude_limit,
    miscentre,
    recentre,
    richness_limits,
    velocity_errors,
)

LEAST = 20
MAGNITUDE = -20.09
COLLISION_ARCSEC, RESOLVED = 55.0, 1.0 / 3.0
OTHER_LOSSES = 0.97
VELOCITY_ERROR = 30.0
MISCENTRE_R, MISCENTRE_V = 0.1, 150.0
WIDE_R, WIDE_V = 2.0, 3000.0
RUN_AWAY_R, RUN_AWAY_V = 0.4, 500.0
PEAK_R, PEAK_V, PEAK_SHARE = 0.5, 1000.0, 0.8
MOCK_MASSES = (13.0, 15.6)
# Of all magnitudes, in the wider cylinder: of 196 mocks with twenty bright ones the poorest had 72.
LEAST_OF_ALL = 70
MOST = 800
RESAMPLES = 1000


def sky_clusters(
    estimator: MassEstimator, galaxies: Path, clusters: Path, *, again: bool = True
) -> ClusterCatalog:
    """The SDSS clusters with at least `LEAST` galaxies in the cylinder of the model; ``again``: centres found again."""
    info = estimator.training_info
    wide = load_catalog(
        galaxies,
        clusters,
        {"cluster_id": "ClID"},
        r_max=WIDE_R,
        v_max=WIDE_V,
        cosmology=info.cosmology,
        few_galaxies="keep",
    )
    return centred_again(wide, estimator) if again else as_given(wide, estimator)


def as_given(wide: ClusterCatalog, estimator: MassEstimator) -> ClusterCatalog:
    """The cylinder of the model about the given centres, and the clusters with enough galaxies."""
    selection = estimator.training_info.selection
    inside = cylinder(wide, float(selection["r_max"]), float(selection["v_max"]))
    zero = np.zeros(len(inside))
    return richness_limits(inside.with_columns(moved_r=zero, moved_v=zero), LEAST)


def centred_again(wide: ClusterCatalog, estimator: MassEstimator) -> ClusterCatalog:
    """Centres found again, the cylinder of the model about them, and the clusters left with enough galaxies."""
    selection = estimator.training_info.selection
    wide = wide.filter(wide.n_galaxies >= LEAST)
    found = recentre(wide)
    moved = np.stack([found.column(f"offset_{axis}") for axis in "xyv"])
    if wide.has("offset_x"):
        moved -= np.stack([wide.column(f"offset_{axis}") for axis in "xyv"])
    stayed = (np.hypot(moved[0], moved[1]) < RUN_AWAY_R) & (np.abs(moved[2]) < RUN_AWAY_V)
    stayed &= is_peak(found)
    found = found.with_columns(moved_r=np.hypot(moved[0], moved[1]), moved_v=moved[2]).filter(stayed)
    return richness_limits(cylinder(found, float(selection["r_max"]), float(selection["v_max"])), LEAST)


def is_peak(catalog: ClusterCatalog) -> np.ndarray:
    """Whether no galaxy of a cluster has many more neighbours than its centre (n,)."""
    rows = catalog.galaxy_rows

    def place(x: np.ndarray, y: np.ndarray, v: np.ndarray, row: np.ndarray) -> np.ndarray:
        return np.stack([x / PEAK_R, y / PEAK_R, v / PEAK_V, 1e3 * row], axis=-1).astype(np.float64)

    galaxies = place(catalog.galaxies("x"), catalog.galaxies("y"), catalog.galaxies("v_los"), rows)
    zero = np.zeros(len(catalog))
    tree = cKDTree(galaxies)
    around = tree.query_ball_point(galaxies, 1.0, return_length=True)
    centre = tree.query_ball_point(place(zero, zero, zero, np.arange(len(catalog))), 1.0, return_length=True)
    highest = np.zeros(len(catalog))
    np.maximum.at(highest, rows, around)
    return centre >= PEAK_SHARE * highest


def mock_survey(
    estimator: MassEstimator, n: int, redshifts: np.ndarray, seed: int, masses: str = "hmf"
) -> ClusterCatalog:
    """Mocks as the survey would have seen them, wider than the cylinder of the model.

    Args:
        estimator: gives the cosmology.
        n: clusters simulated; a tenth of them have enough bright galaxies.
        redshifts: of the clusters of the sky.
        seed: of everything.
        masses: "hmf", or "flat" to fit baselines on.
    """
    rng = np.random.default_rng(seed)
    wide = simulate_catalog(
        n,
        masses=masses,
        log10_mass_range=MOCK_MASSES,
        mode="survey",
        redshift=(float(redshifts.min()), float(redshifts.max())),
        r_max=WIDE_R + 4.0 * MISCENTRE_R,
        v_max=WIDE_V + 500.0,
        min_galaxies=LEAST_OF_ALL,
        magnitudes=True,
        parameters=MockParameters.preset("sky"),
        cosmology=estimator.training_info.cosmology,
        seed=seed,
    )
    # Thinned before what takes time.
    bright = richness_limits(magnitude_limit(wide, MAGNITUDE), LEAST)
    seen = completeness(fibre_collisions(bright, rng), OTHER_LOSSES, rng)
    seen = miscentre(seen, MISCENTRE_R, MISCENTRE_V, rng, r_max=WIDE_R, v_max=WIDE_V + 100.0)
    return cylinder(velocity_errors(seen, VELOCITY_ERROR, rng), WIDE_R, WIDE_V)


def mock_clusters(
    survey: ClusterCatalog, estimator: MassEstimator, redshifts: np.ndarray, seed: int, *, again: bool
) -> ClusterCatalog:
    """The mocks of a survey that are chosen as the sky's clusters are, at their redshifts; `MOST` at most."""
    chosen = centred_again(survey, estimator) if again else as_given(survey, estimator)
    rng = np.random.default_rng(seed)
    return chosen.filter(like_redshifts(chosen.column("redshift"), redshifts, rng))[:MOST]


def fibre_collisions(catalog: ClusterCatalog, rng: np.random.Generator) -> ClusterCatalog:
    """Galaxies that keep their fibre: none within `COLLISION_ARCSEC` of another, but for a share `RESOLVED`."""
    scale = transverse_mpc_h_per_radian(catalog.column("redshift"), catalog.metadata.cosmology)
    angle = np.degrees(1.0 / scale)[catalog.galaxy_rows] * 3600.0
    points = np.stack(
        [catalog.galaxies("x") * angle, catalog.galaxies("y") * angle, catalog.galaxy_rows * 1e5], axis=-1
    )
    pairs = cKDTree(points).query_pairs(COLLISION_ARCSEC, output_type="ndarray")
    order = rng.permutation(catalog.n_galaxies_total)
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    # Galaxies get fibres in a random order; one that has lost its fibre takes none from others.
    first = np.where(rank[pairs[:, 0]] < rank[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
    second = pairs.sum(axis=1) - first
    lost = np.zeros(order.size, dtype=bool)
    for k in np.lexsort((rank[first], rank[second])):
        if not lost[first[k]]:
            lost[second[k]] = True
    lost &= rng.random(order.size) >= RESOLVED
    return catalog.filter_galaxies(~lost)


def like_redshifts(z: np.ndarray, wanted: np.ndarray, rng: np.random.Generator, bins: int = 6) -> np.ndarray:
    """Mask that thins redshifts to the distribution of others, by bins of equal numbers of the latter."""
    edges = np.quantile(wanted, np.linspace(0.0, 1.0, bins + 1))
    inside = (z >= edges[0]) & (z <= edges[-1])
    bin_of = np.clip(np.searchsorted(edges, z, side="right") - 1, 0, bins - 1)
    there = np.bincount(bin_of[inside], minlength=bins)
    keep = there.min() / np.maximum(there, 1)
    return inside & (rng.random(z.size) < keep[bin_of])


def measured(estimator: MassEstimator, catalog: ClusterCatalog) -> dict[str, np.ndarray]:
    """Ours and the virial mass of each cluster, and what the galaxies look like without a mass."""
    table = infer(estimator, catalog)
    clean = without_interlopers(catalog)
    sigma = np.sqrt(
        np.bincount(clean.galaxy_rows, clean.galaxies("v_los") ** 2, len(clean))
        / np.maximum(clean.n_galaxies - 1, 1)
    )
    inner = np.bincount(catalog.galaxy_rows, catalog.r_proj < 0.5, len(catalog))
    return {
        "ours": np.asarray(table["log10_mass"], dtype=np.float64),
        "sigma": np.asarray(table["sigma"], dtype=np.float64),
        "virial": dynamical_mass(clean, "virial"),
        "n": catalog.n_galaxies.astype(np.float64),
        "dispersion": sigma,
        "outside_envelope": 1.0 - clean.n_galaxies / catalog.n_galaxies,
        "inner_share": inner / catalog.n_galaxies,
        "fast_share": np.bincount(
            catalog.galaxy_rows, np.abs(catalog.galaxies("v_los")) > 1500.0, len(catalog)
        )
        / catalog.n_galaxies,
        "moved_r": np.asarray(catalog.column("moved_r"), dtype=np.float64),
        "moved_v": np.asarray(catalog.column("moved_v"), dtype=np.float64),
        "redshift": np.asarray(catalog.column("redshift"), dtype=np.float64),
    }


def robust(values: np.ndarray) -> dict[str, float]:
    """Median, half the 16-84 % range, standard deviation."""
    low, middle, high = np.quantile(values, [0.16, 0.5, 0.84])
    return {
        "median": float(middle),
        "scatter_16_84": float(0.5 * (high - low)),
        "scatter": float(values.std(ddof=1)),
    }


def difference(sample: dict[str, np.ndarray]) -> dict[str, float]:
    """Statistics of virial minus ours."""
    d = sample["virial"] - sample["ours"]
    pull = d / sample["sigma"]
    return robust(d) | {f"pull_{name}": value for name, value in robust(pull).items() if name != "scatter"}


def bootstrap(
    sample: dict[str, np.ndarray], statistic: Any, seed: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Values of a statistic of a sample, and their standard errors over clusters."""
    rng = np.random.default_rng(seed)
    n = len(sample["ours"])
    draws = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(0, n, n)
        draws.append(statistic({name: values[chosen] for name, values in sample.items()}))
    return statistic(sample), {name: float(np.std([d[name] for d in draws])) for name in draws[0]}


def agreement(sky: dict[str, np.ndarray], mock: dict[str, np.ndarray], seed: int) -> list[dict[str, Any]]:
    """Each statistic on the sky and on the mocks, their difference in units of its error, and the verdict.

    Two standard errors is agreement; so many statistics of two samples from one population are all within that in
    about four cases of five.
    """
    here, here_error = bootstrap(sky, difference, seed)
    there, there_error = bootstrap(mock, difference, seed + 1)
    rows = []
    for name in here:
        error = float(np.hypot(here_error[name], there_error[name]))
        z = (here[name] - there[name]) / error
        rows.append(
            {
                "statistic": name,
                "sky": here[name],
                "sky_error": here_error[name],
                "mock": there[name],
                "mock_error": there_error[name],
                "difference_in_errors": z,
                "agrees": bool(abs(z) < 2.0),
            }
        )
    return rows


def looks(sky: dict[str, np.ndarray], mock: dict[str, np.ndarray], seed: int) -> list[dict[str, Any]]:
    """Medians of what galaxies look like, without any mass: where sky and mock differ, the mock is wrong."""
    names = ("n", "dispersion", "outside_envelope", "inner_share", "fast_share", "ours", "virial")

    def statistic(sample: dict[str, np.ndarray]) -> dict[str, float]:
        result = {name: float(np.median(sample[name])) for name in names}
        # A median share of small numbers takes few values; its mean does not.
        result |= {
            name: float(np.mean(sample[name])) for name in names if name.endswith(("share", "envelope"))
        }
        slope = np.polyfit(np.log10(sample["n"]), np.log10(sample["dispersion"]), 1)
        result["log10_dispersion_at_30_galaxies"] = float(np.polyval(slope, np.log10(30.0)))
        result["moved_r"] = float(np.median(sample["moved_r"]))
        result["rms_moved_v"] = float(1.4826 * np.median(np.abs(sample["moved_v"])))
        return result

    here, here_error = bootstrap(sky, statistic, seed)
    there, there_error = bootstrap(mock, statistic, seed + 1)
    return [
        {
            "quantity": name,
            "sky": here[name],
            "sky_error": here_error[name],
            "mock": there[name],
            "mock_error": there_error[name],
            "difference_in_errors": (here[name] - there[name])
            / float(np.hypot(here_error[name], there_error[name])),
        }
        for name in here
    ]


def trends(residual: np.ndarray, against: dict[str, np.ndarray], seed: int) -> list[dict[str, Any]]:
    """Slope of a residual [dex] on each quantity, with its bootstrap error, and Spearman's rank correlation."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, residual.size, (RESAMPLES, residual.size))
    rows = []
    for name, values in against.items():
        slope = np.polyfit(values, residual, 1)[0]
        draws = [np.polyfit(values[p], residual[p], 1)[0] for p in picks if np.ptp(values[p]) > 0.0]
        rank = spearmanr(values, residual)
        rows.append(
            {
                "against": name,
                "slope": float(slope),
                "error": float(np.std(draws)),
                "spearman": float(rank.statistic),
                "p": float(rank.pvalue),
            }
        )
    return rows
