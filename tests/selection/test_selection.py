"""Selection: what each function does to galaxies, that it is reproducible, and that it says what it did."""

from __future__ import annotations

import zlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import dblquad

from bayesflowmass import selection
from bayesflowmass.catalog import CatalogError, CatalogMetadata, ClusterCatalog
from bayesflowmass.cosmology import SPEED_OF_LIGHT, comoving_distance, efunc, transverse_mpc_h_per_radian
from bayesflowmass.selection import interlopers, recentring

N = 300


def clusters(n=N, each=100, seed=0, spread=2.0, sigma=700.0, dtype=np.float64, recorded=None, varied=False):
    """Gaussian velocities, galaxies uniform in radius out to ``spread``."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, each, n) if varied else np.full(n, each)
    total = int(counts.sum())
    radius, angle = spread * rng.random(total), 2 * np.pi * rng.random(total)
    return ClusterCatalog.from_arrays(
        {"cluster_id": np.arange(n), "redshift": rng.uniform(0.05, 0.2, n)},
        {
            "x": (radius * np.cos(angle)).astype(dtype),
            "y": (radius * np.sin(angle)).astype(dtype),
            "v_los": rng.normal(0, sigma, total).astype(dtype),
            "gal_abs_mag": rng.normal(-20, 1, total),
            "gal_galaxy_id": np.arange(total),
        },
        counts,
        CatalogMetadata(selection=recorded or {}),
    )


STOCHASTIC = {
    "completeness": lambda cat, seed: selection.completeness(cat, 0.3, seed),
    "central_losses": lambda cat, seed: selection.central_losses(cat, 0.6, 0.2, seed),
    "fibre_collisions": lambda cat, seed: selection.fibre_collisions(cat, 200.0, seed),
    "velocity_errors": lambda cat, seed: selection.velocity_errors(cat, 50.0, seed),
    "miscentre": lambda cat, seed: selection.miscentre(cat, 0.05, 150.0, seed),
}
ALL = STOCHASTIC | {
    "cylinder": lambda cat, _: selection.cylinder(cat),
    "magnitude_limit": lambda cat, _: selection.magnitude_limit(cat, -19.5),
    "richness_limits": lambda cat, _: selection.richness_limits(cat, 10, 80),
    "recentre_velocity": lambda cat, _: selection.recentre_velocity(cat),
    "recentre_position": lambda cat, _: selection.recentre_position(cat),
    "remove_interlopers": lambda cat, _: selection.remove_interlopers(cat),
}


@pytest.mark.parametrize("name", STOCHASTIC)
def test_the_seed_decides_everything(name):
    catalog = clusters(n=20)
    one, again, other = (STOCHASTIC[name](catalog, seed) for seed in (1, 1, 2))
    assert one.equals(again)
    assert not one.equals(other)
    first, second = (STOCHASTIC[name](catalog, np.random.default_rng(1)) for _ in range(2))
    assert first.equals(second)


def test_one_seed_gives_independent_draws_to_different_functions():
    catalog = clusters(each=200)
    half = selection.completeness(catalog, 0.5, 0).galaxies("gal_galaxy_id")
    flat = selection.central_losses(catalog, 0.5, 1e9, 0).galaxies("gal_galaxy_id")
    both = np.intersect1d(half, flat).size
    assert both / catalog.n_galaxies_total == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("name", ALL)
def test_every_selection_records_itself_and_leaves_its_input_alone(name):
    catalog = clusters(n=20, recorded={"before": 1})
    copy = catalog.galaxies("v_los").copy()
    result = ALL[name](catalog, 0)
    assert result.metadata.selection["before"] == 1
    assert len(result.metadata.selection) > 1
    assert catalog.metadata.selection == {"before": 1}
    np.testing.assert_array_equal(catalog.galaxies("v_los"), copy)


@pytest.mark.parametrize("name", ALL)
def test_dtype_ids_and_empty_clusters_survive(name):
    catalog = clusters(n=40, each=30, varied=True, dtype=np.float32)
    catalog = ClusterCatalog.concatenate(
        [catalog, catalog[:1].filter_galaxies(np.zeros(catalog.n_galaxies[0], bool))]
    )
    result = ALL[name](catalog, 0)
    for column in ("x", "y", "v_los"):
        assert result.galaxies(column).dtype == np.float32
        assert np.all(np.isfinite(result.galaxies(column)))
    assert result.galaxies("gal_galaxy_id").dtype == np.int64
    empty = catalog[:0]
    assert len(ALL[name](empty, 0)) == 0


@given(st.floats(0.2, 2.5), st.floats(100.0, 3000.0))
@settings(deadline=None, max_examples=15)
def test_cylinder_keeps_what_is_inside_and_nothing_else(r_max, v_max):
    catalog = clusters(n=5)
    inside = (np.hypot(catalog.galaxies("x"), catalog.galaxies("y")) < r_max) & (
        abs(catalog.galaxies("v_los")) < v_max
    )
    result = selection.cylinder(catalog, r_max, v_max)
    np.testing.assert_array_equal(result.galaxies("gal_galaxy_id"), catalog.galaxies("gal_galaxy_id")[inside])
    assert result.metadata.selection == {"r_max": r_max, "v_max": v_max}
    wider = selection.cylinder(result, r_max + 1.0, v_max + 1.0)
    assert wider.metadata.selection == result.metadata.selection


def test_completeness_keeps_the_fraction_and_nests():
    catalog = clusters()
    kept = {f: set(selection.completeness(catalog, f, 3).galaxies("gal_galaxy_id")) for f in (0.05, 0.5)}
    assert kept[0.05] < kept[0.5]
    total = catalog.n_galaxies_total
    for fraction, ids in kept.items():
        assert abs(len(ids) / total - fraction) < 4 * np.sqrt(fraction * (1 - fraction) / total)
    assert selection.completeness(catalog, 1.0, 0).n_galaxies_total == total
    twice = selection.completeness(selection.completeness(catalog, 0.5, 0), 0.5, 1)
    assert twice.metadata.selection["completeness"] == 0.25


def test_completeness_may_vary_between_clusters():
    catalog = clusters(n=4, each=4000)
    fraction = np.array([0.05, 0.2, 0.5, 1.0])
    result = selection.completeness(catalog, fraction, 0)
    np.testing.assert_allclose(result.n_galaxies / 4000, fraction, atol=0.03)
    np.testing.assert_array_equal(result.column("completeness"), fraction)
    assert result.metadata.selection["completeness"] == [0.05, 1.0]
    halved = selection.completeness(result, 0.5, 0)
    np.testing.assert_array_equal(halved.column("completeness"), fraction / 2)


def test_central_losses_grow_toward_the_centre_as_stated():
    catalog = clusters(each=400)
    result = selection.central_losses(catalog, 0.8, 0.3, 0)
    edges = np.linspace(0, 2, 9)
    before, after = (np.histogram(cat.r_proj, edges)[0] for cat in (catalog, result))
    middle = 0.5 * (edges[1:] + edges[:-1])
    np.testing.assert_allclose(1 - after / before, 0.8 / (1 + (middle / 0.3) ** 2), atol=0.02)


def test_fibres_go_to_galaxies_in_a_random_order_and_to_none_that_is_too_close():
    catalog = clusters(n=30, each=40)
    angle = np.where(np.arange(30) % 3, np.linspace(20.0, 400.0, 30), 0.0)
    result = selection.fibre_collisions(catalog, angle, 3)
    radius = np.deg2rad(angle / 3600) * transverse_mpc_h_per_radian(catalog.column("redshift"))
    order = np.random.default_rng([3, zlib.crc32(b"fibre_collisions")]).random(catalog.n_galaxies_total)
    expected = []
    for row, (start, stop) in enumerate(pairwise(catalog.offsets)):
        x, y = (np.asarray(catalog.galaxies(name), dtype=float)[start:stop] for name in "xy")
        kept = []
        for k in np.argsort(order[start:stop]):
            if all(np.hypot(x[k] - x[j], y[k] - y[j]) > radius[row] for j in kept):
                kept.append(k)
        expected += sorted(start + k for k in kept)
    np.testing.assert_array_equal(result.galaxies("gal_galaxy_id"), expected)
    assert len(expected) < catalog.n_galaxies_total
    assert result.metadata.selection["fibre_collisions"] == [0.0, 400.0]


def test_velocity_errors_add_in_quadrature_and_are_stored():
    catalog = clusters(each=400)
    once = selection.velocity_errors(catalog, 300.0, 0)
    noise = once.galaxies("v_los") - catalog.galaxies("v_los")
    assert np.std(noise) == pytest.approx(300.0, rel=0.02)
    twice = selection.velocity_errors(once, np.full(N, 400.0), 1)
    np.testing.assert_allclose(twice.column("sigma_v_err"), 500.0)
    assert twice.metadata.selection["velocity_error"] == 500.0
    each = np.linspace(1.0, 90.0, catalog.n_galaxies_total)
    by_galaxy = selection.velocity_errors(catalog, each, 0)
    np.testing.assert_array_equal(by_galaxy.galaxies("gal_v_err"), each)
    assert not by_galaxy.has("sigma_v_err")


def test_miscentring_moves_whole_clusters_by_the_stated_amounts():
    catalog = clusters(n=3000, each=4)
    moved = selection.miscentre(catalog, 0.1, 200.0, 0)
    for name, width in (("offset_x", 0.1), ("offset_y", 0.1), ("offset_v", 200.0)):
        assert np.std(moved.column(name)) == pytest.approx(width, rel=0.05)
    shift = np.repeat(moved.column("offset_x"), moved.n_galaxies)
    np.testing.assert_allclose(moved.galaxies("x"), catalog.galaxies("x") - shift)
    v = np.repeat(moved.column("offset_v"), moved.n_galaxies)
    expected = (catalog.galaxies("v_los") - v) / (1 + v / SPEED_OF_LIGHT)
    np.testing.assert_allclose(moved.galaxies("v_los"), expected)


def test_moving_the_centre_is_what_another_cluster_redshift_does():
    z_cl, z_wrong = 0.1, 0.1008
    z = np.linspace(0.095, 0.105, 11)
    rest = SPEED_OF_LIGHT * (z - z_cl) / (1 + z_cl)
    offset = SPEED_OF_LIGHT * (z_wrong - z_cl) / (1 + z_cl)
    expected = SPEED_OF_LIGHT * (z - z_wrong) / (1 + z_wrong)
    np.testing.assert_allclose((rest - offset) / (1 + offset / SPEED_OF_LIGHT), expected, atol=1e-8)


def test_miscentring_cuts_again_and_says_whether_that_is_exact():
    wide = clusters(recorded={"r_max": 2.0, "v_max": 4000.0})
    exact = selection.miscentre(wide, 0.05, 200.0, 0, r_max=1.6, v_max=2500.0)
    assert exact.metadata.selection["miscentre_exact"] is True
    assert exact.metadata.selection["r_max"] == 1.6
    assert exact.r_proj.max() < 1.6
    inexact = selection.miscentre(selection.cylinder(wide), 0.05, 200.0, 0)
    assert inexact.metadata.selection["miscentre_exact"] is False
    assert inexact.r_proj.max() < 1.6
    unmoved = selection.miscentre(wide, 0.0, 0.0, 0)
    np.testing.assert_array_equal(unmoved.galaxies("x"), wide.galaxies("x"))


def biweight_reference(v, tolerance=1e-6):
    centre = np.median(v)
    scale = 6 * np.median(np.abs(v - centre))
    if scale == 0:
        return centre
    for _ in range(200):
        u = (v - centre) / scale
        weight = np.where(np.abs(u) < 1, (1 - u**2) ** 2, 0)
        step = np.sum(weight * (v - centre)) / np.sum(weight)
        centre += step
        if abs(step) < tolerance:
            break
    return centre


def test_velocity_centre_agrees_with_a_loop_over_clusters(monkeypatch):
    monkeypatch.setattr(recentring, "_TOLERANCE_V", 1e-6)
    catalog = clusters(n=30, varied=True)
    result = selection.recentre_velocity(catalog, 0.8)
    for row in range(30):
        one = catalog[row]
        inner = one.r_proj < 0.8
        v = one.galaxies("v_los")[inner] if inner.sum() >= 5 else one.galaxies("v_los")
        expected = 0.0 if v.size == 0 else biweight_reference(v)
        assert result.column("offset_v")[row] == pytest.approx(expected, abs=1e-4)


def test_recentring_undoes_a_wrong_redshift():
    catalog = clusters(n=400, each=60, sigma=800.0, spread=1.6)
    wrong = selection.miscentre(catalog, 0.0, 300.0, 0)
    right = selection.recentre_velocity(wrong, v_max=2500.0)
    assert np.std(right.column("offset_v")) < 1.3 * 800 / np.sqrt(30)
    assert right.metadata.selection["recentred"]["velocity"] == "biweight"


def test_position_is_found_again_where_galaxies_concentrate():
    rng = np.random.default_rng(0)
    n, each = 100, 120
    x, y = rng.normal(0, 0.3, (2, n * each))
    v = rng.normal(0, 300, n * each)
    rows = {"cluster_id": np.arange(n), "redshift": np.full(n, 0.1)}
    catalog = ClusterCatalog.from_arrays(rows, {"x": x, "y": y, "v_los": v}, np.full(n, each))
    wrong = selection.miscentre(catalog, 0.15, 0.0, 1)
    right = selection.recentre_position(wrong, 0.6)
    before, after = (np.std(cat.column("offset_x")) for cat in (wrong, right))
    assert before > 0.12
    assert after < 0.05
    np.testing.assert_allclose(
        right.galaxies("x"), catalog.galaxies("x") - np.repeat(right.column("offset_x"), each), atol=1e-12
    )


def test_richness_limits_keep_whole_clusters():
    catalog = clusters(n=60, varied=True)
    result = selection.richness_limits(catalog, 20, 60)
    chosen = (catalog.n_galaxies >= 20) & (catalog.n_galaxies <= 60)
    np.testing.assert_array_equal(result.column("cluster_id"), np.flatnonzero(chosen))
    tighter = selection.richness_limits(result, 10, 80).metadata.selection
    assert (tighter["min_galaxies"], tighter["max_galaxies"]) == (20, 60)


def test_magnitude_limits_absolute_and_apparent():
    catalog = clusters(n=30)
    bright = selection.magnitude_limit(catalog, -20.0)
    np.testing.assert_array_equal(
        bright.galaxies("gal_galaxy_id"), np.flatnonzero(catalog.galaxies("gal_abs_mag") < -20)
    )
    z = catalog.column("redshift")
    apparent = catalog.galaxies("gal_abs_mag") + np.repeat(
        25 + 5 * np.log10(comoving_distance(z) * (1 + z)), catalog.n_galaxies
    )
    survey = selection.magnitude_limit(catalog, 17.77, apparent=True)
    np.testing.assert_array_equal(survey.galaxies("gal_galaxy_id"), np.flatnonzero(apparent < 17.77))
    assert len(survey.metadata.selection["magnitude_limit"]) == 2


def test_isotropic_nfw_dispersion_agrees_with_a_double_integral():
    # The projected Jeans equation, undone: sigma_los^2 Sigma = 2 int rho sigma_r^2 r dr / sqrt(r^2 - R^2).
    c, projected = 4.0, 0.5 * 4.0
    scaled, profile, aperture = interlopers._profile()

    def density(r):
        return 1 / (r * (1 + r) ** 2)

    def enclosed(r):
        return np.log1p(r) - r / (1 + r)

    def pressure(s, r):
        # rho sigma_r^2 at r is the integral of rho G M / s^2 outside it.
        return density(s) * enclosed(s) / s**2

    top = dblquad(
        lambda s, t: pressure(s, t) * 2 * projected * np.cosh(t), 0, 7, lambda t: projected * np.cosh(t), 4000
    )[0]
    t = np.linspace(0, 20, 20001)
    surface = np.trapezoid(2 * density(projected * np.cosh(t)) * projected * np.cosh(t), t)
    expected = np.sqrt(c / enclosed(c) * top / surface)
    assert np.interp(0.5, scaled, profile) == pytest.approx(expected, rel=0.01)
    assert 0.55 < aperture < 0.7


def test_cleaning_removes_the_background_and_keeps_the_members():
    rng = np.random.default_rng(0)
    n, members, others = 200, 80, 60
    sigma, z = 700.0, 0.1
    r200 = 1.1 * sigma / 0.62 * (1 + z) / (1000 * float(efunc(z)))
    radius = np.concatenate([r200 * rng.random((n, members)), 2.0 * np.sqrt(rng.random((n, others)))], axis=1)
    v = np.concatenate([rng.normal(0, sigma, (n, members)), rng.uniform(-2500, 2500, (n, others))], axis=1)
    true = np.broadcast_to(np.arange(members + others) < members, radius.shape)
    catalog = ClusterCatalog.from_arrays(
        {"cluster_id": np.arange(n), "redshift": np.full(n, z)},
        {"x": radius.ravel(), "y": np.zeros(radius.size), "v_los": v.ravel(), "gal_is_member": true.ravel()},
        np.full(n, members + others),
    )
    clean = selection.remove_interlopers(catalog)
    kept = clean.galaxies("gal_is_member").sum() / (n * members)
    lost = 1 - (~clean.galaxies("gal_is_member")).sum() / (n * others)
    # A quarter of a flat background lies outside the true envelope; inside, nothing tells it from members.
    assert kept > 0.95
    assert lost > 0.2
    assert clean.metadata.selection["cleaned"] == 2.7
    assert (
        selection.remove_interlopers(catalog[:3].filter_galaxies(np.arange(420) % 140 < 4)).n_galaxies.min()
        == 4
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: selection.cylinder(c, -1.0), "r_max is -1.0; expected a positive number"),
        (
            lambda c: selection.completeness(c, 0.0, 0),
            r"completeness is 0.0; expected a fraction in \(0, 1\]",
        ),
        (lambda c: selection.completeness(c, 5.0, 0), "completeness is 5.0"),
        (
            lambda c: selection.completeness(c, [0.5, 0.5], 0),
            r"shape \(2,\); expected one number, or one for each",
        ),
        (lambda c: selection.completeness(c, 0.5, -1), "seed is -1"),
        (lambda c: selection.completeness(c, np.nan, 0), "completeness must be finite"),
        (lambda c: selection.velocity_errors(c, -1.0, 0), "finite and not negative"),
        (
            lambda c: selection.velocity_errors(c, np.ones(3), 0),
            r"sigma has 3 values; expected 1, 5 \(clusters\)",
        ),
        (lambda c: selection.miscentre(c, -1.0, 0.0, 0), "must not be negative"),
        (lambda c: selection.fibre_collisions(c, -1.0, 0), "expected arcsec"),
        (lambda c: selection.central_losses(c, 2.0, 0.1, 0), "expected it in"),
        (lambda c: selection.central_losses(c, 0.5, 0.0, 0), "scale is 0.0"),
        (lambda c: selection.aperture(c, 0.0), "aperture is 0; expected a radius above 0"),
        (lambda c: selection.richness_limits(c, 10, 5), "expected 0 <= minimum <= maximum"),
        (
            lambda c: selection.magnitude_limit(c.without("gal_abs_mag"), -20),
            "needs the galaxy column gal_abs_mag",
        ),
        (lambda c: selection.magnitude_limit(c.with_columns(redshift=0.0), 17.0, apparent=True), "above 0"),
        (
            lambda c: selection.magnitude_limit(c.with_galaxies(gal_abs_mag=np.nan), 17.0),
            "needs finite gal_abs_mag",
        ),
        (lambda c: selection.recentre_position(c, 0.0), "r_inner is 0.0"),
        (lambda c: selection.remove_interlopers(c, 0.0), "n_sigma is 0.0"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(call, message):
    with pytest.raises(CatalogError, match=message):
        call(clusters(n=5))
