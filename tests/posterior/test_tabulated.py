"""Where nodes of tables lie, what tables say at and beyond them, and peaks of functions, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats
from scipy.interpolate import CubicHermiteSpline

from bayesflowmass.cosmology import MDPL2, concentration_median, convert_mass
from bayesflowmass.posterior import common_shape, draws, flow_density, tabulated
from bayesflowmass.posterior.common_shape import CommonShape, look_at_shape
from bayesflowmass.posterior.converted import ConvertedDensity, _shift, _shift_coefficients, _undo
from bayesflowmass.posterior.flow_density import FlowDensity
from bayesflowmass.posterior.tabulated import Tabulated, adaptive_nodes, even, place_nodes, tabulate

LOC, SCALE = np.array([14.0, 14.6, 15.1]), np.array([0.1, 0.25, 0.02])


def normals(n=3):
    return FlowDensity([torch.distributions.Normal(torch.tensor(LOC[:n]), torch.tensor(SCALE[:n]))])


def columns(*values):
    return tuple(torch.tensor(one, dtype=torch.float64) for one in values)


def test_nodes_are_spread_by_probability_within_the_window_and_over_the_span():
    x = torch.linspace(13.0, 16.0, 40, dtype=torch.float64).expand(3, -1)
    cdf = torch.tensor(stats.norm.cdf(x.numpy(), LOC[:, None], 2 * SCALE[:, None]))
    low, high = columns([13.5, 13.0, 14.9], [14.5, 16.0, 15.3])
    nodes = adaptive_nodes(x, cdf, 50, (low, high)).T.numpy()
    assert nodes.shape == (3, 50)
    for k in range(3):
        # Between the points that are known, all three are straight lines.
        by_density = np.interp(nodes[k], x[k], cdf[k])
        by_density = (by_density - cdf[k, 0].item()) / (cdf[k, -1] - cdf[k, 0]).item()
        inside = np.clip((x[k].numpy() - low[k].item()) / (high[k] - low[k]).item(), 0.0, 1.0)
        by_window = np.interp(nodes[k], x[k], inside)
        level = 0.4 * by_density + 0.45 * by_window + 0.15 * (nodes[k] - 13.0) / 3.0
        assert_allclose(level, np.linspace(0.0, 1.0, 50), atol=1e-12)
    assert_allclose(nodes[:, [0, -1]], [[13.0, 16.0]] * 3)


def test_a_window_without_width_and_a_cdf_without_rise_make_even_nodes():
    x = torch.linspace(13.0, 16.0, 11, dtype=torch.float64)[None]
    end = columns([16.0])[0]
    nodes = adaptive_nodes(x, torch.zeros_like(x), 7, (end, end))[:, 0]
    assert_allclose(nodes, np.linspace(13.0, 16.0, 7), rtol=1e-12)


def test_even_nodes_reach_from_end_to_end():
    low, high = columns([13.0, 14.0], [16.0, 14.5])
    nodes = even(low, high)
    assert_allclose(nodes, np.stack([np.linspace(13.0, 16.0, 33), np.linspace(14.0, 14.5, 33)], axis=1))


def test_panels_end_at_jumps_and_nodes_stay_within_the_limits():
    nodes = place_nodes(normals(), torch.zeros_like, (13.2, 15.6), (14.35, 15.0), 60)
    assert nodes.shape == (64, 3)
    assert bool((nodes.diff(dim=0) > 0).all())
    assert_allclose(nodes[[0, -1]], [[13.2] * 3, [15.6] * 3], atol=1e-9)
    for jump in (14.35, 15.0):
        offsets = (nodes - jump) * 1e9
        for side in (-1.0, 1.0):
            assert_allclose((offsets - side).abs().amin(0), 0.0, atol=1e-5)
    # Most of the others lie where the densities are.
    window = np.clip(LOC + np.array([[-7.03], [7.03]]) * SCALE, 13.2, 15.6)
    near = (nodes.numpy() > window[0]) & (nodes.numpy() < window[1])
    assert_allclose(near.mean(0), 0.85 + 0.15 * np.diff(window, axis=0)[0] / 2.4, atol=0.06)


def test_without_limits_nodes_reach_from_one_end_of_the_window_to_the_other():
    nodes = place_nodes(normals(), n_nodes=41)
    assert nodes.shape == (41, 3)
    assert_allclose(nodes[[0, -1]], LOC + np.array([[-7.03], [7.03]]) * SCALE, atol=1e-5)
    assert place_nodes(normals()).shape == (193, 3)


def test_bends_and_coinciding_nodes_are_nodes_of_their_own():
    class Bent(FlowDensity):
        def bends(self):
            return self.window()[0] + columns([[-1.0] * 3, [0.0] * 3, [0.2] * 3, [0.2] * 3])[0]

    density = Bent(normals().blocks)
    nodes, low = place_nodes(density, n_nodes=41), density.window()[0]
    assert nodes.shape == (45, 3)
    assert bool((nodes.diff(dim=0) > 0).all())
    # What lies before the window is moved to its end: three nodes stand there.
    assert_allclose(nodes[:3], low.expand(3, -1), atol=1e-10)
    assert ((nodes - low - 0.2).abs() < 1e-10).sum(0).tolist() == [2] * 3


def test_a_reweighted_density_is_asked_once_at_each_node(monkeypatch):
    density = normals()
    nodes = place_nodes(density, torch.zeros_like, (13.2, 15.6))
    found = density.log_pdf_and_cdf(nodes)
    monkeypatch.setattr(FlowDensity, "log_pdf", None)
    table = tabulated.tabulate_at(density, nodes, *found, torch.zeros_like, (13.2, 15.6))
    cut = [stats.truncnorm((13.2 - m) / s, (15.6 - m) / s, m, s) for m, s in zip(LOC, SCALE, strict=True)]
    for k, one in enumerate(cut):
        assert_allclose(table.cdf[k], one.cdf(nodes[:, k].numpy()), atol=1e-7)
        # The last node lies a rounding beyond the limits.
        assert_allclose(table.pdf[k, :-1], one.pdf(nodes[:-1, k].numpy()), rtol=1e-6)


def test_a_density_that_is_all_but_outside_the_limits_keeps_its_slope():
    density = FlowDensity([torch.distributions.Normal(*columns([12.0, 14.4], [0.15, 0.3]))])
    table = tabulate(density, lambda x: 0.0 * x, (13.2, 15.6))
    for k, (loc, scale) in enumerate([(12.0, 0.15), (14.4, 0.3)]):
        cut = stats.truncnorm((13.2 - loc) / scale, (15.6 - loc) / scale, loc, scale)
        x = cut.ppf([0.01, 0.3, 0.7, 0.99])
        found = table.cdf_at(torch.tensor(x)[None].expand(2, -1))[k]
        assert_allclose(found, [0.01, 0.3, 0.7, 0.99], atol=1e-4)


def test_beyond_the_nodes_a_cdf_is_0_or_1_and_quantiles_are_the_ends(monkeypatch):
    table = tabulate(normals())
    ends = table.x[:, [0, -1]]
    outside = ends + torch.tensor([[-1e-6, 1e-6]])
    assert table.cdf_at(outside).tolist() == [[0.0, 1.0]] * 3
    p = torch.tensor([[0.0, 1.0]], dtype=torch.float64).expand(3, -1)
    assert_allclose(table.quantile(p), ends, rtol=1e-12)
    inner = torch.tensor([[0.1, 0.5, 0.9]], dtype=torch.float64).expand(3, -1)
    whole, moments = table.quantile(inner), table.moments()
    # Row by row it is the same, and so it is put together again.
    monkeypatch.setattr(tabulated, "_ROWS_AT_ONCE", 2)
    assert torch.equal(table.quantile(inner), whole)
    assert all(torch.equal(*both) for both in zip(table.moments(), moments, strict=True))
    parts = [Tabulated(*(getattr(table, name)[k : k + 1] for name in ("x", "pdf", "cdf"))) for k in range(3)]
    assert torch.equal(Tabulated.concatenate(parts).quantile(inner), whole)


def rough_table():
    """Few and uneven nodes, tails left out, a flat stretch, and densities that would make a cubic fall."""
    x = columns([[0.0, 1.0, 1.5, 3.0, 4.0], [-2.0, -1.0, 2.0, 2.5, 3.0]])[0]
    pdf, cdf = columns(
        [[0.2, 9.0, 0.1, 0.0, 7.0], [0.0, 0.3, 0.2, 0.4, 0.1]],
        [[0.1, 0.4, 0.5, 0.5, 0.8], [0.0, 0.1, 0.75, 0.9, 1.0]],
    )
    return Tabulated(x, pdf, cdf)


def test_between_nodes_a_cdf_is_the_cubic_whose_slopes_are_at_most_three_times_the_rise(monkeypatch):
    table, calls = rough_table(), []
    hermite = tabulated._hermite
    monkeypatch.setattr(tabulated, "_hermite", lambda *given: calls.append(1) or hermite(*given))
    for x, pdf, cdf in zip(table.x.numpy(), table.pdf.numpy(), table.cdf.numpy(), strict=True):
        alone = Tabulated(*(torch.from_numpy(one)[None] for one in (x, pdf, cdf)))
        # At the first and the last node the probability is that of the table, not 0 or 1.
        assert_allclose(alone.cdf_at(alone.x), [cdf], rtol=1e-15)
        for k in range(4):
            slopes = np.minimum(pdf[k : k + 2], 3.0 * (cdf[k + 1] - cdf[k]) / (x[k + 1] - x[k]))
            cubic = CubicHermiteSpline(x[k : k + 2], cdf[k : k + 2], slopes)
            at = x[k] + (x[k + 1] - x[k]) * np.array([0.03, 0.2, 0.5, 0.9])
            assert_allclose(alone.cdf_at(torch.from_numpy(at)[None])[0], cubic(at), rtol=1e-12, atol=1e-15)
            del calls[:]
            found = alone.quantile(torch.from_numpy(cubic(at))[None])[0].numpy()
            # Newton's steps double the digits; by halves it would take fifty.
            assert len(calls) < 20
            assert_allclose(cubic(found), cubic(at), rtol=1e-12, atol=1e-15)
            if cdf[k + 1] > cdf[k]:
                assert_allclose(found, at, atol=2e-7)


def test_moments_are_those_of_the_cubic():
    table = tabulate(normals(), n_nodes=60)
    mean, variance = table.moments()
    assert_allclose(mean, LOC, atol=1e-9)
    assert_allclose(variance, SCALE**2, rtol=1e-4)
    # A parabola, of which Simpson's rule knows the mean and nearly the variance.
    x = columns([[0.0, 0.25, 0.5, 0.75, 1.0]])[0]
    mean, variance = Tabulated(x, 6.0 * x * (1.0 - x), x**2 * (3.0 - 2.0 * x)).moments()
    assert_allclose(mean, [0.5], rtol=1e-14)
    assert_allclose(variance, [0.05], rtol=5e-3)


def test_draws_of_a_shape_that_was_tabulated_are_looked_up_in_its_cubic():
    table = rough_table()
    even = Tabulated(
        columns([[1.0, 2.0, 3.0, 4.0, 5.0], [-1.0, -0.5, 0.0, 0.5, 1.0]])[0], table.pdf, table.cdf
    )
    loc, scale = columns([[0.3, -0.2, 1.0], [0.0, 0.1, 0.4]], [[1.0, 0.5, 2.0], [0.3, 3.0, 1.0]])
    nodes = columns([[-1.0, 1.2, 2.9, 4.4, 30.0], [-4.0, 0.1, 0.2, 0.25, 9.0]])[0].requires_grad_()
    pdf, cdf = common_shape._looked_up(even, loc, scale, nodes)
    places = (nodes[:, None] - loc[..., None]) / scale[..., None]
    inside = torch.minimum(torch.maximum(places, even.x[:, None, :1]), even.x[:, None, -1:])
    expected = even.cdf_at(inside.flatten(1)).unflatten(1, (3, 5)).mean(1)
    assert_allclose(cdf.detach(), expected.detach(), atol=1e-14)
    within = ((places > even.x[:, None, :1]) & (places < even.x[:, None, -1:])).all(1)
    slope = torch.autograd.grad(expected.sum(), nodes)[0]
    assert_allclose(pdf[within].detach(), slope[within], atol=1e-13)
    assert int(within.sum()) >= 2


def mixed(d=5):
    rng = np.random.default_rng(3)
    return columns(14.4 + 0.2 * rng.normal(size=(d, 3)), 0.1 + 0.2 * rng.random((d, 3)))


@pytest.mark.parametrize("module", [flow_density, draws, common_shape])
def test_how_much_is_done_at_once_changes_nothing(module, monkeypatch):
    def everything():
        density = FlowDensity([torch.distributions.Normal(*mixed())])
        x = torch.linspace(13.5, 15.5, 9, dtype=torch.float64)[:, None].expand(-1, 3)
        unit = FlowDensity([torch.distributions.Normal(torch.zeros(3).double(), torch.tensor(SCALE))])
        shape = look_at_shape(CommonShape(unit, *mixed()), 40)
        yield from (density.log_pdf(x), density.cdf(x), *density.log_pdf_and_cdf(x), density.sketch()[0])
        for look in (shape, density.look):
            yield from (look.table.x, look.table.pdf, look.table.cdf, look.mean, look.variance)
            yield from map(torch.from_numpy, look.disagreement)

    whole = list(everything())
    monkeypatch.setattr(module, "_AT_ONCE", 30)
    for few, many in zip(everything(), whole, strict=True):
        # Sums over three clusters or over one differ by rounding.
        torch.testing.assert_close(few, many, rtol=1e-12, atol=1e-12)


def test_quantiles_are_polished_from_near_and_left_alone_from_far():
    density, p = normals(), columns([[0.3] * 3, [0.9] * 3])[0]
    exact = torch.from_numpy(stats.norm.ppf(p, LOC, SCALE))
    near = density.polished(exact + 1e-3 * torch.tensor(SCALE), p)
    assert_allclose(near, exact, atol=1e-9)
    far = exact + torch.tensor([0.02, -0.02, 0.02])
    assert torch.equal(density.polished(far, p)[:, :2], far[:, :2])


@pytest.mark.parametrize("peak", [-0.4, 0.0, 0.123456, 0.98, 1.0, 1.7])
def test_the_highest_point_of_one_peak_is_found_inside_and_at_the_ends(peak):
    x = torch.linspace(0.0, 1.0, 11, dtype=torch.float64)[:, None] * torch.tensor([[1.0, 3.0]])

    def function(at):
        return -((at - peak) ** 2) + 0.1 * (at - peak) ** 3

    expected = np.clip(peak, 0.0, [[1.0, 3.0]])
    assert_allclose(tabulated._highest(function, x, function(x)), expected, atol=2e-5)
    # Values that are known roughly do as well, as long as the highest is.
    assert_allclose(tabulated._highest(function, x, function(x).round(decimals=2)), expected, atol=2e-5)


def test_at_a_jump_and_on_a_plateau_the_highest_point_is_one_of_those_looked_at():
    x = torch.linspace(0.0, 1.0, 11, dtype=torch.float64)[:, None]
    falling = lambda at: torch.where(at < x[4], -1.0, -at)  # noqa: E731
    assert tabulated._highest(falling, x, falling(x)) == x[4]
    level = lambda at: at.clamp_max(0.4)  # noqa: E731
    assert 0.4 <= float(tabulated._highest(level, x, level(x))) <= 0.6
    nothing = torch.full_like(x, -torch.inf)
    assert float(tabulated._highest(lambda at: nothing[: len(at)], x, nothing)) == 0.0


def affine_draws(d=7):
    rng = np.random.default_rng(0)
    return 14.2 + 0.15 * rng.normal(size=(d, 3)), 0.5 + rng.random((d, 3))


def test_draws_of_one_shape_are_their_mixture():
    loc, scale = affine_draws()
    unit = torch.distributions.Normal(torch.zeros(3, dtype=torch.float64), torch.tensor(SCALE))
    look = look_at_shape(CommonShape(FlowDensity([unit]), *columns(loc, scale)), 120)
    sigma = scale * SCALE
    x = look.table.x.T.numpy()
    assert x.shape == (120, 3)
    # Nodes span all draws; the cubic through an even grid is of fourth order in its spacing.
    assert_allclose(x[[0, -1]], [(loc - 7.03 * sigma).min(0), (loc + 7.03 * sigma).max(0)], atol=1e-5)
    assert_allclose(look.table.cdf.T, stats.norm.cdf(x[:, None], loc, sigma).mean(1), atol=2e-9)
    pdf = stats.norm.pdf(x[:, None], loc, sigma).mean(1)
    assert_allclose(look.table.pdf.T, pdf, atol=2e-5 * pdf.max())
    assert_allclose(look.mean, loc.mean(0), atol=1e-9)
    assert_allclose(look.disagreement.sigma_epistemic, loc.std(0), rtol=1e-9)
    assert_allclose(look.disagreement.sigma_aleatoric**2, (sigma**2).mean(0), rtol=1e-6)
    assert_allclose(look.variance, (sigma**2).mean(0) + loc.var(0), rtol=1e-6)
    # Twice as many nodes where the mixture is than an even table would have.
    inside = (stats.norm.cdf(x[:, None], loc, sigma).mean(1) > 0.005) & (pdf > 0.01 * pdf.max())
    assert np.all(inside.sum(0) > 50)


@pytest.mark.parametrize("mdef", ["500c", "200m"])
@pytest.mark.parametrize("redshift", [[0.1], [0.02, 0.2, 0.55]], ids=["one redshift", "several"])
def test_shifts_to_other_masses_are_those_of_the_profile(mdef, redshift):
    z, offset = np.array(redshift), 0.16 * 2.37
    coefficients = _shift_coefficients(mdef, z, offset, MDPL2)
    m = np.linspace(12.5, 16.2, 9)
    value, slope = _shift(torch.tensor(m)[:, None].expand(-1, len(z)), coefficients)
    for k, one in enumerate(z):
        concentration = concentration_median(m, float(one)) * 10.0**offset
        exact = convert_mass(m, float(one), "200c", mdef, concentration=concentration) - m
        assert_allclose(value[:, k], exact, atol=2e-4)
    h = 1e-5
    steps = [
        _shift(torch.tensor(m[1:-1])[:, None].expand(-1, len(z)) + side, coefficients)[0] for side in (h, -h)
    ]
    assert_allclose(slope[1:-1], (steps[0] - steps[1]) / (2 * h), atol=1e-8)
    # Farther out than concentrations are known the shift keeps its value.
    far, flat = _shift(columns([[11.0] * len(z), [17.0] * len(z)])[0], coefficients)
    assert_allclose(far, value[[0, -1]], rtol=1e-12)
    assert flat.tolist() == [[0.0] * len(z)] * 2


@pytest.mark.parametrize("mdef", ["500c", "vir", "200m"])
def test_the_window_of_a_converted_density_holds_it_and_little_more(mdef):
    density = ConvertedDensity(normals(), mdef, np.array([0.1, 0.2, 0.3]))
    low, high = density.window()
    below, not_above = density.cdf(torch.stack([low, high]))
    assert float(below.max()) < 1e-9
    assert float(not_above.min()) > 1.0 - 1e-9
    # The scatter of the concentration, of 0.16 dex, moves masses by 0.1 dex at most.
    base = normals().window()
    assert bool(((high - low) < (base[1] - base[0]) + 0.5).all())
    inner = density.cdf(torch.stack([low + 0.35 * (high - low), high - 0.35 * (high - low)]))
    assert float(inner[0].min()) > 1e-6
    assert float(inner[1].max()) < 1.0 - 1e-6


def test_what_was_shifted_is_undone():
    coefficients = _shift_coefficients("500c", np.array([0.1, 0.4]), -0.3, MDPL2)
    m = torch.linspace(12.0, 16.6, 40, dtype=torch.float64)[:, None].expand(-1, 2)
    value, slope = _shift(m, coefficients)
    origin, found = _undo(m + value, coefficients)
    assert_allclose(origin, m, atol=1e-12)
    assert_allclose(found, slope, atol=1e-9)
