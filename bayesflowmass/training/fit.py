"""Maximum likelihood: the training loop."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyro
import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from tqdm import tqdm

from bayesflowmass.common.memory import kept
from bayesflowmass.common.processes import present
from bayesflowmass.common.settings import build_settings
from bayesflowmass.common.tensors import hash_tensors
from bayesflowmass.encoders import Contexts, GalaxySet, concatenate, context_tensors
from bayesflowmass.estimator import resolve_device
from bayesflowmass.training.checkpoint import counted
from bayesflowmass.training.device import batches, place
from bayesflowmass.training.history import HistoryRow
from bayesflowmass.training.interrupt import DeferredInterrupt, TrainingInterrupted
from bayesflowmass.training.options import FitOptions
from bayesflowmass.training.random_state import derive_seed, seeded_globals, torch_generator
from bayesflowmass.training.run_files import RunFiles
from bayesflowmass.training.sources import EpochData, TrainingSource, check_data
from bayesflowmass.training.state import TrainingState
from bayesflowmass.training.update import (
    Batch,
    Stochastic,
    check_device,
    make_optimizer,
    make_update,
    matmul_precision,
    negative_log_likelihood,
)

VALIDATION_BATCH = 500


@dataclass(frozen=True)
class FitResult:
    """What came of a training run.

    Losses are mean -log p(log10 M | cluster) [nats] over the validation clusters, at the best update.
    """

    history: tuple[HistoryRow, ...]
    n_updates: int
    best_update: int
    best_validation_loss: float
    best_smoothed_loss: float
    stopped_by: Literal["patience", "max_updates"]
    seconds: float
    device: str


def fit(
    flow: nn.Module,
    train_source: TrainingSource,
    validation: tuple[Contexts, Tensor],
    *,
    flip_velocity: Callable[[Contexts], Contexts] | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    checkpoint_folder: str | Path | None = None,
    resume: bool = False,
    history_path: str | Path | None = None,
    configuration: Mapping[str, Any] | None = None,
    progress: bool = True,
    **options: Any,
) -> FitResult:
    """Fit the weights of a conditional density by maximum likelihood, in place, and restore the best ones.

    The same arguments give the same weights, bit by bit, on the same number of CPU threads and processes, whether or
    not the run was killed and resumed on the way. Processes that `joined` share each batch.

    Args:
        flow: a module with ``log_prob(log10_mass (B,), contexts of B clusters) -> (B,)``.
        train_source: the clusters of each epoch; every epoch is shuffled, and its last, incomplete batch left
            out.
        validation: (contexts of N clusters, log10_mass (N,)).
        flip_velocity: mirrors contexts in velocity; applied to half of each batch, a random half since
            batches are shuffled.
        seed: of the permutations and of the global generators while training.
        device: auto, cpu or cuda.
        checkpoint_folder: where to keep checkpoints, one every ``checkpoint_every`` updates.
        resume: go on from the latest checkpoint, or begin anew where there is none.
        history_path: a CSV file that grows with each validation.
        configuration: further values (for JSON) that a resumed run must share, such as the settings of the
            caller.
        progress: show a bar on standard error.
        options: fields of :class:`~bayesflowmass.training.options.FitOptions`, such as ``learning_rate``.

    Raises:
        ValueError: for unusable values or data, or if the loss is no longer finite.
        CheckpointError: if a checkpoint cannot be written, read, or belongs to a run with other settings.
        TrainingInterrupted: after Ctrl-C or SIGTERM, once a checkpoint is written.
    """
    chosen = build_settings(FitOptions, options, "the options of fit")
    where = resolve_device(device)
    check_device(chosen.precision, chosen.cuda_graphs, where)
    check_data(*validation, "validation data")
    if chosen.cuda_graphs and isinstance(validation[0], GalaxySet):
        raise ValueError(
            "cuda_graphs replays steps of one shape, and batches of galaxies have many; leave it out."
        )
    processes = present()
    if processes.count > 1:
        _check_shared(flow, chosen)
    flow.to(where)
    processes.copy(flow.state_dict().values())
    optimizer = make_optimizer(flow, chosen)
    update = make_update(flow, optimizer, chosen)
    losses = torch.zeros((), dtype=torch.float64, device=where)
    state = TrainingState(flow, optimizer, chosen.stopping(), loss_sum=losses)
    files = RunFiles(checkpoint_folder, chosen.checkpoint_every, history_path)
    with ExitStack() as stack:
        stack.enter_context(seeded_globals(seed))
        stack.enter_context(matmul_precision(chosen.precision))
        stack.enter_context(_without_argument_checks())
        stack.enter_context(kept())
        signals = stack.enter_context(DeferredInterrupt(processes))
        settings = (
            chosen.result() | {"seed": seed, "flip_velocity": flip_velocity is not None} | counted(processes)
        )
        settings |= _data_hashes(flow, train_source, validation)
        files.open(state, dict(configuration or {}) | settings, resume)
        bar = stack.enter_context(_progress_bar(chosen.max_updates, state.update, progress))
        held_out = place(validation, where)
        try:
            for batch in _training_batches(state, train_source, flip_velocity, seed, chosen, where):
                with signals.deferred():
                    _draw_apart(state, seed)
                    state.count(_over_all(update(batch), state))
                    bar.update(1)
                    if state.update % chosen.validate_every == 0 or state.update == chosen.max_updates:
                        row = _validate(state, held_out, where)
                        files.note(row)
                        shown = f"loss {row.train_loss:.3f}, validation {row.validation_loss:.3f}"
                        bar.set_postfix_str(shown)
                    if state.stopping.exhausted:
                        break
                    files.save_if_due(state)
        except KeyboardInterrupt:
            raise TrainingInterrupted(files.save_interrupted(state)) from None
        if chosen.keep == "best":
            state.restore_best()
    return _result(state, str(where))


def _check_shared(flow: nn.Module, options: FitOptions) -> None:
    """Refuse what several processes cannot do together."""
    if options.cuda_graphs:
        raise ValueError("cuda_graphs replays the steps of one process; leave it out, or start one.")
    if any(isinstance(part, BatchNorm) for part in flow.modules()):
        raise ValueError(
            "The network has batch normalisation, whose statistics would be those of each process's share of a batch;"
            " use another normalisation, or start one process."
        )


def _data_hashes(
    flow: nn.Module, source: TrainingSource, validation: tuple[Contexts, Tensor]
) -> dict[str, str]:
    """What a resumed run must share of its data."""
    found = {"training data": source.fingerprint()}
    population = getattr(flow, "population", None)
    if population is not None:
        found["population"] = hash_tensors(population._asdict())[:12]
    held_out = {**context_tensors(validation[0]), "log10_mass": validation[1]}
    return found | {"validation data": hash_tensors(held_out)[:12]}


def _result(state: TrainingState, device: str) -> FitResult:
    stopping = state.stopping
    assert stopping.best is not None
    assert stopping.best_raw is not None
    return FitResult(
        history=tuple(state.history),
        n_updates=state.update,
        best_update=stopping.best_update,
        best_validation_loss=stopping.best_raw,
        best_smoothed_loss=stopping.best,
        stopped_by="patience" if stopping.exhausted else "max_updates",
        seconds=state.seconds,
        device=device,
    )


@torch.no_grad()
def mean_loss(flow: nn.Module, data: tuple[Contexts, Tensor], device: torch.device | None = None) -> float:
    """Mean -log p(log10 M | context) [nats] over ``data`` = (contexts of N clusters, log10_mass (N,)), summed in
    float64."""
    context, log10_mass = data
    device = device or context.device
    total = torch.zeros((), dtype=torch.float64, device=device)
    starts, processes = range(0, len(log10_mass), VALIDATION_BATCH), present()
    for start in (starts[i] for i in processes.rows(len(starts))):
        rows = context[start : start + VALIDATION_BATCH].to(device, non_blocking=True)
        target = log10_mass[start : start + VALIDATION_BATCH].to(device, non_blocking=True)
        total += negative_log_likelihood(flow, target, rows).double() * len(target)
    processes.add([total])
    return float(total) / len(log10_mass)


def _training_batches(
    state: TrainingState,
    source: TrainingSource,
    flip: Callable[[Contexts], Contexts] | None,
    seed: int,
    options: FitOptions,
    device: torch.device,
) -> Iterator[Batch]:
    processes = present()
    placed: EpochData | None = None
    origin: EpochData | None = None
    while state.update < options.max_updates and not state.stopping.exhausted:
        epoch, done = state.position
        data = source.epoch(epoch)
        if placed is None or origin is None or data.context is not origin.context:
            placed = None  # Free the previous epoch on the device before the next one is copied there.
            context, log10_mass = place((data.context, data.log10_mass), device)
            placed, origin = data._replace(context=context, log10_mass=log10_mass), data
        order = torch.randperm(len(data.log10_mass), generator=torch_generator(seed, "permutation", epoch))
        parts = placed.context, placed.log10_mass, placed.weight
        size = min(options.batch_size, len(order))
        if size < processes.count:
            raise ValueError(
                f"A batch of {size} clusters is shared by {processes.count} processes, each of which needs one;"
                " raise batch_size or start fewer."
            )
        # The permutation makes the first half of a batch a random half.
        half = len(processes.rows(size // 2))
        own = slice(processes.rank, None, processes.count)
        for rows, target, weight in batches(parts, order, options.batch_size, device, done, own):
            assert rows is not None
            assert isinstance(target, Tensor)
            assert not isinstance(weight, GalaxySet)
            state.optimizer.share = len(target) / size
            yield target, rows if flip is None else concatenate([flip(rows[:half]), rows[half:]]), weight
            if state.update >= options.max_updates:
                return
        state.position = (epoch + 1, 0)


def _validate(state: TrainingState, held_out: tuple[Contexts, Tensor], device: torch.device) -> HistoryRow:
    train_loss = float(state.loss_sum) / max(1, state.loss_count)
    if not math.isfinite(train_loss):
        raise ValueError(
            f"The training loss is {train_loss} by update {state.update}: training diverged;"
            " lower the learning rate or set clip_norm."
        )
    rate = state.optimizer.rate.at(state.update - 1)
    with state.optimizer.averaged():
        state.flow.eval()
        loss = mean_loss(state.flow, held_out, device)
        state.flow.train()
        if state.stopping.observe(state.update, loss):
            state.keep_best()
    state.optimizer.rate.observe(state.update, state.stopping.best_update)
    assert state.stopping.average is not None
    row = HistoryRow(
        state.update,
        state.position[0],
        train_loss,
        loss,
        state.stopping.average,
        rate,
        round(state.seconds, 3),
    )
    state.history.append(row)
    state.loss_sum.zero_()
    state.loss_count = 0
    return row


def _draw_apart(state: TrainingState, seed: int) -> None:
    """Noise of this process's own in the next update, of rows and units dropped, unless all share a draw of weights.

    It has no history: a checkpoint holds the generators of the first process.
    """
    rank = present().rank
    if rank > 0 and not (isinstance(state.flow, Stochastic) and state.flow.one_draw):
        torch.manual_seed(derive_seed(seed, "process", rank, state.update))


def _over_all(loss: Tensor | float, state: TrainingState) -> Tensor | float:
    """The loss per cluster of the whole batch."""
    if present().count == 1:
        return loss
    mean = torch.as_tensor(loss, dtype=state.loss_sum.dtype, device=state.loss_sum.device).clone()
    present().add([mean], state.optimizer.share)
    return mean


@contextmanager
def _without_argument_checks() -> Iterator[None]:
    """Distributions check every argument on every call; the loop checks its losses instead."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        with pyro.validation_enabled(False):
            yield
    finally:
        Distribution.set_default_validate_args(before)


def _progress_bar(total: int, initial: int, shown: bool) -> Any:
    # A log file gets a line now and then, a terminal a moving bar.
    return tqdm(
        total=total,
        initial=initial,
        desc="training",
        unit="update",
        file=sys.stderr,
        disable=not shown,
        mininterval=0.2 if sys.stderr.isatty() else 20.0,
        dynamic_ncols=True,
    )
