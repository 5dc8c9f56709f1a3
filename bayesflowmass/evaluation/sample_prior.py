"""The prior that stands for how a sample was chosen, from what `infer` is told of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from astropy.table import Table

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.estimator.told import known_of
from bayesflowmass.evaluation.test_sets import like_training
from bayesflowmass.posterior import MassPrior, SelectedPrior, make_prior
from bayesflowmass.selection import SelectionProbability

__all__ = ["RICHNESS", "moved_by", "sample_prior", "share_with"]

RICHNESS = "richness:"
"""Begins the text of a sample of at least so many galaxies, as in ``richness:20``."""

_MOCKS = 8000
_OBSERVED = {"completeness": "completeness", "abs_mag_limit": "magnitude_limit", "aperture": "aperture"}


def sample_prior(
    text: str, estimator: MassEstimator, catalog: ClusterCatalog, seed: int = 0
) -> str | MassPrior:
    """The prior that a text names: the text, where `bayesflowmass.posterior.make_prior` knows it, or ``richness:N``.

    Clusters with N galaxies or more in the table have the population n(m, z) P(N or more | m, z). The galaxies say
    themselves that there are so many: for a model that counts them P cancels; for one that does not see `share_with`.

    Args:
        catalog: the sample, as the model is told of it.
        seed: of mocks.

    Raises:
        ValueError: the text is not understood, or the model was trained on mocks that nobody can make again.
    """
    if not text.startswith(RICHNESS):
        return text
    if not text.removeprefix(RICHNESS).isdigit():
        raise ValueError(
            f"the prior {text!r} is not understood; expected a number of galaxies, as in richness:20."
        )
    info = estimator.training_info
    prior = make_prior("hmf", info.log10_mass_range, info.cosmology)
    if estimator.encoder.uses_richness:
        return SelectedPrior(prior, lambda mass, _: np.ones_like(mass), f"{text} (cancels)")
    return SelectedPrior(prior, share_with(int(text.removeprefix(RICHNESS)), estimator, catalog, seed), text)


def share_with(
    number: int, estimator: MassEstimator, catalog: ClusterCatalog, seed: int
) -> Callable[[FloatArray, FloatArray], FloatArray]:
    """P(so many galaxies or more | log10 mass) among training clusters observed as a sample, whatever the redshift.

    It is measured on mocks at the redshifts of the sample, between the quantiles 0.16 and 0.84 of the completeness,
    depth and aperture that are told of it.

    Args:
        number, estimator, catalog, seed: see `sample_prior`.

    Raises:
        ValueError: see `sample_prior`.
    """
    redshift = np.asarray(catalog.column("redshift"), dtype=np.float64)
    low, high = float(np.nanmin(redshift)), float(np.nanmax(redshift))
    told = known_of(catalog, estimator)
    observed = {
        ours: tuple(np.nanquantile(told[name], [0.16, 0.84]).tolist())
        for name, ours in _OBSERVED.items()
        if np.isfinite(told.get(name, np.nan)).any()
    }
    simulate = {"redshift": (low, high) if high > low else low, "masses": "flat"}
    mocks = like_training(
        estimator.training_info, _MOCKS, seed, simulate=simulate, augmentation=observed, exact=True
    )
    chance = SelectionProbability(mocks.column("log10_mass"), low, mocks.n_galaxies >= number)
    return lambda mass, _: chance(np.clip(mass, *chance.log10_mass_range), low)


def moved_by(table: Table, columns: Mapping[str, str]) -> str:
    """One sentence: which prior the masses of a table have, and how far others would move their median.

    Args:
        table: of masses under the flat prior, with columns of others.
        columns: ``{prior: column of its masses}``.
    """
    here = np.ma.median(table["log10_mass"])
    moved = [
        f"--prior {name} by {np.ma.median(table[column]) - here:+.2f}" for name, column in columns.items()
    ]
    return (
        "the prior is flat in log mass, which few samples follow; the median mass would move with"
        f" {', with '.join(moved)} dex: say how the clusters were chosen (docs/priors.md)."
    )
