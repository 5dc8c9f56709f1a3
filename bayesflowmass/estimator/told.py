"""What a model can be told about the clusters."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.estimator.mass_estimator import MassEstimator

__all__ = ["notes", "tell"]


def tell(catalog: ClusterCatalog, estimator: MassEstimator, assume: Mapping[str, float]) -> ClusterCatalog:
    """The catalogue with parameters of the mocks that the model shall take as known.

    Args:
        assume: ``{parameter: value}`` of the mocks, such as ``velocity_bias``.

    Raises:
        CatalogError: the model cannot be told that parameter.
    """
    told = [name for name in estimator.encoder.optional.names if name.startswith("known_")]
    for name, value in assume.items():
        if f"known_{name}" not in told:
            possible = ", ".join(known.removeprefix("known_") for known in told)
            raise CatalogError(
                f"--assume {name}: this model can be told {possible or 'no parameter of the mocks'}."
            )
        catalog = catalog.with_columns(**{f"known_{name}": np.full(len(catalog), float(value))})
    return catalog


def notes(catalog: ClusterCatalog, estimator: MassEstimator) -> list[str]:
    """What is to be known of the model's files, and what it makes of columns that it can use, in sentences."""
    optional = estimator.encoder.optional
    known = np.isfinite(optional.values(catalog)).sum(axis=0)
    n = len(catalog)
    said = list(estimator.notes)
    for name, count in zip(optional.names, known, strict=True):
        of = "" if count == 0 else f" of {n - count} of {n} clusters"
        if name == "mode" and count < n:
            said.append(
                f"which galaxies count as interlopers is not known{of}: the PDFs are averaged over both kinds"
                " (--mode survey: central galaxies are seen; --mode paper: they are not)."
            )
        elif name == "sigma_v_err":
            if count < n:
                said.append(
                    f"velocity errors are not known{of}: averaged over (column sigma_v_err of the clusters, or v_err of"
                    " the galaxies, km/s)."
                )
            elif not catalog.has(name):
                said.append("velocity errors of the clusters: root mean square of the column v_err.")
        elif name == "completeness" and count < n:
            said.append(
                f"the share of galaxies that were observed is not known{of}: averaged over (column completeness of the"
                " clusters, 0 to 1; without it samples that are nearly complete come out heavy, sparse ones light)."
            )
        elif name == "aperture" and count < n:
            said.append(
                f"how far from the centre galaxies were observed is not known{of}: estimated from their radii"
                " (--aperture, or column aperture of the clusters, comoving Mpc/h)."
            )
        elif name == "abs_mag_limit" and count < n:
            said.append(
                f"the depth of the sample is not known{of}: averaged over three magnitudes (column abs_mag_limit of the"
                " clusters, the faintest M_r - 5 log10 h)."
            )
        elif name.startswith("known_") and count == n and n > 0:
            value = np.unique(optional.values(catalog)[:, optional.names.index(name)])
            text = f"{value[0]:g}" if value.size == 1 else f"{value[0]:g} to {value[-1]:g}"
            said.append(f"{name.removeprefix('known_').replace('_', ' ')} is taken to be {text}.")
    return said
