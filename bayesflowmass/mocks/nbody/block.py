"""The clusters of one block of the box: cylinders around its hosts, cut out of the block and its surroundings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogMetadata, ClusterCatalog
from bayesflowmass.catalog.arrays import gather, offsets_from_counts
from bayesflowmass.common.arrays import BoolArray, FloatArray, IntArray
from bayesflowmass.cosmology import circular_velocity_delta, efunc
from bayesflowmass.mocks.nbody.box import Box
from bayesflowmass.mocks.nbody.directions import LinesOfSight, sky_axes
from bayesflowmass.mocks.nbody.galaxies import GalaxyStore, Region
from bayesflowmass.mocks.nbody.hash import fold_of, hashed_uniform
from bayesflowmass.mocks.nbody.hosts import Hosts
from bayesflowmass.mocks.nbody.pairs import Pairs, axis_pairs, members_by_id, members_by_radius, tilted_pairs
from bayesflowmass.mocks.nbody.projection import HubbleFlow, line_of_sight_velocity
from bayesflowmass.mocks.rows import Rows

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class CutRecipe:
    """How clusters are cut.

    Attributes:
        box: redshift, size and cosmology.
        kind: "pure" or "contaminated".
        mode: "paper", "survey" or "mixed".
        membership: "id" or "radius".
        cylinder: whether members are cut by the cylinder, too (else only "pure", all members).
        r_max: comoving Mpc/h.
        v_max: km/s.
        min_galaxies: fewest of a cluster.
        n_folds: folds by halo.
        seed: of the modes of "mixed".
        depth: largest distance along the line of sight of a galaxy in the cylinder [comoving Mpc/h].
    """

    box: Box
    kind: str
    mode: str
    membership: str
    cylinder: bool
    r_max: float
    v_max: float
    min_galaxies: int
    n_folds: int
    seed: int
    depth: float

    @property
    def reach(self) -> float:
        """Largest distance of a galaxy from its host [comoving Mpc/h]."""
        return float(np.hypot(self.r_max, self.depth))


@dataclass(frozen=True)
class _Seen(Rows):
    """Galaxies in cylinders: row of the line, row of the galaxy, x, y [comoving Mpc/h], v_los [km/s]."""

    line: IntArray
    galaxy: IntArray
    x: FloatArray
    y: FloatArray
    v_los: FloatArray
    member: BoolArray


def cut_block(
    lines: LinesOfSight, cluster_id: IntArray, hosts: Hosts, store: GalaxyStore, recipe: CutRecipe
) -> ClusterCatalog:
    """The clusters of some lines of sight, whose hosts are close together; possibly none.

    Args:
        lines: with rows of ``hosts``.
        cluster_id: (n,) of the lines.

    Returns:
        Catalogue with the columns that `bayesflowmass.mocks.nbody.simulate_nbody` describes, galaxies of each
        cluster in the order of their ids.
    """
    block = np.unique(lines.host)
    centre = hosts.position[block]
    # Members lie within about R_vir, which a slow box's cylinders may not reach.
    reach = max(recipe.reach, 2.0 * float(hosts.r_vir[block].max()))
    region = store.region(centre.min(axis=0) - reach, centre.max(axis=0) + reach)
    flow = HubbleFlow(recipe.box.redshift, recipe.box.cosmology, recipe.depth)
    surveyed = _sees_centrals(hosts.id, recipe)
    members = _members(block, hosts, region, recipe, surveyed)
    seen = [
        _observe(pairs, lines, hosts, region, recipe, flow, surveyed)
        for pairs in _candidates(lines, hosts, region, members, recipe)
    ]
    found = _Seen.join(seen)
    n_galaxies = np.bincount(found.line, minlength=len(lines))
    rich = n_galaxies >= recipe.min_galaxies
    n_members = np.bincount(found.line, found.member, len(lines))[rich].astype(np.int64)
    found = found.take(np.flatnonzero(rich[found.line]))
    found = found.take(np.lexsort((found.x, region.id[found.galaxy], found.line)))
    columns: Columns = {"cluster_id": cluster_id[rich]}
    columns |= _cluster_columns(lines.take(rich), hosts, recipe)
    columns |= _member_statistics(members, hosts, region, recipe, lines.host[rich])
    columns |= {"n_members": n_members, "interloper_fraction": 1.0 - n_members / n_galaxies[rich]}
    flat = {
        "x": found.x.astype(np.float32),
        "y": found.y.astype(np.float32),
        "v_los": found.v_los.astype(np.float32),
        "gal_is_member": found.member,
        "gal_is_central": region.central[found.galaxy],
        "gal_galaxy_id": region.id[found.galaxy],
    }
    lost = {"n_lines": len(lines), "n_poor": int((~rich).sum())}
    return ClusterCatalog.from_arrays(columns, flat, n_galaxies[rich], CatalogMetadata(extra=lost))


def _candidates(
    lines: LinesOfSight, hosts: Hosts, region: Region, members: Pairs, recipe: CutRecipe
) -> list[Pairs]:
    if recipe.kind == "pure":
        order = np.argsort(members[0], kind="stable")
        offsets = offsets_from_counts(np.bincount(members[0], minlength=len(hosts)))
        index, per_line = gather(offsets, lines.host)
        return [(np.repeat(np.arange(len(lines)), np.diff(per_line)), members[1][order][index])]
    axes = [
        axis_pairs(lines, hosts, region, axis, recipe.r_max, recipe.depth)
        for axis in range(3)
        if (lines.axis == axis).any()
    ]
    return [*axes, *tilted_pairs(lines, hosts, region, recipe.r_max, recipe.depth)]


def _observe(
    pairs: Pairs,
    lines: LinesOfSight,
    hosts: Hosts,
    region: Region,
    recipe: CutRecipe,
    flow: HubbleFlow,
    surveyed: BoolArray,
) -> _Seen:
    """Project candidates on the sky and keep those in the cylinder."""
    line, galaxy = pairs
    visible = ~region.central[galaxy] | surveyed[lines.host[line]]
    line, galaxy = line[visible], galaxy[visible]
    sky_x, sky_y = sky_axes(lines.direction)
    offset = region.position[galaxy] - hosts.position[lines.host[line]]
    x, y = _dot(offset, sky_x[line]), _dot(offset, sky_y[line])
    depth = _dot(offset, lines.direction[line])
    inside = np.abs(depth) <= recipe.depth
    if recipe.cylinder:
        inside &= x * x + y * y < recipe.r_max**2
    line, galaxy = line[inside], galaxy[inside]
    x, y, depth = x[inside], y[inside], depth[inside]
    direction, host = lines.direction[line], lines.host[line]
    v_los = line_of_sight_velocity(
        depth,
        _dot(region.velocity[galaxy].astype(np.float64), direction),
        _dot(hosts.velocity[host], direction),
        flow,
    )
    if recipe.kind == "pure":
        member = np.ones(line.size, dtype=bool)
    elif recipe.membership == "id":
        # A cylinder is shorter than half the box: an image far from the host is never in it.
        member = region.host[galaxy] == host
    else:
        member = ((region.position[galaxy] - hosts.position[host]) ** 2).sum(axis=1) < hosts.r_vir[host] ** 2
    seen = _Seen(line, galaxy, x, y, v_los, member)
    if not recipe.cylinder:
        return seen
    return seen.take(np.abs(v_los) < recipe.v_max)


def _sees_centrals(host_id: IntArray, recipe: CutRecipe) -> BoolArray:
    """Whether central galaxies are seen around each host."""
    if recipe.mode == "mixed":
        return hashed_uniform(host_id, "mode", recipe.seed) < 0.5
    return np.full(host_id.size, recipe.mode == "survey")


def _members(block: IntArray, hosts: Hosts, region: Region, recipe: CutRecipe, surveyed: BoolArray) -> Pairs:
    if recipe.membership == "id":
        host, galaxy = members_by_id(block, hosts, region, recipe.box.size)
    else:
        host, galaxy = members_by_radius(block, hosts, region)
    visible = ~region.central[galaxy] | surveyed[host]
    return host[visible], galaxy[visible]


def _cluster_columns(lines: LinesOfSight, hosts: Hosts, recipe: CutRecipe) -> Columns:
    host, box = lines.host, recipe.box
    mass = hosts.log10_mass[host]
    columns: Columns = {
        "halo_id": hosts.id[host],
        "redshift": np.full(host.size, box.redshift),
        "log10_mass": mass,
        "fold": fold_of(hosts.id[host], recipe.n_folds),
        "projection": lines.projection,
        **{f"los_{axis}": lines.direction[:, i] for i, axis in enumerate("xyz")},
        **{f"host_{axis}": hosts.position[host, i] for i, axis in enumerate("xyz")},
        "r_vir": hosts.r_vir[host],
        "v200c": circular_velocity_delta(mass, box.redshift, cosmology=box.cosmology),
        **{name: values[host] for name, values in hosts.truths.items()},
    }
    if recipe.mode == "mixed":
        columns["mode"] = np.where(_sees_centrals(hosts.id[host], recipe), "survey", "paper")
    return columns


def _member_statistics(
    members: Pairs, hosts: Hosts, region: Region, recipe: CutRecipe, wanted: IntArray
) -> Columns:
    """Number of members in three dimensions and their 1-D dispersion, physical: with the Hubble flow [km/s]."""
    host, galaxy = members
    box = recipe.box
    # 100 h km/s/Mpc times E(z), for physical distances.
    hubble = 100.0 * float(efunc(box.redshift, box.cosmology)) / (1.0 + box.redshift)
    offset = region.position[galaxy] - hosts.position[host]
    velocity = region.velocity[galaxy] - hosts.velocity[host] + hubble * offset
    number = np.bincount(host, minlength=len(hosts))
    square = np.zeros(len(hosts))
    for axis in range(3):
        mean = np.bincount(host, velocity[:, axis], len(hosts)) / np.maximum(number, 1)
        square += np.bincount(host, (velocity[:, axis] - mean[host]) ** 2, len(hosts))
    dispersion = np.sqrt(square / (3.0 * np.maximum(number - 1, 1)))
    return {"richness_true": number[wanted], "sigma_v_true": dispersion[wanted]}


def _dot(vectors: FloatArray, axes: FloatArray) -> FloatArray:
    return np.asarray((vectors * axes).sum(axis=1))
