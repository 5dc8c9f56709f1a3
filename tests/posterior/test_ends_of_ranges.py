"""Numbers at the very ends of what posteriors and priors take: the last that is taken, and the first that is not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from bayesflowmass.posterior import MassPosterior, make_prior, monte_carlo_error, number_of_draws
from bayesflowmass.posterior.priors import FlatPrior, PiecewisePrior

RANGE = (13.2, 15.6)
SMALLEST = 5e-324


def normal(loc=14.4, scale=0.2):
    one = torch.distributions.Normal(torch.tensor([loc], dtype=torch.float64), scale)
    return MassPosterior(one, log10_mass_range=RANGE, redshift=0.117)


def test_two_draws_have_a_spread_and_one_has_none():
    assert monte_carlo_error(2) == pytest.approx(math.sqrt(0.5))
    with pytest.raises(ValueError, match="1 draws have no spread"):
        monte_carlo_error(1)
    assert monte_carlo_error(number_of_draws()) <= 0.13 < monte_carlo_error(number_of_draws() - 1)


@pytest.mark.parametrize("error", [0.0, 1.0, -0.1, 1.1, math.nan])
def test_a_relative_error_lies_between_0_and_1(error):
    with pytest.raises(ValueError, match="expected a number between 0 and 1"):
        number_of_draws(error)
    assert number_of_draws(np.nextafter(1.0, 0.0)) == 2
    # Ten draws leave 1 / sqrt(18) exactly, and rounding asks for no eleventh.
    assert number_of_draws(1.0 / math.sqrt(18.0)) == 10


@pytest.mark.parametrize("kind", ["central", "hpd"])
@pytest.mark.parametrize("level", [0.0, 1.0, -0.5, 1.5, math.nan])
def test_an_interval_holds_more_than_nothing_and_less_than_all(kind, level):
    with pytest.raises(ValueError, match="expected 0 < level < 1"):
        normal().interval(level, kind)


@pytest.mark.parametrize("h", [0.0, -0.7, math.inf, math.nan])
def test_h_is_finite_and_above_0(h):
    with pytest.raises(ValueError, match=r"h is .*; expected a positive number"):
        normal().to_table(units="Msun", h=h)


@pytest.mark.parametrize(
    "limits", [(14.0, 14.0), (-math.inf, 15.0), (14.0, math.inf), (math.nan, 15.0), (14.0, math.nan)]
)
def test_a_prior_has_two_finite_limits_in_their_order(limits):
    with pytest.raises(ValueError, match="two increasing finite values"):
        FlatPrior(limits)
    assert FlatPrior((14.0, np.nextafter(14.0, 15.0))).log10_mass_range[0] == 14.0


@pytest.mark.parametrize(
    ("edges", "densities", "message"),
    [
        ((14.0,), (), "at least two finite, increasing"),
        ((14.0, 14.0), (1.0,), "at least two finite, increasing"),
        ((14.0, math.inf), (1.0,), "at least two finite, increasing"),
        ((14.0, 15.0, 14.5), (1.0, 1.0), "at least two finite, increasing"),
        ((14.0, 15.0), (0.0,), "1 positive values"),
        ((14.0, 15.0), (math.inf,), "1 positive values"),
        ((14.0, 15.0), (1.0, 1.0), "1 positive values"),
        ((14.0, 15.0, 15.5), (1.0, -1.0), "2 positive values"),
    ],
)
def test_a_piecewise_prior_has_increasing_edges_and_positive_densities(edges, densities, message):
    with pytest.raises(ValueError, match=message):
        PiecewisePrior(edges, densities)
    assert PiecewisePrior((14.0, np.nextafter(14.0, 15.0)), (SMALLEST,)).breaks[0] == 14.0


def test_a_piecewise_density_changes_at_its_edges():
    density = PiecewisePrior((13.5, 14.0, 15.0), (2.0, 8.0)).log_density(np.zeros(1))
    x = torch.tensor([[13.0], [np.nextafter(14.0, 13.0)], [14.0], [16.0]], dtype=torch.float64)
    assert_allclose(density(x).exp()[:, 0], [2.0, 2.0, 8.0, 8.0], rtol=1e-14)


@pytest.mark.parametrize(("beyond", "taken"), [(5e-10, True), (2e-9, False)])
@pytest.mark.parametrize("side", ["low", "high"])
def test_a_prior_may_leave_the_range_of_training_by_rounding(beyond, taken, side):
    limits = (RANGE[0] - beyond, 15.0) if side == "low" else (14.0, RANGE[1] + beyond)
    if taken:
        assert normal().with_prior("hmf", limits).prior.log10_mass_range == limits
    else:
        with pytest.raises(ValueError, match="cannot leave the training range"):
            normal().with_prior("hmf", limits)


@pytest.mark.parametrize(("share", "told"), [(0.02501, True), (0.02499, False)])
def test_a_mass_is_told_where_a_fortieth_of_the_density_lies_in_the_range(share, told):
    level = float(torch.special.ndtri(torch.tensor(share, dtype=torch.float64)))
    for loc in (RANGE[0] + 0.1 * level, RANGE[1] - 0.1 * level):
        assert normal(loc, 0.1).has_mass.tolist() == [told]


def test_a_prior_that_was_selected_keeps_its_name_and_ends_at_its_limits():
    prior = make_prior("sz:14.5", (14.0, 15.0))
    assert prior.name == "hmf, sz:14.5"
    assert prior.breaks == ()
    inside = prior.log_density(np.full(2, 0.2))
    ends, beyond = (
        torch.tensor(one, dtype=torch.float64)[:, None].expand(-1, 2) for one in ([14.0, 15.0], [13.9, 15.1])
    )
    flat = prior.prior.log_density(np.full(2, 0.2))
    # What the survey sees is that of the nearest mass inside.
    assert_allclose(inside(beyond) - flat(beyond), inside(ends) - flat(ends), rtol=1e-12)
