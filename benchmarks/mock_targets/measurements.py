"""What is measured on mock catalogues to compare them with published numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.cosmology import MDPL2, velocity_dispersion_evrard
from bayesflowmass.mocks.background import Background
from bayesflowmass.mocks.catalog_builder import simulate_catalog
from bayesflowmass.mocks.halos import draw_halos
from bayesflowmass.mocks.infall import radius_200m
from bayesflowmass.mocks.members import Shapes, cluster_galaxies
from bayesflowmass.mocks.parameters import MockParameters
from bayesflowmass.mocks.profile import RadialTables
from bayesflowmass.mocks.shapes import draw_axes, velocity_axes

__all__ = [
    "DispersionRelation",
    "ErrorDistribution",
    "dispersion_relation",
    "log10_dispersion",
    "mass_errors",
    "measure_bulk",
    "measure_interlopers",
    "measure_orientation",
]

FloatArray = NDArray[np.float64]

_REDSHIFT = 0.117


def log10_dispersion(catalog: ClusterCatalog) -> FloatArray:
    """log10 of the standard deviation (ddof = 1) of v_los [km/s] of each cluster."""
    n = catalog.n_galaxies
    row = np.repeat(np.arange(n.size), n)
    v = catalog.galaxies("v_los").astype(np.float64)
    mean = np.bincount(row, v, n.size) / n
    variance = np.bincount(row, (v - mean[row]) ** 2, n.size) / (n - 1)
    return np.asarray(0.5 * np.log10(variance))


@dataclass(frozen=True)
class DispersionRelation:
    """log10 sigma_v = value + slope (log10 M200c - 15), with the scatter about it [dex]."""

    slope: float
    value: float
    scatter: float


@dataclass(frozen=True)
class ErrorDistribution:
    """Errors log10(predicted / true) of masses from an inverted relation.

    Attributes:
        scatter: their standard deviation; scatter_sigma: the same in log10 sigma_v.
        mean, median: of the errors.
        low, high: 16th and 84th percentile about the median.
    """

    scatter: float
    scatter_sigma: float
    mean: float
    median: float
    low: float
    high: float


def dispersion_relation(catalog: ClusterCatalog) -> DispersionRelation:
    """Least-squares line of log10 sigma_v on log10 M200c - 15."""
    x = catalog.column("log10_mass") - 15.0
    y = log10_dispersion(catalog)
    slope, value = np.polyfit(x, y, 1)
    return DispersionRelation(float(slope), float(value), float(np.std(y - slope * x - value)))


def mass_errors(catalog: ClusterCatalog, relation: DispersionRelation) -> ErrorDistribution:
    """Errors of the masses that the inverted relation gives to the clusters of a catalogue."""
    predicted = (log10_dispersion(catalog) - relation.value) / relation.slope + 15.0
    error = predicted - catalog.column("log10_mass")
    median = float(np.median(error))
    low, high = np.percentile(error, [16.0, 84.0]) - median
    scatter = float(np.std(error))
    return ErrorDistribution(
        scatter, scatter * relation.slope, float(np.mean(error)), median, float(low), float(high)
    )


def measure_bulk(parameters: MockParameters, n_halos: int, seed: int) -> dict[str, float]:
    """Dispersion against Evrard et al. (2008) and axis ratios of rich haloes, in three dimensions.

    Returns:
        evrard_ratio: mean 1-D dispersion inside r200c of a tracer like dark matter (no velocity bias, the
            same concentration), over that of Evrard et al., at log10 M200c = 14-15;
        space_axis_ratio: mean of (b + c) / 2a of the galaxy density, its scatter in space_axis_ratio_scatter;
        velocity_axis_ratio: mean of (b + c) / 2a of the velocity tensor of the members.
    """
    rng = np.random.default_rng([seed, 1])
    rich = parameters.replace(richness_at_1e14=200.0)
    tracer = rich.replace(galaxy_concentration_ratio=1.0, velocity_bias=1.0, velocity_bias_host_slope=0.0)
    log10_mass = rng.uniform(14.0, 15.0, n_halos)
    redshift = np.full(n_halos, _REDSHIFT)
    background = Background(parameters, MDPL2, (_REDSHIFT, _REDSHIFT), (14.0, 15.0))
    axes = draw_axes(n_halos, parameters, rng)
    shapes = Shapes(axes, velocity_axes(axes, parameters, rng))
    result: dict[str, float] = {}
    for name, chosen in (("tracer", tracer), ("galaxies", rich)):
        halos = draw_halos(log10_mass, redshift, chosen, background, MDPL2, rng)
        galaxies, _ = cluster_galaxies(
            halos,
            shapes,
            radius_200m(halos, MDPL2),
            RadialTables.build(chosen),
            chosen,
            background,
            rng,
            outskirts=False,
            central=False,
        )
        if name == "tracer":
            r = np.sqrt((galaxies.position**2).sum(axis=0))
            galaxies = galaxies.take(r < halos.r200c[galaxies.halo])
        tensor = _velocity_tensor(galaxies.halo, galaxies.velocity, n_halos)
        if name == "tracer":
            sigma = np.sqrt(np.trace(tensor, axis1=1, axis2=2) / 3.0)
            result["evrard_ratio"] = float(np.mean(sigma / velocity_dispersion_evrard(log10_mass, redshift)))
        else:
            length = np.sqrt(np.linalg.eigvalsh(tensor))
            result["velocity_axis_ratio"] = float(np.mean((length[:, 0] + length[:, 1]) / (2 * length[:, 2])))
    ratio = (axes[:, 1] + axes[:, 2]) / (2.0 * axes[:, 0])
    return result | {
        "space_axis_ratio": float(ratio.mean()),
        "space_axis_ratio_scatter": float(ratio.std()),
    }


def _velocity_tensor(halo: NDArray[np.int64], velocity: FloatArray, n: int) -> FloatArray:
    number = np.bincount(halo, minlength=n)
    mean = np.stack([np.bincount(halo, v, n) / number for v in velocity])
    offset = velocity - mean[:, halo]
    tensor = np.empty((n, 3, 3))
    for i in range(3):
        for j in range(3):
            tensor[:, i, j] = np.bincount(halo, offset[i] * offset[j], n) / (number - 1)
    return tensor


def measure_orientation(parameters: MockParameters, n_halos: int, seed: int) -> dict[str, float]:
    """Scatter of mass estimates over lines of sight, and what scatters together with orientation.

    Returns:
        orientation_mass_scatter: rms over lines of sight of ln(sigma_v) of the members of rich haloes, times
            1/0.336 (relative scatter of the mass);
        dispersion_angle, richness_angle, interlopers_angle: correlations over contaminated clusters (log10
            M200c = 14-14.5, effects of mass removed) of log10 sigma_v, ln galaxy count and interloper count
            with cos^2 of the angle between major axis and line of sight;
        dispersion_interlopers, dispersion_richness: correlations of log10 sigma_v with the other two.
    """
    n_projections = 12
    rich = parameters.replace(richness_at_1e14=200.0)
    views = simulate_catalog(
        n_halos * n_projections,
        log10_mass_range=(14.5, 15.0),
        kind="pure",
        n_projections=n_projections,
        parameters=rich,
        redshift=_REDSHIFT,
        seed=seed,
    )
    log_sigma = np.log(10.0) * log10_dispersion(views)
    each = np.unique(views.column("halo_id"), return_inverse=True)[1]
    number = np.bincount(each)
    mean = np.bincount(each, log_sigma) / number
    variance = np.sum((log_sigma - mean[each]) ** 2) / np.sum(number - 1)
    catalog = simulate_catalog(
        20 * n_halos,
        log10_mass_range=(14.0, 14.5),
        masses="hmf",
        parameters=parameters,
        redshift=_REDSHIFT,
        seed=seed + 1,
    )
    log10_mass = catalog.column("log10_mass")
    interlopers = catalog.n_galaxies - catalog.column("n_members")
    columns = {
        "dispersion": _without_trend(log10_dispersion(catalog), log10_mass),
        "richness": _without_trend(np.log(catalog.n_galaxies), log10_mass),
        "interlopers": _without_trend(np.log1p(interlopers), log10_mass),
        "angle": catalog.column("los_angle_cos") ** 2,
    }
    pairs = [
        ("dispersion", "angle"),
        ("richness", "angle"),
        ("interlopers", "angle"),
        ("dispersion", "interlopers"),
        ("dispersion", "richness"),
    ]
    result = {"orientation_mass_scatter": float(np.sqrt(variance) / 0.336)}
    for first, second in pairs:
        result[f"{first}_{second}"] = float(np.corrcoef(columns[first], columns[second])[0, 1])
    return result


def _without_trend(y: FloatArray, x: FloatArray) -> FloatArray:
    return np.asarray(y - np.polyval(np.polyfit(x, y, 1), x))


def measure_interlopers(parameters: MockParameters, n_clusters: int, seed: int) -> dict[str, float]:
    """Interlopers inside the projected virial radius, in velocity and in radius; paper mode, 14-15, hmf.

    Returns:
        before_cut, after_cut: share of interlopers (beyond R_vir in three dimensions) within the projected
            R_vir, |v| < 3500 km/s, and within 2.7 member dispersions of each cluster;
        before_cut_survey, after_cut_survey: the same with central galaxies;
        width: Gaussian width of interloper velocities [V200c], from a maximum-likelihood fit of a Gaussian
            plus a flat part within 4 V200c; flat_share: share of the flat part;
        radial_slope: d ln(surface density) / d ln R of the interlopers in the paper's cylinder.
    """
    result: dict[str, float] = {}
    for mode, suffix in (("paper", ""), ("survey", "_survey")):
        catalog = simulate_catalog(
            n_clusters,
            masses="hmf",
            log10_mass_range=(14.0, 15.0),
            mode=mode,  # type: ignore[arg-type]
            parameters=parameters,
            redshift=_REDSHIFT,
            r_max=2.2,
            v_max=3500.0,
            seed=seed,
        )
        n = len(catalog)
        row = np.repeat(np.arange(n), catalog.n_galaxies)
        inside = catalog.r_proj < catalog.column("r_vir")[row]
        v = catalog.galaxies("v_los").astype(np.float64)
        member = catalog.galaxies("gal_is_member")
        number = np.bincount(row[member], minlength=n)
        sigma = np.sqrt(np.bincount(row[member], v[member] ** 2, n) / np.maximum(number, 1))
        slow = inside & (np.abs(v) < 2.7 * sigma[row])
        result[f"before_cut{suffix}"] = float(1.0 - member[inside].mean())
        result[f"after_cut{suffix}"] = float(1.0 - member[slow].mean())
        if mode == "paper":
            scaled = v / catalog.column("v200c")[row]
            chosen = inside & ~member & (np.abs(scaled) < 4.0)
            result["width"], result["flat_share"] = _gaussian_plus_flat(scaled[chosen], 4.0)
            r = catalog.r_proj[~member]
            result["radial_slope"] = _radial_slope(r[r < 1.6], 1.6)
    return result


def _gaussian_plus_flat(v: FloatArray, limit: float) -> tuple[float, float]:
    def loss(p: FloatArray) -> float:
        width, flat = np.exp(p[0]), 1.0 / (1.0 + np.exp(-p[1]))
        gauss = np.exp(-0.5 * (v / width) ** 2) / (width * np.sqrt(2.0 * np.pi))
        return float(-np.mean(np.log((1.0 - flat) * gauss + flat / (2.0 * limit))))

    best = minimize(loss, np.array([np.log(0.6), 0.0]), method="Nelder-Mead").x
    return float(np.exp(best[0])), float(1.0 / (1.0 + np.exp(-best[1])))


def _radial_slope(r: FloatArray, r_max: float) -> float:
    """Maximum likelihood of Sigma ~ R^a inside r_max: p(R) = (a + 2) R^(a + 1) / r_max^(a + 2)."""
    return float(1.0 / np.mean(np.log(r_max / r)) - 2.0)
