"""Train a mass estimator: ``python -m bayesflowmass.train`` and :func:`train`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesflowmass.command import TrainSettings, run_command
from bayesflowmass.command.trained import carry_out, train_arguments, train_with
from bayesflowmass.common.processes import launched, own_device

# The rest is imported where it is used: --help, and an error in the input, should not wait for torch.
if TYPE_CHECKING:
    from bayesflowmass.catalog import ClusterCatalog
    from bayesflowmass.encoders import Encoder
    from bayesflowmass.estimator import MassEstimator
    from bayesflowmass.posterior import MassPrior
    from bayesflowmass.training.augmentation import Augmentation

__all__ = ["main", "train", "train_arguments"]


def train(
    catalog: ClusterCatalog | str | Path | None = None,
    *,
    out: str | Path,
    simulate: Mapping[str, Any] | None = None,
    encoder: Encoder | None = None,
    flow: Mapping[str, Any] | None = None,
    augmentation: Augmentation | None = None,
    fresh_mocks: bool = False,
    redraw_every: int = 1,
    prefetch: bool = True,
    flip_velocity: bool = False,
    validation_fraction: float = 0.1,
    population: str | MassPrior | None = None,
    selection: str | Path | None = None,
    start: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    weights: str | Mapping[str, Any] = "point",
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
    progress: bool = True,
) -> MassEstimator:
    """Train a mass estimator and write its model folder.

    Processes that ``torchrun`` starts train together: they share each batch, and the first writes.

    The folder holds ``model.safetensors``, ``model.json``, ``history.csv``, ``loss.pdf`` and ``loss.png``,
    and ``checkpoint/`` while training. With one seed and one number of CPU threads the weights are the same,
    bit by bit, whether or not the run was killed and resumed.

    Args:
        catalog: training clusters with ``log10_mass``, or the path of their file; None simulates.
        out: model folder.
        simulate: arguments of :func:`~bayesflowmass.mocks.simulate_catalog`; ``n_clusters`` for training and
            validation.
        encoder: galaxies to contexts; None is that of the paper.
        flow: arguments of :func:`~bayesflowmass.flows.build_flow`, without context_dim, loc and scale; target
            constants are fitted on the training split.
        augmentation: what observing does to each training cluster, drawn anew every ``redraw_every`` epochs.
        fresh_mocks: simulate new training clusters as often.
        prefetch: prepare the next draw in the background.
        flip_velocity: mirror v_los of half of each batch.
        validation_fraction: share of the haloes kept for validation.
        population: that the masses of the catalogue were drawn from, ``"flat"``, ``"hmf"`` or any prior. The network
            then learns p(m | d) under a flat prior, whatever the population (`TrainingPopulation`). None: it
            learns p(m | d) under the population of its training clusters, which the metadata of the catalogue name.
        selection: table of the probability that a cluster of the population is in the catalogue, with columns
            log10_mass and probability.
        start: model of the same encoder and flow, whose weights and constants training begins with.
        options: fields of :class:`~bayesflowmass.training.options.FitOptions`, such as ``learning_rate``.
        weights: posterior of the network's weights: ``METHOD`` or ``METHOD:VALUE`` such as ``"variational"`` or
            ``"ensemble:5"``, or the mapping of :func:`~bayesflowmass.training.weights.fit_weights`; its key
            ``start`` names a trained model folder to begin from.
        seed: of everything random.
        device: auto, cpu or cuda.
        resume: go on from the last checkpoint in ``out``; begin anew where there is none, and return the
            model where training had ended.
        progress: show bars on standard error.

    Raises:
        ValueError: for unusable settings or data (`CatalogError`), or an unfinished run in ``out`` without
            ``resume``.
        FolderInUseError: another process trains in ``out``.
        CheckpointError: if the run in ``out`` was begun with other settings, or the disk is full.
        TrainingInterrupted: after Ctrl-C, once a checkpoint is written.
    """
    from bayesflowmass.encoders import ContextEncoder, KDEEncoder
    from bayesflowmass.training.augmentation import Augmentation
    from bayesflowmass.training.run import Request

    request = Request(
        catalog=catalog,
        out=Path(out),
        simulate=dict(simulate or {}),
        encoder=encoder or ContextEncoder(KDEEncoder()),
        flow=dict(flow or {}),
        augmentation=augmentation or Augmentation(),
        fresh_mocks=fresh_mocks,
        redraw_every=redraw_every,
        prefetch=prefetch,
        flip_velocity=flip_velocity,
        validation_fraction=validation_fraction,
        population=population,
        selection=selection,
        start=start,
        options=dict(options or {}),
        weights={"method": weights} if isinstance(weights, str) else dict(weights),
        seed=seed,
        device=own_device(device),
        resume=resume,
        progress=progress and launched().is_first,
    )
    return carry_out(request)


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``train``; returns its exit code."""
    return run_command(
        TrainSettings, train_with, argv, prog="bayesflowmass train", default_config="default.yaml"
    )


if __name__ == "__main__":
    sys.exit(main())
