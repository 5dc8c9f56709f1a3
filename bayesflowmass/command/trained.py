"""A training run that settings ask for, from its request to the files that it leaves."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesflowmass.command.record import write_record, write_settings
from bayesflowmass.command.training import EncoderSettings, TrainSettings
from bayesflowmass.common.lock import sole_writer
from bayesflowmass.common.processes import joined, launched, own_device
from bayesflowmass.common.run_folder import SETTINGS
from bayesflowmass.common.terminal import say

# The rest is imported where it is used: --help, and an error in the input, should not wait for torch.
if TYPE_CHECKING:
    from bayesflowmass.encoders import Encoder
    from bayesflowmass.estimator import MassEstimator
    from bayesflowmass.training.fit import FitResult
    from bayesflowmass.training.run import Request, Trained


def train_with(settings: TrainSettings) -> MassEstimator:
    """Train as settings say, and keep them beside the model."""
    from bayesflowmass.training.run import Request

    arguments = train_arguments(settings)
    arguments |= {
        "device": own_device(settings.device),
        "progress": settings.progress and launched().is_first,
    }
    estimator = carry_out(Request(**arguments))
    if launched().is_first:
        prog = "bayesflowmass train"
        write_settings(settings.out, prog, settings)
        command = shlex.join([*prog.split(), "--config", str(settings.out / SETTINGS)])
        write_record(settings.out, prog, settings, command)
    return estimator


def carry_out(request: Request) -> MassEstimator:
    """Train, or take up what was trained before, and write the model folder (`bayesflowmass.train.train`)."""
    from bayesflowmass.training.run import finished_model, tidy_up, train_estimator

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
                draw_losses(trained.point, request.out)
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
    if trained.estimator.novelty is None:
        from bayesflowmass.novelty.detector import FEWEST_HELD_OUT, FEWEST_TRAINING

        say(
            "The model cannot tell clusters unlike its training clusters (no flag unlike_training): that takes"
            f" {FEWEST_TRAINING} of them for training and {FEWEST_HELD_OUT} for validation."
        )
    if trained.posterior is not None:
        from bayesflowmass.training.weight_report import describe_weights

        say(describe_weights(trained.posterior, trained.phases))


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
        "start": settings.start,
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


def draw_losses(result: FitResult, out: Path) -> None:
    """``loss.pdf`` and ``loss.png``: losses of the updates, and the best."""
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
