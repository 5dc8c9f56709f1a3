"""Real clusters from the files of the shared data folder and, on request, from archives, as catalogues.

Every reader returns a catalogue of one or more clusters, or raises `NotAvailable` where its file is not there.
Nothing is copied: the files stay where they are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.table import Table

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.fetch import fetch
from bayesflowmass.infer import read_observations
from bayesflowmass.io import Recentring, cut_cylinders
from bayesflowmass.io.archives import AnswerCache, default_cache_folder
from bayesflowmass.io.sky import sky_offsets
from bayesflowmass.selection import completeness

HERE = Path(__file__).parent
MATCH_ARCMIN, MATCH_REDSHIFT = 8.0, 0.004


class NotAvailable(Exception):
    """There is no such file here."""


def clusters(group: str | None = None) -> Table:
    """Names, centres (J2000 [deg]) and heliocentric redshifts of well-studied clusters."""
    table = Table.read(HERE / "clusters.csv", format="ascii.csv")
    return table if group is None else table[table["group"] == group]


def literature() -> Table:
    """Published log10 M200c [Msun/h] of the clusters, all in that definition, with references."""
    return Table.read(HERE / "literature.csv", format="ascii.csv")


def found(path: Path) -> Path:
    """The path, if it is there."""
    if not path.exists():
        raise NotAvailable(f"{path.parent.name}/{path.name} is not here")
    return path


def either(folder: Path, name: str) -> Path:
    """A whole table where it is there, else the one for development."""
    whole = folder / f"{name}.csv"
    return whole if whole.exists() else found(folder / f"{name}_dev.csv")


def galwcat(data: Path) -> tuple[Path, Path]:
    """Galaxies and clusters of GalWCat19 in SDSS: the whole tables where they are, else the ones for development."""
    return either(data / "sdss_galwcat", "galaxies"), either(data / "sdss_galwcat", "clusters")


def coma_desi(
    estimator: MassEstimator, data: Path, *, cleaned: bool = True, kept: float = 1.0, seed: int = 0
):
    """Coma from DESI, cleaned before it came to us; ``kept``: share of the galaxies, at random."""
    rows = np.loadtxt(found(data / "coma_desi" / "data_DESI.dat"))
    galaxies = Table({"r_proj": rows[:, 0], "v_los": rows[:, 1], "v_err": rows[:, 2]})
    catalog = read_observations(
        estimator,
        galaxies,
        unit={"r_proj": "proper kpc"},
        cluster_id="Coma",
        redshift=0.0231,
        cleaned=cleaned,
    )
    return catalog if kept == 1.0 else completeness(catalog, kept, seed)


def from_sdss(estimator: MassEstimator, data: Path, ra: float, dec: float, redshift: float) -> ClusterCatalog:
    """The cluster of GalWCat19 at a place, with its galaxies in SDSS."""
    galaxies, table = galwcat(data)
    known = Table.read(table, format="ascii.csv")
    centre = np.full(len(known), ra), np.full(len(known), dec)
    distance = (
        np.degrees(np.hypot(*sky_offsets(np.asarray(known["ra"]), np.asarray(known["dec"]), *centre))) * 60
    )
    near = (distance < MATCH_ARCMIN) & (np.abs(known["z"] - redshift) < MATCH_REDSHIFT)
    if not near.any():
        raise NotAvailable("not in the table of SDSS clusters that is here")
    chosen = known[near][int(np.argmin(distance[near]))]
    rows = Table.read(galaxies, format="ascii.csv")
    rows = rows[rows["ClID"] == chosen["ClID"]]
    return read_observations(estimator, rows, Table(chosen), column={"cluster_id": "ClID"})


def from_archive(
    estimator: MassEstimator, name: str, source: str, ra: float, dec: float, z: float
) -> ClusterCatalog:
    """A cluster from NED, SDSS or VizieR."""
    cache = AnswerCache(default_cache_folder())
    table = fetch(name, position=(ra, dec), redshift=z, source=source, cache=cache).table
    return read_observations(estimator, table)


def shapley(estimator: MassEstimator, data: Path) -> ClusterCatalog:
    """Five clusters of the Shapley concentration, cut out of one survey; they share galaxies."""
    path = found(data / "shapley" / "Shapley_galaxy_data.csv")
    selection = estimator.training_info.selection
    return cut_cylinders(
        path,
        clusters("shapley")["cluster", "ra", "dec", "redshift"],
        {"cluster_id": "cluster", "ra": "R.A.", "dec": "Dec.", "cz": "V", "v_err": "SigV"},
        r_max=selection["r_max"],
        v_max=selection["v_max"],
        cosmology=estimator.training_info.cosmology,
        recentring=Recentring(position=False),
    )


def bullet(estimator: MassEstimator, data: Path) -> ClusterCatalog:
    """1E0657-56, a merger beyond the redshifts of the SDSS main sample."""
    rows = np.loadtxt(found(data / "bullet" / "cluster_example_xyv.dat"))
    galaxies = Table({"x": rows[:, 1], "y": rows[:, 2], "v_los": rows[:, 3]})
    place = clusters("merger")[0]
    return read_observations(
        estimator,
        galaxies,
        unit={"x": "proper kpc", "y": "proper kpc"},
        cluster_id=str(place["cluster"]),
        redshift=float(place["redshift"]),
    )


def a2255(estimator: MassEstimator, data: Path) -> ClusterCatalog:
    """The core of A2255, spectra of some galaxies twice."""
    path = found(data / "a2255_sdss" / "a2255_skyserver.csv")
    table = clusters("core")["cluster", "ra", "dec", "redshift"]
    table.rename_column("cluster", "cluster_id")
    return read_observations(estimator, path, table)


def coma_gmp(estimator: MassEstimator, data: Path) -> ClusterCatalog:
    """Coma from a table made by hand, whose declinations are a degree off."""
    path = found(data / "coma_gmp_dirty" / "coma_clusters.csv")
    table = clusters("table")[:1]["cluster", "ra", "dec", "redshift"]
    table.rename_column("cluster", "cluster_id")
    return read_observations(
        estimator, path, table, column={"ra": "RA", "dec": "Dec", "cz": "Velocity", "galaxy_id": "GMP"}
    )
