"""One batch of clusters, from masses to galaxies on the sky."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.cosmology import Cosmology
from bayesflowmass.mocks.background import Background
from bayesflowmass.mocks.far import draw_superclusters, far_neighbours
from bayesflowmass.mocks.galaxies import Component, Galaxies
from bayesflowmass.mocks.halos import Halos, draw_halos
from bayesflowmass.mocks.infall import radius_200m
from bayesflowmass.mocks.luminosity import LuminosityTable
from bayesflowmass.mocks.masses import sample_mass_function
from bayesflowmass.mocks.members import Shapes, cluster_galaxies
from bayesflowmass.mocks.near import draw_filaments, near_neighbours
from bayesflowmass.mocks.neighbours import Sightlines
from bayesflowmass.mocks.orbits import Orbit
from bayesflowmass.mocks.parameters import MockParameters
from bayesflowmass.mocks.profile import RadialTables
from bayesflowmass.mocks.projection import project
from bayesflowmass.mocks.randomisation import Randomisation
from bayesflowmass.mocks.satellites import central_galaxies, satellite_galaxies
from bayesflowmass.mocks.shapes import draw_axes, lines_of_sight, sky_axes, velocity_axes

Columns = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Recipe:
    """What to simulate; see `bayesflowmass.mocks.simulate_catalog` for the meaning of each field."""

    masses: str
    log10_mass_range: tuple[float, float]
    kind: str
    mode: str
    redshift_range: tuple[float, float]
    n_projections: int
    parameters: MockParameters
    r_max: float
    v_max: float
    min_galaxies: int
    cosmology: Cosmology
    magnitudes: bool
    randomise: Randomisation


@lru_cache(maxsize=4)
def _tables(recipe: Recipe) -> tuple[RadialTables, Background, LuminosityTable | None]:
    luminosity = None
    if recipe.magnitudes:
        luminosity = LuminosityTable(recipe.parameters, recipe.cosmology, recipe.redshift_range)
    background = Background(
        recipe.parameters, recipe.cosmology, recipe.redshift_range, recipe.log10_mass_range
    )
    return RadialTables.build(recipe.parameters), background, luminosity


@dataclass(frozen=True)
class Scene:
    """Haloes and all galaxies around them in three dimensions, before they are seen.

    Attributes:
        halos, shapes, sightlines: of each halo.
        own, substructure_fraction: the galaxies of the haloes themselves, and their share in clumps.
        galaxies: all, of the cylinders about the lines of sight.
        modes: (n_halos * n_projections,) ``"paper"`` or ``"survey"``.
        in_paper: which galaxies the mode ``"paper"`` shows.
    """

    halos: Halos
    shapes: Shapes
    sightlines: Sightlines
    own: Galaxies
    substructure_fraction: FloatArray
    galaxies: Galaxies
    modes: NDArray[np.str_]
    in_paper: BoolArray


def draw_scene(n_halos: int, recipe: Recipe, rng: np.random.Generator) -> Scene:
    """Haloes and the galaxies around them."""
    parameters = recipe.parameters
    tables, background, _ = _tables(recipe)
    halos, shapes, sightlines = _draw_clusters(n_halos, recipe, background, rng)
    modes = _draw_modes(n_halos * recipe.n_projections, recipe.mode, rng)
    r200m = radius_200m(halos, recipe.cosmology)
    pure = recipe.kind == "pure"
    own, substructure_fraction = cluster_galaxies(
        halos,
        shapes,
        r200m,
        tables,
        parameters,
        background,
        rng,
        outskirts=not pure,
        central=recipe.mode != "paper",
    )
    parts = [own]
    if not pure:
        parts += _surroundings(halos, r200m, sightlines, recipe, tables, background, rng)
    galaxies = Galaxies.join(parts)
    if tables.orbits is not None:
        galaxies = _where_they_are(galaxies, halos, background)
    in_paper = _in_paper_mode(galaxies, parameters, rng)
    return Scene(halos, shapes, sightlines, own, substructure_fraction, galaxies, modes, in_paper)


def simulate_batch(n_halos: int, recipe: Recipe, rng: np.random.Generator) -> tuple[Columns, Columns]:
    """Cluster columns and flat galaxy columns of ``n_halos`` haloes, those with enough galaxies only.

    Clusters have the extra column ``n_galaxies``; ``halo_id`` counts within the batch.
    """
    tables, _, luminosity = _tables(recipe)
    scene = draw_scene(n_halos, recipe, rng)
    halos, galaxies, modes = scene.halos, scene.galaxies, scene.modes
    pure = recipe.kind == "pure"
    sky = project(
        galaxies,
        scene.sightlines,
        halos.redshift,
        recipe.cosmology,
        r_max=None if pure else recipe.r_max,
        v_max=None if pure else recipe.v_max,
    )
    seen = (modes[sky.row] == "survey") | scene.in_paper[sky.source]
    source, row = sky.source[seen], sky.row[seen]
    order = np.argsort(row, kind="stable")
    n_galaxies = np.bincount(row, minlength=modes.size)
    kept = n_galaxies >= recipe.min_galaxies
    order = order[kept[row[order]]]
    source = source[order]
    flat: Columns = {
        "x": sky.x[seen][order].astype(np.float32),
        "y": sky.y[seen][order].astype(np.float32),
        "v_los": sky.v_los[seen][order].astype(np.float32),
        "gal_is_member": galaxies.member[source],
        "gal_component": galaxies.component[source],
    }
    if tables.orbits is not None:
        flat["gal_orbit"] = galaxies.orbit[source]
    if luminosity is not None:
        magnitude = luminosity.draw(galaxies.log10_mass, halos.redshift[galaxies.halo], rng)
        flat["gal_abs_mag"] = magnitude[source].astype(np.float32)
    clusters = _truths(halos, scene.shapes, scene.sightlines, scene.own, scene.substructure_fraction)
    clusters = {name: np.repeat(values, recipe.n_projections) for name, values in clusters.items()}
    clusters["los_angle_cos"] = np.abs(scene.sightlines.z[:, :, 0]).ravel()
    clusters["mode"] = modes
    n_members = np.bincount(row, weights=galaxies.member[sky.source[seen]], minlength=modes.size)
    clusters["n_members"] = n_members.astype(np.int32)
    clusters["interloper_fraction"] = 1.0 - n_members / np.maximum(n_galaxies, 1)
    clusters["n_galaxies"] = n_galaxies
    return {name: values[kept] for name, values in clusters.items()}, flat


def _draw_clusters(
    n: int, recipe: Recipe, background: Background, rng: np.random.Generator
) -> tuple[Halos, Shapes, Sightlines]:
    low_z, high_z = recipe.redshift_range
    redshift = rng.uniform(low_z, high_z, n) if high_z > low_z else np.full(n, low_z)
    low, high = recipe.log10_mass_range
    if recipe.masses == "flat":
        log10_mass = rng.uniform(low, high, n)
    else:
        log10_mass = sample_mass_function(n, low, high, redshift, rng, recipe.cosmology)
    # A stream of its own: the same seed gives the same haloes, randomised or not.
    drawn = recipe.randomise.draw(n, rng.spawn(1)[0]) if recipe.randomise else {}
    halos = draw_halos(log10_mass, redshift, recipe.parameters, background, recipe.cosmology, rng, drawn)
    axes = draw_axes(n, recipe.parameters, rng, drawn)
    shapes = Shapes(axes, velocity_axes(axes, recipe.parameters, rng, drawn))
    direction = lines_of_sight(n, recipe.n_projections, rng)
    return halos, shapes, Sightlines(*sky_axes(direction, rng), direction)


def _draw_modes(n: int, mode: str, rng: np.random.Generator) -> NDArray[np.str_]:
    if mode == "mixed":
        return np.where(rng.random(n) < 0.5, "paper", "survey")
    return np.full(n, mode)


def _surroundings(
    halos: Halos,
    r200m: FloatArray,
    sightlines: Sightlines,
    recipe: Recipe,
    tables: RadialTables,
    background: Background,
    rng: np.random.Generator,
) -> list[Galaxies]:
    """Satellites of all neighbours and, unless in paper mode, their centrals and lone galaxies."""
    parameters = recipe.parameters
    scatter = parameters.environment_scatter
    environment = np.exp(scatter * rng.standard_normal(len(halos)) - 0.5 * scatter**2)
    filaments = draw_filaments(len(halos), parameters, rng)
    # R_vir of a halo of 10^15 Msun/h, 2.1 Mpc/h, bounds how far outside the aperture a host can matter.
    reach = recipe.r_max + 2.1
    superclusters = draw_superclusters(
        halos, sightlines, reach, background.hosts, parameters, background, rng
    )
    parts = []
    for abundance, with_satellites in ((background.hosts, True), (background.centrals, False)):
        if abundance is None or (recipe.mode == "paper" and not with_satellites):
            continue
        radius = reach if with_satellites else recipe.r_max
        neighbours = [
            near_neighbours(
                halos,
                r200m,
                environment,
                filaments,
                sightlines,
                recipe.r_max,
                abundance,
                parameters,
                background,
                rng,
                with_satellites=with_satellites,
            ),
            far_neighbours(
                halos, r200m, superclusters, sightlines, radius, abundance, parameters, background, rng
            ),
        ]
        for part in neighbours:
            if with_satellites:
                parts.append(satellite_galaxies(part, halos, tables, parameters, background, rng))
            if recipe.mode != "paper":
                parts.append(central_galaxies(part, halos, parameters))
    return parts


def _where_they_are(galaxies: Galaxies, halos: Halos, background: Background) -> Galaxies:
    """Members and `Orbit` codes by present place: haloes are not spheres, and neighbours may reach into them."""
    halo, orbit = galaxies.halo, galaxies.orbit
    square = np.einsum("ij,ij->j", galaxies.position, galaxies.position)
    recedes = np.einsum("ij,ij->j", galaxies.position, galaxies.velocity)
    recedes += np.where(galaxies.flows, background.hubble(halos.redshift)[halo] * square, 0.0)
    # By the code so far: now inside r200c, outside and approaching, outside and receding.
    long, recent, backsplash, infalling, interloper = Orbit
    now = np.array(
        [
            [long, recent, long, recent, recent],
            [long, backsplash, backsplash, infalling, infalling],
            [long, backsplash, backsplash, interloper, interloper],
        ],
        dtype=np.int8,
    )
    place = np.where(square < (halos.r200c**2)[halo], 0, 1 + (recedes >= 0.0))
    return replace(galaxies, member=square < (halos.r_vir**2)[halo], orbit=now[place, orbit])


def _in_paper_mode(galaxies: Galaxies, parameters: MockParameters, rng: np.random.Generator) -> BoolArray:
    """Which galaxies public mocks keep: satellites; no central, and of the outskirts a share."""
    component = galaxies.component
    keep = (component != Component.CENTRAL) & (component != Component.NEIGHBOUR_CENTRAL)
    if parameters.outskirts_satellite_share < 1.0:
        lone = rng.random(component.size) >= parameters.outskirts_satellite_share
        keep &= ~(lone & (component == Component.OUTSKIRTS))
    return np.asarray(keep)


def _truths(
    halos: Halos,
    shapes: Shapes,
    sightlines: Sightlines,
    own: Galaxies,
    substructure_fraction: FloatArray,
) -> Columns:
    """Latent truths of each halo."""
    n = len(halos)
    members = own.take(own.member)
    number = np.bincount(members.halo, minlength=n)
    square = np.zeros(n)
    for component in members.velocity:
        mean = np.bincount(members.halo, component, n) / np.maximum(number, 1)
        square += np.bincount(members.halo, (component - mean[members.halo]) ** 2, n)
    truths = {
        "halo_id": np.arange(n),
        "redshift": halos.redshift,
        "log10_mass": halos.log10_mass,
        "concentration": np.exp(halos.log_c),
        "axis_ratio_q": shapes.axes[:, 1] / shapes.axes[:, 0],
        "axis_ratio_s": shapes.axes[:, 2] / shapes.axes[:, 0],
        "substructure_fraction": substructure_fraction,
        "richness_expected": halos.richness,
        "richness_true": number,
        "sigma_v_true": np.sqrt(square / (3.0 * np.maximum(number - 1, 1))),
        "r_vir": halos.r_vir,
        "v200c": halos.v200c,
    }
    drawn = {f"mean_{name}" if name in truths else name: values for name, values in halos.drawn.items()}
    return truths | drawn
