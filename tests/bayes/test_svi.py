"""The posterior of the weights as pyro.infer.SVI: its parts are Pyro's, and can be replaced by Pyro's."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoGuideList, AutoNormal
from pyro.optim import Adam
from small_model import hash_weights
from torch import nn

from bayesflowmass.bayes import NormalPrior, VariationalObjective, VariationalPosterior, build_objective
from bayesflowmass.bayes.guides import MeanField
from bayesflowmass.training.fit import fit
from bayesflowmass.training.optimizer import ScheduledAdam
from bayesflowmass.training.options import FitOptions
from bayesflowmass.training.sources import FixedSource

NOISE, N = 0.5, 40


class Regression(nn.Module):
    """y ~ N(w x + b, NOISE), per dex as a flow would."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1).double()
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, y, x):
        return dist.Normal(self.layer(x).squeeze(-1), NOISE).log_prob(y)

    log_prob = forward


@pytest.fixture(autouse=True)
def _empty_store():
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


def data(n=N):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return x, x @ torch.tensor([0.5, -0.3, 0.1]).double() + 0.2 + NOISE * torch.randn(
        n, generator=generator
    ).double()


def objective(**options):
    return build_objective(
        Regression(), data(), which="all", guide="mean_field", prior=NormalPrior(1.0), **options
    )


def optimum():
    """Exact posterior mean, and the standard deviations of the best mean field: the diagonal of the precision."""
    x, y = data()
    design = torch.cat([x, torch.ones(N, 1).double()], 1)
    precision = design.T @ design / NOISE**2 + torch.eye(4).double()
    return torch.linalg.solve(precision, design.T @ y / NOISE**2), precision.diagonal().rsqrt()


@pytest.mark.parametrize("estimator", ["shared", "mirrored", "local"])
@pytest.mark.parametrize("size", [N, 10])
def test_a_step_of_svi_has_the_loss_of_the_bound_per_cluster(estimator, size):
    x, y = (part[:size] for part in data())
    found = objective(estimator=estimator, tempering=0.7)
    torch.manual_seed(5)
    expected = -found.log_prob(y, x).mean() * N
    found = objective(estimator=estimator, tempering=0.7)
    torch.manual_seed(5)
    loss = found.svi(Adam({"lr": 0.01})).step(y, x)
    # Sums of about a hundred terms in another order, in double precision.
    assert loss == pytest.approx(float(expected.detach()), rel=1e-13)


def test_views_that_count_less_enter_with_their_weights():
    x, y = data()
    weight = torch.linspace(0.2, 1.8, N).double()
    found = objective(estimator="local")
    torch.manual_seed(5)
    loss = found.differentiable_loss(y, x, weight)
    torch.manual_seed(5)
    with found._handler:
        log_prob = found.network.run(y, x)
    assert float(loss.detach()) == pytest.approx(
        float((found.kl() - (weight * log_prob).sum()).detach()), rel=1e-13
    )


@pytest.mark.parametrize("bound", [Trace_ELBO, TraceMeanField_ELBO])
def test_bounds_of_pyro_estimate_the_same_number(bound):
    x, y = data()
    found = objective()
    with torch.no_grad():
        for part in found.guide.locs:
            part.normal_(0.0, 0.3)
    n = 300
    with torch.no_grad():
        ours = torch.tensor([found.elbo.loss(found.model, found.guide, y, x) for _ in range(n)])
        theirs = torch.tensor([bound().loss(found.model, found.guide, y, x) for _ in range(n)])
    error = (ours.var() / n + theirs.var() / n).sqrt()
    assert abs(ours.mean() - theirs.mean()) < 5 * error


@pytest.mark.parametrize("elbo", [None, "Trace_ELBO", "TraceMeanField_ELBO"])
def test_training_finds_the_best_mean_field_with_either_bound(elbo):
    x, y = data()

    def maximise(target, *, seed, name):
        fit(
            target, FixedSource(x, y), (x, y), learning_rate=0.05, betas=(0.9, 0.99), schedule="cosine",
            final_fraction=0.0, batch_size=N, max_updates=400, patience_updates=None, validate_every=400, keep="last",
            seed=seed, device="cpu", progress=False,
        )  # fmt: skip

    posterior = VariationalPosterior.fit(
        Regression(), (x, y), maximise=maximise, which="all", guide="mean_field", prior=NormalPrior(1.0),
        estimator="local" if elbo is None else None, elbo=elbo, trained=True,
    )  # fmt: skip
    mean, sd = optimum()
    # What is left of the noise of the last steps, whose rate went to zero.
    assert ((posterior.guide.loc - mean) / sd).abs().max() < 0.25
    assert (posterior.guide.log_scale.exp() / sd - 1).abs().max() < 0.25


def test_a_site_can_be_added():
    x, y = data()
    y = y + 3.0
    found = objective(estimator="shared")

    def model(y, x):
        shift = pyro.sample("shift", dist.Normal(torch.tensor(0.0).double(), 10.0))
        found.model(y - shift, x)

    guide = AutoGuideList(model)
    guide.append(AutoNormal(pyro.poutine.block(model, expose=["shift"]), init_scale=0.1))
    guide.append(found.guide)
    svi = SVI(model, guide, Adam({"lr": 0.03}), Trace_ELBO())
    for _ in range(200):
        svi.step(y, x)
    # The layer's bias and the shift share the 3.2; steps of 0.03 leave noise of about as much.
    both = float(guide[0].median()["shift"]) + float(found.guide.mean["layer.bias"])
    assert both == pytest.approx(3.2, abs=0.5)


def test_the_optimiser_of_training_steps_as_that_of_pyro():
    x, y = data()
    mine, theirs = objective(estimator="local"), objective(estimator="local")
    adam = ScheduledAdam(mine, FitOptions(learning_rate=0.02), N)
    steps = {
        "mine": mine.svi(adam),
        "theirs": theirs.svi(Adam({"lr": 0.02, "eps": 1e-8 * N})),
    }
    for svi in steps.values():
        pyro.clear_param_store()
        torch.manual_seed(3)
        for _ in range(20):
            svi.step(y, x)
    assert adam.update == 20
    for a, b in zip(mine.guide.parameters(), theirs.guide.parameters(), strict=True):
        # Fused and plain Adam round differently: twenty steps of a few operations each.
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-13)


def test_the_optimiser_takes_in_what_the_model_adds():
    x, y = data()
    found = objective(estimator="shared")
    adam = ScheduledAdam(found, FitOptions(learning_rate=0.02), N)

    def model(y, x):
        found.model(y - pyro.param("offset", torch.zeros(()).double()), x)

    SVI(model, found.guide, adam, found.elbo).step(y, x)
    assert float(pyro.param("offset").detach()) != 0.0
    with pytest.raises(ValueError, match="a checkpoint would lose them"):
        adam.tensors()


@pytest.mark.parametrize("clip", [None, 0.5])
def test_clipping_and_the_schedule_are_those_of_a_mean_over_examples(clip):
    """The same steps from the loss of all examples through SVI and from its mean by hand."""
    x, y = data()
    options = FitOptions(learning_rate=0.02, clip_norm=clip, schedule="cosine", max_updates=5)
    summed, mean = objective(estimator="local"), objective(estimator="local")
    svi = summed.svi(ScheduledAdam(summed, options, N))
    torch.manual_seed(3)
    for _ in range(5):
        svi.step(y, x)
    optimizer = torch.optim.Adam(mean.guide.parameters(), lr=0.02)
    torch.manual_seed(3)
    for update in range(5):
        optimizer.param_groups[0]["lr"] = options.rate().at(update)
        optimizer.zero_grad()
        (-mean.log_prob(y, x).mean()).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(mean.guide.parameters(), clip)
        optimizer.step()
    for a, b in zip(summed.guide.parameters(), mean.guide.parameters(), strict=True):
        # The clipped norm has 1e-6 added to it, of a sum here and of a mean there.
        assert torch.allclose(a, b, rtol=1e-12 if clip is None else 1e-5, atol=1e-9)


def trained(seed=0, **options) -> VariationalObjective:
    x, y = data()
    found = objective(estimator="mirrored")
    fit(
        found, FixedSource(x, y), (x, y), batch_size=10, max_updates=30, validate_every=10, seed=seed, device="cpu",
        progress=False, learning_rate=0.01, **options,
    )  # fmt: skip
    return found


def test_trainings_leave_nothing_in_the_parameter_store_and_find_nothing_there():
    pyro.param("weight_guide.locs.0", torch.zeros(7))
    kept = pyro.param("mine", torch.ones(2))
    first = hash_weights(trained())
    assert set(pyro.get_param_store().keys()) == {"weight_guide.locs.0", "mine"}
    assert pyro.param("mine") is kept
    assert hash_weights(trained()) == first
    pyro.clear_param_store()
    assert hash_weights(trained()) == first
    assert hash_weights(trained(seed=1)) != first


def test_a_stopped_training_goes_on_bit_by_bit(tmp_path):
    whole = trained(average_decay=0.9, schedule="cosine", clip_norm=1.0)
    options = {"average_decay": 0.9, "schedule": "cosine", "clip_norm": 1.0}

    class StopError(Exception):
        pass

    x, y = data()

    class Stops(VariationalObjective):
        steps = 0

        def model(self, *args):
            self.steps += 1
            if self.steps == 18:
                raise StopError
            return super().model(*args)

    stopped = Stops(Regression(), MeanField(Regression(), NormalPrior(1.0)), N, estimator="mirrored")
    shared = {"checkpoint_folder": tmp_path, "checkpoint_every": 7, **options}
    with pytest.raises(StopError):
        fit(
            stopped, FixedSource(x, y), (x, y), batch_size=10, max_updates=30, validate_every=10, device="cpu",
            progress=False, learning_rate=0.01, **shared,
        )  # fmt: skip
    resumed = trained(resume=True, **shared)
    assert hash_weights(resumed) == hash_weights(whole)
