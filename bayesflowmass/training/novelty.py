"""Measure what training clusters look like, at the end of a run."""

from __future__ import annotations

import numpy as np
import torch

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.encoders import Encoder
from bayesflowmass.estimator import TrainingInfo
from bayesflowmass.novelty import NoveltyDetector
from bayesflowmass.novelty.detector import FEWEST_HELD_OUT, FEWEST_TRAINING
from bayesflowmass.posterior import make_prior
from bayesflowmass.training.random_state import derive_seed, numpy_generator

MOST_TRAINING = 8000
"""Training clusters that are measured: quantiles at 0.0005 and principal components need no more."""

_MOST_HELD_OUT = 4000


def fit_novelty(
    encoder: Encoder,
    training: ClusterCatalog,
    held_out: ClusterCatalog,
    info: TrainingInfo,
    *,
    seed: int,
    device: torch.device,
) -> NoveltyDetector | None:
    """The detector of clusters unlike the training set; None where there are too few to calibrate it.

    A function of its arguments alone: a resumed run gets the same one.

    Args:
        encoder: of the contexts.
        training: clusters as the network saw them; a random 8000 of them are used.
        held_out: clusters that share no halo with them, with ``log10_mass``.
        info: population, range and cylinder of the training masses.
        seed: of the run.
        device: where to encode.
    """
    if len(training) < FEWEST_TRAINING or len(held_out) < FEWEST_HELD_OUT:
        return None
    training = _some(training, MOST_TRAINING, numpy_generator(seed, "novelty training"))
    held_out = _some(held_out, _MOST_HELD_OUT, numpy_generator(seed, "novelty held out"))
    r_max, v_max = info.reference.aperture if info.reference else _extent(training)
    return NoveltyDetector.fit(
        training,
        encoder.outline(encoder.encode(training, device=device)),
        held_out,
        encoder.outline(encoder.encode(held_out, device=device)),
        r_max=r_max,
        v_max=v_max,
        log_hmf=_log_hmf(held_out, info),
        seed=derive_seed(seed, "novelty"),
    )


def _extent(catalog: ClusterCatalog) -> tuple[float, float]:
    """Largest radius and speed of a catalogue."""
    speed = np.abs(catalog.galaxies("v_los"))
    return float(catalog.r_proj.max(initial=1e-3)), float(speed.max(initial=1.0))


def _some(catalog: ClusterCatalog, most: int, rng: np.random.Generator) -> ClusterCatalog:
    if len(catalog) <= most:
        return catalog
    return catalog[np.sort(rng.permutation(len(catalog))[:most])]


def _log_hmf(catalog: ClusterCatalog, info: TrainingInfo) -> FloatArray:
    """ln of the mass function over the density of the training masses (n,)."""
    if info.masses == "hmf":
        return np.zeros(len(catalog))
    low, high = info.log10_mass_range
    redshift = np.array(catalog.column("redshift"), dtype=np.float64)
    mass = torch.from_numpy(np.array(catalog.column("log10_mass"), dtype=np.float64)).clamp(low, high)
    density = make_prior("hmf", (low, high), info.cosmology).log_density(redshift)
    return np.asarray(density(mass[None])[0].numpy())
