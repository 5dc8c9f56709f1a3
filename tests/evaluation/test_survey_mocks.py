"""Mocks of a survey: what is unknown, what is told, what is seen of them, and the summaries of a model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bayesflowmass.catalog import CatalogError
from bayesflowmass.encoders import ContextEncoder, KDEEncoder
from bayesflowmass.estimator import MassEstimator, TrainingInfo
from bayesflowmass.evaluation import survey_mocks
from bayesflowmass.evaluation.survey_mocks import CENTRALS, _conditions, learn_or_read, summaries, unknown_of
from bayesflowmass.flows import build_flow
from bayesflowmass.mocks import PRIORS, Component
from tests.support.small_model import toy_catalog, toy_estimator

ALWAYS = ("velocity_bias", "infall_region_amplitude", "richness_at_1e14")


def told_estimator(*names, **config):
    """A toy model that can be told these columns, trained by such settings."""
    encoder = ContextEncoder(KDEEncoder((12, 12)), optional=names)
    catalog = toy_catalog(60, seed=9).with_columns(**{name: np.linspace(0.2, 0.9, 60) for name in names})
    encoder.fit_extras(catalog)
    flow = build_flow("affine", encoder.context_dim, 14.4, 0.15, hidden=(8,), seed=1)
    info = replace(TrainingInfo.from_catalog(catalog, uses_richness=False), config=config)
    return MassEstimator(encoder, flow, info, "cpu")


@pytest.fixture(scope="module")
def plain():
    return toy_estimator()


def test_what_nobody_knows_has_the_limits_of_training_or_else_its_priors(plain):
    catalog = toy_catalog(5)
    assert unknown_of(plain, catalog) == {name: tuple(PRIORS[name][:2]) for name in ALWAYS}
    trained = told_estimator(simulate={"randomise": {"velocity_bias": [0.95, 1.15]}})
    assert unknown_of(trained, catalog)["velocity_bias"] == (0.95, 1.15)
    told = told_estimator("known_velocity_bias", "completeness", augmentation={"completeness": [0.3, 1.0]})
    found = unknown_of(told, catalog)
    assert found["completeness"] == (0.2, 1.0)
    known = catalog.with_columns(completeness=np.full(5, 0.6), known_velocity_bias=np.full(5, 1.0))
    assert set(unknown_of(told, known)) == {"infall_region_amplitude", "richness_at_1e14"}
    # Known of some of the clusters is not known.
    half = catalog.with_columns(completeness=np.where(np.arange(5) < 3, 0.6, np.nan))
    assert "completeness" in unknown_of(told, half)
    assert "completeness" not in unknown_of(told_estimator("completeness"), catalog)
    assert unknown_of(plain, catalog.with_metadata(mode=None))[CENTRALS] == (0.0, 1.0)


def test_priors_that_are_chosen_are_taken_if_they_can_be(plain):
    chosen = {"velocity_bias": (0.9, 1.1), CENTRALS: (0.2, 0.8), "completeness": (0.5, 0.6)}
    assert unknown_of(plain, toy_catalog(3), chosen) == chosen
    for wrong in ({"completeness": (0.5, 0.5)}, {"velocity_bias": (1.1, 0.9)}):
        with pytest.raises(ValueError, match="two increasing numbers"):
            unknown_of(plain, toy_catalog(3), wrong)


def test_mocks_are_made_and_observed_as_the_survey_was():
    estimator = told_estimator(
        "sigma_v_err", "completeness", simulate={"randomise": {"halo_scatter": [0.1, 0.2]}}
    )
    catalog = toy_catalog(4).with_columns(
        redshift=[0.1, 0.3, 0.2, 0.15],
        sigma_v_err=[20.0, 40.0, 30.0, 30.0],
        completeness=[0.5, np.nan, 0.5, 0.5],
    )
    theta = {"velocity_bias": (0.9, 1.1), "completeness": (0.2, 1.0)}
    simulate, observe = _conditions(estimator, catalog, theta)
    assert simulate["redshift"] == (0.1, 0.3)
    assert (simulate["masses"], simulate["min_galaxies"], simulate["mode"]) == ("flat", 1, "paper")
    assert simulate["log10_mass_range"] == estimator.training_info.log10_mass_range
    assert simulate["randomise"] == {"halo_scatter": [0.1, 0.2], "velocity_bias": (0.9, 1.1)}
    assert observe == {
        "known": {},
        "cleaning": 0.0,
        "velocity_error": (20.0, 40.0),
        "completeness": (0.2, 1.0),
        "completeness_log": False,
    }
    cleaned = catalog.with_metadata(mode=None, selection=catalog.metadata.selection | {"cleaned": True})
    simulate, observe = _conditions(estimator, cleaned.with_columns(redshift=np.full(4, 1e-4)), {})
    assert "mode" not in simulate
    assert simulate["redshift"] == (0.01, 0.01)
    assert (observe["cleaning"], "completeness" in observe) == (1.0, False)
    assert _conditions(estimator, catalog, {CENTRALS: (0.0, 1.0)})[0]["mode"] == "survey"


@pytest.mark.parametrize(("value", "mode"), [(0.0, "paper"), (1.0, "survey")])
def test_the_mode_that_a_column_says_is_that_of_the_mocks(value, mode):
    encoder = ContextEncoder(KDEEncoder((12, 12)), optional=("mode",))
    catalog = toy_catalog(40, seed=9).with_columns(mode=np.where(np.arange(40) % 2, "paper", "survey"))
    encoder.fit_extras(catalog)
    flow = build_flow("affine", encoder.context_dim, 14.4, 0.15, hidden=(8,), seed=1)
    estimator = MassEstimator(encoder, flow, TrainingInfo.from_catalog(catalog, uses_richness=False), "cpu")
    survey = toy_catalog(3).with_columns(mode=[mode] * 3).with_metadata(mode=None)
    assert _conditions(estimator, survey, {})[0]["mode"] == mode
    assert CENTRALS not in unknown_of(estimator, survey)


def test_centrals_are_lost_in_their_share_and_nobody_else(plain):
    catalog = toy_catalog(6, mode=None)
    small = {"log10_mass_range": (14.3, 15.0)}
    theta = {CENTRALS: (0.0, 1.0)}
    mocks, values = survey_mocks.survey_mocks(plain, catalog, theta, 150, 3, simulate=small)
    all_seen, _ = survey_mocks.survey_mocks(
        plain, catalog, {CENTRALS: (1.0, 1.0 + 1e-9)}, 150, 3, simulate=small
    )
    none_seen, none = survey_mocks.survey_mocks(
        plain, catalog, {CENTRALS: (-1e-9, 0.0)}, 150, 3, simulate=small
    )
    kinds = (Component.CENTRAL, Component.NEIGHBOUR_CENTRAL)

    def centrals(some):
        return np.isin(some.galaxies("gal_component"), kinds).sum()

    assert centrals(none_seen) == 0 < centrals(mocks) < centrals(all_seen)
    assert centrals(mocks) == pytest.approx(0.5 * centrals(all_seen), rel=0.2)
    others = [len(some.galaxies("x")) - centrals(some) for some in (mocks, all_seen, none_seen)]
    assert others[0] == others[1] == others[2]
    assert values.shape == (len(mocks), 1)
    assert none.shape == (len(none_seen), 1)
    np.testing.assert_array_equal(values[:, 0], mocks.column(CENTRALS))
    # A cluster that has all its centrals has a larger share.
    lost = [np.isin(mocks[k].galaxies("gal_component"), kinds).sum() == 0 for k in range(len(mocks))]
    assert values[~np.array(lost)].mean() > values[np.array(lost)].mean() + 0.15
    again, _ = survey_mocks.survey_mocks(plain, catalog, theta, 150, 3, simulate=small)
    assert again.equals(mocks)


def test_summaries_are_of_the_median_mass_and_its_error_where_galaxies_are_enough(plain):
    catalog = toy_catalog(30, seed=4)
    count = catalog.n_galaxies
    least = int(np.sort(count)[10])
    found = summaries(plain, catalog, least)
    np.testing.assert_allclose(found[:, 0], np.log(count))
    posterior = plain.posterior(catalog.filter(count >= least))
    np.testing.assert_allclose(found[count >= least, 1], posterior.median, atol=1e-6)
    np.testing.assert_allclose(found[count >= least, 2], np.log(posterior.sigma), atol=1e-6)
    assert np.isnan(found[count < least, 1:]).all()
    with pytest.raises(CatalogError, match=f"None of the 30 clusters has {count.max() + 1} galaxies"):
        summaries(plain, catalog, int(count.max()) + 1)
    # Galaxies beyond the cylinder do not count, and a cluster of none is one of none.
    moved = catalog.with_galaxies(x=np.where(catalog.galaxy_rows == 0, 30.0, catalog.galaxies("x")))
    assert summaries(plain, moved, least)[0, 0] == 0.0


def test_a_likelihood_is_learnt_again_for_another_survey_and_only_then(plain, tmp_path, monkeypatch):
    learnt = []

    class Likelihood(torch.nn.Linear):
        def __init__(self, size=2):
            super().__init__(size, 1)

        def describe(self):
            return {"size": 2}

    def learn(*arguments, **options):
        learnt.append(options)
        return Likelihood()

    monkeypatch.setattr(survey_mocks, "learn_likelihood", learn)
    monkeypatch.setattr(survey_mocks, "SummaryLikelihood", Likelihood)
    catalog, theta, said = toy_catalog(4), {"velocity_bias": (0.9, 1.1)}, []
    first = learn_or_read(tmp_path, plain, catalog, theta, report=said.append, n_mocks=10, progress=False)
    again = learn_or_read(tmp_path, plain, catalog, theta, report=said.append, n_mocks=10, progress=True)
    assert torch.equal(first.weight, again.weight)
    assert not again.training
    assert (len(learnt), len(said)) == (1, 1)
    learn_or_read(tmp_path, plain, catalog, theta, report=said.append, n_mocks=11)
    learn_or_read(tmp_path, plain, catalog, {"velocity_bias": (0.9, 1.2)}, report=said.append, n_mocks=11)
    learn_or_read(tmp_path, plain, toy_catalog(4, redshift=0.2), theta, report=said.append, n_mocks=11)
    assert (len(learnt), len(said)) == (4, 1)
    monkeypatch.setattr(survey_mocks, "N_UPDATES", 1)
    learn_or_read(tmp_path, plain, toy_catalog(4, redshift=0.2), theta, report=said.append, n_mocks=11)
    assert (len(learnt), len(said)) == (5, 1)
