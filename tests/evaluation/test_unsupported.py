"""A posterior that says nothing of a mass is no mass: masked, flagged, and the others are as without it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from small_model import toy_catalog, toy_estimator

from bayesflowmass.catalog import CatalogError
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluation.road import posteriors
from bayesflowmass.flows import build_flow
from bayesflowmass.infer import infer

LOST = np.arange(9) % 3 == 1


@pytest.fixture
def estimator(monkeypatch):
    """A model that every third cluster leads to numbers that are none."""
    estimator = toy_estimator()
    plain = estimator.encode

    def astray(catalog, *arguments):
        contexts = plain(catalog, *arguments)
        contexts[(np.asarray(catalog.column("cluster_id")) % 3 == 1).tolist()] = float("nan")
        return contexts

    monkeypatch.setattr(estimator, "encode", astray)
    return estimator


def test_such_a_mass_is_never_written(estimator):
    clusters = toy_catalog(9, seed=1)
    table = infer(estimator, clusters)
    assert np.array_equal(np.ma.getmaskarray(table["log10_mass"]), LOST)
    assert [("no_density" in str(flags)) for flags in table["flags"]] == LOST.tolist()
    alone = infer(estimator, clusters.filter(~LOST))
    # Matrix products of another size round differently.
    assert_allclose(np.asarray(table["log10_mass"][~LOST]), np.asarray(alone["log10_mass"]), atol=1e-5)


def test_batches_hold_the_clusters_that_have_a_mass(estimator):
    (batch,) = posteriors(estimator, toy_catalog(9, seed=1))
    assert batch.usable.tolist() == (~LOST).tolist()
    assert len(batch.contexts) == len(batch.clusters) == len(batch.posterior.median) == 6


def test_the_network_runs_once_for_a_batch_that_loses_clusters(estimator, monkeypatch):
    seen = []
    condition = estimator.flow.condition
    monkeypatch.setattr(estimator.flow, "condition", lambda rows: seen.append(len(rows)) or condition(rows))
    list(posteriors(estimator, toy_catalog(9, seed=1)))
    assert seen == [9]


def test_masses_beyond_the_training_range_are_refused():
    plain = toy_estimator()
    flow = build_flow("affine", plain.encoder.context_dim, 30.0, 0.15, hidden=(8,), seed=1)
    with pytest.raises(CatalogError, match=r"None of the 3 clusters can have a mass: .* range of masses"):
        infer(MassEstimator(plain.encoder, flow, plain.training_info, "cpu"), toy_catalog(3, seed=1))
