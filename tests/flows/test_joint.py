"""Densities of several numbers: normalised, correlated, and fitted like any other."""

from __future__ import annotations

import pyro.distributions.transforms as transforms
import pytest
import torch

from bayesflowmass import bayes
from bayesflowmass.flows import JointFlow

C = 3
MAKE = {
    "affine autoregressive": lambda: [transforms.conditional_affine_autoregressive(2, C, hidden_dims=[8])],
    "spline autoregressive": lambda: [transforms.conditional_spline_autoregressive(2, C, hidden_dims=[8])],
    "coupling": lambda: [
        transforms.conditional_affine_coupling(2, C, hidden_dims=[8]),
        transforms.Permute(torch.tensor([1, 0])),
        transforms.conditional_affine_coupling(2, C, hidden_dims=[8]),
    ],
}


@pytest.fixture(params=list(MAKE))
def flow(request):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = JointFlow(MAKE[request.param](), [14.3, 0.6], [0.5, 0.2])
    return made.double()


def test_the_density_is_normalised(flow):
    """Riemann sum over +-12 standard deviations, 0.08 apart: what is left out and the sum's error are below 1e-3."""
    context = torch.randn(2, C, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = torch.linspace(-12.0, 12.0, 301, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(z, z, indexing="ij"), -1).reshape(-1, 2) * flow.scale + flow.loc
    for one in context:
        log_prob = flow.log_prob(grid, one.expand(len(grid), -1)).detach()
        total = log_prob.exp().sum() * (z[1] - z[0]) ** 2 * flow.scale.prod()
        assert float(total) == pytest.approx(1.0, abs=2e-3)


def test_it_finds_the_correlation_that_a_product_of_marginals_lacks():
    generator = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(400, n, generator=generator) for n in (C, 2))
    y = torch.stack(
        [14.3 + 0.3 * x[:, 0] + 0.2 * noise[:, 0], x[:, 1] + 0.9 * noise[:, 0] + 0.3 * noise[:, 1]], -1
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        flow = JointFlow(MAKE["affine autoregressive"](), y.mean(0), y.std(0))
    found = bayes.fit(flow, (x, y), method="point", steps=250)
    drawn = found.predict(x[:1].expand(2000, -1))[0]
    correlation = float(torch.corrcoef(drawn.T)[0, 1])
    # Of the residuals: 0.9 / sqrt(0.9^2 + 0.3^2) = 0.95; fitted to 400 rows and measured on 2000.
    assert correlation == pytest.approx(0.95, abs=0.05)
