"""What a model is told of a sample."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from small_model import toy_catalog

from bayesflowmass.catalog import CatalogError
from bayesflowmass.encoders import ContextEncoder, KDEEncoder
from bayesflowmass.estimator import MassEstimator, TrainingInfo
from bayesflowmass.estimator.told import known_of, notes, tell
from bayesflowmass.flows import build_flow
from bayesflowmass.mocks import MockParameters
from bayesflowmass.mocks.luminosity import schechter_density


@pytest.fixture(scope="module")
def model():
    """Random weights, told depth and completeness."""
    catalog = toy_catalog(100, seed=9)
    rng = np.random.default_rng(0)
    catalog = catalog.with_columns(
        completeness=rng.uniform(0.1, 1.0, 100), abs_mag_limit=rng.uniform(-21.0, -18.0, 100)
    )
    encoder = ContextEncoder(KDEEncoder((10, 10)), constant=1.0, optional=("completeness", "abs_mag_limit"))
    encoder.fit_extras(catalog)
    flow = build_flow("affine", encoder.context_dim, 14.4, 0.15, hidden=(8,), seed=1)
    return MassEstimator(encoder, flow, TrainingInfo.from_catalog(catalog, uses_richness=False), "cpu")


def test_a_density_tells_depth_and_completeness(model):
    clusters = toy_catalog(4, seed=3)
    known = known_of(tell(clusters, model, {"galaxy_density": 5e-3}), model)
    assert_allclose(known["completeness"], 1.0)
    assert_allclose(schechter_density(known["abs_mag_limit"]), 5e-3, rtol=1e-4)
    thinned = known_of(tell(clusters, model, {"galaxy_density": 5e-3, "completeness": 0.5}), model)
    assert_allclose(thinned["completeness"], 0.5)
    assert_allclose(schechter_density(thinned["abs_mag_limit"]), 1e-2, rtol=1e-4)
    column = clusters.with_columns(completeness=np.array([0.5, np.nan, 1.0, 0.25]))
    each = known_of(tell(column, model, {"galaxy_density": 5e-3}), model)
    assert_allclose(each["completeness"], [0.5, 1.0, 1.0, 0.25])
    assert_allclose(schechter_density(each["abs_mag_limit"]), [1e-2, 5e-3, 5e-3, 2e-2], rtol=1e-4)
    with pytest.raises(CatalogError, match="galaxy_density is -1; expected galaxies per"):
        tell(clusters, model, {"galaxy_density": -1.0})


def test_a_depth_without_completeness_is_said_to_be_half(model):
    clusters = toy_catalog(4, seed=3)
    half = " ".join(notes(tell(clusters, model, {"abs_mag_limit": -20.0}), model))
    assert "not its completeness" in half
    whole = " ".join(notes(tell(clusters, model, {"abs_mag_limit": -20.0, "completeness": 0.9}), model))
    assert "completeness" not in whole
    assert "not its completeness" not in " ".join(notes(clusters, model))


def test_mocks_of_another_kind_than_the_training_are_said_to_be_so(model):
    made = MockParameters().to_dict()
    clusters = toy_catalog(4, seed=3).with_metadata(extra={"mock_parameters": made})

    def said(catalog=None, **changed):
        simulate = {"parameters": made | changed, "randomise": {"velocity_bias": [0.9, 1.1]}}
        info = replace(model.training_info, config={"catalog": catalog, "simulate": simulate})
        return " ".join(notes(clusters, MassEstimator(model.encoder, model.flow, info, "cpu")))

    assert "made otherwise" not in said()
    assert "made otherwise" not in said(velocity_bias=1.05)
    assert "made otherwise" not in said(catalog="theirs.parquet", orbit_loss=0.9)
    assert "made otherwise than those that the model was trained on (orbit_loss)" in said(orbit_loss=0.9)
