"""A training run from its arguments to a trained estimator: checked first, then data, network, phases."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bayesflowmass.bayes.protocol import WeightPosterior
from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.processes import present
from bayesflowmass.common.settings import build_settings
from bayesflowmass.common.terminal import say_aside
from bayesflowmass.encoders import Encoder
from bayesflowmass.estimator import MassEstimator, TrainingInfo, resolve_device
from bayesflowmass.estimator.memberships import fit_count_error
from bayesflowmass.flows import ConditionalFlow, build_flow
from bayesflowmass.io.selection_file import read_selection
from bayesflowmass.posterior import MassPrior
from bayesflowmass.training.augmentation import Augmentation
from bayesflowmass.training.checkpoint import (
    CheckpointError,
    check_same_settings,
    has_checkpoint,
    read_settings,
    remove_checkpoints,
)
from bayesflowmass.training.fit import FitResult, fit
from bayesflowmass.training.known_population import known_population, tabulate
from bayesflowmass.training.novelty import fit_novelty
from bayesflowmass.training.options import FitOptions, with_default_options
from bayesflowmass.training.phases import remove_phases, run_phase
from bayesflowmass.training.preparation import TrainingData, prepare
from bayesflowmass.training.random_state import derive_seed
from bayesflowmass.training.sources import CatalogSource, Prefetched, Redrawn, TrainingSource
from bayesflowmass.training.update import check_device
from bayesflowmass.training.weights import begin_with, check_weights, fit_weights, start_from


@dataclass(frozen=True)
class Request:
    """What a run is asked for: the arguments of :func:`bayesflowmass.train.train`, which explains them."""

    catalog: ClusterCatalog | str | Path | None
    out: Path
    simulate: dict[str, Any]
    encoder: Encoder
    flow: dict[str, Any]
    augmentation: Augmentation
    fresh_mocks: bool
    redraw_every: int
    prefetch: bool
    flip_velocity: bool
    validation_fraction: float
    population: str | MassPrior | None
    selection: str | Path | None
    start: str | Path | None
    options: dict[str, Any]
    weights: dict[str, Any]
    seed: int
    device: str
    resume: bool
    progress: bool

    def __post_init__(self) -> None:
        # Now: training fits constants into the encoder, which a resumed run does not begin with.
        _ = self.settings

    @property
    def is_point(self) -> bool:
        """Whether the run ends with maximum likelihood."""
        return bool(self.weights["method"] == "point")

    @property
    def phases(self) -> Path:
        """Folder of the finished phases."""
        return self.out / "phases"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints of maximum likelihood."""
        return self.out / "checkpoint"

    @cached_property
    def fit_options(self) -> FitOptions:
        """The options of maximum likelihood, checked."""
        return build_settings(FitOptions, self.options, "fit")

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What decides the model, for JSON: a resumed run must share it, and ``model.json`` keeps it."""
        given: dict[str, Any] = {
            "catalog": self.catalog if isinstance(self.catalog, str | Path) else None,
            "simulate": self.simulate if self.catalog is None else None,
            "encoder": self.encoder.describe(),
            "flow": self.flow,
            "augmentation": self.augmentation.to_dict(),
            "fresh_mocks": self.fresh_mocks,
            "redraw_every": self.redraw_every,
            "flip_velocity": self.flip_velocity,
            "validation_fraction": self.validation_fraction,
            "fit": self.options,
            "seed": self.seed,
        }
        if self.population is not None:
            # Of a prior its name, since its numbers are checked in training.
            name = self.population if isinstance(self.population, str) else self.population.name
            given |= {"population": name, "selection": self.selection}
        if self.start is not None:
            given["start"] = self.start
        if not self.is_point:
            given["weights"] = self.weights
        return _plain(given)

    @property
    def point_settings(self) -> dict[str, Any]:
        """Those that decide the phase of maximum likelihood: other settings of the weights go on from it."""
        return {key: value for key, value in self.settings.items() if key != "weights"}

    def check(self) -> None:
        """Find before the work what would end it: unknown names, values out of range, unusable files.

        Raises:
            ValueError: naming the setting.
        """
        if self.selection is not None:
            if not isinstance(self.population, str):
                raise ValueError(
                    f"The selection '{self.selection}' is of a population that was not named; give population,"
                    " flat or hmf."
                )
            read_selection(self.selection)
        if os.path.isfile(self.out):
            raise ValueError(f"'{self.out}' is a file; give a folder for the model.")
        options = self.fit_options
        check_device(options.precision, options.cuda_graphs, resolve_device(self.device))
        # Of its size and architecture, not of its constants, which follow from the data.
        network = _network(self.flow, self.encoder, 0.0, 1.0, self.seed)
        if self.start is not None:
            begin_with(self.start, self.encoder, network)
        if not self.is_point:
            check_weights(self.weights, network, options)
            if self.weights.get("start") is not None:
                start_from(network, self.weights["start"], self.settings)


@dataclass(frozen=True)
class Trained:
    """What came of a run; ``point`` is None where it began with a trained model."""

    estimator: MassEstimator
    point: FitResult | None
    posterior: WeightPosterior | None
    phases: dict[str, FitResult]


def train_estimator(request: Request) -> Trained:
    """Prepare the data and train on them; the model is not written yet.

    Raises:
        ValueError: for data that cannot be used.
        CheckpointError: the run was begun with other settings, or the disk is full.
        TrainingInterrupted: after Ctrl-C, once a checkpoint is written.
    """
    where, encoder, start = resolve_device(request.device), request.encoder, None
    if request.start is not None:
        start = begin_with(request.start, encoder, _network(request.flow, encoder, 0.0, 1.0, request.seed))
        encoder = start.encoder
    data = prepare(
        _catalog(request),
        request.simulate,
        encoder,
        augmentation=request.augmentation,
        fresh_mocks=request.fresh_mocks,
        validation_fraction=request.validation_fraction,
        fitted=start is not None,
        seed=request.seed,
        device=where,
        progress=request.progress,
    )
    info = TrainingInfo.from_catalog(
        data.seen, uses_richness=encoder.uses_richness, seed=request.seed, config=request.settings
    )
    population = request.population
    if isinstance(population, str):
        population = known_population(population, request.selection, info.log10_mass_range, info.cosmology)
    if population is not None:
        info = replace(info, masses="flat", log10_mass_range=population.log10_mass_range)
    if start is None:
        loc, scale = _standardisation(data.seen, population)
        network = _network(request.flow, encoder, loc, scale, request.seed)
    else:
        network = start.flow
    if population is not None:
        network.population = tabulate(population, data.seen, data.held_out).to(where)
    point, posterior, phases = _phases(request, network, data)
    network.population = None
    if network.set_trunk is not None:
        fit_count_error(network, encoder.encode(data.held_out, device=where, truth=True))
    novelty = fit_novelty(encoder, data.seen, data.held_out, info, seed=request.seed, device=where)
    estimator = MassEstimator(encoder, network, info, where, weights=posterior, novelty=novelty)
    return Trained(estimator, point, posterior, phases)


def finished_model(request: Request) -> MassEstimator | None:
    """The model, where a run to be resumed had ended; refuses to write over an unfinished one.

    Raises:
        CheckpointError: the folder holds an unfinished run, or a model of other settings.
    """
    if not request.resume:
        if has_checkpoint(request.checkpoints) or (request.phases / "point.json").is_file():
            raise CheckpointError(
                f"'{request.out}' holds an unfinished training run; add --resume to go on with it, or remove"
                f" '{request.checkpoints}' and '{request.phases}' to begin anew."
            )
        if present().is_first:
            remove_phases(request.phases)
        return None
    if read_settings(request.checkpoints) is not None or not (request.out / "model.json").is_file():
        return None
    estimator = MassEstimator.load(request.out, request.device)
    begun, now = map(with_default_options, (estimator.training_info.config, request.settings))
    check_same_settings(begun, now, str(request.out))
    return estimator


def tidy_up(request: Request) -> None:
    """Remove what only an unfinished run needs."""
    remove_checkpoints(request.checkpoints)
    remove_phases(request.phases)


def _phases(
    request: Request, network: ConditionalFlow, data: TrainingData
) -> tuple[FitResult | None, WeightPosterior | None, dict[str, FitResult]]:
    """Maximum likelihood, then the posterior of the weights."""
    where = resolve_device(request.device)
    with ExitStack() as stack:
        source = _source(data, request.redraw_every, request.prefetch, stack)

        def maximum_likelihood() -> FitResult:
            return fit(
                network,
                source,
                data.validation,
                flip_velocity=request.encoder.flip_velocity if request.flip_velocity else None,
                seed=request.seed,
                device=where,
                checkpoint_folder=request.checkpoints,
                resume=request.resume,
                history_path=request.out / "history.csv",
                configuration={key: value for key, value in request.point_settings.items() if key != "fit"},
                progress=request.progress,
                **request.options,
            )

        if request.is_point:
            return maximum_likelihood(), None, {}
        point = None
        if request.weights.get("start") is None:
            point = run_phase(request.phases, "point", network, request.point_settings, maximum_likelihood)
        else:
            start_from(network, request.weights["start"], request.settings)
        posterior, phases = fit_weights(
            network,
            request.weights,
            source,
            data.validation,
            encoder=request.encoder,
            flip_velocity=request.flip_velocity,
            fit_options=request.options,
            settings=request.settings,
            folder=request.phases,
            resume=request.resume,
            seed=request.seed,
            device=where,
            progress=request.progress,
        )
        return point, posterior, phases


def _catalog(request: Request) -> ClusterCatalog | None:
    catalog = request.catalog
    if catalog is None:
        n = request.simulate.get("n_clusters", 20000)
        again = ", new ones for each draw" if request.fresh_mocks else ""
        say_aside(f"No catalogue given: simulating {n} clusters to train and validate on{again}.")
        return None
    return catalog if isinstance(catalog, ClusterCatalog) else ClusterCatalog.read(catalog)


def _standardisation(seen: ClusterCatalog, population: MassPrior | None) -> tuple[float, float]:
    """Mean and scatter of the training masses, or where the network is told of them those of their range."""
    if population is not None:
        low, high = population.log10_mass_range
        return 0.5 * (low + high), (high - low) / math.sqrt(12.0)
    target = seen.column("log10_mass")
    return float(target.mean()), float(target.std())


def _network(
    flow: Mapping[str, Any], encoder: Encoder, loc: float, scale: float, seed: int
) -> ConditionalFlow:
    """A fresh flow."""
    arguments = {"seed": derive_seed(seed, "weights"), "loc": loc, "scale": scale}
    try:
        return build_flow(**arguments | encoder.flow_arguments(flow))
    except TypeError as error:
        raise ValueError(f"flow: {error}.") from None


def _source(data: TrainingData, redraw_every: int, prefetch: bool, stack: ExitStack) -> TrainingSource:
    if not isinstance(data.source, CatalogSource):
        return data.source
    source: TrainingSource = data.source
    if prefetch:
        source = stack.enter_context(Prefetched(source, data.source.cancel))
    return Redrawn(source, redraw_every)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    def text(value: Any) -> Any:
        return value.to_dict() if hasattr(value, "to_dict") else str(value)

    plain: dict[str, Any] = json.loads(json.dumps(values, default=text))
    return plain
