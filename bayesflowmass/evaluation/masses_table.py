"""The masses table from the road: a row for every cluster of a batch, with its flags, novelty and systematic part."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.table import MaskedColumn, Table, vstack

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.estimator.memberships import MEMBER
from bayesflowmass.evaluation.road import Batch
from bayesflowmass.novelty import Assessment, NoveltyDetector, judge, verdict_sentence
from bayesflowmass.posterior import MassPrior
from bayesflowmass.posterior.masses_table import NEVER_MASKED, with_missing_rows

FEWEST = 5
"""Clusters from which on a catalogue as a whole is tested for novelty."""


def masses_tables(
    batches: Iterable[Batch], also: Sequence[str | MassPrior] = (), **options: Any
) -> Iterator[tuple[Batch, Table]]:
    """Each batch of the road with its rows of the masses table, in order; clusters without a mass are masked.

    Args:
        batches: of `bayesflowmass.evaluation.road.posteriors`.
        also: priors beside the one of the batches, for columns ``log10_mass_PRIOR``, ``q16_PRIOR``, ``q84_PRIOR``.
        options: ``pdf``, ``units``, ``mdef``, ``h`` and ``model`` of `bayesflowmass.posterior.masses_table`.
    """
    waiting: list[Batch] = []
    example: Table | None = None
    for batch in batches:
        if batch.posterior is None and example is None:
            # The columns are those of a batch that has masses.
            waiting.append(batch)
            continue
        table = example if batch.posterior is None else _of_usable(batch, also, options)
        assert table is not None
        example = table[:0] if example is None else example
        for earlier in waiting:
            yield earlier, _of_everyone(earlier, example)
        waiting.clear()
        yield batch, _of_everyone(batch, table)
    for earlier in waiting:
        # None of them has a mass: what is left of a row without one.
        nothing = Table(names=NEVER_MASKED, masked=True, meta={"prior": ""})
        yield earlier, _of_everyone(earlier, nothing)


def prior_column(prior: str, name: str = "log10_mass") -> str:
    """The column of a table that holds `name` under a prior beside its own."""
    return "_".join([name, *re.findall(r"\w+", prior.removeprefix("hmf, "))])


def whole_table(
    batches: Iterable[Batch], **options: Any
) -> tuple[Table, list[tuple[npt.NDArray[np.int64], Assessment]]]:
    """The masses table of all batches, and rows and assessments of the clusters that a model judged.

    Args:
        batches, options: of `masses_tables`.
    """
    tables: list[Table] = []
    strange: list[tuple[npt.NDArray[np.int64], Assessment]] = []
    for batch, table in masses_tables(batches, **options):
        tables.append(table)
        if batch.novelty is not None:
            strange.append((batch.rows, batch.novelty))
    return vstack(tables, metadata_conflicts="silent"), strange


def novelty_header(
    detector: NoveltyDetector | None,
    found: Sequence[tuple[npt.NDArray[np.int64], Assessment]],
    catalog: ClusterCatalog,
    seed: int,
) -> dict[str, Any]:
    """What the header of a table says of the catalogue as a whole: ``p_sample`` and ``novelty``, from five clusters on.

    Args:
        detector: of the model; None: nothing is said.
        found: rows of the catalogue and their assessments.
        catalog: the clusters.
        seed: of the permutations.
    """
    assessed = np.zeros(len(catalog), dtype=bool)
    for rows, _ in found:
        assessed[rows] = True
    if detector is None or assessed.sum() < FEWEST:
        return {}
    # Galaxies are not looked at again, and a copy of them would be the largest thing here.
    clusters = catalog.without(*catalog.galaxy_columns).filter(assessed)
    verdict = judge(detector, clusters, Assessment.concatenate([one for _, one in found]), seed=seed)
    return {"p_sample": verdict.p_value, "novelty": verdict_sentence(verdict)}


def _of_usable(batch: Batch, also: Sequence[str | MassPrior], options: dict[str, Any]) -> Table:
    """The rows of the clusters that have a mass."""
    assert batch.posterior is not None
    table = batch.posterior.to_table(**options)
    n, values = len(table), batch.sigma_systematic
    column = MaskedColumn(np.zeros(n) if values is None else values, mask=np.full(n, values is None))
    column.description = "its part from mock parameters that nobody knows [dex]"
    table.add_column(column, index=table.colnames.index("sigma_epistemic") + 1, name="sigma_systematic")
    for prior in also:
        other = batch.under(prior).to_table(**{**options, "pdf": False})
        label = other.meta["prior"]
        for name in ("log10_mass", "q16", "q84"):
            column = other[name].copy()
            column.description = f"{column.description}, prior {label}"
            table.add_column(column, index=table.colnames.index("prior"), name=prior_column(label, name))
    found = batch.memberships
    if found is not None:
        for name, numbers, what in (
            (
                "n_members",
                found.number,
                "expected members among the galaxies in the cylinder, sum of p_member",
            ),
            ("n_members_err", found.error, "its standard deviation"),
        ):
            column = MaskedColumn(np.nan_to_num(numbers), mask=np.isnan(numbers), description=what)
            table.add_column(column, index=table.colnames.index("prior"), name=name)
        table.meta["member"] = MEMBER
    return table


def _of_everyone(batch: Batch, table: Table) -> Table:
    """The rows of all clusters of a batch, those without a mass masked.

    Args:
        batch: of m clusters, k with a mass.
        table: of those k; where k is 0, one without rows.
    """
    everyone = batch.everyone
    columns = {
        "cluster_id": everyone.column("cluster_id"),
        "n_galaxies": everyone.n_galaxies,
        "redshift": everyone.column("redshift"),
        "prior": np.full(len(batch), table.meta["prior"]),
        "flags": batch.flags,
    }
    full = with_missing_rows(table, batch.usable, columns)
    p_value = batch.p_novelty
    column = MaskedColumn(np.nan_to_num(p_value), mask=np.isnan(p_value))
    column.description = "share of held-out training clusters of that richness that look as strange"
    full.add_column(column, index=full.colnames.index("prior"), name="p_novelty")
    return full
