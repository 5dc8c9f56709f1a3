"""The optimiser of training, for pyro.infer.SVI and for maximum likelihood alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro.optim
import torch
from torch import Tensor, nn

from bayesflowmass.common.processes import present
from bayesflowmass.training.options import FitOptions

# The averaged weights follow quickly at first: the initial weights must not linger in them.
AVERAGE_WARMUP = 10.0


class ScheduledAdam(pyro.optim.PyroOptim):
    """Fused Adam (arXiv:1412.6980) or, with decay, AdamW (arXiv:1711.05101), which decays matrices only.

    Pyro's own wrapper makes an optimiser for each parameter; this one has all of them in one, whose learning rate
    follows the schedule. It clips their common norm and keeps a running mean of them where ``average_decay`` > 0
    (Polyak & Juditsky 1992). Parameters that SVI brings and the module does not have join it.

    Args:
        module: whose parameters are trained.
        options: of the training.
        n_examples: 1 for gradients of a mean over examples; N for those of a sum over N: then ``clip_norm`` and the
            epsilon of Adam are those of the mean all the same.

    Attributes:
        update: steps that are done.
        average: running mean of each parameter, and of each buffer of real numbers, such as the statistics of batch
            normalisation, which belong to the weights; empty without one.
        share: of the batch, that this process has; gradients of all processes are added in these proportions.
    """

    def __init__(self, module: nn.Module, options: FitOptions, n_examples: int = 1) -> None:
        super().__init__(torch.optim.Adam, {})
        weights: list[Tensor] = [p for p in module.parameters() if p.requires_grad]
        if not weights:
            raise ValueError("The flow has no parameter to train.")
        rate: float | Tensor = options.learning_rate
        if options.cuda_graphs:
            # A graph replays the addresses it saw: the learning rate must live on the device to change.
            rate = torch.tensor(options.learning_rate, device=weights[0].device)
        shared: dict[str, Any] = {
            "lr": rate,
            "betas": options.betas,
            "eps": 1e-8 * n_examples,
            "fused": True,
            "capturable": options.cuda_graphs,
        }
        if options.weight_decay == 0:
            self.torch: torch.optim.Optimizer = torch.optim.Adam(weights, **shared)
        else:
            groups = [
                {"params": [p for p in weights if p.ndim >= 2], "weight_decay": options.weight_decay},
                {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
            ]
            self.torch = torch.optim.AdamW([group for group in groups if group["params"]], **shared)
        self.torch.zero_grad(set_to_none=True)
        self.module = module
        self.rate = options.rate()
        self.update = 0
        self.share = 1.0
        self.average: dict[str, Tensor] = {}
        if options.average_decay > 0:
            self.average = {name: value.detach().clone() for name, value in self._averaged_tensors()}
        self._average_decay = options.average_decay
        self._clip_norm = None if options.clip_norm is None else options.clip_norm * n_examples
        self._weights = weights
        self._known = set(weights)

    def __call__(self, params: Iterable[Tensor], *args: Any, **kwargs: Any) -> None:
        """One step, as SVI asks for it."""
        new = set(params) - self._known
        if new:
            self.torch.add_param_group({"params": list(new)})
            self._weights += new
            self._known |= new
        self.step()

    def step(self) -> None:
        """One step along the gradients that the parameters hold; it clears them."""
        self.begin()
        self.descend()
        self.end()

    def begin(self) -> None:
        """Before a step: set the learning rate."""
        rate = self.rate.at(self.update)
        for group in self.torch.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def descend(self) -> None:
        """The part of a step that a CUDA graph can hold."""
        present().add([p.grad for p in self._weights if p.grad is not None], self.share)
        if self._clip_norm is not None:
            nn.utils.clip_grad_norm_(self._weights, self._clip_norm, foreach=True)
        self.torch.step()
        # SVI would make zeros of what is there.
        self.torch.zero_grad(set_to_none=True)

    @torch.no_grad()
    def end(self) -> None:
        """After a step: count it, and let the running mean follow."""
        self.update += 1
        if self.average:
            decay = min(self._average_decay, (1 + self.update) / (AVERAGE_WARMUP + self.update))
            present = [value.detach() for _, value in self._averaged_tensors()]
            torch._foreach_lerp_(list(self.average.values()), present, 1.0 - decay)

    def _averaged_tensors(self) -> list[tuple[str, Tensor]]:
        buffers = [(name, value) for name, value in self.module.named_buffers() if value.is_floating_point()]
        return [*self.module.named_parameters(), *buffers]

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the block the module has the running mean for its parameters, where there is one."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, value in self._averaged_tensors():
            if name in self.average:
                self.average[name], value.data = value.data, self.average[name]

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: the moments and the running mean, by name of the parameter.

        Raises:
            ValueError: a parameter is not one of the module, so that its name is not known.
        """
        names: dict[Tensor, str] = {parameter: name for name, parameter in self.module.named_parameters()}
        if not self._known <= names.keys():
            raise ValueError(
                "The model or the guide has parameters that the objective does not hold as a module, and a checkpoint"
                " would lose them; make them parameters of the objective."
            )
        found = {
            f"optimizer/{names[parameter]}/{key}": value
            for parameter, state in self.torch.state.items()
            for key, value in state.items()
        }
        return found | {f"average/{name}": value for name, value in self.average.items()}

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor], update: int) -> None:
        """Go on from what `tensors` returned after so many steps; a name that is missing raises KeyError."""
        self.update = update
        parameters = dict(self.module.named_parameters())
        present = dict(self._averaged_tensors())
        for name, average in self.average.items():
            # Checkpoints of version 0.1 averaged no buffers: their mean begins at what they hold.
            key = f"average/{name}"
            average.copy_(tensors[key] if name in parameters else tensors.get(key, present[name]))
        for name, value in tensors.items():
            if name.startswith("optimizer/"):
                owner, _, key = name.removeprefix("optimizer/").rpartition("/")
                parameter = parameters[owner]
                # Copies, so that every tensor has the alignment of torch's allocator: kernels may depend on it.
                self.torch.state[parameter][key] = value.clone().to(parameter.device)
