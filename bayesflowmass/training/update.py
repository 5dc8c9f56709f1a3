"""One update of the weights, eager or as one CUDA graph: a step of pyro.infer.SVI, or of maximum likelihood."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, cast, runtime_checkable

import pyro
import torch
from pyro.infer import SVI
from pyro.optim import PyroOptim
from pyro.params.param_store import StateDict
from torch import Tensor, nn

from bayesflowmass.common.terminal import say_aside
from bayesflowmass.encoders import Contexts
from bayesflowmass.training.optimizer import ScheduledAdam
from bayesflowmass.training.options import FitOptions, Precision

Batch = tuple[Tensor, Contexts, Tensor | None]
"""log10_mass (B,), contexts of B clusters, and how much each cluster counts, (B,), or None: all alike."""

Update = Callable[[Batch], Tensor | float]
"""One update from a batch; returns the loss per cluster."""


class ConditionalDensity(Protocol):
    """What is trained: any ``nn.Module`` with a conditional log density."""

    def log_prob(self, log10_mass: Tensor, context: Contexts) -> Tensor:
        """log p(log10 M | context) [per dex]: (B,) from (B,) and the contexts of B clusters."""
        ...


@runtime_checkable
class Stochastic(Protocol):
    """What is trained by stochastic variational inference, such as `VariationalObjective`.

    Attributes:
        n_data: N, the number of examples that the bound is a sum over.
        one_draw: whether all examples of a step share one draw of the weights, and so do processes.
    """

    n_data: int
    one_draw: bool

    def svi(self, optim: PyroOptim) -> SVI:
        """Steps as ``svi.step(log10_mass (B,), context (B, C), weight (B,) or None)``."""
        ...

    def differentiable_loss(self, *batch: Contexts | None) -> Tensor:
        """The loss of that step, (), without its gradient."""
        ...


def negative_log_likelihood(
    flow: nn.Module, log10_mass: Tensor, context: Contexts, weight: Tensor | None = None
) -> Tensor:
    """The mean of -log p(log10 M | context) over the batch [nats]: equation 7 of the paper over the batch
    size.

    Adam's step does not depend on the factor; the mean lets losses of different batches be compared.
    """
    log_prob = cast(ConditionalDensity, flow).log_prob(log10_mass, context)
    return -(log_prob if weight is None else weight * log_prob).mean()


def check_device(precision: Precision, cuda_graphs: bool, device: torch.device) -> None:
    """Refuse what only a GPU can do elsewhere.

    Raises:
        ValueError: naming the option.
    """
    asked = {f"precision is '{precision}'": precision != "float32", "cuda_graphs is on": cuda_graphs}
    for option, needs_gpu in asked.items():
        if needs_gpu and device.type != "cuda":
            raise ValueError(
                f"{option}, which needs a CUDA device, but training runs on {device.type}; leave it out."
            )


@contextmanager
def matmul_precision(precision: Precision) -> Iterator[None]:
    """Allow TF32 in matrix products within the block, where ``precision`` asks for it."""
    before = torch.get_float32_matmul_precision()
    if precision == "tf32":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def make_optimizer(flow: nn.Module, options: FitOptions) -> ScheduledAdam:
    """The optimiser of a flow, whose loss is a mean over examples, or of a stochastic objective: a sum."""
    return ScheduledAdam(flow, options, flow.n_data if isinstance(flow, Stochastic) else 1)


def make_update(flow: nn.Module, optimizer: ScheduledAdam, options: FitOptions) -> Update:
    """A function that does one update of a flow by maximum likelihood, or of a stochastic objective by SVI."""
    lower = torch.autocast(next(flow.parameters()).device.type, dtype=torch.bfloat16)
    cast_down: AbstractContextManager[object] = lower if options.precision == "bf16" else nullcontext()

    if options.cuda_graphs:
        return _graphed(flow, optimizer, cast_down)
    if not isinstance(flow, Stochastic):

        def update(batch: Batch) -> Tensor:
            loss = _backward(flow, batch, cast_down)
            optimizer.step()
            return loss

        return update

    svi, n_data = flow.svi(optimizer), flow.n_data
    # Nothing that a step registers outlives it, nor is mixed up with what the caller has.
    own: StateDict = {"params": {}, "constraints": {}}

    def step(batch: Batch) -> float:
        with pyro.get_param_store().scope(own), cast_down:
            loss: float = svi.step(*batch)
        return loss / n_data

    return step


def _backward(flow: nn.Module, batch: Batch, cast_down: AbstractContextManager[object]) -> Tensor:
    """Leave gradients in the parameters; returns the loss per cluster, which stays on the device."""
    with cast_down:
        if isinstance(flow, Stochastic):
            total, scale = flow.differentiable_loss(*batch), flow.n_data
        else:
            total, scale = negative_log_likelihood(flow, *batch), 1
    total.backward()
    return total.detach() / scale


Captured = tuple["torch.cuda.CUDAGraph", Batch, Tensor]


def _graphed(flow: nn.Module, optimizer: ScheduledAdam, cast_down: AbstractContextManager[object]) -> Update:
    captured: dict[tuple[int, ...], Captured | None] = {}

    def work(batch: Batch) -> Tensor:
        # A number for the loss would wait for the device, which a captured step cannot: these are the parts of
        # `SVI.step` without it.
        loss = _backward(flow, batch, cast_down)
        optimizer.descend()
        return loss

    def update(given: Batch) -> Tensor:
        shape = tuple(given[1].shape)
        optimizer.begin()
        if shape not in captured:
            captured[shape] = _capture(work, given, flow, optimizer)
        found = captured[shape]
        if found is None:
            loss = work(given)
            optimizer.end()
            return loss
        graph, batch, loss = found
        for held, part in zip(batch, given, strict=True):
            if isinstance(held, Tensor) and isinstance(part, Tensor):
                held.copy_(part)
        graph.replay()
        optimizer.end()
        return loss.clone()

    return update


def _capture(
    work: Callable[[Batch], Tensor], given: Batch, flow: nn.Module, optimizer: ScheduledAdam
) -> Captured | None:
    """One update as a graph, its batch and its loss; None where it cannot be captured."""
    batch = (given[0].clone(), given[1].clone(), None if given[2] is None else given[2].clone())
    try:
        # Capture must follow a few real updates, and those must leave no trace.
        with _unchanged(flow, optimizer.torch), pyro.get_param_store().scope():
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    work(batch)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                loss = work(batch)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        say_aside(f"cuda_graphs: a step cannot be captured ({reason}); training goes on without.")
        return None
    return graph, batch, loss


@contextmanager
def _unchanged(flow: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Undo, in place, what the block does to weights, optimiser state and the CUDA generator."""
    weights = {name: value.clone() for name, value in flow.state_dict().items()}
    moments = {p: {k: v.clone() for k, v in s.items()} for p, s in optimizer.state.items()}
    generator = torch.cuda.get_rng_state()
    try:
        yield
    finally:
        torch.cuda.set_rng_state(generator)
        with torch.no_grad():
            for name, value in flow.state_dict().items():
                value.copy_(weights[name])
            for parameter, state in optimizer.state.items():
                for key, value in state.items():
                    if parameter in moments:
                        value.copy_(moments[parameter][key])
                    else:
                        value.zero_()
