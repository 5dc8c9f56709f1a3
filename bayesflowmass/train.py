"""Train a mass estimator: ``python -m bayesflowmass.train`` and :func:`train`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesflowmass.command import EncoderSettings, TrainSettings, run_command
from bayesflowmass.command.record import write_record, write_settings
from bayesflowmass.common.lock import sole_writer
from bayesflowmass.common.processes import joined, launched, own_device
from bayesflowmass.common.run_folder import SETTINGS
from bayesflowmass.common.terminal import say

# The rest is imported where it is used: --help, and an error in the input, should not wait for torch.
if TYPE_CHECKING:
    from bayesflowmass.catalog import ClusterCatalog
    from bayesflowmass.encoders import Encoder
    from bayesflowmass.estimator import MassEstimator
    from bayesflowmass.posterior import MassPrior
    from bayesflowmass.training.augmentation import Augmentation
    from bayesflowmass.training.fit import FitResult
    from bayesflowmass.training.run import Request, Trained

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
    from bayesflowmass.training.run import Request, finished_model, tidy_up, train_estimator

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
        options=dict(options or {}),
        weights={"method": weights} if isinstance(weights, str) else dict(weights),
        seed=seed,
        device=own_device(device),
        resume=resume,
        progress=progress and launched().is_first,
    )
    request.check()
    with ExitStack() as stack:
        processes = stack.enter_context(joined(request.device))
        processes.first_does(lambda: stack.enter_context(sole_writer(request.out, "training")))
        finished = finished_model(request)
        if finished is not None:
            processes.first_does(lambda: tidy_up(request))
            say(f"Training had ended. Model: {request.out}")
            return finished
        trained = train_estimator(request)

        def write() -> None:
            # The model comes last: where it is there, nothing else is missing.
            if trained.point is not None:
                _draw_losses(trained.point, request.out)
            trained.estimator.save(request.out)
            tidy_up(request)

        processes.first_does(write)
    _announce(trained, request)
    return trained.estimator


def _announce(trained: Trained, request: Request) -> None:
    result = trained.point
    if result is None:
        say(f"Began with the weights of {request.weights['start']}. Model: {request.out}")
    else:
        reason = (
            "the validation loss no longer fell" if result.stopped_by == "patience" else "all updates done"
        )
        say(
            f"Trained {result.n_updates} updates in {result.seconds:.0f} s on {result.device} ({reason}): validation"
            f" loss {result.best_validation_loss:.3f} nats at update {result.best_update}. Model: {request.out}"
        )
    if trained.posterior is not None:
        from bayesflowmass.training.weight_report import describe_weights

        say(describe_weights(trained.posterior, trained.phases))


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``train``; returns its exit code."""
    return run_command(
        TrainSettings, _train_with, argv, prog="bayesflowmass train", default_config="default.yaml"
    )


def _train_with(settings: TrainSettings) -> None:
    train(**train_arguments(settings))
    if not launched().is_first:
        return
    prog = "bayesflowmass train"
    write_settings(settings.out, prog, settings)
    write_record(
        settings.out, prog, settings, shlex.join([*prog.split(), "--config", str(settings.out / SETTINGS)])
    )


def train_arguments(settings: TrainSettings) -> dict[str, Any]:
    """The arguments of :func:`train` that settings stand for."""
    from bayesflowmass.mocks import MockParameters
    from bayesflowmass.training.augmentation import Augmentation

    simulate = settings.simulate.model_dump()
    simulate["parameters"] = MockParameters.preset(simulate.pop("preset"), simulate["parameters"])
    redshifts = simulate.pop("redshift_range")
    if redshifts is not None:
        simulate["redshift"] = redshifts
    if not simulate["randomise"]:
        del simulate["randomise"]
    options = settings.fit.model_dump()
    names = ("fresh_mocks", "redraw_every", "prefetch", "flip_velocity", "population", "selection")
    own = {name: options.pop(name) for name in names}
    return {
        "catalog": settings.catalog,
        "out": settings.out,
        "simulate": simulate,
        "encoder": _encoder(settings.encoder),
        "flow": {"kind": settings.flow.kind, **settings.flow.options},
        "augmentation": Augmentation(**settings.augmentation.model_dump()),
        "validation_fraction": settings.validation_fraction,
        "options": options,
        "weights": _weights(settings),
        "seed": settings.seed,
        "device": settings.device,
        "resume": settings.resume,
        "progress": settings.progress,
        **own,
    }


def _encoder(settings: EncoderSettings) -> Encoder:
    """The encoder of a section ``encoder``."""
    from bayesflowmass.encoders import KERNEL_WIDTHS, ContextEncoder, KDEEncoder, SetEncoder

    extras, optional = settings.extras, settings.optional
    if settings.kind == "galaxies":
        return SetEncoder(settings.widths or KERNEL_WIDTHS, settings.counted, extras, optional)
    kernels = [
        KDEEncoder(settings.grid, bandwidth=kernel.bandwidth, convention=kernel.convention)
        for kernel in settings.kernels
    ]
    return ContextEncoder(kernels, settings.scaling, settings.constant, extras, optional=optional)


def _weights(settings: TrainSettings) -> dict[str, Any]:
    """The section ``weights``, without what is left to the method."""
    given = settings.weights.model_dump(exclude_defaults=True)
    return given | {"method": "variational" if settings.variational else settings.weights.method}


def _draw_losses(result: FitResult, out: Path) -> None:
    from bayesflowmass.plots.checks.loss import plot_loss
    from bayesflowmass.plots.style import save_figure

    rows = result.history
    figure = plot_loss(
        [row.update for row in rows],
        [row.train_loss for row in rows],
        [row.validation_loss for row in rows],
        [row.smoothed_validation_loss for row in rows],
        best_update=result.best_update,
    )
    save_figure(figure, out / "loss")


if __name__ == "__main__":
    sys.exit(main())
