"""Train a mass estimator: ``python -m bayesflowmass.train`` and :func:`train`."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesflowmass.command import TrainSettings, run_command
from bayesflowmass.command.record import write_record, write_settings
from bayesflowmass.common.run_folder import SETTINGS

# The rest is imported where it is used: --help, and an error in the input, should not wait for torch.
if TYPE_CHECKING:
    from bayesflowmass.catalog import ClusterCatalog
    from bayesflowmass.encoders import ContextEncoder
    from bayesflowmass.estimator import MassEstimator
    from bayesflowmass.flows import ConditionalFlow
    from bayesflowmass.posterior import MassPrior
    from bayesflowmass.training.augmentation import Augmentation
    from bayesflowmass.training.fit import FitResult
    from bayesflowmass.training.preparation import TrainingData
    from bayesflowmass.training.sources import TrainingSource

__all__ = ["main", "train", "train_arguments"]


def train(
    catalog: ClusterCatalog | str | Path | None = None,
    *,
    out: str | Path,
    simulate: Mapping[str, Any] | None = None,
    encoder: ContextEncoder | None = None,
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
        options: further arguments of :func:`~bayesflowmass.training.fit.fit`, such as ``learning_rate``.
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
        CheckpointError: if the run in ``out`` was begun with other settings, or the disk is full.
        TrainingInterrupted: after Ctrl-C, once a checkpoint is written.
    """
    from bayesflowmass.encoders import ContextEncoder, KDEEncoder
    from bayesflowmass.estimator import MassEstimator, TrainingInfo, resolve_device
    from bayesflowmass.training.augmentation import Augmentation
    from bayesflowmass.training.checkpoint import remove_checkpoints
    from bayesflowmass.training.fit import fit
    from bayesflowmass.training.known_population import known_population, tabulate
    from bayesflowmass.training.novelty import fit_novelty
    from bayesflowmass.training.phases import remove_phases, run_phase
    from bayesflowmass.training.preparation import prepare
    from bayesflowmass.training.weight_report import describe_weights
    from bayesflowmass.training.weights import fit_weights, start_from, weight_options

    out, augmentation = Path(out), augmentation or Augmentation()
    simulate, flow, options = dict(simulate or {}), dict(flow or {}), dict(options or {})
    encoder = encoder or ContextEncoder(KDEEncoder())
    weights = {"method": weights} if isinstance(weights, str) else dict(weights)
    if selection is not None and not isinstance(population, str):
        raise ValueError(
            f"The selection '{selection}' is of a population that was not named; give population, flat or hmf."
        )
    settings = _plain(
        {
            "catalog": catalog if isinstance(catalog, str | Path) else None,
            "simulate": simulate if catalog is None else None,
            "encoder": encoder.describe(),
            "flow": flow,
            "augmentation": augmentation.to_dict(),
            "fresh_mocks": fresh_mocks,
            "redraw_every": redraw_every,
            "flip_velocity": flip_velocity,
            "validation_fraction": validation_fraction,
            "fit": options,
            "seed": seed,
            **_drawn_from(population, selection),
            **({} if weights["method"] == "point" else {"weights": weights}),
        }
    )
    finished = _finished(out, settings, device, resume)
    if finished is not None:
        return finished
    where = resolve_device(device)
    data = prepare(
        _catalog(catalog, simulate, fresh_mocks),
        simulate,
        encoder,
        augmentation=augmentation,
        fresh_mocks=fresh_mocks,
        validation_fraction=validation_fraction,
        seed=seed,
        device=where,
        progress=progress,
    )
    info = TrainingInfo.from_catalog(
        data.seen, uses_richness=encoder.uses_richness, seed=seed, config=settings
    )
    if isinstance(population, str):
        population = known_population(population, selection, info.log10_mass_range, info.cosmology)
    if population is not None:
        info = replace(info, masses="flat", log10_mass_range=population.log10_mass_range)
    network = _network(flow, encoder, data.seen, population, seed)
    if population is not None:
        network.population = tabulate(population, data.seen, data.held_out).to(where)
    posterior, phases = None, out / "phases"
    result: FitResult | None = None
    if weights["method"] != "point":
        weight_options(weights, network)
    with ExitStack() as stack:
        source = _source(data, redraw_every, prefetch, stack)

        def maximum_likelihood() -> FitResult:
            return fit(
                network,
                source,
                data.validation,
                flip_velocity=encoder.flip_velocity if flip_velocity else None,
                seed=seed,
                device=where,
                checkpoint_folder=out / "checkpoint",
                resume=resume,
                history_path=out / "history.csv",
                configuration={key: value for key, value in settings.items() if key != "fit"},
                progress=progress,
                **options,
            )

        if weights["method"] == "point":
            result = maximum_likelihood()
        else:
            if weights.get("start") is None:
                result = run_phase(phases, "point", network, settings, maximum_likelihood)
            else:
                start_from(network, weights["start"], settings)
            posterior, results = fit_weights(
                network,
                weights,
                source,
                data.validation,
                encoder=encoder,
                flip_velocity=flip_velocity,
                fit_options=options,
                settings=settings,
                folder=phases,
                resume=resume,
                seed=seed,
                device=where,
                progress=progress,
            )
    network.population = None
    novelty = fit_novelty(encoder, data.seen, data.held_out, info, seed=seed, device=where)
    estimator = MassEstimator(encoder, network, info, where, weights=posterior, novelty=novelty)
    estimator.save(out)
    remove_checkpoints(out / "checkpoint")
    remove_phases(phases)
    _announce(result, weights, out)
    if posterior is not None:
        print(describe_weights(posterior, results))
    return estimator


def _announce(result: FitResult | None, weights: Mapping[str, Any], out: Path) -> None:
    """Say what came of training, and draw its losses; None: it began with a trained model."""
    if result is None:
        print(f"Began with the weights of {weights['start']}. Model: {out}")
        return
    _draw_losses(result, out)
    reason = "the validation loss no longer fell" if result.stopped_by == "patience" else "all updates done"
    print(
        f"Trained {result.n_updates} updates in {result.seconds:.0f} s on {result.device} ({reason}): validation"
        f" loss {result.best_validation_loss:.3f} nats at update {result.best_update}. Model: {out}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``train``; returns its exit code."""
    return run_command(
        TrainSettings, _train_with, argv, prog="bayesflowmass train", default_config="default.yaml"
    )


def _train_with(settings: TrainSettings) -> None:
    train(**train_arguments(settings))
    prog = "bayesflowmass train"
    write_settings(settings.out, prog, settings)
    write_record(
        settings.out, prog, settings, shlex.join([*prog.split(), "--config", str(settings.out / SETTINGS)])
    )


def train_arguments(settings: TrainSettings) -> dict[str, Any]:
    """The arguments of :func:`train` that settings stand for."""
    from bayesflowmass.encoders import ContextEncoder, KDEEncoder
    from bayesflowmass.mocks import MockParameters
    from bayesflowmass.training.augmentation import Augmentation

    simulate = settings.simulate.model_dump()
    simulate["parameters"] = MockParameters.from_dict(simulate["parameters"])
    redshifts = simulate.pop("redshift_range")
    if redshifts is not None:
        simulate["redshift"] = redshifts
    if not simulate["randomise"]:
        del simulate["randomise"]
    kernels = [
        KDEEncoder(settings.encoder.grid, bandwidth=kernel.bandwidth, convention=kernel.convention)
        for kernel in settings.encoder.kernels
    ]
    encoder = ContextEncoder(
        kernels,
        settings.encoder.scaling,
        settings.encoder.constant,
        settings.encoder.extras,
        optional=settings.encoder.optional,
    )
    options = settings.fit.model_dump()
    names = ("fresh_mocks", "redraw_every", "prefetch", "flip_velocity", "population", "selection")
    own = {name: options.pop(name) for name in names}
    return {
        "catalog": settings.catalog,
        "out": settings.out,
        "simulate": simulate,
        "encoder": encoder,
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


def _weights(settings: TrainSettings) -> dict[str, Any]:
    """The section ``weights``, without what is left to the method."""
    given = settings.weights.model_dump(exclude_defaults=True)
    return given | {"method": "variational" if settings.variational else settings.weights.method}


def _finished(out: Path, settings: dict[str, Any], device: str, resume: bool) -> MassEstimator | None:
    """The model, where a run to be resumed had ended; refuses to write over an unfinished one."""
    from bayesflowmass.estimator import MassEstimator
    from bayesflowmass.training.checkpoint import (
        CheckpointError,
        check_same_settings,
        has_checkpoint,
        read_settings,
        remove_checkpoints,
    )
    from bayesflowmass.training.phases import remove_phases

    checkpoint = out / "checkpoint"
    if out.exists() and not out.is_dir():
        raise ValueError(f"'{out}' is a file; give a folder for the model.")
    if not resume:
        if has_checkpoint(checkpoint) or (out / "phases" / "point.json").is_file():
            raise CheckpointError(
                f"'{out}' holds an unfinished training run; add --resume to go on with it, or remove"
                f" '{checkpoint}' to begin anew."
            )
        remove_phases(out / "phases")
        return None
    if read_settings(checkpoint) is not None or not (out / "model.json").is_file():
        return None
    estimator = MassEstimator.load(out, device)
    check_same_settings(estimator.training_info.config, settings, str(out))
    # What is left where a run was killed while it tidied up.
    remove_checkpoints(checkpoint)
    remove_phases(out / "phases")
    print(f"Training had ended. Model: {out}")
    return estimator


def _drawn_from(population: str | MassPrior | None, selection: str | Path | None) -> dict[str, Any]:
    """The population in the settings of the run; of a prior its name, since its numbers are checked in training."""
    if population is None:
        return {}
    name = population if isinstance(population, str) else population.name
    return {"population": name, "selection": selection}


def _catalog(
    catalog: ClusterCatalog | str | Path | None, simulate: Mapping[str, Any], fresh_mocks: bool
) -> ClusterCatalog | None:
    from bayesflowmass.catalog import ClusterCatalog

    if catalog is None:
        n, again = simulate.get("n_clusters", 20000), ", new ones for each draw" if fresh_mocks else ""
        print(
            f"No catalogue given: simulating {n} clusters to train and validate on{again}.", file=sys.stderr
        )
        return None
    return catalog if isinstance(catalog, ClusterCatalog) else ClusterCatalog.read(catalog)


def _network(
    flow: Mapping[str, Any],
    encoder: ContextEncoder,
    seen: ClusterCatalog,
    population: MassPrior | None,
    seed: int,
) -> ConditionalFlow:
    """A fresh flow, its target standardised by the training masses, or where it is told of them over their range."""
    from bayesflowmass.flows import build_flow
    from bayesflowmass.training.random_state import derive_seed

    target = seen.column("log10_mass")
    loc, scale = float(target.mean()), float(target.std())
    if population is not None:
        low, high = population.log10_mass_range
        loc, scale = 0.5 * (low + high), (high - low) / math.sqrt(12.0)
    arguments = {"seed": derive_seed(seed, "weights"), **flow}
    if arguments.get("trunk") == "conv":
        arguments.setdefault("image_shape", encoder.image_shape)
    try:
        return build_flow(context_dim=encoder.context_dim, loc=loc, scale=scale, **arguments)
    except TypeError as error:
        raise ValueError(f"flow: {error}.") from None


def _source(data: TrainingData, redraw_every: int, prefetch: bool, stack: ExitStack) -> TrainingSource:
    from bayesflowmass.training.sources import CatalogSource, Prefetched, Redrawn

    if not isinstance(data.source, CatalogSource):
        return data.source
    source: TrainingSource = data.source
    if prefetch:
        source = stack.enter_context(Prefetched(source, data.source.cancel))
    return Redrawn(source, redraw_every)


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


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    def text(value: Any) -> Any:
        return value.to_dict() if hasattr(value, "to_dict") else str(value)

    plain: dict[str, Any] = json.loads(json.dumps(values, default=text))
    return plain


if __name__ == "__main__":
    sys.exit(main())
