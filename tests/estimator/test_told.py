"""What a model is told of a sample."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from small_model import toy_catalog

from bayesflowmass.catalog import CatalogError
from bayesflowmass.encoders import ContextEncoder, KDEEncoder
from bayesflowmass.estimator import MassEstimator, TrainingInfo
from bayesflowmass.estimator.told import known_of, notes, tell
from bayesflowmass.flows import build_flow
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
