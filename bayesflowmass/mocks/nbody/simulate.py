"""`simulate_nbody`: mock clusters cut out of a periodic N-body box, as published mocks are (docs/nbody.md)."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bayesflowmass.catalog import CatalogError
from bayesflowmass.catalog.work import WorkFolder, file_facts
from bayesflowmass.common.arrays import IntArray
from bayesflowmass.common.progress import progress_bar
from bayesflowmass.common.workers import processes, work_off
from bayesflowmass.mocks.nbody.block import CutRecipe
from bayesflowmass.mocks.nbody.box import Box, describe_box
from bayesflowmass.mocks.nbody.directions import MAX_ORTHOGONAL, LinesOfSight, lines_of_sight
from bayesflowmass.mocks.nbody.flattening import flat_lines
from bayesflowmass.mocks.nbody.galaxies import GalaxyCut, GalaxyStore, galaxy_cut, sort_galaxies
from bayesflowmass.mocks.nbody.hash import fold_of
from bayesflowmass.mocks.nbody.hosts import Hosts, read_hosts
from bayesflowmass.mocks.nbody.plan import CutPlan, cut_planned
from bayesflowmass.mocks.nbody.projection import depth_limit
from bayesflowmass.mocks.nbody.write import NbodySummary, write_catalog
from bayesflowmass.selection.cuts import R_MAX, V_MAX

_GALAXIES_PER_BLOCK = 400_000
"""Bounds the memory of a worker; the clusters do not depend on it, their order in the file does."""
_MOST_BLOCKS = 16


def simulate_nbody(
    hosts: str | os.PathLike[str],
    galaxies: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    masses: Literal["flat", "hmf"] = "flat",
    log10_mass_range: tuple[float, float] = (13.5, 16.0),
    kind: Literal["pure", "contaminated"] = "contaminated",
    mode: Literal["paper", "survey", "mixed"] = "paper",
    membership: Literal["id", "radius"] = "id",
    cylinder: bool = True,
    r_max: float = R_MAX,
    v_max: float = V_MAX,
    min_galaxies: int = 10,
    n_projections: int = 3,
    target_density: float = -5.2,
    max_projections: int = 500,
    galaxy_column: str | None = None,
    galaxy_min: float | None = None,
    n_folds: int = 10,
    folds: tuple[int, ...] | None = None,
    redshift: float | None = None,
    box_size: float | None = None,
    cosmology: Mapping[str, Any] | None = None,
    seed: int = 0,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: bool = False,
) -> NbodySummary:
    """Cut mock clusters out of a periodic box and write them as a catalogue.

    Finished blocks of the box are kept in the folder ``<out>.work`` until the catalogue is written, so that the
    same call goes on after an interruption. Neither that nor the number of workers changes the catalogue.

    Args:
        hosts: haloes, in a format of `bayesflowmass.io.iterate_box`; those with upid -1 and a log10 M200c in
            ``log10_mass_range`` [Msun/h] are hosts.
        galaxies: galaxies or subhaloes of the same snapshot; may be the same file.
        out: catalogue to write (parquet).
        masses: ``"flat"``: lines of sight are chosen so that they are uniform in log10 mass, before the cut in
            richness; ``"hmf"``: ``n_projections`` lines for every host, so that masses follow the box.
        kind: ``"contaminated"``: all galaxies in the cylinder; ``"pure"``: the true members among them.
        mode: ``"paper"``: satellites only (upid other than -1); ``"survey"``: centrals too, the host's own
            included; ``"mixed"``: either, drawn for each host (cluster column ``mode``).
        membership: true members have the id of the host as their upid (``"id"``), or lie within its R_vir in
            three dimensions (``"radius"``).
        cylinder: False, for ``"pure"``: all true members, whether in the cylinder or not.
        r_max: aperture [comoving Mpc/h].
        v_max: velocity cut [km/s].
        min_galaxies: lines of sight with fewer make no cluster.
        n_projections: 1 to 3 axes of the box, for ``"hmf"``.
        target_density: log10 of the lines of sight per dex and (Mpc/h)^3, for ``"flat"``. Hosts too common for it
            lend one of three axes or none; those too rare are seen from up to ``max_projections`` Fibonacci points.
        max_projections: at least 3.
        galaxy_column, galaxy_min: rows of ``galaxies`` with ``galaxy_column >= galaxy_min`` are galaxies; by
            default log10 mass at accretion (else peak mass) of at least 11 [Msun/h].
        n_folds: folds by halo, a function of the halo's id alone (cluster column ``fold``).
        folds: make clusters of these folds only; None makes all.
        redshift, box_size [comoving Mpc/h], cosmology: of the box, where the files do not say; given ones win.
            ``cosmology`` holds the parameters that differ from MDPL2's.
        seed: of the choice of lines of sight.
        workers: processes; None takes one for each available core.
        scheduler: address of a Dask scheduler, whose workers see the same folders and cut instead.
        progress: show bars on standard error.

    Returns:
        What was made. The catalogue has the galaxy columns x, y [comoving Mpc/h], v_los [km/s] (float32),
        gal_is_member, gal_is_central, gal_galaxy_id and the cluster columns halo_id (the host's id), redshift,
        log10_mass, fold, projection, los_x, los_y, los_z (line of sight, away from the observer), host_x, host_y,
        host_z [comoving Mpc/h], r_vir, v200c, what the box knows of concentration, other masses and velocities,
        richness_true (members in three dimensions), sigma_v_true (their 1-D dispersion, km/s), n_members and
        interloper_fraction (of the galaxies kept).

    Raises:
        CatalogError: if a file is broken or lacks what is needed, or redshift or size of the box are not known.
        ValueError: if an argument is out of range or the cylinder is deeper than the box; or see `work_off`.
        KeyboardInterrupt: after Ctrl-C, once the blocks in progress are kept.
    """
    hosts, galaxies, out = Path(hosts), Path(galaxies), Path(out).absolute()
    _check_arguments(
        masses, kind, mode, membership, cylinder, n_projections, max_projections, n_folds, folds, min_galaxies
    )
    _check_cylinder(r_max, v_max)
    box = describe_box(hosts, galaxies, redshift, box_size, cosmology)
    cut = galaxy_cut(galaxies, galaxy_column, galaxy_min)
    chosen: dict[str, Any] = {
        "masses": masses,
        "log10_mass_range": list(log10_mass_range),
        "kind": kind,
        "mode": mode,
        "membership": membership,
        "cylinder": cylinder,
        "r_max": float(r_max),
        "v_max": float(v_max),
        "min_galaxies": min_galaxies,
        **_line_settings(masses, n_projections, target_density, max_projections),
        "galaxy_column": cut.column,
        "galaxy_min": cut.minimum,
        "n_folds": n_folds,
        "folds": None if folds is None else sorted(set(folds)),
        "redshift": box.redshift,
        "box_size": box.size,
        "cosmology": box.cosmology.to_dict(),
        "seed": seed,
    }
    found = read_hosts(hosts, box, log10_mass_range)
    lines, n_hosts, masses_found = _lines(found, box, chosen)
    work = WorkFolder(out, {**chosen, "hosts": file_facts(hosts), "galaxies": file_facts(galaxies)})
    store, depth = _store_and_depth(
        galaxies, hosts, found, box, cut, work,
        mode=mode, membership=membership, v_max=v_max, r_max=r_max, progress=progress,
    )  # fmt: skip
    recipe = CutRecipe(
        box=box,
        kind=kind,
        mode=mode,
        membership=membership,
        cylinder=cylinder,
        r_max=float(r_max),
        v_max=float(v_max),
        min_galaxies=min_galaxies,
        n_folds=n_folds,
        seed=seed,
        depth=depth,
    )
    blocks = _blocks(found, lines, box, store.n_galaxies)
    _cut_all(CutPlan(found, *lines, blocks), recipe, work, workers, scheduler, progress)
    facts = {"hosts": hosts.name, "galaxies": galaxies.name, "n_hosts": n_hosts, "galaxy_rows": store.counts}
    return write_catalog(work, len(blocks), out, recipe, chosen, masses_found, facts)


def _lines(
    hosts: Hosts, box: Box, chosen: Mapping[str, Any]
) -> tuple[tuple[LinesOfSight, IntArray], int, dict[str, Any]]:
    """Lines of sight with their cluster ids, the number of hosts, and what is known of the masses.

    The mass function is that of all hosts, whatever the folds, and ids count the lines of all folds: catalogues
    of different folds fit together.
    """
    masses, seed = chosen["masses"], chosen["seed"]
    if masses == "flat":
        n_lines = flat_lines(
            hosts.log10_mass, box.volume, chosen["target_density"], chosen["max_projections"], seed
        )
    else:
        n_lines = np.full(len(hosts), chosen["n_projections"], dtype=np.int64)
    lines = lines_of_sight(hosts.id, n_lines, seed)
    cluster_id = np.arange(len(lines))
    n_hosts = len(hosts)
    if chosen["folds"] is not None:
        mine = np.isin(fold_of(hosts.id, chosen["n_folds"]), chosen["folds"])
        n_hosts = int(mine.sum())
        lines, cluster_id = lines.take(mine[lines.host]), cluster_id[mine[lines.host]]
    if not len(lines):
        raise CatalogError(
            f"no line of sight is left for {n_hosts} hosts; choose more folds, or raise --target-density."
        )
    low, high = chosen["log10_mass_range"]
    limits = {
        # Where the file, not the range, ends: thresholds of files are round numbers just below their least mass.
        "log10_mass_min": max(low, float(hosts.log10_mass.min())),
        "log10_mass_max": min(high, float(hosts.log10_mass.max())),
    }
    return (lines, cluster_id), n_hosts, {"distribution": masses, **limits}


def _line_settings(
    masses: str, n_projections: int, target_density: float, max_projections: int
) -> dict[str, Any]:
    """Those that say how many lines of sight a host gets."""
    if masses == "hmf":
        return {"n_projections": n_projections}
    return {"target_density": target_density, "max_projections": max_projections}


def _store_and_depth(
    galaxies: Path,
    hosts: Path,
    found: Hosts,
    box: Box,
    cut: GalaxyCut,
    work: WorkFolder,
    *,
    mode: str,
    membership: str,
    v_max: float,
    r_max: float,
    progress: bool,
) -> tuple[GalaxyStore, float]:
    """The galaxies of the box, sorted unless a run before has done so, and the depth of a cylinder [Mpc/h]."""
    sorted_before = GalaxyStore.exists(work.galaxies)
    try:
        if not sorted_before:
            centrals = mode != "paper"
            sort_galaxies(galaxies, work.galaxies, found, box.size, cut, centrals=centrals, progress=progress)
        store = GalaxyStore(work.galaxies)
        if membership == "id" and store.counts["of_hosts"] == 0:
            raise CatalogError(
                f"{galaxies}: no galaxy has a host of {hosts} as its upid, so the files are of different snapshots "
                "or trees; take files that belong together, or --membership radius."
            )
        return store, _depth(box, found, store, v_max, r_max)
    except Exception:
        # Nothing to go on from: the next attempt has other files or settings, or needs the space.
        if not sorted_before:
            work.remove()
        raise


def _depth(box: Box, hosts: Hosts, store: GalaxyStore, v_max: float, r_max: float) -> float:
    host_speed = float(np.sqrt((hosts.velocity**2).sum(axis=1).max()))
    depth = depth_limit(box.redshift, box.cosmology, v_max, store.speed, host_speed)
    if 2.0 * math.hypot(depth, r_max) > box.size:
        raise ValueError(
            f"the cylinder is deeper than the box: |v_los| < {v_max:g} km/s and speeds up to {store.speed:.0f} km/s "
            f"reach {2 * depth:.0f} Mpc/h, and the box has {box.size:g}, so that galaxies would be seen twice; lower "
            "--v-max, or take a larger box."
        )
    return depth


def _blocks(hosts: Hosts, lines: tuple[LinesOfSight, IntArray], box: Box, n_galaxies: int) -> list[IntArray]:
    """Rows of the lines of each cube of the box; as many cubes as keep the galaxies of one in memory."""
    n = min(_MOST_BLOCKS, max(1, math.ceil((n_galaxies / _GALAXIES_PER_BLOCK) ** (1.0 / 3.0))))
    cube = np.minimum((hosts.position * (n / box.size)).astype(np.int64), n - 1) @ np.array([n * n, n, 1])
    of_line = cube[lines[0].host]
    order = np.argsort(of_line, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(of_line[order])) + 1)


def _cut_all(
    plan: CutPlan,
    recipe: CutRecipe,
    work: WorkFolder,
    workers: int | None,
    scheduler: str | None,
    progress: bool,
) -> None:
    sizes = [rows.size for rows in plan.blocks]
    todo = [index for index in range(len(sizes)) if not work.is_done(index)]
    if todo:
        plan.write(work)
    go = partial(work_off, workers=processes(workers, len(todo)), scheduler=scheduler)
    with progress_bar(sum(sizes), "cutting", " lines", progress) as bar:
        bar.update(sum(sizes) - sum(sizes[index] for index in todo))
        try:
            for index, _ in go(partial(cut_planned, work, recipe), todo):
                bar.update(sizes[index])
        except KeyboardInterrupt as error:
            kept = sum(work.is_done(index) for index in range(len(sizes)))
            raise KeyboardInterrupt(
                f"{kept} of {len(sizes)} blocks of the box are kept in '{work.path}'; the same command goes on "
                "from there."
            ) from error


def _check_cylinder(r_max: float, v_max: float) -> None:
    for name, value, low, high in (("r_max", r_max, 0.1, 10.0), ("v_max", v_max, 100.0, 10_000.0)):
        if not low <= value <= high:
            raise ValueError(f"{name} is {value:g}; expected {low:g} to {high:g}.")


def _check_arguments(
    masses: str,
    kind: str,
    mode: str,
    membership: str,
    cylinder: bool,
    n_projections: int,
    max_projections: int,
    n_folds: int,
    folds: tuple[int, ...] | None,
    min_galaxies: int,
) -> None:
    for name, choice, known in (
        ("masses", masses, ("flat", "hmf")),
        ("kind", kind, ("pure", "contaminated")),
        ("mode", mode, ("paper", "survey", "mixed")),
        ("membership", membership, ("id", "radius")),
    ):
        if choice not in known:
            raise ValueError(f"{name} is {choice!r}; expected one of {', '.join(known)}.")
    for name, number, least, most in (
        ("n_projections", n_projections, 1, MAX_ORTHOGONAL),
        ("max_projections", max_projections, MAX_ORTHOGONAL, 100_000),
        ("n_folds", n_folds, 1, 1000),
        ("min_galaxies", min_galaxies, 3, 100_000),
    ):
        if not least <= number <= most:
            raise ValueError(f"{name} is {number}; expected {least} to {most}.")
    if not cylinder and kind != "pure":
        raise ValueError("without a cylinder only the members are defined; choose kind pure, or keep it.")
    if folds is not None and (not folds or min(folds) < 0 or max(folds) >= n_folds):
        raise ValueError(f"folds are {list(folds)}; expected some of 0 to {n_folds - 1}.")
