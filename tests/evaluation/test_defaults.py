"""What evaluations do where nothing else is asked for: the seed is 0, and nobody sees a bar."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from small_model import toy_catalog, toy_estimator, with_uncertain_weights

from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluation import cards, predict, survey_mocks
from bayesflowmass.evaluation.road import posteriors
from bayesflowmass.evaluation.survey_mocks import learn_likelihood, summaries


@pytest.fixture(scope="module")
def estimator():
    return with_uncertain_weights(toy_estimator())


def test_draws_of_the_weights_are_those_of_seed_0(estimator, monkeypatch, capsys):
    catalog, draw, asked = toy_catalog(3), MassEstimator.draw, []
    monkeypatch.setattr(MassEstimator, "draw", lambda self, *which: asked.append(which) or draw(self, *which))
    list(posteriors(estimator, catalog))
    predict(estimator, catalog)
    predict(estimator, catalog, n_draws=2, seed=3)
    assert asked == [(None, 0), (None, 0), (2, 3)]
    assert capsys.readouterr() == ("", "")
    poor = catalog.filter_galaxies(np.arange(catalog.n_galaxies_total) < 0)
    with pytest.raises(ValueError, match="None of the 3 clusters can have a mass"):
        list(posteriors(estimator, poor))


def test_cards_are_of_seed_0_with_every_galaxy_left_out_in_turn(estimator, monkeypatch):
    asked = []
    monkeypatch.setattr(cards, "posteriors", lambda *_, **options: asked.append(options) or iter(()))
    assert list(cards.cluster_cards(estimator, toy_catalog(3))) == []
    assert asked == [{"n_draws": None, "seed": 0, "clusters_at_once": 1}]
    assert inspect.signature(cards.cluster_cards).parameters["attribution"].default is True


def test_a_likelihood_is_learnt_from_96000_mocks_of_ten_galaxies_or_more(estimator, monkeypatch):
    asked = []

    def mocks(*arguments, progress):
        asked.append((*arguments[3:], progress))
        return arguments[1], np.zeros((3, 1))

    def counted(_, catalog, least, *, progress, label):
        asked.append((least, progress, label))
        raise InterruptedError

    monkeypatch.setattr(survey_mocks, "survey_mocks", mocks)
    monkeypatch.setattr(survey_mocks, "summaries", counted)
    with pytest.raises(InterruptedError):
        learn_likelihood(estimator, toy_catalog(3), {"velocity_bias": (0.9, 1.1)})
    assert asked == [(96000, 0, False), (10, False, "summaries of mocks")]


def test_summaries_show_no_bar(estimator, capsys):
    summaries(estimator, toy_catalog(3), 2)
    assert capsys.readouterr() == ("", "")
