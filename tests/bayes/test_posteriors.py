"""One contract for every distribution over weights: fit, draw, density, save and load."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.distributions import MultivariateNormal

from bayesflowmass.bayes import WEIGHT_POSTERIORS, WeightPosterior, parse_weights
from bayesflowmass.estimator.weight_draws import condition_draws
from bayesflowmass.flows import build_flow

OPTIONS = {
    "point": {},
    "variational": {},
    "ensemble": {"members": 3},
    "laplace": {},
    "linearised": {},
    "function_space": {},
    "nuts": {"chains": 2, "warmup": 10, "samples": 10, "max_tree_depth": 3},
    "sghmc": {"chains": 2, "warmup": 2, "samples": 5, "path_steps": 4},
}


def small_flow(seed=0):
    return build_flow("affine", 2, 14.3, 0.3, affine_blocks=1, hidden=(4,), seed=seed).double()


def data(n=40):
    generator = torch.Generator().manual_seed(5)
    context = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, generator=generator, dtype=torch.float64)
    return context, 14.3 + 0.2 * context[:, 0] + 0.1 * noise


def maximise(objective, *, seed, name, **options):
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], lr=0.02)
    context, log10_mass = data()
    objective.train()
    for _ in range(15):
        optimizer.zero_grad()
        (-objective.log_prob(log10_mass, context).mean()).backward()
        optimizer.step()


@pytest.fixture(scope="module")
def fitted():
    """Every method, fitted once: method -> (flow, posterior)."""
    found = {}
    for method, options in OPTIONS.items():
        flow = small_flow()
        with torch.random.fork_rng():
            posterior = WEIGHT_POSTERIORS[method].fit(flow, data(), maximise=maximise, seed=3, **options)
        found[method] = (flow, posterior)
    return found


@pytest.fixture(params=sorted(OPTIONS))
def case(request, fitted):
    return fitted[request.param]


def test_every_method_is_tested():
    assert set(OPTIONS) == set(WEIGHT_POSTERIORS)


def test_draws_are_sets_of_the_named_weights(case):
    flow, posterior = case
    draws = posterior.draw(6, seed=1)
    parameters = dict(flow.named_parameters())
    assert set(draws) == set(posterior.names) <= set(parameters)
    for name, value in draws.items():
        assert value.shape == (6, *parameters[name].shape)
        assert value.dtype == torch.float64
        assert not value.requires_grad
        assert value.isfinite().all()


def test_the_same_seed_gives_the_same_draws(case):
    _, posterior = case
    first, again, other = (posterior.draw(6, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    if posterior.method not in ("point", "ensemble"):
        assert any(not torch.equal(first[name], other[name]) for name in first)


def test_drawing_leaves_the_global_generator_alone(case):
    _, posterior = case
    before = torch.get_rng_state()
    posterior.draw(3, seed=1)
    assert torch.equal(before, torch.get_rng_state())


def test_draws_have_a_log_density_where_the_posterior_is_a_density(case):
    _, posterior = case
    density = posterior.log_density(posterior.draw(6, seed=1))
    if posterior.method in ("variational", "laplace", "linearised"):
        assert density.shape == (6,)
        assert density.isfinite().all()
    else:
        assert density is None


def test_a_finite_number_of_draws_take_turns(case):
    _, posterior = case
    n = posterior.n_distinct
    if n is None or n == 1:
        return
    draws = posterior.draw(2 * n, seed=1)
    flat = torch.cat([value.flatten(1) for value in draws.values()], 1)
    # Each comes twice: a sampler may have stayed where it was, so distinct rows are compared, not counted.
    first, again = (torch.unique(part, dim=0) for part in flat.split(n))
    assert torch.equal(first, again)
    assert len(first) >= 0.5 * n


def test_description_and_tensors_bring_a_posterior_back(case, tmp_path):
    _, posterior = case
    save_file(
        {k: v.contiguous() for k, v in posterior.state_dict().items()}, tmp_path / "weights.safetensors"
    )
    description = json.loads(json.dumps(posterior.describe()))
    other = small_flow(seed=8)
    loaded = WeightPosterior.from_description(other, description)
    loaded.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert type(loaded) is type(posterior)
    assert loaded.names == posterior.names
    assert json.loads(json.dumps(loaded.describe())) == description
    first, again = posterior.draw(5, seed=4), loaded.draw(5, seed=4)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_draws_give_a_distribution_of_each_cluster(case):
    flow, posterior = case
    context, log10_mass = data(7)
    found = condition_draws(flow, posterior.draw(4, seed=0), context)
    assert found.batch_shape == ((1 if posterior.method == "point" else 4), 7)
    assert found.log_prob(log10_mass).isfinite().all()


def test_the_same_seed_fits_the_same_posterior():
    for method in ("laplace", "nuts"):
        states = []
        for _ in range(2):
            flow = small_flow()
            options = OPTIONS[method] | ({} if method == "nuts" else {"trained": True})
            posterior = WEIGHT_POSTERIORS[method].fit(flow, data(), maximise=maximise, seed=3, **options)
            states.append(posterior.state_dict())
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_normal_posterior_has_the_density_of_its_covariance(fitted):
    _, posterior = fitted["laplace"]
    draws = posterior.draw(5, seed=2)
    flat = posterior.layout.flatten(draws)
    expected = MultivariateNormal(posterior.mean, posterior.scale_tril @ posterior.scale_tril.T).log_prob(
        flat
    )
    torch.testing.assert_close(posterior.log_density(draws), expected, rtol=1e-9, atol=1e-6)


def test_a_normal_posterior_draws_with_its_covariance(fitted):
    """20 000 draws, standardised variances: each within 5 standard errors (1 % each)."""
    _, posterior = fitted["laplace"]
    flat = posterior.layout.flatten(posterior.draw(20_000, seed=2))
    variance = posterior.scale_tril.square().sum(1)
    assert (flat.var(0) / variance - 1).abs().max() < 5 * (2 / 20_000) ** 0.5
    assert ((flat.mean(0) - posterior.mean) / (variance / 20_000).sqrt()).abs().max() < 5


def test_a_method_of_the_past_is_an_error_that_says_where_it_went():
    with pytest.raises(ValueError, match=r"'swag' was removed in version 0.2: .* train again"):
        WeightPosterior.from_description(small_flow(), {"method": "swag"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("point", ("point", {})),
        ("ensemble:5", ("ensemble", {"members": 5})),
        ("laplace:last:2", ("laplace", {"which": "last:2"})),
        ("variational:all", ("variational", {"which": "all"})),
        ("nuts:500", ("nuts", {"samples": 500})),
    ],
)
def test_one_word_names_a_method_and_its_option(text, expected):
    assert parse_weights(text) == expected


def test_a_word_that_makes_no_sense_is_an_error_that_says_what_would():
    with pytest.raises(ValueError, match=r"Unknown weight posterior 'vi'; choose one of ensemble"):
        parse_weights("vi")
    with pytest.raises(ValueError, match=r"'point:3': the method point takes no value"):
        parse_weights("point:3")
    with pytest.raises(ValueError, match=r"'ensemble:few': members is a int, not 'few'"):
        parse_weights("ensemble:few")
    with pytest.raises(ValueError, match=r"Unknown weight posterior None"):
        WeightPosterior.from_description(small_flow(), {})
