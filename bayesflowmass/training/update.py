"""One update of the weights: likelihood, gradient and fused Adam step, eager or as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from bayesflowmass.training.options import Precision

__all__ = [
    "ConditionalDensity",
    "check_device",
    "make_optimizer",
    "make_update",
    "matmul_precision",
    "negative_log_likelihood",
    "set_learning_rate",
]

Update = Callable[[Tensor, Tensor], Tensor]


class ConditionalDensity(Protocol):
    """What is trained: any ``nn.Module`` with a conditional log density."""

    def log_prob(self, log10_mass: Tensor, context: Tensor) -> Tensor:
        """log p(log10 M | context) [per dex]: (B,) from (B,) and (B, C)."""
        ...


def negative_log_likelihood(flow: nn.Module, log10_mass: Tensor, context: Tensor) -> Tensor:
    """The mean of -log p(log10 M | context) over the batch [nats]: equation 7 of the paper over the batch
    size.

    Adam's step does not depend on the factor; the mean lets losses of different batches be compared.
    """
    return -cast(ConditionalDensity, flow).log_prob(log10_mass, context).mean()


def make_optimizer(
    flow: nn.Module,
    *,
    learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
    cuda_graphs: bool = False,
) -> torch.optim.Optimizer:
    """Fused Adam (arXiv:1412.6980) or, with decay, AdamW (arXiv:1711.05101), which decays matrices only."""
    weights = [p for p in flow.parameters() if p.requires_grad]
    if not weights:
        raise ValueError("The flow has no parameter to train.")
    rate: float | Tensor = learning_rate
    if cuda_graphs:
        # A graph replays the addresses it saw: the learning rate must live on the device to change.
        rate = torch.tensor(learning_rate, device=weights[0].device)
    if weight_decay == 0:
        return torch.optim.Adam(weights, lr=rate, betas=betas, fused=True, capturable=cuda_graphs)
    groups = [
        {"params": [p for p in weights if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
    ]
    kept = [group for group in groups if group["params"]]
    return torch.optim.AdamW(kept, lr=rate, betas=betas, fused=True, capturable=cuda_graphs)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


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


def make_update(
    flow: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    clip_norm: float | None = None,
    precision: Precision = "float32",
    cuda_graphs: bool = False,
) -> Update:
    """A function ``(log10_mass (B,), context (B, C)) -> loss ()`` that does one update."""
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    device = weights[0].device

    def eager(log10_mass: Tensor, context: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        cast_down: AbstractContextManager[object] = nullcontext()
        if precision == "bf16":
            cast_down = torch.autocast(device.type, dtype=torch.bfloat16)
        with cast_down:
            loss = negative_log_likelihood(flow, log10_mass, context)
        loss.backward()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(weights, clip_norm, foreach=True)
        optimizer.step()
        return loss.detach()

    if not cuda_graphs:
        return eager
    return _graphed(eager, flow, optimizer)


def _graphed(eager: Update, flow: nn.Module, optimizer: torch.optim.Optimizer) -> Update:
    captured: dict[tuple[int, ...], tuple[torch.cuda.CUDAGraph, Tensor, Tensor, Tensor]] = {}

    def capture(log10_mass: Tensor, context: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor, Tensor]:
        target, rows = log10_mass.clone(), context.clone()
        # Capture must follow a few real updates, and those must leave no trace.
        with _unchanged(flow, optimizer):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    eager(target, rows)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            optimizer.zero_grad(set_to_none=True)
            with torch.cuda.graph(graph):
                loss = eager(target, rows)
        return graph, target, rows, loss

    def update(log10_mass: Tensor, context: Tensor) -> Tensor:
        shape = tuple(context.shape)
        if shape not in captured:
            captured[shape] = capture(log10_mass, context)
        graph, target, rows, loss = captured[shape]
        target.copy_(log10_mass)
        rows.copy_(context)
        graph.replay()
        return loss.clone()

    return update


@contextmanager
def _unchanged(flow: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Undo, in place, what the block does to weights, optimiser state and the CUDA generator."""
    weights = {name: value.clone() for name, value in flow.state_dict().items()}
    moments = {p: {k: v.clone() for k, v in s.items()} for p, s in optimizer.state.items()}
    generator = torch.cuda.get_rng_state()
    yield
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
