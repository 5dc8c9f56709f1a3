"""Training on a GPU agrees with the CPU, streamed or resident, as a graph or not."""

from __future__ import annotations

import pytest
import torch
from small_model import hash_weights

from bayesflowmass.bayes import MeanField, VariationalObjective
from bayesflowmass.flows import build_flow
from bayesflowmass.training import device as devices
from bayesflowmass.training.device import batches
from bayesflowmass.training.fit import fit
from bayesflowmass.training.options import FitOptions
from bayesflowmass.training.sources import FixedSource
from bayesflowmass.training.update import make_optimizer, make_update

pytestmark = pytest.mark.gpu


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(300, 20, generator=generator)
    return context, 14 + 0.2 * context[:, 0] + 0.1 * torch.randn(300, generator=generator)


def trained(device: str, **options) -> tuple[torch.nn.Module, float]:
    context, mass = data()
    flow = build_flow("affine+spline", 20, 14.0, 0.3, hidden=(32, 16))
    options = {"max_updates": 40, "batch_size": 50, "learning_rate": 1e-3, "validate_every": 5} | options
    result = fit(flow, FixedSource(context, mass), (context, mass), device=device, progress=False, **options)
    return flow, result.best_validation_loss


def test_losses_equal_those_of_the_cpu():
    (_, on_cpu), (_, on_gpu) = trained("cpu"), trained("cuda")
    assert on_gpu == pytest.approx(on_cpu, abs=2e-3)


def test_streamed_batches_give_the_weights_of_resident_ones(monkeypatch: pytest.MonkeyPatch):
    resident, _ = trained("cuda")
    monkeypatch.setattr(devices, "DATA_SHARE", 0.0)
    streamed, _ = trained("cuda")
    assert hash_weights(streamed) == hash_weights(resident)


def test_streamed_batches_are_the_rows_asked_for():
    context, mass = data()
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    found = list(batches((context, mass), order, 64, torch.device("cuda"), first=1))
    assert len(found) == 3
    for (rows, target), piece in zip(found, order[64:256].split(64), strict=True):
        assert rows.is_cuda
        assert torch.equal(rows.cpu(), context[piece])
        assert torch.equal(target.cpu(), mass[piece])


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_cuda_graph_changes_nothing_but_the_speed(schedule: str):
    (eager, loss), (graphed, same) = (
        trained("cuda", schedule=schedule, cuda_graphs=on) for on in (False, True)
    )
    assert same == pytest.approx(loss, abs=1e-4)
    for ours, theirs in zip(graphed.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("precision", "tolerance"), [("tf32", 0.01), ("bf16", 0.05)])
def test_reduced_precision_reaches_nearly_the_same_loss(precision: str, tolerance: float):
    assert trained("cuda", precision=precision)[1] == pytest.approx(trained("cuda")[1], abs=tolerance)


@pytest.mark.parametrize("estimator", ["shared", "mirrored", "local"])
def test_a_cuda_graph_draws_other_weights_in_every_step(estimator: str):
    context, mass = (part.cuda() for part in data())
    flow = build_flow("affine", 20, 14.0, 0.3, hidden=(16,))
    objective = VariationalObjective(flow, MeanField(flow), 300, estimator=estimator).cuda()
    options = FitOptions(learning_rate=1e-30, cuda_graphs=True)
    update = make_update(objective, make_optimizer(objective, options), options)
    # Nothing is learned: losses differ by their noise alone.
    assert len({float(update((mass, context, None))) for _ in range(8)}) == 8
