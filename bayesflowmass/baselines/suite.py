"""All baselines at once, under the names of ``metrics.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from bayesflowmass.baselines.dispersion import DispersionKind
from bayesflowmass.baselines.dynamical import (
    DynamicalForm,
    DynamicalMass,
    DynamicalRelation,
    dynamical_mass,
    fit_dynamical,
    without_interlopers,
)
from bayesflowmass.baselines.msigma import MSigmaForm, MSigmaRelation, fit_msigma
from bayesflowmass.baselines.richness import RichnessRelation, fit_richness
from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.common.arrays import FloatArray

Baseline = MSigmaRelation | RichnessRelation | DynamicalRelation

MSIGMA_RANGE = (13.5, 15.25)
"""Range of log10 mass [Msun/h] over which Ho et al. 2019 fit the relation. It is curved where interlopers
dominate, so that a line fitted over a wider range serves the clusters in the middle of it worse."""

_ENVELOPE = "_envelope"


@dataclass(frozen=True)
class BaselinePrediction:
    """Gaussian predictions of one baseline.

    Attributes:
        log10_mass: log10 M200c [Msun/h], shape (n,).
        sigma: width of the error [dex], one number: the scatter of the training sample.
    """

    log10_mass: FloatArray
    sigma: float


def fit_baselines(training: ClusterCatalog) -> dict[str, Baseline]:
    """Fit every baseline on a catalogue of known masses, flat in log mass.

    Args:
        training: clusters with ``log10_mass``; M-sigma is fitted over `MSIGMA_RANGE`, the galaxy count over all.

    Returns:
        ``msigma_inverse``, ``msigma_regression``, ``msigma_evrard`` with the standard deviation, the same with
        ``_gapper``, ``_biweight``, ``_clipped`` and ``_envelope`` (standard deviation of what 2.7 sigma_los(R)
        leaves), ``virial_formula``, ``virial_inverse``, ``virial_regression``, the same with ``projected_``, and
        ``richness``.

    Raises:
        CatalogError: the catalogue has no masses.
        ValueError: it has too few clusters.
    """
    if not training.has("log10_mass"):
        raise CatalogError(
            "The catalogue to fit the baselines on has no column log10_mass; add the true masses."
        )
    mass = training.column("log10_mass")
    fitted: dict[str, Baseline] = {}
    narrow = training.filter((mass >= MSIGMA_RANGE[0]) & (mass <= MSIGMA_RANGE[1]))
    for dispersion in get_args(DispersionKind):
        for form in get_args(MSigmaForm):
            name = f"msigma_{form}" + (f"_{dispersion}" if dispersion != "std" else "")
            fitted[name] = _msigma(form, narrow, dispersion)
    clean = without_interlopers(narrow)
    for form in get_args(MSigmaForm):
        fitted[f"msigma_{form}{_ENVELOPE}"] = _msigma(form, clean, "std")
    for kind in get_args(DynamicalMass):
        estimate = dynamical_mass(clean, kind)
        for form in get_args(DynamicalForm):
            fitted[f"{kind}_{form}"] = fit_dynamical(form, kind, estimate, clean.column("log10_mass"))
    fitted["richness"] = fit_richness(training.n_galaxies, mass)
    return fitted


def predict_baselines(
    baselines: Mapping[str, Baseline], catalog: ClusterCatalog
) -> dict[str, BaselinePrediction]:
    """Masses of the clusters of a catalogue by every baseline.

    Raises:
        ValueError: a cluster has fewer than two galaxies, or no velocity dispersion.
    """
    clean: ClusterCatalog | None = None
    estimates: dict[DynamicalMass, FloatArray] = {}
    predictions = {}
    for name, baseline in baselines.items():
        if isinstance(baseline, RichnessRelation):
            mass = baseline.predict(catalog.n_galaxies)
        elif isinstance(baseline, MSigmaRelation) and not name.endswith(_ENVELOPE):
            mass = _by_dispersion(baseline, catalog)
        else:
            clean = without_interlopers(catalog) if clean is None else clean
            if isinstance(baseline, MSigmaRelation):
                mass = _by_dispersion(baseline, clean)
            else:
                if baseline.kind not in estimates:
                    estimates[baseline.kind] = dynamical_mass(clean, baseline.kind)
                mass = baseline.predict(estimates[baseline.kind])
        predictions[name] = BaselinePrediction(mass, baseline.scatter)
    return predictions


def _msigma(form: MSigmaForm, catalog: ClusterCatalog, dispersion: DispersionKind) -> MSigmaRelation:
    return fit_msigma(
        form,
        catalog.galaxies("v_los"),
        catalog.n_galaxies,
        catalog.column("redshift"),
        catalog.column("log10_mass"),
        dispersion=dispersion,
        cosmology=catalog.metadata.cosmology,
    )


def _by_dispersion(relation: MSigmaRelation, catalog: ClusterCatalog) -> FloatArray:
    return relation.predict(catalog.galaxies("v_los"), catalog.n_galaxies, catalog.column("redshift"))
