"""Training for the real sky: parameters drawn for each halo, selection drawn for each cluster, what is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from bayesflowmass.catalog import CatalogError
from bayesflowmass.command import ConfigError, build_settings
from bayesflowmass.encoders import ContextEncoder, KDEEncoder
from bayesflowmass.encoders.columns import OptionalColumns
from bayesflowmass.mocks import PRIORS, MockParameters, Randomisation, catalog_builder, simulate_catalog
from bayesflowmass.simulate import SimulateSettings
from bayesflowmass.simulate import main as simulate_main
from bayesflowmass.training.augmentation import Augmentation

CLUSTERS = {"log10_mass_range": (14.2, 14.8), "seed": 7}


@pytest.fixture(scope="module", autouse=True)
def _small_batches():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog_builder, "_BATCH_ROWS", 128)
        yield


@pytest.fixture(scope="module")
def randomised():
    priors = {name: limits[:2] for name, limits in PRIORS.items()}
    return simulate_catalog(
        250, **CLUSTERS, mode="mixed", magnitudes=True, randomise=priors, r_max=2.0, v_max=3300.0
    )


# Parameters of the mocks


def test_each_halo_draws_its_parameters_from_the_prior_and_keeps_them_as_columns(randomised):
    for name, (low, high, _) in PRIORS.items():
        column = f"mean_{name}" if name.startswith("axis_ratio") else name
        values = randomised.column(column)
        assert values.min() >= low
        assert values.max() <= high
        # Uniform: of 250 draws the extremes are within 5 % of the limits but for a chance of 2 x 0.95^250 = 5e-6.
        assert values.min() < low + 0.05 * (high - low)
        assert values.max() > high - 0.05 * (high - low)
        assert len(np.unique(values)) == len(np.unique(randomised.column("halo_id")))
    assert randomised.metadata.extra["randomise"]["velocity_bias"] == [0.95, 1.10]


def test_lines_of_sight_of_one_halo_share_its_parameters():
    catalog = simulate_catalog(60, **CLUSTERS, n_projections=2, randomise={"velocity_bias": (0.9, 1.2)})
    halo, bias = catalog.column("halo_id"), catalog.column("velocity_bias")
    for one in np.unique(halo):
        assert len(np.unique(bias[halo == one])) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, 0.5 * (low + high) + 0.3 * (high - low)) for name, (low, high, _) in PRIORS.items()],
)
def test_a_prior_of_no_width_is_the_parameter_itself(name, value):
    drawn = simulate_catalog(40, **CLUSTERS, mode="survey", randomise={name: (value, value)})
    fixed = simulate_catalog(
        40, **CLUSTERS, mode="survey", parameters=MockParameters().replace(**{name: value})
    )
    assert_array_equal(drawn.column("log10_mass"), fixed.column("log10_mass"))
    np.testing.assert_allclose(drawn.galaxies("v_los"), fixed.galaxies("v_los"), rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(drawn.galaxies("x"), fixed.galaxies("x"), rtol=1e-5, atol=1e-5)


def test_without_priors_nothing_changes():
    plain = simulate_catalog(40, **CLUSTERS)
    assert simulate_catalog(40, **CLUSTERS, randomise={}).equals(plain)
    assert "randomise" not in plain.metadata.extra


def test_the_drawn_velocity_bias_is_that_of_the_velocities():
    catalog = simulate_catalog(1500, **CLUSTERS, kind="pure", randomise={"velocity_bias": (0.9, 1.2)})
    bias = catalog.column("velocity_bias")
    scaled = np.log(catalog.column("sigma_v_true") / catalog.column("v200c"))
    slope, _ = np.polyfit(np.log(bias), scaled, 1)
    # The scatter of ln sigma is 0.07: the slope over 1500 haloes has an error of 0.022; five of them.
    assert slope == pytest.approx(1.0, abs=0.11)


def test_the_same_order_of_drawing_whatever_the_order_of_names():
    one = Randomisation({"infall_amplitude": (0.8, 1.2), "velocity_bias": (0.9, 1.1)})
    other = Randomisation({"velocity_bias": (0.9, 1.1), "infall_amplitude": (0.8, 1.2)})
    assert one == other
    assert hash(one) == hash(other)
    draws = [r.draw(5, np.random.default_rng(1)) for r in (one, other)]
    for name in draws[0]:
        assert_array_equal(draws[0][name], draws[1][name])


@pytest.mark.parametrize(
    ("priors", "message"),
    [
        ({"velocity_bais": (0.9, 1.1)}, "did you mean 'velocity_bias'"),
        ({"escape_fraction": (0.9, 1.0)}, "cannot be drawn for each halo"),
        ({"velocity_bias": (1.1, 0.9)}, r"velocity_bias is \(1.1, 0.9\); expected two numbers"),
        ({"velocity_bias": (0.5, 1.1)}, "from 0.8 to 1.3"),
        ({"velocity_bias": (np.nan, 1.1)}, "expected two numbers"),
        ({"velocity_bias": 1.0}, "expected two numbers"),
    ],
)
def test_impossible_priors_are_refused(priors, message):
    with pytest.raises(ValueError, match=message):
        Randomisation(priors)


def test_settings_name_the_key_and_the_nearest_parameter(tmp_path, capsys):
    with pytest.raises(ConfigError, match="did you mean 'velocity_bias'"):
        build_settings(SimulateSettings, {"randomise": {"velocity_bia": [0.9, 1.1]}})
    out = tmp_path / "cat.parquet"
    flags = ["--out", str(out), "--n-clusters", "20", "--log10-mass-range", "14.5", "14.6", "--no-progress"]
    assert simulate_main([*flags, "--randomise", "velocity_bias=[0.95, 1.1]"]) == 0
    assert simulate_main([*flags, "--randomise", "velocity_bias=[1.1, 0.95]"]) == 2
    assert "the smaller first" in capsys.readouterr().err


# Observing


def observed(catalog, **options):
    return Augmentation(**options).apply(catalog, np.random.default_rng(5), r_max=1.6, v_max=2500.0)


def test_a_flat_logarithm_of_the_completeness(randomised):
    kept = observed(randomised, completeness=(0.05, 1.0), completeness_log=True)
    share = np.log(kept.column("completeness"))
    assert share.min() >= np.log(0.05)
    assert share.max() <= 0.0
    one = observed(randomised, completeness=(0.3, 0.3), completeness_log=True)
    np.testing.assert_allclose(one.column("completeness"), 0.3)


def test_each_cluster_has_its_own_error_of_the_centre(randomised):
    moved = observed(randomised, miscentre_v=(0.0, 300.0), miscentre_r=(0.0, 0.1))
    offset = moved.column("offset_v")
    # A mixture over uniform sigma has <v^2> = 300^2 / 3 and a kurtosis of 5.4, not 3.
    assert np.sqrt(np.mean(offset**2)) == pytest.approx(300.0 / np.sqrt(3.0), rel=0.25)
    assert Augmentation(miscentre_v=(0.0, 300.0)).margins()[1] == pytest.approx(4.5 * 300.0)


def test_a_share_of_the_clusters_loses_its_interlopers(randomised):
    kept = observed(randomised)
    cleaned = observed(randomised, cleaning=0.4)
    chosen = cleaned.column("cleaned")
    # Binomial(250, 0.4): five standard deviations are 0.155.
    assert chosen.mean() == pytest.approx(0.4, abs=0.155)
    assert cleaned.metadata.selection["cleaned_share"] == 0.4
    assert "cleaned" not in cleaned.metadata.selection
    before = {int(name): n for name, n in zip(kept.column("cluster_id"), kept.n_galaxies, strict=True)}
    ids = [int(name) for name in cleaned.column("cluster_id")]
    assert ids == sorted(ids)
    lost = np.array([before[name] - n for name, n in zip(ids, cleaned.n_galaxies, strict=True)])
    assert (lost[~chosen] == 0).all()
    assert (lost[chosen] > 0).mean() > 0.6
    # Of what is removed most are interlopers, or cleaning would be worse than useless.
    removed = kept.n_galaxies_total - cleaned.n_galaxies_total
    lost_members = np.sum(kept.galaxies("gal_is_member")) - np.sum(cleaned.galaxies("gal_is_member"))
    assert lost_members < 0.3 * removed


def test_what_is_known_is_told_to_a_share_of_the_clusters(randomised):
    known = {"mode": 0.5, "sigma_v_err": 0.5, "velocity_bias": 0.5}
    catalog = observed(randomised, velocity_error=(0.0, 150.0), known=known)
    mode, error = catalog.column("mode"), catalog.column("sigma_v_err")
    told, truth = catalog.column("known_velocity_bias"), catalog.column("velocity_bias")
    assert set(mode) == {"paper", "survey", "mixed"}
    for share in ((mode != "mixed").mean(), np.isfinite(error).mean(), np.isfinite(told).mean()):
        assert share == pytest.approx(0.5, abs=0.16)
    assert_array_equal(told[np.isfinite(told)], truth[np.isfinite(told)])
    with pytest.raises(CatalogError, match="'richness_scatter', which the training clusters do not have"):
        observed(simulate_catalog(20, **CLUSTERS), known={"richness_scatter": 0.5})


def test_new_fields_are_written_only_where_they_say_something():
    assert set(Augmentation().to_dict()) & {"completeness_log", "cleaning", "known"} == set()
    full = Augmentation(completeness_log=True, cleaning=0.2, known={"mode": 0.5}, miscentre_v=(0.0, 300.0))
    assert Augmentation(**full.to_dict()) == full


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cleaning": 1.5}, "cleaning is 1.5"),
        ({"known": {"mode": -0.1}}, "mode is -0.1"),
        ({"miscentre_v": (300.0, 100.0)}, "miscentre_v is"),
    ],
)
def test_impossible_observations_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**options)


# What the network is told


def encoder(optional=("mode", "sigma_v_err")) -> ContextEncoder:
    return ContextEncoder(KDEEncoder((8, 8)), extras=("redshift",), optional=optional)


def test_unknown_columns_have_an_encoding_of_their_own(randomised):
    catalog = observed(randomised, velocity_error=(0.0, 150.0), known={"mode": 0.5, "sigma_v_err": 0.5})
    model = encoder().fit_extras(catalog)
    context = model.encode(catalog)
    assert context.shape == (len(catalog), model.context_dim)
    assert model.context_dim == 64 + 1 + 4
    values, known = context[:, -4::2].numpy(), context[:, -3::2].numpy()
    assert_array_equal(known[:, 0], catalog.column("mode") != "mixed")
    assert_array_equal(known[:, 1], np.isfinite(catalog.column("sigma_v_err")))
    assert (values[known == 0.0] == 0.0).all()
    for k in range(2):
        assert values[known[:, k] == 1.0, k].mean() == pytest.approx(0.0, abs=1e-5)
        assert values[known[:, k] == 1.0, k].std() == pytest.approx(1.0, abs=1e-4)
    # Real data without the columns are clusters of which nothing is known.
    bare = catalog.without("mode", "sigma_v_err").with_metadata(mode=None)
    assert (model.encode(bare)[:, -4:] == 0.0).all()
    # The metadata speak for all clusters, and errors of galaxies for their cluster.
    survey = bare.with_metadata(mode="survey").with_galaxies(
        gal_v_err=np.full(catalog.n_galaxies_total, 60.0)
    )
    sure = model.encode(survey.with_columns(sigma_v_err=np.full(len(catalog), 60.0)))
    torch.testing.assert_close(model.encode(survey), sure)
    again = ContextEncoder.from_description(model.describe())
    torch.testing.assert_close(again.encode(catalog), context)
    flipped = model.flip_velocity(context)
    torch.testing.assert_close(flipped[:, -5:], context[:, -5:])


@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(st.floats(-1e3, 1e3) | st.just(float("nan")), min_size=3, max_size=3),
    told=st.floats(-1e3, 1e3),
)
def test_replacing_a_value_is_encoding_it(values, told):
    columns = OptionalColumns(("a", "b", "c"), [(1.0, 2.0), (-3.0, 0.5), (0.0, 1.0)])
    raw = torch.tensor([values], dtype=torch.float64)
    context = torch.cat([torch.zeros(1, 4), columns.encode(raw)], 1)
    changed = raw.clone()
    changed[0, 1] = told
    expected = torch.cat([torch.zeros(1, 4), columns.encode(changed)], 1)
    torch.testing.assert_close(columns.replace(context, "b", told), expected)
    assert bool(columns.known(context, "b")[0]) == np.isfinite(values[1])
    unknown = columns.replace(context, "b", float("nan"))
    assert not bool(columns.known(unknown, "b")[0])


def test_a_column_that_no_cluster_has_cannot_be_learnt(randomised):
    with pytest.raises(CatalogError, match="'sigma_v_err' is not known of any of"):
        encoder().fit_extras(randomised)
    with pytest.raises(ValueError, match="a name twice"):
        OptionalColumns(("a", "a"))
