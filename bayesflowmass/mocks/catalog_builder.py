"""`simulate_catalog`: mock clusters from nothing to a `ClusterCatalog`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm.auto import tqdm

from bayesflowmass.catalog import CatalogMetadata, CatalogWriter, ClusterCatalog
from bayesflowmass.catalog.work import WorkFolder
from bayesflowmass.common.arrays import IntArray
from bayesflowmass.common.lock import sole_writer
from bayesflowmass.common.workers import processes, work_off
from bayesflowmass.cosmology import MDPL2, Cosmology
from bayesflowmass.mocks.batch import Columns, Recipe, simulate_batch
from bayesflowmass.mocks.parameters import MockParameters
from bayesflowmass.mocks.randomisation import Randomisation
from bayesflowmass.selection.cuts import R_MAX, V_MAX

_BATCH_ROWS = 1024
"""Clusters in a batch: part of the definition of the random numbers, not a choice of the caller."""
_PART = 4
"""Batches of a part of a file: two seconds of work."""
_CLUSTERS_PER_WORKER = 20_000
"""Fewer are made in the time that a process takes to start."""
_HOPELESS = 30
"""Batches without one accepted cluster before giving up."""
_MASS_LIMITS = (12.5, 16.0)
_REDSHIFT_LIMITS = (0.01, 1.5)


def simulate_catalog(
    n_clusters: int,
    *,
    masses: Literal["flat", "hmf"] = "flat",
    log10_mass_range: tuple[float, float] = (13.2, 15.6),
    kind: Literal["pure", "contaminated"] = "contaminated",
    mode: Literal["paper", "survey", "mixed"] = "paper",
    redshift: float | tuple[float, float] = 0.117,
    n_projections: int = 1,
    parameters: MockParameters | None = None,
    r_max: float = R_MAX,
    v_max: float = V_MAX,
    min_galaxies: int = 10,
    magnitudes: bool = False,
    randomise: Mapping[str, tuple[float, float]] | None = None,
    cosmology: Cosmology = MDPL2,
    seed: int = 0,
    progress: bool = False,
) -> ClusterCatalog:
    """Simulate galaxy clusters of known mass.

    Masses are drawn **before** the cut in richness: with ``masses="flat"`` the density of simulated haloes is
    flat, and the clusters that pass thin out at the low end. That is what makes p(M | galaxies) of a model
    trained on them the posterior under a flat prior.

    Args:
        n_clusters: clusters in the result (one line of sight of one halo is one cluster).
        masses: ``"flat"`` in log10 mass, or ``"hmf"``, the mass function (Tinker et al. 2008).
        log10_mass_range: limits of log10 M200c [Msun/h], within 12.5-16.
        kind: ``"pure"``: all members inside R_vir in three dimensions, without a cylinder;
            ``"contaminated"``: everything in the cylinder R < r_max, |v| < v_max.
        mode: who is seen: ``"paper"`` satellites only, so that interlopers are satellites of other haloes;
            ``"survey"`` central galaxies too, the cluster's own included; ``"mixed"`` either, at random
            (cluster column ``mode``).
        redshift: one value, or limits between which redshifts are uniform; within 0.01-1.5.
        n_projections: lines of sight of each halo and its surroundings, which share a ``halo_id``:
            orthogonal up to 3, evenly spread beyond.
        parameters: constants of the mocks, e.g. ``MockParameters.preset("sky")``; None takes the defaults.
        r_max: aperture [comoving Mpc/h].
        v_max: velocity cut [km/s].
        min_galaxies: clusters with fewer are dropped and replaced.
        magnitudes: add ``gal_abs_mag`` (r band, - 5 log10 h) by abundance matching.
        randomise: ``{parameter: (low, high)}``: each halo draws these parameters from uniform priors
            (`bayesflowmass.mocks.PRIORS` lists them); they become cluster columns of these names (``mean_`` and
            the name for the axis ratios, whose own values are columns already).
        seed: the same seed gives the same catalogue, and a larger catalogue begins with the smaller one.
        progress: show a progress bar.

    Returns:
        Catalogue with galaxy columns x, y, v_los (float32), gal_is_member, gal_component
        (`bayesflowmass.mocks.Component`), with orbits also gal_orbit (`bayesflowmass.mocks.Orbit`), and the
        latent truths as cluster columns: concentration,
        axis_ratio_q, axis_ratio_s, los_angle_cos (major axis to line of sight), substructure_fraction,
        richness_expected, richness_true (members inside R_vir), sigma_v_true (their 1-D dispersion in three
        dimensions, km/s), n_members and interloper_fraction (of the galaxies kept), r_vir [comoving Mpc/h],
        v200c [km/s].

    Raises:
        ValueError: if an argument is out of range, or hardly any cluster has ``min_galaxies`` galaxies.
    """
    recipe = make_recipe(
        n_clusters,
        masses=masses,
        log10_mass_range=log10_mass_range,
        kind=kind,
        mode=mode,
        redshift=redshift,
        n_projections=n_projections,
        parameters=parameters,
        r_max=r_max,
        v_max=v_max,
        min_galaxies=min_galaxies,
        cosmology=cosmology,
        magnitudes=magnitudes,
        randomise=randomise,
    )
    columns, flat = _accepted(recipe, n_clusters, seed, progress)
    n_galaxies = columns.pop("n_galaxies")
    columns = {"cluster_id": np.arange(n_clusters), **columns}
    return ClusterCatalog.from_arrays(columns, flat, n_galaxies, _metadata(recipe, seed))


def simulate_file(
    out: Path,
    n_clusters: int,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    seed: int = 0,
    progress: bool = False,
    **arguments: Any,
) -> tuple[int, int]:
    """Write the catalogue of `simulate_catalog`, part by part on several processes, in the memory of a few parts.

    Finished parts are kept in the folder ``<out>.work`` until the catalogue is written, so that the same call goes on
    after any interruption. The galaxies are the same for any number of processes.

    Args:
        out: parquet file.
        n_clusters, seed, arguments: of `simulate_catalog`.
        workers: processes; default: one for each core, if there is enough to do.
        scheduler: address of a Dask scheduler whose workers make the parts, and see the folder of ``out``.
        progress: show a progress bar.

    Returns:
        Numbers of clusters and of galaxies.

    Raises:
        ValueError: see `simulate_catalog`; another process writes this catalogue; or see `work_off`.
    """
    recipe = make_recipe(n_clusters, **arguments)
    chosen = {"n_clusters": n_clusters, "seed": seed} | {
        name: value.to_dict() if hasattr(value, "to_dict") else value for name, value in vars(recipe).items()
    }
    out = out.absolute()
    workers = processes(workers, max(1, n_clusters // _CLUSTERS_PER_WORKER))
    place = out.with_name(out.name + ".work")
    with sole_writer(place, "simulate"):
        work = WorkFolder(out, {"mocks": chosen})
        try:
            _make_parts(work, recipe, n_clusters, seed, workers, scheduler, progress)
            n_galaxies = _put_together(work, out, n_clusters)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"Finished parts are kept in '{work.path}'; the same command goes on from there."
            ) from None
        work.remove()
    return n_clusters, n_galaxies


def _make_parts(
    work: WorkFolder,
    recipe: Recipe,
    n_clusters: int,
    seed: int,
    workers: int,
    scheduler: str | None,
    progress: bool,
) -> None:
    """Make parts until the first of them hold enough clusters together."""
    counts = {}
    found = upto = 0
    make = partial(_make_part, work, recipe, seed)
    with tqdm(total=n_clusters, desc="simulating", unit="cluster", disable=not progress) as bar:
        for index, n in work_off(make, itertools.count(), workers=workers, scheduler=scheduler):
            counts[index] = n
            bar.update(min(n, n_clusters - bar.n))
            while upto in counts:
                found += counts[upto]
                upto += 1
            if found >= n_clusters:
                return
            if upto * _PART >= _HOPELESS and found == 0:
                work.remove()
                raise _hopeless(recipe, upto * _PART)


def _make_part(work: WorkFolder, recipe: Recipe, seed: int, index: int) -> int:
    """Make a part, if it is not there; its number of clusters."""
    if not work.is_done(index):
        batches = [_batch(recipe, seed, batch) for batch in range(index * _PART, (index + 1) * _PART)]
        columns, flat = _joined([rows for rows, _ in batches], [galaxies for _, galaxies in batches])
        n_galaxies = columns.pop("n_galaxies")
        columns = {"cluster_id": np.arange(len(n_galaxies)), **columns}
        work.keep(index, ClusterCatalog.from_arrays(columns, flat, n_galaxies, _metadata(recipe, seed)))
    return work.count(index)


def _put_together(work: WorkFolder, out: Path, n_clusters: int) -> int:
    """One catalogue of the first clusters of the parts, and its number of galaxies."""
    found = n_galaxies = 0
    with CatalogWriter(out) as writer:
        for index in itertools.count():
            part = work.read(index)
            part = part[: n_clusters - found].with_columns(
                cluster_id=np.arange(found, found + min(len(part), n_clusters - found))
            )
            writer.write(part)
            found, n_galaxies = found + len(part), n_galaxies + part.n_galaxies_total
            if found == n_clusters:
                return n_galaxies
    raise AssertionError("unreachable")


def _accepted(recipe: Recipe, n_clusters: int, seed: int, progress: bool) -> tuple[Columns, Columns]:
    """Columns of the first ``n_clusters`` with enough galaxies, and of their galaxies.

    Raises:
        ValueError: if hardly any has.
    """
    clusters: list[Columns] = []
    galaxies: list[Columns] = []
    found = batch = 0
    with tqdm(total=n_clusters, desc="simulating", unit="cluster", disable=not progress) as bar:
        while found < n_clusters:
            rows, flat = _batch(recipe, seed, batch)
            rows, flat = _first(rows, flat, n_clusters - found)
            clusters.append(rows)
            galaxies.append(flat)
            found += rows["n_galaxies"].size
            bar.update(rows["n_galaxies"].size)
            batch += 1
            if batch == _HOPELESS and found == 0:
                raise _hopeless(recipe, batch)
    return _joined(clusters, galaxies)


def _batch(recipe: Recipe, seed: int, batch: int) -> tuple[Columns, Columns]:
    """One batch of clusters and their galaxies; it is the same whoever makes it, and whatever was made before."""
    halos_in_batch = max(1, _BATCH_ROWS // recipe.n_projections)
    rows, flat = simulate_batch(halos_in_batch, recipe, np.random.default_rng([seed, batch]))
    rows["halo_id"] = rows["halo_id"] + batch * halos_in_batch
    return rows, flat


def _hopeless(recipe: Recipe, batches: int) -> ValueError:
    return ValueError(
        f"none of {batches * max(1, _BATCH_ROWS // recipe.n_projections)} simulated haloes has {recipe.min_galaxies} "
        f"galaxies; raise log10_mass_range = {recipe.log10_mass_range} or lower min_galaxies."
    )


def _joined(clusters: list[Columns], galaxies: list[Columns]) -> tuple[Columns, Columns]:
    columns = {name: np.concatenate([part[name] for part in clusters]) for name in clusters[0]}
    # Column by column, so that no more than one column exists twice.
    flat = {name: np.concatenate([part.pop(name) for part in galaxies]) for name in list(galaxies[0])}
    return columns, flat


def _metadata(recipe: Recipe, seed: int) -> CatalogMetadata:
    return CatalogMetadata(
        kind=recipe.kind,
        mode=recipe.mode,
        cosmology=recipe.cosmology,
        selection=_selection(recipe),
        masses={
            "distribution": recipe.masses,
            "log10_mass_min": recipe.log10_mass_range[0],
            "log10_mass_max": recipe.log10_mass_range[1],
        },
        seed=seed,
        extra={
            "mock_parameters": recipe.parameters.to_dict(),
            "redshift_range": list(recipe.redshift_range),
            "n_projections": recipe.n_projections,
            **({"randomise": recipe.randomise.to_dict()} if recipe.randomise else {}),
        },
    )


def _selection(recipe: Recipe) -> dict[str, float]:
    if recipe.kind == "pure":
        return {"min_galaxies": recipe.min_galaxies}
    return {"r_max": recipe.r_max, "v_max": recipe.v_max, "min_galaxies": recipe.min_galaxies}


def _first(rows: Columns, flat: Columns, n: int) -> tuple[Columns, Columns]:
    counts: IntArray = rows["n_galaxies"]  # type: ignore[assignment]
    if counts.size <= n:
        return rows, flat
    end = int(counts[:n].sum())
    return {k: v[:n] for k, v in rows.items()}, {k: v[:end] for k, v in flat.items()}


def make_recipe(
    n_clusters: int,
    *,
    masses: str = "flat",
    log10_mass_range: tuple[float, float] = (13.2, 15.6),
    kind: str = "contaminated",
    mode: str = "paper",
    redshift: float | tuple[float, float] = 0.117,
    n_projections: int = 1,
    parameters: MockParameters | None = None,
    r_max: float = R_MAX,
    v_max: float = V_MAX,
    min_galaxies: int = 10,
    cosmology: Cosmology = MDPL2,
    magnitudes: bool = False,
    randomise: Mapping[str, tuple[float, float]] | None = None,
) -> Recipe:
    """The arguments of `simulate_catalog`, checked; see there.

    Raises:
        ValueError: an argument is out of range.
    """
    for name, count, least in (
        ("n_clusters", n_clusters, 1),
        ("n_projections", n_projections, 1),
        ("min_galaxies", min_galaxies, 1),
    ):
        if not isinstance(count, int | np.integer) or count < least:
            raise ValueError(f"{name} is {count!r}; expected a whole number of at least {least}.")
    for name, choice, known in (
        ("masses", masses, ("flat", "hmf")),
        ("kind", kind, ("pure", "contaminated")),
        ("mode", mode, ("paper", "survey", "mixed")),
    ):
        if choice not in known:
            raise ValueError(f"{name} is {choice!r}; expected one of {', '.join(known)}.")
    low, high = (float(value) for value in log10_mass_range)
    if not _MASS_LIMITS[0] <= low < high <= _MASS_LIMITS[1]:
        raise ValueError(
            f"log10_mass_range is ({low:g}, {high:g}); expected increasing limits of log10 M200c [Msun/h] "
            f"within {_MASS_LIMITS[0]}-{_MASS_LIMITS[1]}."
        )
    near, far = (float(z) for z in (redshift if isinstance(redshift, tuple | list) else (redshift, redshift)))
    if not _REDSHIFT_LIMITS[0] <= near <= far <= _REDSHIFT_LIMITS[1]:
        raise ValueError(
            f"redshift is {redshift!r}; expected one value, or increasing limits, within "
            f"{_REDSHIFT_LIMITS[0]}-{_REDSHIFT_LIMITS[1]}."
        )
    for name, length, limits in (("r_max", r_max, (0.1, 10.0)), ("v_max", v_max, (100.0, 3500.0))):
        if not (math.isfinite(length) and limits[0] <= length <= limits[1]):
            unit = "comoving Mpc/h" if name == "r_max" else "km/s"
            raise ValueError(f"{name} is {length!r}; expected {limits[0]:g} to {limits[1]:g} {unit}.")
    return Recipe(
        masses=masses,
        log10_mass_range=(low, high),
        kind=kind,
        mode=mode,
        redshift_range=(near, far),
        n_projections=n_projections,
        parameters=MockParameters() if parameters is None else parameters,
        r_max=float(r_max),
        v_max=float(v_max),
        min_galaxies=int(min_galaxies),
        cosmology=cosmology,
        magnitudes=magnitudes,
        randomise=Randomisation(randomise or {}),
    )
