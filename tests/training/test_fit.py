"""The training loop on a toy density whose optimum is known."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from small_model import hash_weights
from torch import Tensor, nn

from bayesflowmass.common.processes import Processes
from bayesflowmass.flows import build_flow
from bayesflowmass.training.fit import fit, mean_loss
from bayesflowmass.training.history import read_history
from bayesflowmass.training.optimizer import AVERAGE_WARMUP, ScheduledAdam
from bayesflowmass.training.options import FitOptions
from bayesflowmass.training.sources import EpochData, FixedSource, Prefetched, Redrawn
from bayesflowmass.training.update import make_optimizer, make_update

CPU = torch.device("cpu")


class Gaussian(nn.Module):
    """log10 M ~ N(a + w context, exp(s)): its maximum likelihood is least squares."""

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.mean = nn.Linear(size, 1)
        self.log_sigma = nn.Parameter(torch.zeros(()))
        nn.init.zeros_(self.mean.weight)
        nn.init.zeros_(self.mean.bias)

    def log_prob(self, log10_mass: Tensor, context: Tensor) -> Tensor:
        z = (log10_mass - self.mean(context).squeeze(-1)) * torch.exp(-self.log_sigma)
        return -0.5 * z**2 - self.log_sigma - 0.5 * math.log(2 * math.pi)


def problem(n: int = 400, seed: int = 0, noise: float = 0.2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(n, 3, generator=generator)
    target = 0.5 + context @ torch.tensor([0.3, -0.2, 0.1]) + noise * torch.randn(n, generator=generator)
    return context, target


def run(flow: nn.Module | None = None, train: tuple[Tensor, Tensor] | None = None, **options):
    flow = flow or Gaussian()
    options = {"learning_rate": 0.02, "max_updates": 400, "device": "cpu", "progress": False} | options
    result = fit(flow, FixedSource(*(train or problem())), problem(200, seed=1), **options)
    return flow, result


def test_reaches_the_least_squares_optimum():
    context, target = problem()
    flow, _ = run(max_updates=1500, patience_updates=None, schedule="cosine", batch_size=400)
    design = np.column_stack([context.numpy(), np.ones(len(context))])
    exact, residual, *_ = np.linalg.lstsq(design, target.numpy(), rcond=None)
    np.testing.assert_allclose(flow.mean.weight.detach().numpy()[0], exact[:3], atol=2e-3)
    np.testing.assert_allclose(flow.mean.bias.item(), exact[3], atol=2e-3)
    np.testing.assert_allclose(
        math.exp(flow.log_sigma.item()), math.sqrt(residual[0] / len(context)), rtol=0.01
    )


def test_equals_a_hand_written_loop_bit_for_bit():
    context, target = problem()
    trained, _ = run(max_updates=4, batch_size=400, patience_updates=None, validate_every=4)
    flow = Gaussian()
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.02, fused=True)
    from bayesflowmass.training.random_state import torch_generator

    for epoch in range(4):
        order = torch.randperm(400, generator=torch_generator(0, "permutation", epoch))
        optimizer.zero_grad()
        (-flow.log_prob(target[order], context[order]).mean()).backward()
        optimizer.step()
    assert hash_weights(trained) == hash_weights(flow)


def test_same_seed_same_weights_other_seed_other_weights():
    first, again, other = (run(seed=seed)[0] for seed in (3, 3, 4))
    assert hash_weights(first) == hash_weights(again) != hash_weights(other)


def test_leaves_the_global_generators_as_they_were():
    torch.manual_seed(7)
    expected = torch.rand(3)
    flow = Gaussian()
    torch.manual_seed(7)
    run(flow, max_updates=5)
    assert torch.equal(torch.rand(3), expected)


def test_restores_the_weights_of_the_best_smoothed_validation_loss():
    train, held_out = problem(12), problem(200, seed=1)
    flow, result = run(
        train=train, max_updates=2000, learning_rate=0.05, patience_updates=300, smoothing_updates=0
    )
    assert result.stopped_by == "patience"
    assert result.n_updates - result.best_update == 300
    losses = {row.update: row.validation_loss for row in result.history}
    assert result.best_validation_loss == min(losses.values()) == losses[result.best_update]
    assert mean_loss(flow, held_out) == result.best_validation_loss
    assert losses[result.n_updates] > result.best_validation_loss


def test_validates_at_the_last_update_too():
    _, result = run(max_updates=47, validate_every=20)
    assert [row.update for row in result.history] == [20, 40, 47]
    assert result.stopped_by == "max_updates"


def test_every_epoch_uses_each_cluster_once():
    seen: list[float] = []

    class Watch(Gaussian):
        def log_prob(self, log10_mass, context):
            if self.training:
                seen.extend(context[:, 0].tolist())
            return super().log_prob(log10_mass, context)

    context, target = problem(60)
    run(Watch(), (context, target), batch_size=20, max_updates=6)
    for epoch in (seen[:60], seen[60:]):
        assert sorted(epoch) == sorted(context[:, 0].tolist())
    assert seen[:60] != seen[60:]


def test_mirrors_half_of_each_batch():
    seen: list[Tensor] = []

    class Watch(Gaussian):
        def log_prob(self, log10_mass, context):
            if self.training:
                seen.append(context.clone())
            return super().log_prob(log10_mass, context)

    context = torch.rand(40, 3) + 1
    before = context.clone()
    run(Watch(), (context, torch.zeros(40)), batch_size=10, max_updates=4, flip_velocity=torch.neg)
    assert all(int((batch[:, 0] < 0).sum()) == 5 for batch in seen)
    assert torch.equal(torch.cat(seen).abs().sort(0).values, before.sort(0).values)
    assert torch.equal(context, before)


class Fresh:
    """Another number of other clusters at each index."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def epoch(self, index: int) -> EpochData:
        self.asked.append(index)
        return EpochData(*problem(100 + 10 * index, seed=index))

    def fingerprint(self) -> str:
        return "fresh"


def test_fresh_data_each_epoch_prefetched_or_not_give_the_same_weights():
    hashes = set()
    for prefetch in (False, True):
        flow, source = Gaussian(), Fresh()
        with Prefetched(source) as ahead:
            fit(
                flow,
                ahead if prefetch else source,
                problem(50, seed=99),
                max_updates=40,
                batch_size=20,
                device="cpu",
                progress=False,
            )
        assert source.asked == list(range(len(source.asked)))
        hashes.add(hash_weights(flow))
    assert len(hashes) == 1


def test_redrawn_uses_each_draw_for_several_epochs():
    source = Fresh()
    redrawn = Redrawn(source, 3)
    epochs = [redrawn.epoch(index) for index in (0, 1, 2, 3, 4, 5, 6)]
    assert source.asked == [0, 1, 2]
    assert epochs[0].context is epochs[2].context is not epochs[3].context
    assert torch.equal(Redrawn(Fresh(), 3).epoch(5).context, epochs[5].context)
    with pytest.raises(ValueError, match="redraw_every is 0"):
        Redrawn(source, 0)


def test_an_error_in_the_background_is_raised():
    class Broken(Fresh):
        def epoch(self, index: int) -> EpochData:
            if index == 1:
                raise ValueError("no clusters left")
            return super().epoch(index)

    with Prefetched(Broken()) as source, pytest.raises(ValueError, match="no clusters left"):
        fit(Gaussian(), source, problem(50), max_updates=40, batch_size=20, device="cpu", progress=False)


def test_weight_averaging_validates_and_keeps_the_average():
    flow, result = run(average_decay=0.95, max_updates=300, patience_updates=None)
    assert mean_loss(flow, problem(200, seed=1)) == result.best_validation_loss
    plain, _ = run(max_updates=300, patience_updates=None)
    assert hash_weights(flow) != hash_weights(plain)


def test_weight_averaging_averages_what_a_network_counts_along():
    class Counting(Gaussian):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros((), dtype=torch.float64))

        def log_prob(self, log10_mass, context):
            self.calls += self.training
            return super().log_prob(log10_mass, context)

    network = Counting()
    options = FitOptions(average_decay=0.5)
    optimizer = ScheduledAdam(network, options)
    expected, (context, target) = 0.0, problem(50)
    for step in range(1, 31):
        (-network.log_prob(target, context).mean()).backward()
        optimizer.step()
        decay = min(0.5, (1 + step) / (AVERAGE_WARMUP + step))
        expected = decay * expected + (1.0 - decay) * step
    with optimizer.averaged():
        assert float(network.calls) == pytest.approx(expected, rel=1e-13)
        kept = {name: value.clone() for name, value in network.state_dict().items()}
    assert float(network.calls) == 30.0
    again = ScheduledAdam(network, options)
    again.load(optimizer.tensors(), 30)
    with again.averaged():
        assert all(torch.equal(value, kept[name]) for name, value in network.state_dict().items())


def test_weight_decay_shrinks_matrices_and_spares_biases():
    strong, _ = run(weight_decay=20.0, max_updates=300, patience_updates=None)
    plain, _ = run(max_updates=300, patience_updates=None)
    assert strong.mean.weight.norm() < 0.8 * plain.mean.weight.norm()
    assert strong.mean.bias.item() == pytest.approx(plain.mean.bias.item(), abs=0.05)


def test_history_file_equals_the_history_returned(tmp_path: Path):
    _, result = run(history_path=tmp_path / "history.csv", max_updates=100)
    assert read_history(tmp_path / "history.csv") == list(result.history)
    assert len(result.history) == 5


def test_progress_bar_on_standard_error_shows_both_losses(capsys):
    run(progress=True, max_updates=40)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "training" in shown.err
    assert "loss" in shown.err
    assert "validation" in shown.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"learning_rate": -1.0},
            "'learning_rate' in the options of fit is -1.0: input should be greater than 0",
        ),
        ({"batch_size": 0}, "'batch_size' in the options of fit is 0: input should be greater than 0"),
        (
            {"schedule": "square"},
            "'schedule' in the options of fit is 'square': input should be 'constant', 'cosine' or 'plateau'",
        ),
        ({"patience_updates": 0}, "'patience_updates' in the options of fit is 0"),
        ({"average_decay": 1.0}, "'average_decay' in the options of fit is 1.0"),
        ({"device": "gpu9"}, "Unknown device 'gpu9'; expected auto, cpu or cuda"),
        ({"precision": "bf16"}, "needs a CUDA device"),
        ({"cuda_graphs": True}, "needs a CUDA device"),
        ({"warmup_updates": 400}, "warmup_updates is 400"),
        ({"resume": True}, "resume needs a checkpoint_folder"),
        ({"max_update": 3}, "Unknown key 'max_update' in the options of fit; did you mean 'max_updates'?"),
        ({"seed": -1}, "seed is -1; expected a non-negative integer"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refuses_unusable_values(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        run(**options)


def test_names_the_clusters_that_are_not_finite():
    context, target = problem(30)
    context[4, 1] = float("nan")
    with pytest.raises(ValueError, match="1 clusters with a non-finite context, the first at row 4"):
        run(train=(context, target))


def test_refuses_an_empty_training_set():
    with pytest.raises(ValueError, match="training data have no clusters"):
        run(train=(torch.zeros(0, 3), torch.zeros(0)))


def test_a_diverging_run_stops_with_a_sentence():
    class Diverging(Gaussian):
        def log_prob(self, log10_mass, context):
            return super().log_prob(log10_mass, context) + float("inf")

    with pytest.raises(ValueError, match="training diverged; lower the learning rate"):
        run(Diverging(), max_updates=20)


def test_a_step_that_cannot_be_captured_is_done_without(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A stand-in for a GPU that refuses after an update was tried: it leaves no trace."""
    generator = torch.Generator().manual_seed(0)
    batch = 14.0 + torch.randn(20, generator=generator), torch.randn(20, 4, generator=generator), None
    flows = []
    for graphs in (False, True):
        flow = build_flow("affine", 4, 14.0, 0.3, hidden=(8,), seed=1)
        optimizer = make_optimizer(flow, FitOptions(learning_rate=0.1))

        def refuse(flow=flow):
            with torch.no_grad():
                for parameter in flow.parameters():
                    parameter.add_(1.0)
            raise RuntimeError("operation not permitted\nwhen stream is capturing")

        monkeypatch.setattr(torch.cuda, "Stream", refuse)
        monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: None)
        monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state: None)
        update = make_update(flow, optimizer, FitOptions(learning_rate=0.1, cuda_graphs=graphs))
        for _ in range(3):
            update(batch)
        assert optimizer.update == 3
        flows.append(flow)
    assert hash_weights(flows[1]) == hash_weights(flows[0])
    assert capsys.readouterr().err == (
        "cuda_graphs: a step cannot be captured (operation not permitted); training goes on without.\n"
    )


def test_processes_do_not_share_the_statistics_of_a_batch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bayesflowmass.training.fit.present", lambda: Processes(0, 2))
    flow = build_flow("affine", 4, 14.0, 0.3, hidden=(8,))
    flow.add_module("norm", nn.BatchNorm1d(4))
    context, mass = torch.randn(20, 4), torch.full((20,), 14.0)
    with pytest.raises(ValueError, match="batch normalisation"):
        fit(flow, FixedSource(context, mass), (context, mass), device="cpu", progress=False)
