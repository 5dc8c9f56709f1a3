"""The numbers behind the figures of the paper: what is predicted, counted and compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from astropy.table import Table

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.cosmology import mass_function
from bayesflowmass.diagnostics import bootstrap_errors, fit_equation8
from bayesflowmass.diagnostics.equation8 import weighted_equation8
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluation.road import posterior_columns
from bayesflowmass.evaluation.truth import halo_of, member_counts
from bayesflowmass.plots.paper.real_clusters import Masses
from bayesflowmass.posterior import MassPosterior

_LEVELS = (0.025, 0.16, 0.5, 0.84, 0.975)


class Predicted(NamedTuple):
    """What a model says about clusters: true masses (n,), quantiles (n, 5), parts of the width (n,) or None."""

    log10_true: FloatArray
    quantiles: FloatArray
    sigma_aleatoric: FloatArray | None
    sigma_epistemic: FloatArray | None


def predict_quantiles(
    estimator: MassEstimator, catalog: ClusterCatalog, *, prior: str = "flat", **options: Any
) -> Predicted:
    """2.5, 16, 50, 84 and 97.5 % of the posteriors of a catalogue, and the parts of their width.

    Args:
        estimator: the model.
        catalog: clusters with ``log10_mass``; one that can have none from the model gets NaN.
        prior: "flat" or "hmf".
        options: ``n_draws``, ``seed`` and ``progress`` of the road.
    """
    columns: dict[str, Callable[[MassPosterior, ClusterCatalog], Any]] = {
        "quantiles": lambda posterior, _: posterior.quantile(list(_LEVELS)).T
    }
    if estimator.weights is not None:
        columns["aleatoric"] = lambda posterior, _: posterior.sigma_aleatoric
        columns["epistemic"] = lambda posterior, _: posterior.sigma_epistemic
    found = posterior_columns(estimator, catalog, columns, prior, label="posteriors", **options)
    truth = np.asarray(catalog.column("log10_mass"), dtype=np.float64)
    return Predicted(truth, found["quantiles"], found.get("aleatoric"), found.get("epistemic"))


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

    Args:
        catalog: n clusters with ``log10_mass``.
        log10_predicted: log10 M200c [Msun/h], (n,); NaN for a cluster without a mass, which is not counted.
        n_resamples, seed: of the bootstrap.

    Raises:
        CatalogError: the catalogue does not say which galaxies are members.
    """
    has_mass = np.isfinite(log10_predicted)
    catalog, log10_predicted = catalog.filter(has_mass), log10_predicted[has_mass]
    truth = np.asarray(catalog.column("log10_mass"), dtype=np.float64)
    members, _ = member_counts(catalog)
    if members is None:
        raise CatalogError(
            "Equation 8 counts members, and the catalogue does not know them; add gal_is_member or n_members."
        )
    count = members.astype(np.float64)
    fit = fit_equation8(truth, log10_predicted, count)
    errors = bootstrap_errors(
        weighted_equation8(truth, log10_predicted, count),
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
