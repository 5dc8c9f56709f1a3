"""Recalibration: monotone maps, finite-sample coverage, what is left alone, what is stored and said."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import integrate, stats
from scipy.interpolate import BPoly
from small_model import toy_catalog, toy_estimator

from bayesflowmass.catalog import CatalogError
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.posterior import MassPosterior
from bayesflowmass.recalibrate import describe, main, recalibrate
from bayesflowmass.recalibration import Recalibration, fit_stage, halo_weights
from bayesflowmass.recalibration.fit import stage_map
from bayesflowmass.recalibration.maps import TAIL, StagedMap, bernstein, elevate
from bayesflowmass.recalibration.recalibration import _thinned

RANGE = (10.0, 20.0)


def random_map(seed, n=3):
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(16, 2.0), (2, n))
    coefficients = np.concatenate([np.zeros((2, n, 1)), np.cumsum(weights, axis=-1)], axis=-1)
    coefficients[..., -1] = 1.0
    return StagedMap(
        torch.from_numpy(rng.normal(0.0, 0.3, (2, n))),
        torch.from_numpy(rng.normal(0.0, 0.3, (2, n))),
        torch.from_numpy(coefficients),
        torch.zeros(n, 0, dtype=torch.float64),
        torch.zeros(n, dtype=torch.int64),
    )


def stage_of(chosen, stage):
    part = slice(stage, stage + 1)
    return replace(
        chosen,
        shift=chosen.shift[part],
        log_scale=chosen.log_scale[part],
        coefficients=chosen.coefficients[part],
    )


def gaussian(n, seed, *, narrow=1.0, bias=0.0, sigma=0.15):
    """Masses, and posteriors of measurements of them: exact for a flat prior but for the faults."""
    rng = np.random.default_rng(seed)
    measured = rng.uniform(13.5, 15.0, n)
    true = measured + sigma * rng.normal(size=n)
    posterior = MassPosterior(
        torch.distributions.Normal(
            torch.from_numpy(measured + bias), narrow * sigma * torch.ones(n).double()
        ),
        log10_mass_range=RANGE,
        redshift=0.1,
    )
    return posterior, true


def recalibration_of(posterior, true, n_fit, edges=(14.0, 14.5), halo=None):
    halo = np.arange(len(true)) if halo is None else halo
    pit, median = posterior.cdf(true), posterior.median
    first, later = slice(0, n_fit), slice(n_fit, None)
    return Recalibration.fit(
        pit[first],
        median[first],
        halo[first],
        held_out=(pit[later], median[later], halo[later]),
        edges=edges,
        prior="flat",
        log10_mass_range=RANGE,
    )


# Maps


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.floats(0.0, 1.0), min_size=2, max_size=6, unique=True))
def test_maps_increase_from_0_to_1_and_have_the_slope_and_the_inverse_that_they_state(seed, values):
    chosen = random_map(seed)
    u = torch.tensor(sorted(values), dtype=torch.float64)[:, None].expand(-1, 3)
    image = chosen(u)
    assert bool((image.diff(dim=0) >= 0).all())
    ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(-1, 3)
    assert_allclose(chosen(ends), ends, atol=1e-15)
    # Rounding of what each stage is given, times the slope of what follows: 1e-12 where a map is not steep beside 1,
    # where neighbouring numbers u can be 1e-4 apart in R(u).
    back = chosen.inverse(u)
    first, second = (stage_of(chosen, stage) for stage in (0, 1))
    middle = first(back)
    condition = chosen.log_slope(back).exp() * back + second.log_slope(middle).exp() * middle
    assert bool(((chosen(back) - u).abs() <= 1e-12 + 32 * 2.0**-53 * condition).all())
    inside = u.clamp(1e-3, 1.0 - 1e-3).clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(chosen(inside).sum(), inside)
    assert_allclose(chosen.log_slope(inside.detach()).exp(), slope, rtol=1e-10)


def test_the_slope_integrates_to_the_map_into_the_tails():
    chosen = stage_of(random_map(3), 0)
    for low, high in ((TAIL / 10, TAIL * 10), (1e-7, 1e-5), (0.2, 0.7)):
        points = [TAIL] if low < TAIL < high else None
        value = integrate.quad(
            lambda u: float(chosen.log_slope(torch.tensor([[u] * 3], dtype=torch.float64)).exp()[0, 1]),
            low,
            high,
            points=points,
            epsabs=0.0,
        )[0]
        ends = chosen(torch.tensor([[low] * 3, [high] * 3], dtype=torch.float64))
        assert_allclose(value, float(ends[1, 1] - ends[0, 1]), rtol=1e-6)


def test_polynomials_are_those_of_scipy_and_keep_their_values_in_a_higher_degree():
    c = np.array([0.0, 0.1, 0.4, 0.45, 1.0])
    x = torch.linspace(0.0, 1.0, 21, dtype=torch.float64)
    expected = BPoly(c[:, None], [0.0, 1.0])(x.numpy())
    for given_ in (torch.from_numpy(c)[None], elevate(torch.from_numpy(c), 16)[None]):
        assert_allclose(bernstein(given_, x[:, None])[:, 0], expected, atol=1e-14)


# What is fitted


@pytest.mark.parametrize(("shift", "log_scale"), [(0.4, 0.0), (0.0, -0.3), (0.4, -0.3)])
def test_a_shift_or_a_scale_alone_is_the_closed_form(shift, log_scale):
    ones = torch.ones(1, 1, dtype=torch.float64)
    even = torch.linspace(0.0, 1.0, 17, dtype=torch.float64).expand(1, 1, -1)
    found = StagedMap(
        shift * ones, log_scale * ones, even, torch.zeros(1, 0), torch.zeros(1, dtype=torch.int64)
    )
    u = torch.tensor([[1e-6], [0.1], [0.5], [0.97], [1 - 1e-6]], dtype=torch.float64)
    z = stats.norm.ppf(u)
    moved = (z - shift) / np.exp(log_scale)
    assert_allclose(found(u), stats.norm.cdf(moved), rtol=1e-9)
    slope = stats.norm.logpdf(moved) - stats.norm.logpdf(z) - log_scale
    assert_allclose(found.log_slope(u), slope, atol=1e-8)
    assert_allclose(found.inverse(found(u)), u, rtol=1e-9)


@pytest.mark.parametrize(("a", "b"), [(0.0, 1.4), (0.5, 1.0), (-0.2, 0.7)])
def test_shift_and_scale_are_found(a, b):
    rng = np.random.default_rng(1)
    stage = fit_stage(stats.norm.cdf(a + b * rng.normal(size=5000)), np.ones(5000))
    assert stage.choice == "shift and scale"
    assert_allclose([stage.shift, np.exp(stage.log_scale)], [a, b], atol=4 * b / np.sqrt(5000))
    # The gain is the divergence of N(a, b^2) from N(0, 1).
    assert stage.gain == pytest.approx(0.5 * (b * b + a * a - 1) - np.log(b), abs=0.05)


def test_a_wrong_shape_is_found():
    rng = np.random.default_rng(2)
    u = stats.beta.rvs(2.0, 5.0, size=4000, random_state=rng)
    u = np.where(rng.random(4000) < 0.4, 1.0 - 0.3 * u, u)
    stage = fit_stage(u, np.ones(4000))
    assert stage.choice.startswith("shape of degree")
    mapped = stage_map([stage])(torch.from_numpy(u)[:, None])[:, 0].numpy()
    new = stats.beta.rvs(2.0, 5.0, size=4000, random_state=rng)
    new = np.where(rng.random(4000) < 0.4, 1.0 - 0.3 * new, new)
    new = stage_map([stage])(torch.from_numpy(new)[:, None])[:, 0].numpy()
    distance = [stats.kstest(values, "uniform").statistic for values in (u, mapped, new)]
    assert distance[0] > 0.15
    assert max(distance[1:]) < 0.05


def test_calibrated_posteriors_are_left_exactly_alone():
    """The criterion adopts shift and scale where 2 ln L > 2 ln n, chi2 of two: 0.2 % of samples of 500; higher degrees
    add as much again.
    """
    rng = np.random.default_rng(3)
    changed = sum(fit_stage(rng.random(500), np.ones(500)).choice != "none" for _ in range(100))
    assert changed <= stats.binom.ppf(0.999, 100, 0.005)
    posterior, true = gaussian(2000, 4)
    found = recalibration_of(posterior, true, 1500)
    assert set(found.choices) == {"none"}
    again = found.apply(posterior)
    assert np.array_equal(again.cdf(true), posterior.cdf(true))
    assert_allclose(again.quantile([0.1, 0.9]), posterior.quantile([0.1, 0.9]), atol=1e-12)


def test_projections_of_one_halo_do_not_count_as_clusters_of_their_own():
    """Each PIT ten times: taken as 1000 clusters they would be fitted, as 100 haloes they are not."""
    rng = np.random.default_rng(5)
    changed, naive = 0, 0
    for _ in range(15):
        u, halo = np.repeat(rng.random(100), 10), np.repeat(np.arange(100), 10)
        changed += fit_stage(u, halo_weights(halo)).choice != "none"
        naive += fit_stage(u, np.ones(1000)).choice != "none"
    assert changed <= 2
    assert naive >= 5


def test_a_too_narrow_and_a_biased_model_become_nominal():
    """The negative controls: before, PITs are far from uniform; after, new clusters are covered as stated and their
    PIT is uniform. The maps come from 4000 clusters, whose own noise is the tolerance.
    """
    for faults in ({"narrow": 0.6}, {"bias": 0.08}):
        posterior, true = gaussian(6000, 6, **faults)
        found = recalibration_of(posterior, true, 4000)
        new, new_true = gaussian(2000, 7, **faults)
        raw, after = new.cdf(new_true), found.apply(new).cdf(new_true)
        assert stats.kstest(raw, "uniform").pvalue < 1e-6
        assert stats.kstest(after, "uniform").pvalue > 1e-3
        assert np.mean(np.abs(after - 0.5) < 0.34) == pytest.approx(0.68, abs=0.04)
        score = np.log(found.apply(new).pdf(new_true)) - np.log(new.pdf(new_true))
        assert score.mean() > 0.05


# Conformal intervals


def test_conformal_intervals_cover_in_finite_samples_whatever_the_model_is():
    """A model 40 % too narrow and 0.3 sigma off, 39 held-out clusters: one new cluster lies in the 90 % interval with
    probability ceil(40 * 0.9) / 40 = 0.9 exactly. 800 calibrations: a coverage of 0.85 or 0.94 would fail with 80 %.
    """
    rng, hits = np.random.default_rng(13), 0
    for _ in range(800):
        pit = stats.norm.cdf(rng.normal(0.3, 1.0 / 0.6, 65))
        masses, halo = np.full(64, 14.0), np.arange(64)
        found = Recalibration.fit(
            pit[:25],
            masses[:25],
            halo[:25],
            held_out=(pit[25:64], masses[25:], halo[25:]),
            edges=[],
            prior="flat",
            log10_mass_range=RANGE,
        )
        chosen = found.cdf_map([14.0])
        u = float(chosen(torch.tensor([[pit[64]]], dtype=torch.float64)))
        hits += abs(2.0 * u - 1.0) <= float(chosen.conformal_level(0.9))
    low, high = stats.binom.ppf([0.001, 0.999], 800, 0.9)
    assert low <= hits <= high
    posterior, true = gaussian(700, 14, narrow=0.6, bias=0.05)
    after = recalibration_of(posterior, true, 350, edges=()).apply(posterior)
    inside = (true >= after.interval(0.9, "conformal")[0]) & (true <= after.interval(0.9, "conformal")[1])
    assert np.mean(inside[350:]) >= 0.9


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9000), st.floats(0.01, 0.999))
def test_thinned_levels_never_shorten_an_interval(m, level):
    scores = np.sort(np.random.default_rng(m).random(m))
    full, thin = (
        StagedMap(
            torch.zeros(0, 1),
            torch.zeros(0, 1),
            torch.zeros(0, 1, 17),
            torch.from_numpy(kept)[None],
            torch.tensor([len(kept)]),
        )
        for kept in (scores, _thinned(scores))
    )
    assert len(_thinned(scores)) <= 2000
    assert float(thin.conformal_level(level)) >= float(full.conformal_level(level)) - 1e-12
    assert float(thin.conformal_level(level)) <= level + 5 * np.sqrt(level / m) + 0.01 or m < 300


# A recalibrated posterior is a posterior


@pytest.fixture(scope="module")
def recalibrated():
    posterior, true = gaussian(3000, 8, narrow=0.7)
    found = recalibration_of(posterior, true, 2000)
    few, few_true = gaussian(40, 9, narrow=0.7)
    return found.apply(few), few, few_true


def test_density_cdf_quantiles_and_moments_belong_together(recalibrated):
    after, raw, _ = recalibrated
    x = np.linspace(12.5, 16.0, 4001)
    pdf, cdf = after.pdf(x[:, None]), after.cdf(x[:, None])
    assert_allclose(integrate.trapezoid(pdf, x, axis=0), 1.0, atol=2e-5)
    assert_allclose(integrate.trapezoid(pdf[:2001], x[:2001], axis=0), cdf[2000], atol=1e-4)
    assert_allclose(
        after.cdf(after.quantile([1e-4, 0.3, 0.999])), np.tile([[1e-4], [0.3], [0.999]], 40), atol=1e-9
    )
    mean = integrate.trapezoid(pdf * x[:, None], x, axis=0)
    assert_allclose(after.mean, mean, atol=1e-4)
    assert_allclose(
        after.sigma, np.sqrt(integrate.trapezoid(pdf * (x[:, None] - mean) ** 2, x, axis=0)), rtol=2e-3
    )
    assert np.all(after.sigma > 1.2 * raw.sigma)
    assert_allclose(after.interval(0.68), after.quantile([0.16, 0.84]))


def test_recalibration_is_said_in_the_header_and_survives_a_change_of_mass_definition(recalibrated):
    after, raw, _ = recalibrated
    assert after.recalibration == "flat 10-20, 2000 clusters"
    assert after.to_table().meta["recal"] == after.recalibration
    assert "recal" not in raw.to_table().meta
    assert after.raw is raw
    assert raw.raw is raw
    other = after.with_mass_definition("500c")
    assert np.all(other.median < after.median)
    assert other.recalibration == after.recalibration


def test_another_prior_is_refused_and_the_raw_posterior_takes_it(recalibrated):
    after, raw, _ = recalibrated
    assert after.with_prior("flat") is after
    assert after.with_prior("flat", RANGE) is after
    with pytest.raises(ValueError, match="does not carry over to another"):
        after.with_prior("flat", (13.0, 15.0))
    with pytest.raises(ValueError, match=r"change the prior of `posterior\.raw`"):
        after.with_prior("hmf", (13.0, 15.5))
    assert after.raw.with_prior("flat", (13.0, 15.0)).recalibration is None
    with pytest.raises(ValueError, match="only once"):
        after.recalibrated(random_map(0))
    with pytest.raises(ValueError, match="This recalibration is for flat 10-20"):
        recalibration_of(*gaussian(200, 1), 150).apply(raw.with_prior("flat", (13.0, 16.0)))
    with pytest.raises(ValueError, match="Conformal intervals are those of M200c of a recalibrated model"):
        raw.interval(0.9, "conformal")


def test_impossible_pit_values_are_refused():
    arguments = {"edges": [], "prior": "flat", "log10_mass_range": RANGE}
    later = ([0.5], [14.0], [0])
    for pit in ([], [1.5]):
        with pytest.raises(ValueError, match=r"needs values in \[0, 1\]; the pit has"):
            Recalibration.fit(pit, [14.0] * len(pit), [0] * len(pit), held_out=later, **arguments)


# The model and the command


@pytest.fixture(scope="module")
def catalog():
    return toy_catalog(900, seed=31)


@pytest.fixture(scope="module")
def found(catalog):
    return recalibrate(toy_estimator(), catalog, min_count=200)


def test_a_recalibrated_model_is_saved_loaded_and_used(found, catalog, tmp_path):
    model, report = found
    assert report["held_out"]["raw"]["p_value"] < 0.01 < report["held_out"]["recalibrated"]["p_value"]
    again = MassEstimator.load(model.save(tmp_path / "model"), "cpu")
    few = catalog[:20]
    after = again.posterior(few)
    assert np.array_equal(after.median, model.posterior(few).median)
    assert np.array_equal(after.interval(0.9, "conformal"), model.posterior(few).interval(0.9, "conformal"))
    assert after.recalibration == "flat 13.2-15.6, 630 clusters"
    raw = again.posterior(few, recalibrated=False)
    assert raw.recalibration is None
    assert_allclose(raw.median, after.raw.median)
    # Nothing is recalibrated for this prior: the raw posterior, which says so.
    assert again.posterior(few, "hmf").recalibration is None
    with pytest.raises(ValueError, match="no recalibration for the prior 'hmf'"):
        again.posterior(few, "hmf", recalibrated=True)
    assert again.posterior(few, log10_mass_range=(13.5, 15.0)).recalibration is None
    assert len(model.with_recalibration(model.recalibrations[0]).recalibrations) == 1


def test_the_command_writes_a_model_a_report_and_what_it_did(catalog, tmp_path, capsys):
    toy_estimator().save(tmp_path / "model")
    catalog.write(tmp_path / "cal.parquet")
    arguments = ["--model", str(tmp_path / "model"), "--catalog", str(tmp_path / "cal.parquet")]
    code = main(
        [*arguments, "--out", str(tmp_path / "new"), "--min-count", "200", "--no-progress", "--device", "cpu"]
    )
    assert code == 0
    text = capsys.readouterr().out
    assert "Recalibrated for prior and population flat over 13.2-15.6" in text
    assert "held-out clusters" in text
    assert (
        json.loads((tmp_path / "new" / "recalibration.json").read_text(encoding="utf-8"))["n_clusters"] == 630
    )
    assert MassEstimator.load(tmp_path / "new", "cpu").recalibrations[0].prior == "flat"
    assert main([*arguments, "--out", str(tmp_path / "model")]) == 2
    assert "is the model" in capsys.readouterr().err
    assert main([*arguments, "--out", str(tmp_path / "other"), "--prior", "hmf"]) == 2
    assert "would only hide a change of prior; give --prior flat" in capsys.readouterr().err


@pytest.mark.parametrize("choice", ["none", "shift and scale"])
def test_a_model_that_needs_nothing_says_so_first(choice):
    test = {"n_clusters": 30, "p_value": 0.5, "coverage_68": 0.68, "coverage_95": 0.95}
    found = {
        "prior": "hmf",
        "log10_mass_range": (13.5, 15.6),
        "n_clusters": 70,
        "n_haloes": 70,
        "n_conformal": 30,
    }
    found |= {
        "choices": [choice, "none"],
        "edges": [13.5, 15.0],
        "n_without_mass": 0,
        "held_out": {"raw": test},
    }
    first = describe(found)[0]
    assert first.startswith("Nothing to correct" if choice == "none" else "Recalibrated for prior")


def test_catalogues_that_cannot_recalibrate_are_refused(catalog):
    estimator = toy_estimator()
    with pytest.raises(CatalogError, match="does not say how its masses were drawn"):
        recalibrate(estimator, catalog.with_metadata(masses={}))
    with pytest.raises(CatalogError, match="no column log10_mass"):
        recalibrate(estimator, catalog.without("log10_mass"))
    heavy = catalog.with_columns(log10_mass=np.full(len(catalog), 15.9))
    with pytest.raises(CatalogError, match=r"900 of the 900 clusters have a mass outside 13\.2-15\.6"):
        recalibrate(estimator, heavy)
