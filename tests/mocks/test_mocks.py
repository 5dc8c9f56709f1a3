"""What a simulated catalogue promises: counts, columns, cuts, seeds, projections, messages."""

import numpy as np
import pytest

from bayesflowmass.mocks import Component, MockParameters, simulate_catalog

TRUTHS = [
    "concentration",
    "axis_ratio_q",
    "axis_ratio_s",
    "los_angle_cos",
    "substructure_fraction",
    "richness_expected",
    "richness_true",
    "sigma_v_true",
    "n_members",
    "interloper_fraction",
    "r_vir",
    "v200c",
    "halo_id",
    "redshift",
    "log10_mass",
    "mode",
]


@pytest.fixture(scope="module")
def survey():
    return simulate_catalog(600, mode="survey", redshift=(0.05, 0.3), seed=5)


def test_contaminated_clusters_lie_in_the_cylinder_with_their_truths(survey):
    assert len(survey) == 600
    survey.validate(min_galaxies=10)
    assert survey.r_proj.max() < 1.6
    assert np.abs(survey.galaxies("v_los")).max() <= 2500.0
    assert set(TRUTHS) <= set(survey.column_names)
    assert survey.galaxies("x").dtype == np.float32
    row = np.repeat(np.arange(600), survey.n_galaxies)
    members = np.bincount(row, survey.galaxies("gal_is_member"))
    np.testing.assert_array_equal(members, survey.column("n_members"))
    np.testing.assert_allclose(survey.column("interloper_fraction"), 1.0 - members / survey.n_galaxies)
    assert (survey.column("redshift").min() > 0.05) & (survey.column("redshift").max() < 0.3)


def test_survey_mode_has_centrals_and_paper_mode_has_none(survey):
    assert set(np.unique(survey.galaxies("gal_component"))) == {int(c) for c in Component}
    paper = simulate_catalog(300, mode="paper", seed=5)
    assert set(np.unique(paper.galaxies("gal_component"))) == {0, 1, 2, 3}


def test_mixed_mode_says_which_cluster_is_which():
    mixed = simulate_catalog(400, mode="mixed", seed=6)
    row = np.repeat(np.arange(400), mixed.n_galaxies)
    centrals = np.bincount(row, mixed.galaxies("gal_component") >= Component.NEIGHBOUR_CENTRAL)
    np.testing.assert_array_equal(centrals > 0, mixed.column("mode") == "survey")
    assert 0.4 < np.mean(mixed.column("mode") == "survey") < 0.6


def test_pure_clusters_keep_every_member_and_nothing_else():
    pure = simulate_catalog(300, kind="pure", seed=7)
    assert pure.galaxies("gal_is_member").all()
    np.testing.assert_array_equal(pure.n_galaxies, pure.column("richness_true"))
    assert np.all(pure.r_proj < np.repeat(pure.column("r_vir"), pure.n_galaxies) * (1 + 1e-6))
    assert pure.metadata.kind == "pure"
    assert "r_max" not in pure.metadata.selection


def test_same_seed_same_catalogue_and_larger_ones_begin_with_smaller_ones():
    small, again, large = (simulate_catalog(n, seed=8) for n in (40, 40, 1100))
    other = simulate_catalog(40, seed=9)
    for name in ("x", "y", "v_los", "gal_component"):
        np.testing.assert_array_equal(small.galaxies(name), again.galaxies(name))
        np.testing.assert_array_equal(small.galaxies(name), large[:40].galaxies(name))
    assert not np.array_equal(small.column("log10_mass"), other.column("log10_mass"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_clusters": 0}, "n_clusters is 0"),
        ({"masses": "uniform"}, "expected one of flat, hmf"),
        ({"kind": "dirty"}, "expected one of pure, contaminated"),
        ({"mode": "real"}, "expected one of paper, survey, mixed"),
        ({"log10_mass_range": (1e14, 1e15)}, "log10 M200c"),
        ({"redshift": 1.9}, "within 0.01-1.5"),
        ({"redshift": (0.3, 0.1)}, "increasing"),
        ({"r_max": 1600.0}, "comoving Mpc/h"),
        ({"v_max": -1.0}, "km/s"),
        ({"log10_mass_range": (12.5, 12.6), "kind": "pure", "min_galaxies": 40}, "has 40 galaxies"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        simulate_catalog(**({"n_clusters": 5} | arguments))


def test_parameters_are_validated_by_name_and_range():
    with pytest.raises(ValueError, match="did you mean 'velocity_bias'"):
        MockParameters().replace(velocity_bais=1.0)
    with pytest.raises(ValueError, match="'velocity_bias' is 5"):
        MockParameters(velocity_bias=5)
    with pytest.raises(ValueError, match="expected a number"):
        MockParameters(richness_slope="1")
    changed = MockParameters(velocity_bias=1.05)
    assert MockParameters.from_dict(changed.to_dict()) == changed
