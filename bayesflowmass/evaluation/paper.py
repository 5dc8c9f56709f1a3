"""The numbers behind the figures of the paper: what is predicted, counted and compared."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple, cast

import numpy as np
from astropy.table import Table
from numpy.typing import ArrayLike
from tqdm import tqdm

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.cosmology import mass_function
from bayesflowmass.diagnostics import bootstrap_errors, fit_equation8
from bayesflowmass.diagnostics.equation8 import weighted_equation8
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluation.calibration import halo_of
from bayesflowmass.mocks import MockParameters, simulate_catalog
from bayesflowmass.plots.paper.real_clusters import Masses

__all__ = [
    "Predicted",
    "clusters_of_three_masses",
    "expected_counts",
    "literature_masses",
    "predict_quantiles",
    "pure_like",
    "scatter_pair",
]


_BATCH = 1024
_LEVELS = (0.025, 0.16, 0.5, 0.84, 0.975)


class Predicted(NamedTuple):
    """What a model says about clusters: true masses (n,), quantiles (n, 5), parts of the width (n,) or None."""

    log10_true: FloatArray
    quantiles: FloatArray
    sigma_aleatoric: FloatArray | None
    sigma_epistemic: FloatArray | None


def predict_quantiles(
    estimator: MassEstimator, catalog: ClusterCatalog, *, progress: bool = False, **options: Any
) -> Predicted:
    """2.5, 16, 50, 84 and 97.5 % of the posteriors of a catalogue, and the parts of their width.

    Args:
        estimator: the model.
        catalog: clusters with ``log10_mass``.
        progress: show a bar.
        options: ``prior``, ``n_draws`` and ``seed`` of `MassEstimator.posterior`.
    """
    quantiles, aleatoric, epistemic = [], [], []
    starts = range(0, len(catalog), _BATCH)
    for start in tqdm(starts, desc="posteriors", disable=not progress, file=sys.stderr, leave=False):
        posterior = estimator.posterior(catalog[start : start + _BATCH], **options)
        quantiles.append(posterior.quantile(list(_LEVELS)).T)
        if posterior.sigma_aleatoric is not None and posterior.sigma_epistemic is not None:
            aleatoric.append(posterior.sigma_aleatoric)
            epistemic.append(posterior.sigma_epistemic)
    return Predicted(
        np.asarray(catalog.column("log10_mass"), dtype=np.float64),
        np.concatenate(quantiles),
        np.concatenate(aleatoric) if aleatoric else None,
        np.concatenate(epistemic) if epistemic else None,
    )


def clusters_of_three_masses(log10_mass: ArrayLike) -> IntArray:
    """Rows of the clusters nearest to 15, 50 and 85 % of the range of mass: chosen by mass, not by success."""
    mass = np.asarray(log10_mass, dtype=np.float64)
    wanted = mass.min() + (mass.max() - mass.min()) * np.array([0.15, 0.5, 0.85])
    nearest = np.abs(mass[:, None] - wanted).argmin(axis=0)
    return np.array(list(dict.fromkeys(nearest.tolist())), dtype=np.int64)


def pure_like(catalog: ClusterCatalog, model: MassEstimator, seed: int) -> ClusterCatalog:
    """As many pure clusters as a catalogue has, with its masses' distribution and range and at its redshifts."""
    truth = np.asarray(catalog.column("log10_mass"), dtype=np.float64)
    redshift = np.asarray(catalog.column("redshift"), dtype=np.float64)
    masses, selection = catalog.metadata.masses or {}, model.training_info.selection
    z = float(redshift.min()), float(redshift.max())
    chosen = {name: selection[name] for name in ("r_max", "v_max", "min_galaxies") if name in selection}
    return simulate_catalog(
        len(catalog),
        masses=cast("Any", masses.get("distribution", "hmf")),
        log10_mass_range=(
            float(masses.get("log10_mass_min", truth.min())),
            float(masses.get("log10_mass_max", truth.max())),
        ),
        kind="pure",
        redshift=z[0] if z[0] == z[1] else z,
        parameters=MockParameters.from_dict(catalog.metadata.extra.get("mock_parameters") or {}),
        cosmology=catalog.metadata.cosmology,
        # Not the clusters that were simulated with the same seed to train on.
        seed=seed + 1_000_003,
        **chosen,
    )


def expected_counts(
    catalog: ClusterCatalog, complete_above: float = 14.2
) -> tuple[FloatArray, FloatArray] | None:
    """The mass function in the volume that holds as many clusters as a catalogue, as clusters per dex.

    The volume is fixed by the clusters above a mass where none is lost for having too few galaxies.

    Args:
        catalog: clusters with ``log10_mass``.
        complete_above: that mass, log10 M200c [Msun/h].

    Returns:
        log10 mass and clusters per dex, each (g,); None where the catalogue does not follow the mass function
        or has no cluster above that mass.
    """
    truth = np.asarray(catalog.column("log10_mass"), dtype=np.float64)
    above = int((truth > complete_above).sum())
    if (catalog.metadata.masses or {}).get("distribution") != "hmf" or above == 0:
        return None
    grid = np.linspace(truth.min() - 0.3, max(truth.max(), complete_above) + 0.5, 241)
    fine = np.linspace(complete_above, 16.0, 400)
    z = float(np.median(catalog.column("redshift")))
    density, tail = (mass_function(x, z, catalog.metadata.cosmology) for x in (grid, fine))
    return grid, density * above / float(np.trapezoid(tail, fine))


def scatter_pair(
    catalog: ClusterCatalog, log10_predicted: FloatArray, n_resamples: int, seed: int
) -> tuple[float, float, float, float]:
    """sigma_N and sigma_0 of equation 8 and their standard errors [dex], by bootstrap over haloes.

    Raises:
        CatalogError: the catalogue does not say which galaxies are members.
    """
    truth = np.asarray(catalog.column("log10_mass"), dtype=np.float64)
    if catalog.has("gal_is_member"):
        member = np.asarray(catalog.galaxies("gal_is_member"), dtype=np.float64)
        count = np.bincount(catalog.galaxy_rows, member, minlength=len(catalog))
    elif catalog.metadata.kind == "pure":
        count = catalog.n_galaxies.astype(np.float64)
    elif catalog.has("n_members"):
        count = np.asarray(catalog.column("n_members"), dtype=np.float64)
    else:
        raise CatalogError(
            "Equation 8 counts members, and the catalogue does not know them; add gal_is_member or n_members."
        )
    fit = fit_equation8(truth, log10_predicted, count)
    errors = bootstrap_errors(
        lambda weights: weighted_equation8(truth, log10_predicted, count, weights),
        halo_of(catalog), n_resamples, seed,
    )  # fmt: skip
    return fit.sigma_N, fit.sigma_0, float(errors["sigma_N"]), float(errors["sigma_0"])


def literature_masses(masses: Table, literature: Table) -> tuple[list[str], Masses, Masses]:
    """Names, our masses and those of the literature, of the clusters that both tables hold.

    Args:
        masses: as `infer` writes it: ``cluster_id, log10_mass, q16, q84``, M200c in Msun/h.
        literature: ``cluster_id, log10_mass, lower, upper``; log10 M200c [Msun/h] and its errors [dex].

    Raises:
        CatalogError: a column is missing, the masses are in other units, or no cluster is in both.
    """
    needed = {"masses": (masses, ("cluster_id", "log10_mass", "q16", "q84")),
              "literature": (literature, ("cluster_id", "log10_mass", "lower", "upper"))}  # fmt: skip
    for which, (table, columns) in needed.items():
        missing = [name for name in columns if name not in table.colnames]
        if missing:
            raise CatalogError(
                f"The table of {which} has no column {missing[0]}; found {', '.join(table.colnames)}."
            )
    unit = f"M{masses.meta.get('mdef', '200c')} in {masses.meta.get('units', 'Msun/h')}"
    if unit != "M200c in Msun/h":
        raise CatalogError(
            f"Figure 8 compares M200c in Msun/h, the masses are {unit}; infer them without --mdef."
        )
    ours = {str(row["cluster_id"]): row for row in masses if not np.ma.is_masked(row["log10_mass"])}
    theirs = [row for row in literature if str(row["cluster_id"]) in ours]
    if not theirs:
        raise CatalogError(
            f"No cluster of the literature is among the masses; they are {', '.join(list(ours)[:5])}, ..."
        )
    names = [str(row["cluster_id"]) for row in theirs]
    m, low, high = (np.array([float(ours[n][c]) for n in names]) for c in ("log10_mass", "q16", "q84"))
    reference = [np.array([float(row[c]) for row in theirs]) for c in ("log10_mass", "lower", "upper")]
    return names, Masses(m, m - low, high - m), Masses(*reference)
