"""A small model and clusters that several tests share: quick to make, no training."""

from __future__ import annotations

import numpy as np
import torch

from bayesflowmass.bayes.ensemble import EnsemblePosterior
from bayesflowmass.catalog import CatalogMetadata, ClusterCatalog
from bayesflowmass.common.tensors import hash_tensors
from bayesflowmass.encoders import ContextEncoder, KDEEncoder
from bayesflowmass.estimator import MassEstimator, TrainingInfo
from bayesflowmass.flows import build_flow


def hash_weights(module):
    """SHA-256 of parameters and buffers: equal exactly where every bit of them is equal."""
    return hash_tensors(module.state_dict())


def toy_catalog(n=400, seed=0, *, redshift=0.117, mode="paper", completeness=1.0, log10_mass=None):
    """Gaussian members and a flat background in the cylinder; dispersion and richness grow with mass."""
    rng = np.random.default_rng(seed)
    mass = rng.uniform(13.2, 15.6, n) if log10_mass is None else np.full(n, log10_mass)
    members = rng.poisson(40.0 * 10.0 ** (0.9 * (mass - 14.0)) * completeness).clip(10, 400)
    background = rng.poisson(20.0 * completeness, n)
    counts = members + background
    owner = np.repeat(np.arange(n), counts)
    is_member = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts) < members[owner]
    radius = np.where(is_member, 1.6 * rng.random(len(owner)), 1.6 * np.sqrt(rng.random(len(owner))))
    angle = rng.uniform(0.0, 2.0 * np.pi, len(owner))
    sigma = 480.0 * 10.0 ** ((mass - 14.0) / 3.0)
    velocity = np.where(
        is_member, sigma[owner] * rng.normal(size=len(owner)), rng.uniform(-2500.0, 2500.0, len(owner))
    )
    metadata = CatalogMetadata(
        kind="contaminated",
        mode=mode,
        selection={"r_max": 1.6, "v_max": 2500.0, "min_galaxies": 10},
        masses={"distribution": "flat", "log10_mass_min": 13.2, "log10_mass_max": 15.6},
    )
    catalog = ClusterCatalog.from_arrays(
        {"cluster_id": np.arange(n), "redshift": np.full(n, redshift), "log10_mass": mass},
        {"x": radius * np.cos(angle), "y": radius * np.sin(angle), "v_los": velocity},
        counts,
        metadata,
    )
    return catalog.filter_galaxies(np.abs(velocity) < 2500.0)


def toy_estimator(*, uses_richness=False, catalog=None):
    """A model with random weights: its masses mean nothing, all else is as in a trained one."""
    scaling = "log1p_richness" if uses_richness else "mean"
    encoder = ContextEncoder(KDEEncoder((20, 20)), scaling=scaling, constant=1.0)
    flow = build_flow("affine", encoder.context_dim, 14.4, 0.15, hidden=(8,), seed=1)
    catalog = toy_catalog(1200, seed=9) if catalog is None else catalog
    return MassEstimator(
        encoder, flow, TrainingInfo.from_catalog(catalog, uses_richness=uses_richness), "cpu"
    )


def with_uncertain_weights(estimator):
    """The same with an ensemble of five random sets of weights."""
    size = sum(p.numel() for p in estimator.flow.parameters())
    members = 0.05 * torch.randn(5, size, generator=torch.Generator().manual_seed(3))
    flat = torch.cat([p.detach().reshape(-1) for p in estimator.flow.parameters()])
    weights = EnsemblePosterior(estimator.flow, flat + members)
    return MassEstimator(estimator.encoder, estimator.flow, estimator.training_info, "cpu", weights)
