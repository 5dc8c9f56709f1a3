"""What a model can be told about the clusters."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.catalog.ranges import RANGES, check_range
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.estimator.cylinder import in_cylinder
from bayesflowmass.estimator.mass_estimator import MassEstimator
from bayesflowmass.estimator.training_info import TrainingInfo
from bayesflowmass.mocks.luminosity import magnitude_of_density

DENSITY = "galaxy_density"
"""Galaxies per (Mpc/h)^3 in the sample: over the completeness (1 unless said), those brighter than its limit."""

_UNKNOWN = {
    "mode": "which galaxies count as interlopers is not known{of}: the PDFs are averaged over both kinds"
    " (--mode survey: central galaxies are seen, as by any survey; --mode paper: they are not, as in some mocks).",
    "sigma_v_err": "velocity errors are not known{of}: averaged over (column sigma_v_err of the clusters, or v_err of"
    " the galaxies, km/s).",
    "completeness": "the share of galaxies that were observed is not known{of}: averaged over (column completeness of"
    " the clusters, 0 to 1; without it samples that are nearly complete come out heavy, sparse ones light).",
    "aperture": "how far from the centre galaxies were observed is not known{of}: estimated from their radii"
    " (--aperture, or column aperture of the clusters, comoving Mpc/h).",
    "abs_mag_limit": "the depth of the sample is not known{of}: averaged over three magnitudes (column abs_mag_limit of"
    " the clusters, the faintest M_r - 5 log10 h; or --assume galaxy_density=4.9e-3, (Mpc/h)^-3).",
}
_HALF_TOLD = (
    "the depth of the sample is known, but not its completeness: a complete sample comes out heavy by 0.13 dex or"
    " more, a sparse one light (column completeness of the clusters, or --assume completeness=1)."
)
_MEASURED = {
    "sigma_v_err": "velocity errors of the clusters: root mean square of the column v_err.",
    "abs_mag_limit": "depth of the sample: the faintest galaxy of each cluster, column abs_mag.",
}


def _made_otherwise(catalog: ClusterCatalog, info: TrainingInfo) -> list[str]:
    """A note on mocks that are not made as those of the training are, but for what is drawn anyway."""
    made, simulated = catalog.metadata.extra.get("mock_parameters"), info.config.get("simulate") or {}
    trained = simulated.get("parameters")
    if made is None or trained is None or info.config.get("catalog") is not None:
        return []
    drawn = {*(simulated.get("randomise") or {}), *catalog.metadata.extra.get("randomise", {})}
    other = [name for name, value in made.items() if name not in drawn and trained.get(name, value) != value]
    if not other:
        return []
    names = ", ".join(other[:3]) + (f" and {len(other) - 3} more" if len(other) > 3 else "")
    return [
        f"these mocks are made otherwise than those that the model was trained on ({names}), so its masses can be off"
        " by more than they say; for a shipped model, simulate --preset sky makes mocks as it knows them."
    ]


def tell(catalog: ClusterCatalog, estimator: MassEstimator, assume: Mapping[str, float]) -> ClusterCatalog:
    """The catalogue with what the model shall take as known of all clusters.

    Args:
        assume: ``{name: value}``: a parameter of the mocks, such as ``velocity_bias``, a column of clusters, such as
            ``abs_mag_limit`` or ``completeness``, or `DENSITY`.

    Raises:
        CatalogError: the model cannot be told that, or the value cannot be.
    """
    told = [name.removeprefix("known_") for name in estimator.encoder.optional.names if name != "mode"]
    for name, value in assume.items():
        if name == DENSITY and "abs_mag_limit" in told:
            if not 0.0 < value < 1.0:
                raise CatalogError(
                    f"--assume {name} is {value:g}; expected galaxies per (Mpc/h)^3, such as 5e-3."
                )
            continue
        if name not in told:
            raise CatalogError(f"--assume {name}: this model can be told {', '.join(told) or 'nothing'}.")
        if name in RANGES:
            check_range(name, [value], lambda _: "--assume")
        if name == "completeness":
            # Of the places where the survey looked.
            catalog = catalog.with_columns(completeness=value * _covered(catalog))
            continue
        column = f"known_{name}" if f"known_{name}" in estimator.encoder.optional.names else name
        catalog = catalog.with_columns(**{column: np.full(len(catalog), float(value))})
    if DENSITY in assume:
        # The depth without the completeness is half of what a density says, and the half that moves masses.
        covered = _covered(catalog)
        share = (
            np.asarray(catalog.column("completeness") if catalog.has("completeness") else np.nan) / covered
        )
        share = np.broadcast_to(np.where(np.isfinite(share), np.minimum(share, 1.0), 1.0), (len(catalog),))
        columns = {"abs_mag_limit": magnitude_of_density(assume[DENSITY] / share)}
        if "completeness" in told:
            columns["completeness"] = share * covered
        catalog = catalog.with_columns(**columns)
    return catalog


def _covered(catalog: ClusterCatalog) -> FloatArray:
    """Which part of each cluster's cylinder the survey looked at, where that is known (n,)."""
    if not catalog.has("footprint_fraction"):
        return np.ones(len(catalog))
    share = np.asarray(catalog.column("footprint_fraction"), dtype=np.float64)
    return np.where(share > 0.0, share, 1.0)


def known_of(catalog: ClusterCatalog, estimator: MassEstimator) -> dict[str, FloatArray]:
    """What the model is told of the clusters, by name: (n,), NaN where it is not known."""
    optional = estimator.encoder.optional
    within = in_cylinder(catalog, estimator.training_info.selection)
    return dict(zip(optional.names, optional.values(within).T, strict=True))


def notes(catalog: ClusterCatalog, estimator: MassEstimator) -> list[str]:
    """What is to be known of the model's files, and what it makes of columns that it can use, in sentences."""
    n = len(catalog)
    said = [*estimator.notes, *_made_otherwise(catalog, estimator.training_info)]
    known = known_of(catalog, estimator)
    for name, values in known.items():
        count = int(np.isfinite(values).sum())
        if name == "completeness" and count < n and np.isfinite(known.get("abs_mag_limit", np.nan)).any():
            said.append(_HALF_TOLD)
        elif count < n and name in _UNKNOWN:
            of = "" if count == 0 else f" of {n - count} of {n} clusters"
            said.append(_UNKNOWN[name].format(of=of))
        elif name in _MEASURED and count == n and not catalog.has(name):
            said.append(_MEASURED[name])
        elif name.startswith("known_") and count == n and n > 0:
            value = np.unique(values)
            text = f"{value[0]:g}" if value.size == 1 else f"{value[0]:g} to {value[-1]:g}"
            said.append(f"{name.removeprefix('known_').replace('_', ' ')} is taken to be {text}.")
    return said
