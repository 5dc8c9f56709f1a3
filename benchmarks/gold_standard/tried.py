"""Methods that were tried and are not in the package, as short as a table needs them: functions of flat weights."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor
from torch.func import functional_call, grad

from bayesflowmass.bayes import VariationalObjective, VariationalPosterior, build_objective
from bayesflowmass.bayes.layout import WeightLayout
from bayesflowmass.flows import ConditionalFlow
from benchmarks.gold_standard.distance_aware import DISTANCE_AWARE
from benchmarks.gold_standard.function_space import FUNCTION_SPACE
from benchmarks.gold_standard.methods import N_DRAWS, PRIOR, ROWS, Cell, Predict, predictions

__all__ = ["TRIED"]


def anchored(cell: Cell, point: ConditionalFlow, seed: int) -> Predict:
    """Ten maxima, each under a prior about a draw of the prior, from that draw (Pearce et al. 2020)."""
    states = []
    for k in range(10):
        flow = cell.flow(100 * seed + k)
        generator = torch.Generator().manual_seed(100 * seed + k)
        anchors = {
            name: PRIOR.scale_of(name, p.shape) * torch.randn(p.shape, generator=generator, dtype=p.dtype)
            for name, p in flow.named_parameters()
        }
        flow.load_state_dict(anchors, strict=False)
        cell.maximise(_Anchored(flow, anchors, len(cell.data[1])), seed=seed, name="point")
        states.append({name: p.detach() for name, p in flow.named_parameters()})
    return predictions(flow, {name: torch.stack([state[name] for state in states]) for name in states[0]})


def mixture(cell: Cell, point: ConditionalFlow, seed: int) -> Predict:
    """Laplace of the last layer about each of five maxima (Eschenhagen et al. 2021)."""
    parts = []
    for k in range(5):
        flow = point if k == 0 else cell.point(100 * seed + k)
        parts.append(ROWS["Laplace, last layer"](cell, flow, seed + k))

    def predict(contexts: Tensor) -> tuple[Tensor, Tensor]:
        means, widths = zip(*(part(contexts) for part in parts), strict=True)
        return torch.cat(means), torch.cat(widths)

    return predict


class _Anchored(torch.nn.Module):
    def __init__(self, flow: ConditionalFlow, anchors: dict[str, Tensor], n: int) -> None:
        super().__init__()
        self.flow, self.anchors, self.n = flow, anchors, n

    def log_prob(self, log10_mass: Tensor, context: Tensor) -> Tensor:
        """Nats per cluster."""
        away = {name: p - self.anchors[name] for name, p in self.flow.named_parameters()}
        return self.flow.log_prob(log10_mass, context) + PRIOR.log_prob(away) / self.n


def trained_jointly(cell: Cell, point: ConditionalFlow, seed: int) -> Predict:
    """A variational last layer, and the maximum for the layers below, in one bound (Harrison et al. 2024)."""
    flow = deepcopy(point)
    objective = build_objective(flow, cell.data, which="last", guide="full_covariance", prior=PRIOR)
    cell.maximise(_Joint(objective, len(cell.data[1])), seed=seed, name="variational", factor=2)
    return predictions(flow, VariationalPosterior.of(objective).draw(N_DRAWS, seed=7))


class _Joint(torch.nn.Module):
    def __init__(self, objective: VariationalObjective, n: int) -> None:
        super().__init__()
        self.objective, self.guide, self.n = objective, objective.guide, n

    def log_prob(self, log10_mass: Tensor, context: Tensor) -> Tensor:
        """Nats per cluster."""
        below = {
            name: p for name, p in self.objective.module.named_parameters() if name not in self.guide.names
        }
        return self.objective.log_prob(log10_mass, context) + PRIOR.log_prob(below) / self.n


def ivon(cell: Cell, point: ConditionalFlow, seed: int) -> Predict:
    """Mean field over all weights by the optimiser IVON (Shen et al. 2024, algorithm 1), all clusters at once."""
    flow, (context, log10_mass) = deepcopy(point), cell.data
    layout = WeightLayout(flow, [name for name, _ in flow.named_parameters()])
    centre = layout.flatten(dict(flow.named_parameters())).detach()
    scales = PRIOR.scales(layout.shapes, centre)

    def loss(z: Tensor) -> Tensor:
        found: Tensor = functional_call(flow, layout.split(z * scales), (log10_mass, context))
        return -found.sum()

    slope: Callable[[Tensor], Tensor] = grad(loss)
    m, h, g = centre / scales, torch.full_like(centre, 100.0), torch.zeros_like(centre)
    generator, n = torch.Generator().manual_seed(seed), 9 * cell.updates
    # The curvature of one draw is noisy where the posterior is narrow: a long memory.
    beta1, beta2 = 0.9, 0.999
    for k in range(n):
        noise = torch.randn(len(m), generator=generator).double() / (h + 1).sqrt()
        each = slope(m + noise)
        g = beta1 * g + (1 - beta1) * each
        curvature = each * noise * (h + 1)
        h = beta2 * h + (1 - beta2) * curvature + 0.5 * (1 - beta2) ** 2 * (h - curvature) ** 2 / (h + 1)
        m = m - 0.1 * (1 - k / n) * (g / (1 - beta1 ** (k + 1)) + m) / (h + 1)
    draws = m + torch.randn(N_DRAWS, len(m), generator=generator).double() / (h + 1).sqrt()
    return predictions(flow, layout.split(draws * scales))


TRIED = {
    "mixture of 5, Laplace of the last layer": mixture,
    "anchored ensemble of 10": anchored,
    "variational last layer, trained with those below (VBLL)": trained_jointly,
    "IVON, all": ivon,
    **DISTANCE_AWARE,
    **FUNCTION_SPACE,
}
