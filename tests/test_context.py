"""Contexts from catalogues."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.encoders import ContextEncoder, KDEEncoder


def catalogue(counts=(12, 40, 25), seed=0):
    rng = np.random.default_rng(seed)
    total = int(sum(counts))
    return ClusterCatalog.from_arrays(
        {"cluster_id": np.arange(len(counts)) + 100, "redshift": np.linspace(0.1, 0.2, len(counts))},
        {"x": rng.normal(0, 0.5, total), "y": rng.normal(0, 0.5, total), "v_los": rng.normal(0, 500.0, total)},
        np.array(counts),
    )


def test_mean_scaling_has_mean_one():
    contexts = ContextEncoder(KDEEncoder()).encode(catalogue())
    assert contexts.shape == (3, 2500)
    assert contexts.dtype == torch.float32
    torch.testing.assert_close(contexts.mean(1), torch.ones(3))


def test_singular_cluster_is_named_by_its_id():
    catalog = catalogue()
    v = np.array(catalog.galaxies("v_los"))
    v[12:52] = 100.0
    with pytest.raises(CatalogError, match="cluster 101: all its galaxies have the same value"):
        ContextEncoder(KDEEncoder()).encode(catalog.with_galaxies(v_los=v))
