"""Contexts from catalogues."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from counted_bar import counted_bars

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.encoders import ContextEncoder, KDEEncoder, base


def catalogue(counts=(12, 40, 25), seed=0):
    rng = np.random.default_rng(seed)
    total = int(sum(counts))
    return ClusterCatalog.from_arrays(
        {
            "cluster_id": np.arange(len(counts)) + 100,
            "redshift": np.linspace(0.1, 0.2, len(counts)),
            "mode": np.array(["survey"] * len(counts)),
        },
        {
            "x": rng.normal(0, 0.5, total),
            "y": rng.normal(0, 0.5, total),
            "v_los": rng.normal(0, 500.0, total),
            "gal_weight": rng.uniform(0.5, 2.0, total),
        },
        np.array(counts),
    )


def test_mean_scaling_has_mean_one():
    contexts = ContextEncoder(KDEEncoder()).encode(catalogue())
    assert contexts.shape == (3, 2500)
    assert contexts.dtype == torch.float32
    torch.testing.assert_close(contexts.mean(1), torch.ones(3))


def test_contexts_are_scaled_images_of_the_same_galaxies():
    catalog = catalogue()
    points = torch.tensor(np.stack([catalog.r_proj, catalog.galaxies("v_los")], -1))
    images = KDEEncoder()(points, torch.tensor(catalog.offsets)).flatten(1)
    counts = torch.tensor(catalog.n_galaxies)[:, None]
    expected = {
        "mean": 2500.0 * images,
        "sqrt": (2500.0 * images).sqrt(),
        "log1p_richness": torch.log1p(25.0 * counts * images),
    }
    for scaling, wanted in expected.items():
        encoder = ContextEncoder(KDEEncoder(normalisation="density"), scaling)
        assert encoder.uses_richness == (scaling == "log1p_richness")
        torch.testing.assert_close(encoder.encode(catalog, dtype=torch.float64), wanted.float())
        torch.testing.assert_close(encoder.encode(catalog), wanted.float(), rtol=1e-3, atol=1e-3)


def test_kernels_become_channels():
    kdes = [KDEEncoder(), KDEEncoder(convention="scipy", bandwidth=0.2)]
    encoder = ContextEncoder(kdes, "sqrt")
    assert encoder.image_shape == (2, 50, 50)
    assert encoder.context_dim == 5000
    parts = [ContextEncoder(kde, "sqrt").encode(catalogue()) for kde in kdes]
    assert torch.equal(encoder.encode(catalogue()), torch.cat(parts, 1))
    with pytest.raises(ValueError, match="on one and the same grid"):
        ContextEncoder([KDEEncoder(), KDEEncoder((40, 50))])


def test_extras_are_standardised_by_the_training_split():
    encoder = ContextEncoder(KDEEncoder(), extras=("redshift",))
    with pytest.raises(ValueError, match=r"call fit_extras\(training split\) first"):
        encoder.encode(catalogue())
    training = catalogue((12,) * 8, seed=1)
    contexts = encoder.fit_extras(training).encode(catalogue())
    z = training.column("redshift")
    expected = (np.linspace(0.1, 0.2, 3) - z.mean()) / z.std()
    np.testing.assert_allclose(contexts[:, 2500].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_constant_extra_becomes_zero():
    catalog = catalogue().with_columns(redshift=np.full(3, 0.117))
    contexts = ContextEncoder(KDEEncoder(), extras=("redshift",)).fit_extras(catalog).encode(catalog)
    assert float(contexts[:, 2500].abs().max()) == 0.0


def test_bad_extras_are_named():
    catalog = catalogue()
    with pytest.raises(CatalogError, match="the catalogue has no column 'richness'"):
        ContextEncoder(KDEEncoder(), extras=("richness",)).fit_extras(catalog)
    with pytest.raises(CatalogError, match="column 'mode' is not numeric"):
        ContextEncoder(KDEEncoder(), extras=("mode",)).fit_extras(catalog)
    broken = catalog.with_columns(completeness=np.array([1.0, np.nan, 1.0]))
    with pytest.raises(CatalogError, match="cluster 101: column 'completeness' is nan"):
        ContextEncoder(KDEEncoder(), extras=("completeness",)).fit_extras(broken)


@pytest.mark.parametrize("kde", [KDEEncoder(), KDEEncoder(convention="scipy", evaluate="bin")])
def test_flipped_context_is_that_of_mirrored_velocities(kde):
    catalog = catalogue()
    mirrored = catalog.with_galaxies(v_los=-catalog.galaxies("v_los"))
    encoder = ContextEncoder([kde, KDEEncoder(bandwidth=0.4)], extras=("redshift",)).fit_extras(catalog)
    contexts = encoder.encode(catalog, dtype=torch.float64)
    flipped = encoder.flip_velocity(contexts)
    torch.testing.assert_close(flipped, encoder.encode(mirrored, dtype=torch.float64))
    assert torch.equal(encoder.flip_velocity(flipped), contexts)
    assert not torch.equal(flipped, contexts)
    assert torch.equal(encoder.flip_velocity(contexts[0]), flipped[0])


def test_an_asymmetric_grid_cannot_be_flipped():
    encoder = ContextEncoder(KDEEncoder(lower=(0.0, -2000.0)))
    with pytest.raises(ValueError, match="not symmetric about zero"):
        encoder.flip_velocity(torch.zeros(2500))


def test_description_round_trip_through_json():
    kdes = [KDEEncoder(evaluate="bin"), KDEEncoder(bandwidth=0.3, convention="scipy", narrow="keep")]
    encoder = ContextEncoder(kdes, "log1p_richness", 10.0, ("redshift",), "gal_weight")
    encoder.fit_extras(catalogue())
    again = ContextEncoder.from_description(json.loads(json.dumps(encoder.describe())))
    assert again.describe() == encoder.describe()
    assert torch.equal(again.encode(catalogue()), encoder.encode(catalogue()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "cnn"}, "its kind is 'cnn', not 'kde-context'"),
        ({"colour": 1}, "has the keys .*'colour'.*; it may come from another version"),
        ({"extra_constants": [[0.0, 1.0]]}, "there are 0 names but constants for 1"),
        ({"scaling": "cube"}, "scaling must be one of mean, sqrt, log1p_richness, not 'cube'"),
        ({"constant": -1.0}, "constant of the scaling must be positive"),
    ],
)
def test_foreign_descriptions_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ContextEncoder.from_description({**ContextEncoder(KDEEncoder()).describe(), **change})


def test_three_dimensions_use_both_positions():
    kde = KDEEncoder((5, 6, 7), (-1.6, -1.6, -2200.0), (1.6, 1.6, 2200.0))
    catalog = catalogue()
    contexts = ContextEncoder(kde).encode(catalog, dtype=torch.float64)
    points = catalog.galaxy_tensor(["x", "y", "v_los"], torch.float64)
    images = kde(points, torch.tensor(catalog.offsets))
    torch.testing.assert_close(contexts, (2500.0 * images.flatten(1)).float())


def test_galaxy_weights_are_used():
    catalog = catalogue()
    plain = ContextEncoder(KDEEncoder()).encode(catalog)
    encoder = ContextEncoder(KDEEncoder(), galaxy_weight="gal_weight")
    assert not torch.allclose(encoder.encode(catalog), plain)
    equal = catalog.with_galaxies(gal_weight=np.ones(77))
    torch.testing.assert_close(encoder.encode(equal), plain, rtol=1e-4, atol=1e-4)


def test_slices_do_not_matter(monkeypatch):
    encoder, catalog = ContextEncoder(KDEEncoder()), catalogue((12, 40, 25, 300, 11))
    whole = encoder.encode(catalog, dtype=torch.float64)
    monkeypatch.setattr(base, "_GALAXIES_AT_ONCE", 50)
    bars = counted_bars(monkeypatch, base)
    torch.testing.assert_close(encoder.encode(catalog, dtype=torch.float64), whole)
    assert [(bar.n, bar.total, bar.shown) for bar in bars] == [(5, 5, False)]


def test_singular_cluster_is_named_by_its_id(monkeypatch):
    monkeypatch.setattr(base, "_CLUSTERS_AT_ONCE", 1)
    catalog = catalogue()
    v = np.array(catalog.galaxies("v_los"))
    v[12:52] = 100.0
    with pytest.raises(CatalogError, match="cluster 101: all its galaxies have the same value"):
        ContextEncoder(KDEEncoder()).encode(catalog.with_galaxies(v_los=v))


def test_cluster_without_galaxies_on_the_grid_is_named():
    catalog = catalogue()
    x = np.array(catalog.galaxies("x"))
    x[52:] += 30.0
    with pytest.raises(CatalogError, match="cluster 102: none of its 25 galaxies lies inside the grid"):
        ContextEncoder(KDEEncoder()).encode(catalog.with_galaxies(x=x))


def test_empty_cluster_is_named():
    catalog = ClusterCatalog.from_arrays(
        {"cluster_id": np.array(["a", "b"]), "redshift": np.array([0.1, 0.1])},
        {"x": np.ones(0), "y": np.ones(0), "v_los": np.ones(0)},
        np.array([0, 0]),
    )
    with pytest.raises(CatalogError, match="cluster a: it has 0 galaxies"):
        ContextEncoder(KDEEncoder()).encode(catalog)


def test_forward_is_differentiable_and_wants_its_extras():
    encoder = ContextEncoder(KDEEncoder(), "sqrt", extras=("redshift",)).fit_extras(catalogue())
    points = np.random.default_rng(0).normal((0.5, 0.0), (0.3, 500.0), (20, 2))
    points = torch.tensor(points, requires_grad=True)
    with pytest.raises(ValueError, match="needs the columns redshift of each cluster"):
        encoder(points, torch.tensor([0, 20]))
    encoder(points, torch.tensor([0, 20]), torch.tensor([[0.1]])).std().backward()
    assert bool(torch.isfinite(points.grad).all())
