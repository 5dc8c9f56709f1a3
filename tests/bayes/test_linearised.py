"""Laplace's approximation of a network that is taken as linear in its weights."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian, jacrev

from bayesflowmass import bayes
from bayesflowmass.bayes.linearised import gauss_newton, linear_parameters
from bayesflowmass.estimator.weight_draws import condition_draws
from bayesflowmass.flows import build_flow

DOUBLE = torch.float64
NOISE = 0.4


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def flow_and_data(kind="affine+spline"):
    flow = build_flow(kind, 2, 14.3, 0.3, affine_blocks=1, hidden=(4,), count_bins=3, seed=1).double()
    return flow, (normal(9, 2), 14.3 + 0.3 * normal(9, seed=1))


def test_it_is_exact_for_linear_regression():
    x, y = normal(40, 3) + 0.5, normal(40, seed=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Linear(3, 1).double()
    found = bayes.fit(
        net,
        (x, y),
        likelihood=lambda f: dist.Normal(f.squeeze(-1), NOISE),
        method="linearised",
        steps=5,
        relative_precision=1.0,
    )
    design = torch.cat([x, torch.ones(40, 1, dtype=DOUBLE)], 1)
    prior = torch.tensor([3.0, 3.0, 3.0, 1.0], dtype=DOUBLE)
    covariance = torch.linalg.inv(design.T @ design / NOISE**2 + torch.diag(prior))
    root = found.weights.scale_tril
    torch.testing.assert_close(root @ root.T, covariance, rtol=1e-9, atol=1e-13)


def test_a_draw_moves_the_parameters_along_the_slope():
    flow, (context, _) = flow_and_data()
    draws = {name: p.detach() + 0.3 * normal(3, *p.shape, seed=2) for name, p in flow.named_parameters()}
    found = linear_parameters(flow, draws, context)
    for i, (block, got) in enumerate(zip(flow.transforms[:-1], found[1:-1], strict=True)):
        expected = block.nn(context).detach().expand(3, -1, -1).clone()
        own = {name: p.detach() for name, p in block.nn.named_parameters()}
        slope = jacrev(lambda w, net=block.nn: functional_call(net, w, (context,)))(own)
        for name, value in own.items():
            away = (draws[f"transforms.{i}.nn.{name}"] - value).flatten(1)
            expected += torch.einsum("bop,dp->dbo", slope[name].flatten(2), away)
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
    flow.linear_draws = True
    torch.testing.assert_close(
        condition_draws(flow, draws, context).mean, flow.distribution_of(found).mean, rtol=1e-12, atol=1e-12
    )


class Rows(nn.Module):
    """Numbers in turn through a part that torch does not vectorise, or of which it has no forward derivatives."""

    def __init__(self, part):
        super().__init__()
        self.each, self.part, self.head = nn.Linear(1, 4), part, nn.Linear(4, 1)

    def forward(self, x):
        found = self.part(self.each(x.unsqueeze(-1)))
        return self.head((found[0] if isinstance(found, tuple) else found).mean(1))


@pytest.mark.parametrize(
    "part",
    [
        lambda: nn.GRU(4, 4, batch_first=True),
        lambda: nn.PReLU(),
        lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True),
    ],
    ids=["recurrent", "prelu", "transformer"],
)
def test_any_part_of_torch_can_be_linearised(part):
    """Against differences over a millionth of the way to a draw: their error is as small a share of the way."""
    x, y = normal(12, 3), normal(12, seed=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Rows(part()).double()
    options = {"method": "linearised", "steps": 3}
    posterior = bayes.fit(net, (x, y), likelihood=lambda f: dist.Normal(f.squeeze(-1), NOISE), **options)
    density, draws = posterior.density, posterior.draw(3, seed=0)
    (found,) = linear_parameters(density, draws, x)
    own = {name: value.detach() for name, value in density.named_parameters()}
    with torch.no_grad():
        centre = density(None, x)
        for k in range(3):
            near = {name: own[name] + 1e-6 * (value[k] - own[name]) for name, value in draws.items()}
            slope = (functional_call(density, near, (None, x)) - centre) / 1e-6
            torch.testing.assert_close(found[k] - centre, slope, rtol=0, atol=1e-3 * float(slope.abs().max()))


def test_gauss_newton_leaves_out_of_the_hessian_of_last_layers_what_is_negative():
    flow, data = flow_and_data("affine")
    names = bayes.choose(flow, "last")
    found = gauss_newton(flow, names, data)
    own = {name: flow.get_parameter(name).detach() for name in names}
    sizes = [value.numel() for value in own.values()]

    def loss(flat):
        parts = {name: part.view_as(own[name]) for name, part in zip(own, flat.split(sizes), strict=True)}
        return -functional_call(flow, parts, (data[1], data[0])).sum()

    expected = hessian(loss)(torch.cat([value.flatten() for value in own.values()]))
    rounding = 1e-9 * found.abs().max()
    assert torch.linalg.eigvalsh(found).min() > -rounding
    dropped = torch.linalg.eigvalsh(found - expected.detach())
    assert -rounding < dropped.min() < dropped.max() < found.trace()


def test_predictions_are_those_of_the_linear_model(tmp_path):
    x, y = normal(30, 1), normal(30, seed=1)
    net = nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    likelihood = lambda f: dist.Normal(f.squeeze(-1), NOISE)  # noqa: E731
    found = bayes.fit(net, (x, y), likelihood=likelihood, method="linearised", steps=20)
    outputs = found.outputs(x, n_draws=6, seed=3)
    expected = linear_parameters(found.density, found.draw(6, seed=3), x)[0]
    torch.testing.assert_close(outputs, expected)
    log_prob = (
        torch.stack([likelihood(f).log_prob(y) for f in expected]).logsumexp(0) - torch.tensor(6.0).log()
    )
    torch.testing.assert_close(
        found.log_prob(y, x, n_draws=6, seed=3), log_prob.detach(), rtol=1e-6, atol=1e-6
    )
    found.save(tmp_path)
    again = bayes.load(tmp_path, net, likelihood)
    torch.testing.assert_close(again.outputs(x, n_draws=6, seed=3), outputs)
    with pytest.raises(ValueError, match="Draws of 'linearised' are no networks"):
        _ = found.guide


def test_a_density_without_parameters_is_refused():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def log_prob(self, y, x):
            return -((y - self.layer(x)[:, 0]) ** 2)

        forward = log_prob

    with pytest.raises(ValueError, match=r"Own .*parameters"):
        bayes.fit(Own(), (torch.randn(5, 2), torch.randn(5)), method="linearised", steps=2)
