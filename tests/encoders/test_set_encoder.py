"""The galaxies of clusters as contexts: their numbers, invariances, descriptions and errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.encoders import ContextEncoder, Encoder, KDEEncoder, SetEncoder, base
from bayesflowmass.encoders.local import LocalDensities

COUNTS = (30, 12, 21)


def catalogue(counts=COUNTS, seed=0):
    rng = np.random.default_rng(seed)
    n = sum(counts)
    return ClusterCatalog.from_arrays(
        {
            "cluster_id": 100 + np.arange(len(counts)),
            "redshift": np.linspace(0.1, 0.2, len(counts)),
            "completeness": np.linspace(0.5, 1.0, len(counts)),
        },
        {
            "x": rng.normal(0, 0.5, n),
            "y": rng.normal(0, 0.5, n),
            "v_los": rng.normal(0, 700, n),
            "gal_is_member": rng.random(n) < 0.7,
        },
        counts,
    )


def test_numbers_of_a_galaxy_are_what_they_are_said_to_be():
    catalog = catalogue()
    encoder = SetEncoder([(0.1, 300.0), (0.4, 800.0)])
    found = encoder.encode(catalog, dtype=torch.float64)
    assert found.shape == (3, encoder.galaxy_dim, encoder.context_dim) == (3, 11, 1)
    assert found.counts.tolist() == list(COUNTS)
    columns = catalog.galaxy_tensor(["x", "y", "v_los"], torch.float64)
    for k, mine in enumerate(columns.split(list(COUNTS))):
        v = mine[:, 2].numpy()
        mad = 1.4826 * np.median(np.abs(v - np.median(v)))
        ours = found[k : k + 1]
        np.testing.assert_allclose(ours.galaxies[:, 0], torch.hypot(mine[:, 0], mine[:, 1]), rtol=1e-6)
        np.testing.assert_allclose(ours.galaxies[:, 1], v / 1000.0, rtol=1e-6)
        np.testing.assert_allclose(ours.galaxies[:, 2], v / mad, rtol=1e-6)
        np.testing.assert_allclose(ours.clusters[0, 0], math.log(mad / 1000.0), rtol=1e-5)
        local = LocalDensities([(0.1, 300.0), (0.4, 800.0)])(mine, torch.tensor([0, len(mine)]))
        torch.testing.assert_close(ours.galaxies[:, 3:], local.flatten(1).float())


def test_truth_is_told_only_where_asked_for():
    catalog = catalogue()
    assert SetEncoder().encode(catalog).members is None
    told = SetEncoder().encode(catalog, truth=True).members
    assert torch.equal(told, torch.tensor(catalog.galaxies("gal_is_member"), dtype=torch.float32))
    assert SetEncoder().encode(catalog.without("gal_is_member"), truth=True).members is None


def test_mirrored_velocities_and_a_turned_sky():
    catalog = catalogue()
    encoder = SetEncoder()
    plain = encoder.encode(catalog, dtype=torch.float64)
    mirrored = encoder.encode(catalog.with_galaxies(v_los=-catalog.galaxies("v_los")), dtype=torch.float64)
    torch.testing.assert_close(encoder.flip_velocity(plain).galaxies, mirrored.galaxies)
    assert not torch.equal(plain.galaxies, mirrored.galaxies)
    torch.testing.assert_close(plain.clusters, mirrored.clusters)
    turned = catalog.with_galaxies(x=catalog.galaxies("y"), y=catalog.galaxies("x"))
    torch.testing.assert_close(encoder.encode(turned, dtype=torch.float64).galaxies, plain.galaxies)


def test_columns_stand_beside_the_galaxies():
    catalog = catalogue()
    encoder = SetEncoder(extras=("redshift",), optional=("completeness",))
    with pytest.raises(ValueError, match=r"call fit_extras\(training split\) first"):
        encoder.encode(catalog)
    contexts = encoder.fit_extras(catalog).encode(catalog)
    z = np.linspace(-1, 1, 3) * math.sqrt(1.5)
    np.testing.assert_allclose(contexts.clusters[:, 1], z, atol=1e-6)
    np.testing.assert_allclose(contexts.clusters[:, 2], z, atol=1e-6)
    assert contexts.clusters[:, 3].tolist() == [1.0, 1.0, 1.0]
    unknown = encoder.encode(catalog.without("completeness"))
    assert unknown.clusters[:, 2:].abs().sum() == 0.0
    told = encoder.tell(unknown, "completeness", 1.0)
    np.testing.assert_allclose(told.clusters[:, 2:], [[math.sqrt(1.5), 1.0]] * 3, rtol=1e-6)
    # What is known is not told anew.
    assert torch.equal(encoder.tell(contexts, "completeness", 0.5).clusters, contexts.clusters)


def test_slices_do_not_matter(monkeypatch):
    whole = SetEncoder().encode(catalogue())
    monkeypatch.setattr(base, "_CLUSTERS_AT_ONCE", 1)
    parts = SetEncoder().encode(catalogue())
    # Sums over the galaxies of a cluster; another batch may add them in another order.
    rounding = max(COUNTS) * torch.finfo(torch.float32).eps
    for name, part in whole.tensors().items():
        torch.testing.assert_close(part, parts.tensors()[name], rtol=rounding, atol=rounding)


def test_no_clusters_give_an_empty_set():
    encoder = SetEncoder()
    assert encoder.encode(catalogue()[:0]).shape == (0, encoder.galaxy_dim, encoder.context_dim)


def test_a_broken_galaxy_names_its_cluster():
    catalog = catalogue()
    v = np.array(catalog.galaxies("v_los"))
    v[35] = np.nan
    with pytest.raises(CatalogError, match="cluster 101: it has a galaxy with a NaN"):
        SetEncoder().encode(catalog.with_galaxies(v_los=v))


def test_outlines_are_means_and_scatters_over_galaxies():
    contexts = SetEncoder([(0.1, 300.0)]).encode(catalogue())
    outline = SetEncoder([(0.1, 300.0)]).outline(contexts)
    for k in range(3):
        mine = contexts[k : k + 1].galaxies
        torch.testing.assert_close(outline[k], torch.cat([mine.mean(0), mine.std(0, correction=0)]))


def test_derivatives_with_respect_to_the_galaxies_equal_finite_differences():
    scale = torch.tensor([0.5, 0.5, 800.0], dtype=torch.float64)
    unit = torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    encoder = SetEncoder([(0.5, 700.0)])

    def numbers(u):
        found = encoder(u * scale, torch.tensor([0, 5, 9]))
        return found.galaxies, found.clusters

    assert torch.autograd.gradcheck(numbers, unit)


@pytest.mark.parametrize(
    "encoder",
    [
        SetEncoder([(0.1, 300.0)], counted=False, extras=("redshift",), optional=("completeness",)),
        ContextEncoder(KDEEncoder((10, 12)), extras=("redshift",)),
    ],
    ids=["set", "image"],
)
def test_a_description_gives_an_equal_encoder_of_its_kind(encoder):
    catalog = catalogue()
    again = Encoder.from_description(encoder.fit_extras(catalog).describe())
    assert type(again) is type(encoder)
    assert again.describe() == encoder.describe()
    assert type(encoder).from_description(encoder.describe()).describe() == encoder.describe()


def test_foreign_descriptions_are_refused():
    with pytest.raises(ValueError, match="unknown encoder 'graph'; known are galaxy-set, kde-context"):
        Encoder.from_description({"kind": "graph"})
    with pytest.raises(ValueError, match="not the description of a SetEncoder: its kind is 'kde-context'"):
        SetEncoder.from_description(ContextEncoder(KDEEncoder()).describe())
    with pytest.raises(ValueError, match="another version"):
        SetEncoder.from_description({"kind": "galaxy-set"})
