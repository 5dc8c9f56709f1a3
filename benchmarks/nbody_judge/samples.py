"""Galaxies around clusters of 10^14 Msun/h, out of a box and out of the mocks, in one form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.cli import main as command
from bayesflowmass.common.arrays import BoolArray, FloatArray, IntArray
from bayesflowmass.cosmology import convert_mass, efunc, mass_function, radius_delta
from bayesflowmass.mocks import MockParameters
from bayesflowmass.mocks.batch import draw_scene
from bayesflowmass.mocks.catalog_builder import make_recipe
from bayesflowmass.mocks.galaxies import Component
from bayesflowmass.mocks.halos import mean_richness
from bayesflowmass.mocks.projection import project
from benchmarks.nbody_judge.haloes import Haloes

__all__ = ["Clusters", "Sample", "box_sample", "mock_sample", "write_tracers"]

LINES, R_MAX, REACH = 3, 1.6, 6.0
_FIELDS = ["x", "y", "z", "vx", "vy", "vz", "upid", "id", "mvir", "mpeak", "obs_sm", "obs_sfr"]
_HOSTS = "rockstarId,upId,pId,M200c,x,y,z,vx,vy,vz"
_GALAXY = 10**12
_LONE = 2 * 10**12


@dataclass(frozen=True)
class Clusters:
    """Which clusters are cut out of box and mocks.

    Attributes:
        masses: limits of log10 M200c [Msun/h].
        v_max: cut in velocity [km/s]; the box must hold the cylinder.
        redshift: of all.
    """

    masses: tuple[float, float]
    v_max: float
    redshift: float


@dataclass(frozen=True)
class Sample:
    """Galaxies around clusters in space and as seen in cylinders along ``LINES`` lines of sight.

    Attributes:
        name: for tables and legends.
        v_max: cut in velocity [km/s].
        log10_mass: (n,) of the clusters.
        r200: (n,) R200c [comoving Mpc/h].
        halo, r, v_r: of galaxies within ``REACH`` in space: row of the cluster, distance [comoving Mpc/h], radial
            velocity without the Hubble flow, relative to the cluster [km/s].
        central: (like r) the central galaxies of other haloes, which have no motions inside these.
        line: of galaxies in cylinders: cluster x LINES + line of sight.
        R, v, distance: of the same: projected [comoving Mpc/h], |v_los| [km/s], true distance in units of R200c.
    """

    name: str
    v_max: float
    log10_mass: FloatArray
    r200: FloatArray
    halo: IntArray
    r: FloatArray
    v_r: FloatArray
    central: BoolArray
    line: IntArray
    R: FloatArray
    v: FloatArray
    distance: FloatArray


def mock_sample(name: str, preset: str, mode: str, n_clusters: int, clusters: Clusters, seed: int) -> Sample:
    """The package's own mocks, of masses drawn from the mass function."""
    parameters = MockParameters.preset(preset)
    parts = []
    for r_max in (REACH, R_MAX):
        recipe = make_recipe(
            n_clusters,
            masses="hmf",
            log10_mass_range=clusters.masses,
            mode=mode,
            redshift=clusters.redshift,
            n_projections=LINES,
            parameters=parameters,
            r_max=r_max,
            v_max=clusters.v_max,
            min_galaxies=1,
        )
        parts.append((recipe, draw_scene(n_clusters, recipe, np.random.default_rng(seed))))
    scene = parts[0][1]
    galaxies = scene.galaxies if mode == "survey" else scene.galaxies.take(scene.in_paper)
    r = np.sqrt((galaxies.position**2).sum(axis=0))
    v_r = (galaxies.position * galaxies.velocity).sum(axis=0) / np.maximum(r, 1e-9)
    hubble = 100.0 * float(efunc(clusters.redshift)) / (1.0 + clusters.redshift)
    v_r -= np.where(galaxies.flows, 0.0, hubble * r)
    near = r < REACH
    recipe, narrow = parts[1]
    seen = narrow.galaxies if mode == "survey" else narrow.galaxies.take(narrow.in_paper)
    sky = project(
        seen, narrow.sightlines, narrow.halos.redshift, recipe.cosmology, r_max=R_MAX, v_max=clusters.v_max
    )
    apart = np.sqrt((seen.position**2).sum(axis=0)) / narrow.halos.r200c[seen.halo]
    return Sample(
        name,
        clusters.v_max,
        narrow.halos.log10_mass,
        narrow.halos.r200c,
        galaxies.halo[near],
        r[near],
        v_r[near],
        galaxies.component[near] == Component.NEIGHBOUR_CENTRAL,
        sky.row,
        np.hypot(sky.x, sky.y),
        np.abs(sky.v_los),
        apart[sky.source],
    )


@dataclass(frozen=True)
class Tracers:
    """Galaxies of a box, and the files that hold them for ``bayesflowmass simulate``."""

    position: FloatArray
    velocity: FloatArray
    central: BoolArray
    hosts: Path
    galaxies: Path


def write_tracers(
    folder: Path,
    position: FloatArray,
    velocity: FloatArray,
    size: float,
    redshift: float,
    haloes: Haloes,
    owner: IntArray,
    parameters: MockParameters,
    seed: int,
) -> Tracers:
    """Thin the particles of haloes to the richness of a preset, and add central galaxies.

    Each halo has the preset's mean number of satellites inside R_vir, with its scatter: every particle of the
    group is one with the same probability, and so is what hangs on beyond R_vir. Centrals: one at the centre of
    each halo. Those of haloes too small for the box, down to the preset's ``central_min_mass``, are drawn from the
    particles outside haloes, as many as the mass function has.
    """
    rng = np.random.default_rng(seed)
    n_inside = _inside_virial(position, size, redshift, haloes, owner)
    scatter = parameters.richness_scatter
    factor = np.exp(scatter * rng.standard_normal(n_inside.size) - 0.5 * scatter**2)
    chance = np.minimum(mean_richness(haloes.log10_mass, parameters) * factor / n_inside, 1.0)
    drawn = rng.random(owner.size)
    satellite = np.flatnonzero((owner >= 0) & (drawn < chance[owner]))
    alone = np.flatnonzero(owner < 0)
    grid = np.linspace(np.log10(parameters.central_min_mass), 16.0, 2001)
    wanted = float(np.trapezoid(mass_function(grid, redshift), grid)) * size**3 - n_inside.size
    lone = rng.choice(alone, min(alone.size, max(0, round(wanted))), replace=False)
    row = np.concatenate([satellite, lone])
    where = np.concatenate([position[row], haloes.centre])
    speed = np.concatenate([velocity[row], haloes.velocity])
    ids = np.concatenate([_GALAXY + satellite, _LONE + lone, 1 + np.arange(n_inside.size)])
    upid = np.concatenate([1 + owner[satellite], np.full(lone.size + n_inside.size, -1)])
    kinds = [(name, "i8" if name in ("id", "upid") else "f4") for name in _FIELDS]
    table = np.zeros(ids.size, dtype=kinds)
    where = np.mod(where, size).astype(np.float32)
    where[where >= size] = 0.0
    for axis, name in enumerate("xyz"):
        table[name], table["v" + name] = where[:, axis], speed[:, axis]
    table["id"], table["upid"], table["mvir"], table["mpeak"], table["obs_sm"] = ids, upid, 2e11, 2e11, 1e10
    np.save(folder / "galaxies.npy", table)
    with (folder / "hosts.csv").open("w", encoding="utf-8") as stream:
        stream.write(_HOSTS + "\n")
        values = np.column_stack([10.0**haloes.log10_mass, np.mod(haloes.centre, size), haloes.velocity])
        for number, line in enumerate(values):
            stream.write(f"{1 + number},-1,-1," + ",".join(f"{value:.8g}" for value in line) + "\n")
    return Tracers(where, speed, upid == -1, folder / "hosts.csv", folder / "galaxies.npy")


def _inside_virial(
    position: FloatArray, size: float, redshift: float, haloes: Haloes, owner: IntArray
) -> FloatArray:
    """Friends (n,) inside R_vir of the matched mass; all friends where these are fewer than 50."""
    radius = radius_delta(convert_mass(haloes.log10_mass, redshift, "200c", "vir"), redshift, "vir")
    inside = np.flatnonzero(owner >= 0)
    apart = position[inside] - haloes.centre[owner[inside]]
    apart -= size * np.round(apart / size)
    close = (apart**2).sum(axis=1) < radius[owner[inside]] ** 2
    number = np.bincount(owner[inside[close]], minlength=radius.size)
    return np.where(number >= 50, number, haloes.n_friends).astype(np.float64)


def box_sample(
    name: str, tracers: Tracers, haloes: Haloes, size: float, clusters: Clusters, mode: str, out: Path
) -> Sample:
    """Send a box through ``bayesflowmass simulate`` and read the distances of its galaxies off the box."""
    settings = {
        "hosts": tracers.hosts,
        "galaxies": tracers.galaxies,
        "box-size": size,
        "redshift": clusters.redshift,
        "masses": "hmf",
        "mode": mode,
        "membership": "radius",
        "min-galaxies": 3,
        "log10-mass-range": clusters.masses,
        "r-max": R_MAX,
        "v-max": clusters.v_max,
        "out": out,
        "workers": 1,
    }
    words = ["simulate", "--no-progress"]
    for setting, value in settings.items():
        words += [f"--{setting}", *(map(str, value) if isinstance(value, tuple) else (str(value),))]
    if command(words):
        raise RuntimeError(f"bayesflowmass simulate failed for {out}; its message stands above.")
    catalog = ClusterCatalog.read(out)
    chosen = np.flatnonzero(
        (haloes.log10_mass >= clusters.masses[0]) & (haloes.log10_mass < clusters.masses[1])
    )
    r200 = radius_delta(haloes.log10_mass[chosen], clusters.redshift)
    new = np.full(haloes.log10_mass.size, -1)
    new[chosen] = np.arange(chosen.size)
    cluster = new[np.asarray(catalog.column("halo_id"), dtype=np.int64) - 1]
    rows = catalog.galaxy_rows
    table = np.load(tracers.galaxies)
    order = np.argsort(table["id"])
    galaxy = order[np.searchsorted(table["id"][order], np.asarray(catalog.galaxies("gal_galaxy_id")))]
    apart = tracers.position[galaxy] - haloes.centre[chosen[cluster[rows]]]
    apart -= size * np.round(apart / size)
    line = cluster * LINES + np.asarray(catalog.column("projection"), dtype=np.int64)
    visible = np.ones(table.size, dtype=bool) if mode == "survey" else ~tracers.central
    halo, near, r, v_r = radial_velocities(
        tracers.position[visible],
        tracers.velocity[visible],
        haloes.centre[chosen],
        haloes.velocity[chosen],
        size,
    )
    return Sample(
        name,
        clusters.v_max,
        haloes.log10_mass[chosen],
        r200,
        halo,
        r,
        v_r,
        tracers.central[visible][near],
        line[rows],
        np.asarray(catalog.r_proj, dtype=np.float64),
        np.abs(np.asarray(catalog.galaxies("v_los"), dtype=np.float64)),
        np.sqrt((apart**2).sum(axis=1)) / r200[cluster[rows]],
    )


def radial_velocities(
    position: FloatArray, velocity: FloatArray, centre: FloatArray, bulk: FloatArray, size: float
) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
    """Rows of centre and galaxy, distance and radial velocity of all within ``REACH`` of some centres."""
    tree = cKDTree(np.mod(position.astype(np.float64), size), boxsize=size, balanced_tree=False)
    found = tree.query_ball_point(np.mod(centre, size), REACH)
    halo = np.repeat(np.arange(centre.shape[0]), [len(one) for one in found])
    index = np.concatenate([np.asarray(one, dtype=np.int64) for one in found])
    apart = position[index] - centre[halo]
    apart -= size * np.round(apart / size)
    r = np.maximum(np.sqrt((apart**2).sum(axis=1)), 1e-9)
    return halo, index, r, ((velocity[index] - bulk[halo]) * apart).sum(axis=1) / r
