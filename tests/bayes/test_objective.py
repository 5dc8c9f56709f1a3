"""The objective as a density that the training loop fits: modes, report."""

from __future__ import annotations

import pytest
import torch

from bayesflowmass.bayes import MeanField, VariationalObjective, choose
from bayesflowmass.flows import build_flow
from bayesflowmass.training.fit import fit
from bayesflowmass.training.sources import FixedSource


def clusters(n=200):
    generator = torch.Generator().manual_seed(0)
    context = torch.rand(n, 4, generator=generator)
    mass = 14.0 + context.sum(-1) / 4 + 0.1 * torch.randn(n, generator=generator)
    return context, mass


def objective(which="last", **options):
    flow = build_flow("affine", 4, 14.5, 0.3, hidden=(8,), affine_blocks=1)
    return VariationalObjective(flow, MeanField(flow, None, which), 200, **options)


def test_random_parameters_of_the_module_are_not_trained_beside_the_guide():
    found = objective()
    random = set(choose(found.module, "last"))
    for name, parameter in found.module.named_parameters():
        assert parameter.requires_grad == (name not in random)


def test_the_training_loop_fits_it_with_history_and_seed():
    context, mass = clusters()
    reached = []
    for _ in range(2):
        torch.manual_seed(99)
        found = objective()
        result = fit(
            found, FixedSource(context, mass), (context, mass), learning_rate=3e-3, batch_size=50,
            max_updates=60, validate_every=20, device="cpu", progress=False,
        )  # fmt: skip
        losses = [row.train_loss for row in result.history]
        assert losses[-1] < losses[0]
        reached.append(found.guide.loc.detach())
    assert torch.equal(*reached)


def test_a_pair_of_mirrored_draws_survives_a_checkpoint_and_an_evaluation():
    context, mass = clusters(20)
    torch.manual_seed(1)
    whole, resumed = objective(estimator="mirrored"), objective(estimator="mirrored")
    first = whole.log_prob(mass, context)
    resumed.load_state_dict(whole.state_dict())
    whole.eval().log_prob(mass, context)
    second = whole.train().log_prob(mass, context)
    assert not torch.equal(first, second)
    assert torch.equal(resumed.log_prob(mass, context), second)
    # A new pair: other weights, and of each objective its own.
    third = whole.log_prob(mass, context)
    assert not torch.equal(third, resumed.log_prob(mass, context))


def test_evaluation_is_the_mean_over_fixed_draws_less_the_divergence():
    context, mass = clusters(20)
    found = objective().eval()
    first, second = found.log_prob(mass, context), found.log_prob(mass, context)
    assert torch.equal(first, second)
    draws = found.guide.draw(4, seed=0)
    by_hand = torch.stack(
        [
            torch.func.functional_call(found.module, {n: v[i] for n, v in draws.items()}, (mass, context))
            for i in range(4)
        ]
    ).mean(0)
    assert torch.allclose(first, by_hand - found.kl() / 200, atol=1e-5)


def test_the_report_separates_likelihood_and_divergence():
    context, mass = clusters()
    found = objective()
    report = found.report(mass, context)
    assert set(report) == {"nll", "kl_per_cluster", "share_at_prior"}
    assert found.training
    found.eval()
    loss = float(-found.log_prob(mass, context).mean())
    assert loss == pytest.approx(report["nll"] + report["kl_per_cluster"], rel=1e-5)
    assert report["kl_per_cluster"] == pytest.approx(float(found.kl()) / 200)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"estimator": "exact"}, "Unknown estimator 'exact'"),
        ({"tempering": 0.0}, "expected a positive number, 1 for the ELBO"),
        ({"validation_draws": 0}, "expected at least 1"),
    ],
)
def test_unusable_settings_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        objective(**options)
