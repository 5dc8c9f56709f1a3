"""The pedestal of interlopers: galaxies of GAMA at random places, beside the interlopers of the mocks.

Far in velocity, 1500 < |v| < 2500 km/s, a cylinder holds what happens to lie there: the field, at 15-25 Mpc/h from the
cluster a little richer than elsewhere. GAMA G09 gives the density of the field and how it scatters from one line of
sight to the next (variance over mean of the counts), in cylinders of the same size at random places and redshifts;
the mocks give both for their interlopers.

Absolute magnitudes are M - 5 log10 h = r - 25 - 5 log10 D_L - K, K = -0.10 + (z - 0.1) in the 0.1r band (Blanton &
Roweis 2007, arXiv:astro-ph/0606170, red galaxies within 0.1 mag); limits are such that the survey, r < 19.65, sees
all of them.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.cosmology import MDPL2, comoving_distance, efunc, redshift_at_distance
from bayesflowmass.io import load_catalog
from bayesflowmass.io.sky import galaxies_around, rest_frame_velocity
from bayesflowmass.mocks import MockParameters, simulate_catalog
from bayesflowmass.mocks.luminosity import schechter_density
from bayesflowmass.selection import magnitude_limit

R_MAX, FAST, V_MAX = 1.6, 1500.0, 2500.0
REDSHIFTS = (0.06, 0.17)
LIMITS = (-19.5, -20.14, -20.7)
SKY = MockParameters.preset("sky")
FAINTEST = 19.65
STRIPS = 12
CYLINDERS = 6000
HUBBLE = 100.0
WINDOWS, INNER, MASSES = (0.0, 500.0, 1000.0, 1500.0, 2000.0, 2500.0, 3400.0), 0.8, (14.0, 14.8)


def absolute_magnitude(r: np.ndarray, z: np.ndarray) -> np.ndarray:
    """M - 5 log10 h in the 0.1r band."""
    distance = comoving_distance(z) * (1.0 + z)
    return r - 25.0 - 5.0 * np.log10(distance) - (-0.10 + (z - 0.1))


def volume_of(redshift: float, low: float = FAST, high: float = V_MAX, inner: float = 0.0) -> float:
    """Comoving volume [(Mpc/h)^3] of both parts, low < |v| < high, of a cylinder in redshift space."""
    depth = 2.0 * (high - low) * (1.0 + redshift) / (HUBBLE * float(efunc(redshift)))
    return float(np.pi * (R_MAX**2 - inner**2) * depth)


def gama(path: Path, seed: int) -> list[dict[str, Any]]:
    """Density and scatter of the field in GAMA at each magnitude limit; errors by leaving out strips of the sky."""
    rows = np.genfromtxt(path, names=True)
    keep = (rows["Z"] > 0.01) & (rows["Z"] < 0.3) & (rows["Rpetro"] < FAINTEST)
    ra, dec, z, r = (rows[name][keep] for name in ("RA", "DEC", "Z", "Rpetro"))
    magnitude = absolute_magnitude(r, z)
    rng = np.random.default_rng(seed)
    low, high = np.quantile(ra, [0.0005, 0.9995]), np.quantile(dec, [0.0005, 0.9995])
    # Random places whose discs lie inside, at redshifts even in volume.
    edge = np.degrees(R_MAX / float(comoving_distance(REDSHIFTS[0])))
    at = rng.uniform(low[0] + edge, low[1] - edge, CYLINDERS)
    sine = np.sin(np.radians([high[0] + edge, high[1] - edge]))
    up = np.degrees(np.arcsin(rng.uniform(*sine, CYLINDERS)))
    limits = comoving_distance(np.array(REDSHIFTS)) ** 3
    deep = redshift_at_distance(np.cbrt(rng.uniform(*limits, CYLINDERS)))
    strip = np.minimum(((at - at.min()) / np.ptp(at) * STRIPS).astype(int), STRIPS - 1)
    results = []
    for limit in LIMITS:
        bright = magnitude < limit
        found, counts = galaxies_around(ra[bright], dec[bright], z[bright], at, up, deep, R_MAX, V_MAX, MDPL2)
        owner = np.repeat(np.arange(CYLINDERS), counts)
        fast = np.abs(rest_frame_velocity(z[bright][found], deep[owner])) > FAST
        number = np.bincount(owner[fast], minlength=CYLINDERS).astype(float)
        volume = np.array([volume_of(one) for one in deep])

        def statistic(
            chosen: np.ndarray, number: np.ndarray = number, volume: np.ndarray = volume
        ) -> np.ndarray:
            mean = number[chosen].sum() / volume[chosen].sum()
            expected = mean * volume[chosen]
            fano = 1.0 + ((number[chosen] - expected) ** 2 - expected).sum() / expected.sum()
            return np.array([mean, fano])

        whole = statistic(np.ones(CYLINDERS, dtype=bool))
        left = np.array([statistic(strip != k) for k in range(STRIPS)])
        error = np.sqrt((STRIPS - 1) / STRIPS * ((left - left.mean(axis=0)) ** 2).sum(axis=0))
        results.append(_row(limit, whole, error))
    return results


def mock_interlopers(n: int, seed: int, parameters: MockParameters = SKY) -> list[dict[str, Any]]:
    """The same of the interlopers of clusters of 10^14-10^14.8 Msun/h, survey mode; errors over haloes."""
    catalog = simulate_catalog(
        n,
        masses="flat",
        log10_mass_range=(14.0, 14.8),
        mode="survey",
        redshift=REDSHIFTS,
        magnitudes=True,
        parameters=parameters,
        seed=seed,
    )
    outside = catalog.filter_galaxies(
        ~catalog.galaxies("gal_is_member") & (np.abs(catalog.galaxies("v_los")) > FAST)
    )
    volume = np.array([volume_of(float(one)) for one in outside.column("redshift")])
    rng = np.random.default_rng(seed)
    results = []
    for limit in LIMITS:
        number = magnitude_limit(outside, limit).n_galaxies.astype(float)

        def statistic(chosen: np.ndarray, number: np.ndarray = number) -> np.ndarray:
            mean = number[chosen].sum() / volume[chosen].sum()
            expected = mean * volume[chosen]
            fano = 1.0 + ((number[chosen] - expected) ** 2 - expected).sum() / expected.sum()
            return np.array([mean, fano])

        draws = np.array([statistic(rng.integers(0, n, n)) for _ in range(300)])
        results.append(_row(limit, statistic(np.arange(n)), draws.std(axis=0)))
    return results


def around_clusters(galaxies: Path, clusters: Path, n: int, seed: int) -> dict[str, Any]:
    """Density of galaxies around SDSS clusters and around mocks of the same masses, by velocity; R > `INNER`."""
    sky = load_catalog(
        galaxies, clusters, {"cluster_id": "ClID"}, r_max=R_MAX, v_max=WINDOWS[-1], few_galaxies="keep"
    )
    published = sky.column("logM200_Msunh")
    sky = sky.filter((published > MASSES[0]) & (published < MASSES[1]))
    rng = np.random.default_rng(seed)
    z = sky.column("redshift")
    mock = simulate_catalog(
        n,
        masses="flat",
        log10_mass_range=MASSES,
        mode="survey",
        redshift=(float(z.min()), float(z.max())),
        magnitudes=True,
        parameters=SKY,
        v_max=WINDOWS[-1],
        seed=seed,
    )
    # The published masses of these clusters are 0.2 dex above X-ray masses: shapes are compared, not the total.
    mock = magnitude_limit(mock, -20.14)
    picks = mass_matched(mock.column("log10_mass"), sky.column("logM200_Msunh"), rng)
    mock = mock[picks]
    rows = []
    for low, high in pairwise(WINDOWS):
        here, there = (_density(catalog, low, high, rng) for catalog in (sky, mock))
        rows.append(
            {
                "low": low,
                "high": high,
                "sky": here[0],
                "sky_error": here[1],
                "mock": there[0],
                "mock_error": there[1],
                "difference_in_errors": (here[0] - there[0]) / float(np.hypot(here[1], there[1])),
            }
        )
    return {"n_sky": len(sky), "n_mock": len(mock), "masses": list(MASSES), "rows": rows}


def mass_matched(mock: np.ndarray, wanted: np.ndarray, rng: np.random.Generator, bins: int = 5) -> np.ndarray:
    """Indices of mocks whose masses are distributed as others, by bins of equal numbers of the latter."""
    edges = np.quantile(wanted, np.linspace(0.0, 1.0, bins + 1))
    bin_of = np.searchsorted(edges, mock, side="right") - 1
    groups = [np.flatnonzero(bin_of == k) for k in range(bins)]
    fewest = min(len(group) for group in groups)
    return np.sort(np.concatenate([rng.choice(group, fewest, replace=False) for group in groups]))


def _density(
    catalog: ClusterCatalog, low: float, high: float, rng: np.random.Generator
) -> tuple[float, float]:
    v = np.abs(catalog.galaxies("v_los"))
    chosen = (v > low) & (v < high) & (catalog.r_proj > INNER)
    number = np.bincount(catalog.galaxy_rows[chosen], minlength=len(catalog)).astype(float)
    volume = np.array([volume_of(float(z), low, high, INNER) for z in catalog.column("redshift")])
    picks = rng.integers(0, len(catalog), (300, len(catalog)))
    draws = [number[p].sum() / volume[p].sum() for p in picks]
    return float(number.sum() / volume.sum()), float(np.std(draws))


def _row(limit: float, values: np.ndarray, errors: np.ndarray) -> dict[str, Any]:
    return {
        "magnitude_limit": limit,
        "density": float(values[0]),
        "density_error": float(errors[0]),
        "fano": float(values[1]),
        "fano_error": float(errors[1]),
    }


def compared(field: list[dict[str, Any]], mock: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mock over field, at each limit, beside the density of the luminosity function that the mock uses."""
    rows = []
    for here, there in zip(field, mock, strict=True):
        ratio = there["density"] / here["density"]
        error = ratio * np.hypot(
            here["density_error"] / here["density"], there["density_error"] / there["density"]
        )
        rows.append(
            {
                "magnitude_limit": here["magnitude_limit"],
                "field": here,
                "mock": there,
                "ratio": ratio,
                "ratio_error": float(error),
                "schechter": float(schechter_density(np.array(here["magnitude_limit"]))),
            }
        )
    return rows
