"""Tables and catalogues of a user as a model needs them: its cylinder, its cosmology, what it is told."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

# A table is read before the model, for which nobody waits where the table is wrong.
if TYPE_CHECKING:
    from astropy.table import Table

    from bayesflowmass.catalog import ClusterCatalog
    from bayesflowmass.estimator.mass_estimator import MassEstimator
    from bayesflowmass.estimator.training_info import TrainingInfo


def read_observations(
    estimator: MassEstimator,
    galaxies: str | os.PathLike[str] | Table,
    clusters: str | os.PathLike[str] | Table | None = None,
    *,
    assume: Mapping[str, float] | None = None,
    **how: Any,
) -> ClusterCatalog:
    """Read a catalogue, or flat tables, as the model needs them: its cylinder, its cosmology.

    Args:
        galaxies: catalogue (parquet), or table of galaxies.
        clusters: table of clusters, beside a table of galaxies.
        assume: ``{parameter of the mocks: value}`` that the model is told, such as ``velocity_bias``.
        how: ``column``: ``{our name: their name}``; ``guess``: take what is proposed for missing columns; ``unit``:
            ``{our name: unit}``, for tables that do not say; ``cluster_id``: all galaxies belong to this cluster;
            ``redshift``: of all clusters, where there is no table of them; ``cleaned``: interlopers were removed,
            which is recorded and flagged; ``mode``: interloper mode of the data, default what the catalogue says;
            ``table_cosmology``: ``"H0,Om"`` that lengths in the table were made with, default the model's;
            ``aperture``: radius of the observed fields, comoving Mpc/h or text with a unit (`InferSettings`);
            ``footprint``: file of where the survey looked (`bayesflowmass.io.footprint_file.read_footprint`).

    Raises:
        CatalogError: one sentence with the file, column, row or cluster, what was found and what to do.
    """
    from bayesflowmass.estimator.told import tell

    return tell(read_for(estimator.training_info, galaxies, clusters, **how), estimator, assume or {})


def read_for(
    info: TrainingInfo,
    galaxies: str | os.PathLike[str] | Table,
    clusters: str | os.PathLike[str] | Table | None,
    *,
    column: Mapping[str, str] | None = None,
    unit: Mapping[str, str] | None = None,
    guess: bool = False,
    cluster_id: str | None = None,
    redshift: float | None = None,
    cleaned: bool = False,
    mode: str | None = None,
    table_cosmology: str | None = None,
    aperture: str | float | None = None,
    footprint: str | os.PathLike[str] | None = None,
) -> ClusterCatalog:
    """`read_observations` for a model that is not loaded yet; arguments as there."""
    from astropy.table import Table

    from bayesflowmass.catalog.files import is_catalog_file
    from bayesflowmass.io import load_catalog
    from bayesflowmass.io.opening import at_rest
    from bayesflowmass.io.units import cosmology_from_text, radius_from_text

    options: dict[str, Any] = {
        "units": dict(unit or {}) or None,
        "guess": guess or None,
        "cluster_id": cluster_id,
        "redshift": redshift,
    }
    options = {name: value for name, value in options.items() if value is not None}
    if not isinstance(galaxies, Table):
        galaxies = at_rest(galaxies)
    if table_cosmology is not None:
        options["table_cosmology"] = cosmology_from_text(table_cosmology)
    if isinstance(galaxies, Table) or not is_catalog_file(galaxies):
        options |= {
            "r_max": info.selection.get("r_max"),
            "v_max": info.selection.get("v_max"),
            "cosmology": info.cosmology,
        }
    catalog = load_catalog(galaxies, clusters, column, few_galaxies="keep", **options)
    if cleaned:
        catalog = catalog.with_metadata(selection=catalog.metadata.selection | {"cleaned": True})
    if mode is not None:
        catalog = catalog.with_metadata(mode=mode)
        if catalog.has("mode"):
            catalog = catalog.without("mode")
    if aperture is not None:
        z = np.asarray(catalog.column("redshift"), dtype=np.float64)
        catalog = catalog.with_columns(aperture=radius_from_text(aperture, z, catalog.metadata.cosmology))
    if footprint is not None:
        from bayesflowmass.estimator.observed_field import in_footprint
        from bayesflowmass.io.footprint_file import read_footprint
        from bayesflowmass.selection.cuts import R_MAX

        catalog = in_footprint(
            catalog, read_footprint(footprint), float(info.selection.get("r_max") or R_MAX)
        )
    return catalog
