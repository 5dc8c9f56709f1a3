"""Masses of clusters: ``bayesflowmass infer`` and :func:`infer`."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bayesflowmass.command import run_command
from bayesflowmass.command.parts import PartSettings, goes_in_parts
from bayesflowmass.command.paths import InputPath, ModelPath, OutFolder, OutTable
from bayesflowmass.command.reading import ReadingSettings
from bayesflowmass.command.record import command_line
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.common.outputs import check_texts
from bayesflowmass.common.terminal import say, say_aside
from bayesflowmass.estimator.observations import read_for, read_observations

# The rest is imported where it is used: --help, and an error in a table, should not wait for torch and a model.
if TYPE_CHECKING:
    from astropy.table import Table

    from bayesflowmass.catalog import ClusterCatalog
    from bayesflowmass.estimator import MassEstimator
    from bayesflowmass.evaluation.road import Batch
    from bayesflowmass.posterior import MassPrior

__all__ = ["InferSettings", "infer", "infer_members", "main", "read_observations", "summary"]


OTHER_PRIORS = ("hmf", "sz:14.5")
"""Priors that are spoken of where nobody says which one a table needs."""


class InferSettings(ReadingSettings, PartSettings):
    """`bayesflowmass infer`: masses of the clusters of a catalogue or of tables."""

    listed_last: ClassVar[tuple[str, ...]] = (
        *ReadingSettings.listed_last,
        *("prior", "also", *PartSettings.listed_last),
    )

    model: ModelPath | None = Field(
        None,
        description="model folder, or the name of a shipped model; default: sky, which needs no training",
    )
    complete: bool = Field(
        False,
        description="all galaxies to some depth are in the table: use the shipped model that counts them",
    )
    galaxies: InputPath = Field(description="catalogue (parquet), or table of galaxies")
    clusters: InputPath | None = Field(None, description="table of clusters")
    out: OutTable = Field(Path("masses.ecsv"), description="table to write (ecsv, fits, votable, parquet)")
    selection: InputPath | None = Field(
        None, description="table log10_mass, probability of being in the sample, which multiplies the prior"
    )
    prior: str | None = Field(
        None,
        description="how the clusters were chosen: flat in log10 mass (the default), hmf (the mass function), or"
        " what of it lies above a log10 M200c, with a scatter in dex (sz:14.5,0.1 or xray:14.2), a flux (xray:3e-12) or"
        " a number of galaxies in the table (richness:20)",
    )
    also: tuple[str, ...] = Field(
        (), description="further priors, for columns log10_mass_PRIOR, q16_PRIOR, q84_PRIOR"
    )
    pdf: bool = Field(False, description="add each PDF on a grid")
    members: OutTable | None = Field(
        None,
        description="table of the probability that each galaxy is a member, from a model that reads galaxies",
    )
    cards: OutFolder | None = Field(None, description="folder for one page (PDF and PNG) of each cluster")
    mdef: Literal["200c", "500c", "vir", "200m"] = Field("200c", description="mass definition")
    units: Literal["Msun/h", "Msun"] = Field("Msun/h", description="unit of mass")
    h: float | None = Field(None, gt=0, description="Hubble parameter for Msun; default: the model's")


def infer(
    estimator: MassEstimator,
    catalog: ClusterCatalog,
    *,
    prior: str | MassPrior = "flat",
    also: Sequence[str | MassPrior] = (),
    pdf: bool = False,
    units: str = "Msun/h",
    mdef: str = "200c",
    h: float | None = None,
    model: str = "",
    n_draws: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Table:
    """The masses table of a catalogue: one row per cluster, in its order.

    A cluster whose galaxies make no density (fewer than three, or no spread) gets a row without a mass,
    masked, and a flag that says why; the others are not held up by it.

    Args:
        estimator: a trained model.
        catalog: clusters, cut to the cylinder of the model where theirs is larger.
        prior: on log10 M200c over the training range: a text of `bayesflowmass.posterior.make_prior`, or a prior.
        also: further priors, for columns beside (`bayesflowmass.evaluation.masses_table`).
        pdf: add the PDF of each cluster.
        units: ``"Msun/h"`` or ``"Msun"``.
        mdef: definition of mass, ``"200c"``, ``"500c"``, ``"vir"`` or ``"200m"``.
        h: Hubble parameter for ``"Msun"``; default: that of the model.
        model: name of the model, for the header.
        n_draws, seed: of the weights, see :meth:`~bayesflowmass.estimator.MassEstimator.posterior`.
        progress: show a bar on standard error.

    Returns:
        The table of `bayesflowmass.posterior.masses_table`, with ``sigma_systematic``
        (`bayesflowmass.estimator.systematic`) where the model knows it, and ``p_novelty``
        (`bayesflowmass.novelty`).

    Raises:
        CatalogError: there are no clusters, or none of them can have a mass.
    """
    from bayesflowmass.evaluation.road import posteriors

    batches = posteriors(estimator, catalog, prior, n_draws=n_draws, seed=seed, progress=progress)
    options = {"also": also, "pdf": pdf, "units": units, "mdef": mdef, "h": h, "model": model}
    return _masses(estimator, catalog, batches, seed, **options)


def infer_members(
    estimator: MassEstimator,
    catalog: ClusterCatalog,
    *,
    prior: str | MassPrior = "flat",
    model: str = "",
    n_draws: int | None = None,
    seed: int = 0,
    progress: bool = False,
    **options: Any,
) -> tuple[Table, Table]:
    """The masses table of a catalogue, and the table of memberships of its galaxies, in one pass.

    Args:
        estimator: a model that reads galaxies.
        catalog, prior, model, n_draws, seed, progress: see `infer`.
        options: further arguments of `infer`: ``also``, ``pdf``, ``units``, ``mdef``, ``h``.

    Returns:
        The table of `infer`, and that of `bayesflowmass.evaluation.members_table.members_table`.

    Raises:
        ValueError: the model reads images, which do not say who is a member.
        CatalogError: see `infer`.
    """
    from bayesflowmass.estimator.shipped import SHIPPED_GALAXIES
    from bayesflowmass.evaluation.members_table import mark_galaxies, members_table, noted_memberships
    from bayesflowmass.evaluation.road import posteriors

    if estimator.flow.set_trunk is None:
        raise ValueError(
            "This model reads images, which do not say who is a member; take one that reads galaxies"
            f" ('{SHIPPED_GALAXIES}' ships with the package), or leave out members."
        )
    probability = np.full(catalog.n_galaxies_total, np.nan)
    batches = posteriors(
        estimator, mark_galaxies(catalog), prior, n_draws=n_draws, seed=seed, progress=progress
    )
    masses = _masses(
        estimator, catalog, noted_memberships(batches, probability), seed, model=model, **options
    )
    return masses, members_table(catalog, probability, model)


def _masses(
    estimator: MassEstimator, catalog: ClusterCatalog, batches: Iterable[Batch], seed: int, **options: Any
) -> Table:
    """The masses table of the batches of a catalogue."""
    from bayesflowmass.evaluation.masses_table import novelty_header, whole_table

    full, strange = whole_table(batches, **options)
    full.meta |= novelty_header(estimator.novelty, strange, catalog, seed)
    return full


def summary(table: Table, out: str | os.PathLike[str]) -> str:
    """What a table holds, in a few lines: clusters, masses, flags, where it was written."""
    from bayesflowmass.estimator.flags import FLAGS

    mass = np.ma.asarray(table["log10_mass"]).compressed()
    sigma = np.ma.asarray(table["sigma"]).compressed()
    name = f"log10 M{table.meta['mdef']} [{table.meta['units']}]"
    without = len(table) - len(mass)
    lines = [
        f"{len(table)} cluster{'s' * (len(table) != 1)}, prior {table.meta['prior']}: {name} "
        + (f"{mass[0]:.3f} +- {sigma[0]:.3f}" if len(mass) == 1 else _range(mass, sigma))
    ]
    if without:
        lines.append(f"{without} without a mass (masked rows).")
    counts = Counter(flag for row in table["flags"] for flag in str(row).split(",") if flag)
    lines += [f"  flag {flag}: {counts[flag]} ({FLAGS[flag]})" for flag in FLAGS if counts[flag]]
    if "recal" in table.meta:
        lines.append(f"Recalibrated for prior and population {table.meta['recal']} (docs/recalibration.md).")
    if "novelty" in table.meta:
        lines.append(table.meta["novelty"])
    lines.append(f"Written to {out}")
    return "\n".join(lines)


def _range(mass: FloatArray, sigma: FloatArray) -> str:
    return (
        f"{mass.min():.2f} to {mass.max():.2f}, median {np.median(mass):.2f}, "
        f"typical sigma {np.median(sigma):.2f} dex"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``infer``; returns its exit code."""
    return run_command(InferSettings, _infer_with, argv, prog="bayesflowmass infer")


def _infer_with(settings: InferSettings) -> None:
    """Take the values out of the settings, infer, write, and say what was found."""
    from bayesflowmass.estimator.shipped import choose_model
    from bayesflowmass.estimator.training_info import read_training_info

    chosen = choose_model(settings.model, settings.complete)
    command = command_line("bayesflowmass infer", settings)
    if goes_in_parts(settings.model_dump()):
        from bayesflowmass.evaluation.in_parts import infer_with_settings

        table = infer_with_settings(str(chosen), settings.model_dump(), command)
        _warn(table)
        say(summary(table, settings.out))
        return
    # The table before the model: it is read in a fifth of the time, and it is where most mistakes are.
    catalog = read_for(read_training_info(chosen), settings.galaxies, settings.clusters, **settings.reading())

    check_texts(settings.out, catalog.column("cluster_id").tolist(), "cluster_id")

    from bayesflowmass.estimator import MassEstimator
    from bayesflowmass.estimator.told import notes, tell
    from bayesflowmass.evaluation.cards import write_cards
    from bayesflowmass.evaluation.masses_table import prior_column
    from bayesflowmass.evaluation.prior_note import moved_by
    from bayesflowmass.posterior.write_table import write_table

    estimator = MassEstimator.load(chosen, settings.device)
    if settings.model is None:
        say_aside(f"model: {chosen}, which ships with the package (docs/model_card.md)")
    catalog = tell(catalog, estimator, settings.assume)
    for note in [*catalog.metadata.extra.get("notes", []), *notes(catalog, estimator)]:
        say_aside(f"note: {note}")
    prior, aside = _priors(settings, estimator, catalog)
    options: dict[str, Any] = {
        "prior": prior,
        "also": [*settings.also, *aside],
        "pdf": settings.pdf,
        "units": settings.units,
        "mdef": settings.mdef,
        "h": settings.h,
        "model": str(chosen),
        "n_draws": settings.n_draws,
        "seed": settings.seed,
        "progress": settings.progress,
    }
    if settings.members is None:
        table = infer(estimator, catalog, **options)
    else:
        table, galaxies = infer_members(estimator, catalog, **options)
        galaxies.meta["command"] = command
        write_table(galaxies, settings.members)
    table.meta["command"] = command
    if aside:
        say_aside(f"note: {moved_by(table, {name: prior_column(name) for name in aside})}")
        table.remove_columns(
            [prior_column(name, of) for name in aside for of in ("log10_mass", "q16", "q84")]
        )
    write_table(table, settings.out)
    _warn(table)
    say(summary(table, settings.out))
    if settings.members is not None:
        say(f"Memberships of {len(galaxies)} galaxies written to {settings.members}")
    if settings.cards is not None:
        paths = write_cards(
            estimator,
            catalog,
            settings.cards,
            progress=settings.progress,
            prior=prior,
            flags=np.asarray(table["flags"]).astype(str),
            p_novelty=np.ma.filled(np.ma.asarray(table["p_novelty"], dtype=np.float64), np.nan),
            model=str(chosen),
            n_draws=settings.n_draws,
            seed=settings.seed,
        )
        n_cards = len(paths) // 2
        say(f"{n_cards} card{'s' * (n_cards != 1)} in {settings.cards}")


def _priors(
    settings: InferSettings, estimator: MassEstimator, catalog: ClusterCatalog
) -> tuple[str | MassPrior, list[str]]:
    """The prior, and those to speak of where nobody said which one a table needs."""
    from bayesflowmass.io.selection_file import read_selection
    from bayesflowmass.posterior import SelectedPrior, make_prior

    prior: str | MassPrior = settings.prior or "flat"
    unsaid = settings.prior is None and settings.selection is None and catalog.metadata.masses is None
    if settings.selection is not None:
        info = estimator.training_info
        whole = make_prior(settings.prior or "flat", info.log10_mass_range, info.cosmology)
        prior = SelectedPrior(whole, read_selection(settings.selection))
    return prior, [name for name in OTHER_PRIORS if unsaid and name not in settings.also]


def _warn(table: Table) -> None:
    """One line on standard error for clusters without a mass, naming the first."""
    from bayesflowmass.estimator.flags import UNUSABLE

    flags = [str(row).split(",") for row in table["flags"]]
    for flag, why in UNUSABLE.items():
        rows = [row for row, names in enumerate(flags) if flag in names]
        if rows:
            more = f" ({len(rows)} such clusters)" if len(rows) > 1 else ""
            say_aside(f"warning: cluster {table['cluster_id'][rows[0]]} {why}; its mass is masked{more}.")


if __name__ == "__main__":
    sys.exit(main())
