"""The table of memberships: one row for each galaxy, with the probability that it is a member of its cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from astropy.table import MaskedColumn, Table

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.common.version import __version__
from bayesflowmass.estimator.memberships import MEMBER
from bayesflowmass.evaluation.road import Batch

PLACE = "gal_place"
"""Galaxy column by which galaxies are found again after others have been cut away."""

# Kept beside the probabilities, so that a galaxy is found again in the catalogue of an observer.
_KEPT = ("gal_galaxy_id", "gal_ra", "gal_dec", "gal_z")


def mark_galaxies(catalog: ClusterCatalog) -> ClusterCatalog:
    """The catalogue with the place of each galaxy in it as a column."""
    return catalog.with_galaxies(**{PLACE: np.arange(catalog.n_galaxies_total)})


def noted_memberships(batches: Iterable[Batch], probability: FloatArray) -> Iterator[Batch]:
    """Batches of marked galaxies on their way, the probabilities noted where the galaxies were.

    Args:
        batches: of the road.
        probability: of each galaxy of the catalogue (n_galaxies_total,), filled in.
    """
    for batch in batches:
        if batch.memberships is not None:
            probability[batch.clusters.galaxies(PLACE)] = batch.memberships.probability
        yield batch


def members_table(catalog: ClusterCatalog, probability: FloatArray, model: str = "") -> Table:
    """One row for each galaxy of a catalogue, in its order.

    Columns: ``cluster_id``, those of ``galaxy_id, ra, dec, z`` that the catalogue has, ``r_proj`` [comoving Mpc/h],
    ``v_los`` [km/s], and ``p_member``, masked for galaxies outside the cylinder of the model and for those of clusters
    without a mass. The header says what a member is.

    Args:
        catalog: clusters.
        probability: of each galaxy (n_galaxies_total,), NaN where there is none.
        model: where the probabilities come from, for the header.
    """
    table = Table(masked=True)
    table["cluster_id"] = np.asarray(catalog.column("cluster_id"))[catalog.galaxy_rows]
    for name in _KEPT:
        if catalog.has(name):
            table[name.removeprefix("gal_")] = np.asarray(catalog.galaxies(name))
    table["r_proj"] = MaskedColumn(catalog.r_proj, description="projected distance [comoving Mpc/h]")
    table["v_los"] = MaskedColumn(np.asarray(catalog.galaxies("v_los")), description="velocity [km/s]")
    table["p_member"] = MaskedColumn(
        np.nan_to_num(probability),
        mask=np.isnan(probability),
        description=f"probability of a member: {MEMBER}",
    )
    table.meta = {"member": MEMBER, "version": __version__, "model": str(model)}
    return table
