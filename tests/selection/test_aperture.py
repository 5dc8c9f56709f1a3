"""The observed part of a cylinder: what a cut leaves, what a model is told, what is flagged."""

from __future__ import annotations

import numpy as np
import pytest
from small_model import toy_catalog, toy_estimator

from bayesflowmass import selection
from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.encoders import ContextEncoder, KDEEncoder
from bayesflowmass.estimator.cylinder import in_cylinder
from bayesflowmass.estimator.flags import cluster_flags
from bayesflowmass.training.augmentation import Augmentation

CYLINDER = {"r_max": 1.6, "v_max": 2500.0}


def flagged(name, catalog, estimator):
    return np.array(
        [
            name in one.split(",")
            for one in cluster_flags(in_cylinder(catalog, CYLINDER), estimator.training_info)
        ]
    )


def test_each_cluster_keeps_the_galaxies_of_its_own_field():
    catalog = toy_catalog(4)
    cut = selection.aperture(catalog, [0.5, np.nan, 1.0, 3.0])
    for row, limit in enumerate([0.5, np.inf, 1.0, np.inf]):
        one = catalog[row].r_proj
        assert cut.n_galaxies[row] == (one < limit).sum()
    assert cut.metadata.selection["aperture"] == [0.5, 3.0]


def test_a_field_larger_than_the_cylinder_covers_it_and_a_smaller_one_is_cut():
    told = in_cylinder(toy_catalog(3).with_columns(aperture=[0.7, 5.0, np.nan]), CYLINDER)
    np.testing.assert_array_equal(told.column("aperture"), [0.7, 1.6, np.nan])
    assert told[0].r_proj.max() < 0.7
    assert told[1].r_proj.max() > 1.4
    tighter = in_cylinder(selection.cylinder(toy_catalog(3), 1.0), CYLINDER)
    np.testing.assert_array_equal(tighter.column("aperture"), [1.0] * 3)
    assert not in_cylinder(toy_catalog(3), CYLINDER).has("aperture")


def test_augmentation_draws_fields_and_the_context_shows_where_they_end():
    seen = Augmentation(aperture=(0.4, 2.2), known={"aperture": 0.5}).apply(
        toy_catalog(400), np.random.default_rng(1), **CYLINDER
    )
    limit = np.asarray(seen.column("aperture"))
    known = np.isfinite(limit)
    assert 0.4 < known.mean() < 0.6
    # A third of the range lies beyond the cylinder: four standard errors of 200 draws.
    assert abs((limit[known] == 1.6).mean() - 1.0 / 3.0) < 0.14
    assert 0.4 <= limit[known].min() < 0.5
    encoder = ContextEncoder(KDEEncoder((10, 10)), extras=("outermost",), optional=("aperture",)).fit_extras(
        seen
    )
    outermost = [one.r_proj.max() for one in seen]
    mean, scale = encoder.extra_columns.constants[0]
    np.testing.assert_allclose(
        encoder.encode(seen)[:, -3], (np.array(outermost) - mean) / scale, rtol=1e-5, atol=1e-5
    )
    with pytest.raises(ValueError, match="aperture begins at 0"):
        Augmentation(aperture=(0.0, 1.0))


def test_a_small_field_is_flagged_where_it_was_not_told():
    estimator, catalog = toy_estimator(), toy_catalog(200, seed=5)
    assert flagged("small_field", catalog, estimator).mean() < 0.12
    small = catalog.filter_galaxies(catalog.r_proj < 0.8)
    assert flagged("small_field", small, estimator).mean() > 0.9
    told = small.with_columns(aperture=np.full(200, 0.8))
    assert not flagged("small_field", told, estimator).any()
    # A model that never saw a small field says so.
    assert flagged("selection", told, estimator).all()
    wide = catalog.with_columns(aperture=np.full(200, 2.0))
    assert not flagged("selection", wide, estimator).any()


def discs(n, number, seed):
    """Clusters whose galaxies are spread evenly over the cylinder."""
    rng = np.random.default_rng(seed)
    radius, angle = 1.6 * np.sqrt(rng.random(n * number)), rng.uniform(0.0, 2.0 * np.pi, n * number)
    galaxies = {
        "x": radius * np.cos(angle),
        "y": radius * np.sin(angle),
        "v_los": rng.normal(0.0, 500.0, n * number),
    }
    clusters = {"cluster_id": np.arange(n), "redshift": np.full(n, 0.1), "log10_mass": np.full(n, 14.0)}
    return ClusterCatalog.from_arrays(clusters, galaxies, np.full(n, number), toy_catalog(1).metadata)


def test_few_galaxies_that_seldom_reach_the_edge_are_no_small_field():
    """5 % of 1000 clusters, and four standard errors of that and of the threshold (1200 clusters)."""
    estimator = toy_estimator(catalog=discs(1200, 20, seed=1))
    for number in (4, 8, 20):
        assert abs(flagged("small_field", discs(1000, number, seed=number), estimator).mean() - 0.05) < 0.04
    assert not flagged("small_field", discs(1000, 2, seed=2), estimator).any()
