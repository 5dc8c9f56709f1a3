"""Numbers behind figures of the paper, truths and tables of evaluations, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table
from small_model import toy_catalog, toy_estimator, with_uncertain_weights

from bayesflowmass.cosmology import mass_function
from bayesflowmass.evaluation.cards import phase_space_image
from bayesflowmass.evaluation.masses_table import FEWEST, novelty_header, prior_column
from bayesflowmass.evaluation.paper import expected_counts, literature_masses, predict_quantiles
from bayesflowmass.evaluation.predictions import prior_range_of
from bayesflowmass.evaluation.table import format_cells, format_markdown, format_summary, format_text
from bayesflowmass.evaluation.test_sets import drawn_like
from bayesflowmass.evaluation.truth import clusters_of_three_masses, halo_of, member_counts


@pytest.fixture(scope="module")
def estimator():
    return toy_estimator()


def test_quantiles_and_parts_of_the_width_are_those_of_the_posterior(estimator):
    catalog, uncertain = toy_catalog(8), with_uncertain_weights(estimator)
    for model in (estimator, uncertain):
        found, posterior = predict_quantiles(model, catalog), model.posterior(catalog)
        np.testing.assert_array_equal(found.log10_true, catalog.column("log10_mass"))
        expected = posterior.quantile([0.025, 0.16, 0.5, 0.84, 0.975]).T
        np.testing.assert_allclose(found.quantiles, expected, atol=1e-6)
        for name in ("sigma_aleatoric", "sigma_epistemic"):
            values = getattr(posterior, name)
            assert (getattr(found, name) is None) == (values is None)
            if values is not None:
                np.testing.assert_allclose(getattr(found, name), values, atol=1e-6)


def test_the_mass_function_is_scaled_by_the_clusters_where_none_is_lost():
    truth = np.array([13.9, 14.1, 14.2, 14.3, 14.9])
    catalog = toy_catalog(5, redshift=0.2).with_columns(log10_mass=truth)
    catalog = catalog.with_metadata(masses={"distribution": "hmf"})
    grid, counts = expected_counts(catalog)
    assert (grid[0], grid[-1]) == (pytest.approx(13.6), pytest.approx(15.4))
    fine = np.linspace(14.2, 16.0, 4001)
    # Two lie above 14.2, and one on it.
    volume = 2.0 / np.trapezoid(mass_function(fine, 0.2), fine)
    np.testing.assert_allclose(counts, mass_function(grid, 0.2) * volume, rtol=1e-4)
    assert expected_counts(catalog, 14.9) is None
    low, _ = expected_counts(catalog.with_columns(log10_mass=truth - 1.0), 13.0)
    assert (low[0], low[-1]) == (pytest.approx(12.6), pytest.approx(14.4))
    assert expected_counts(catalog, 14.85)[0][-1] == pytest.approx(15.4)
    assert expected_counts(catalog.with_columns(log10_mass=truth - 0.05), 14.6)[0][-1] == pytest.approx(15.35)


def test_clusters_without_a_mass_are_in_no_comparison():
    masses = Table(
        {"cluster_id": ["a", "b"], "log10_mass": [14.0, 15.0], "q16": [13.9, 14.8], "q84": [14.2, 15.1]},
        masked=True,
    )
    masses["log10_mass"].mask[0] = True
    reference = Table(
        {"cluster_id": ["a", "b"], "log10_mass": [14.9, 1], "lower": [0.1, 1], "upper": [0.2, 1]}
    )
    names, ours, theirs = literature_masses(masses, reference)
    assert names == ["b"]
    np.testing.assert_allclose(np.concatenate(ours), [15.0, 0.2, 0.1])
    np.testing.assert_allclose(np.concatenate(theirs), [1.0, 1.0, 1.0])


def test_members_are_counted_from_what_knows_them_best():
    catalog = toy_catalog(4, seed=1)
    known = np.abs(catalog.galaxies("v_los")) < 800.0
    counts, words = member_counts(catalog.with_galaxies(gal_is_member=known))
    assert words == "true members among the galaxies given"
    assert counts.tolist() == [int((np.abs(catalog[k].galaxies("v_los")) < 800.0).sum()) for k in range(4)]
    assert member_counts(catalog.with_metadata(kind="pure"))[0].tolist() == catalog.n_galaxies.tolist()
    assert member_counts(catalog.with_columns(n_members=[1, 2, 3, 4]))[0].tolist() == [1, 2, 3, 4]
    assert member_counts(catalog) == (None, "unknown")
    assert halo_of(catalog).tolist() == [0, 1, 2, 3]
    assert halo_of(catalog.with_columns(halo_id=[7, 7, 8, 8])).tolist() == [7, 7, 8, 8]


def test_three_clusters_stand_at_15_50_and_85_per_cent_of_the_range():
    mass = 13.0 + np.arange(101) / 50.0
    assert clusters_of_three_masses(mass).tolist() == [15, 50, 85]
    assert clusters_of_three_masses(-mass).tolist() == [85, 50, 15]


@pytest.mark.parametrize(
    ("masses", "limits"),
    [
        (None, None),
        ({"distribution": "hmf", "log10_mass_min": 14.0, "log10_mass_max": 15.0}, None),
        ({"distribution": "flat", "log10_mass_min": 14.0}, None),
        ({"distribution": "flat", "log10_mass_min": 14.0, "log10_mass_max": 15.0}, (14.0, 15.0)),
        ({"distribution": "flat", "log10_mass_min": 12.0, "log10_mass_max": 15.0}, ("low", 15.0)),
        ({"distribution": "flat", "log10_mass_min": 14.0, "log10_mass_max": 17.0}, (14.0, "high")),
        ({"distribution": "flat", "log10_mass_min": 12.0, "log10_mass_max": 17.0}, None),
    ],
)
def test_a_prior_has_the_limits_of_its_population_inside_those_of_training(estimator, masses, limits):
    low, high = estimator.training_info.log10_mass_range
    expected = limits and tuple({"low": low, "high": high}.get(end, end) for end in limits)
    assert prior_range_of(estimator, toy_catalog(3).with_metadata(masses=masses).metadata, "flat") == expected


def test_mocks_like_a_catalogue_have_its_masses_and_redshifts():
    catalog = toy_catalog(3).with_columns(log10_mass=[14.0, 14.5, 15.0], redshift=[0.1, 0.3, 0.2])
    made = drawn_like(catalog.with_metadata(masses=None))
    assert (made["masses"], made["log10_mass_range"], made["redshift"]) == ("hmf", (14.0, 15.0), (0.1, 0.3))
    made = drawn_like(catalog.with_columns(redshift=[0.1] * 3))
    assert (made["masses"], made["log10_mass_range"], made["redshift"]) == ("flat", (13.2, 15.6), 0.1)


@pytest.mark.parametrize(
    ("prior", "name"),
    [("hmf", "log10_mass_hmf"), ("hmf, sz:14.5", "log10_mass_sz_14_5"), ("flat", "log10_mass_flat")],
)
def test_columns_of_other_priors_have_their_names(prior, name):
    assert prior_column(prior) == name
    assert prior_column(prior, "q16") == name.replace("log10_mass", "q16")


def test_numbers_of_tables_are_rounded_as_they_are_meant():
    cells = format_cells({"mean_residual": 0.0123, "scatter": 0.2, "coverage_68": 0.6789, "slope": None})
    assert cells == ["+0.012", "0.200", "67.9%", "-"]
    numbers = {"scatter_14_15": 0.2, "slope_14_15": 0.9, "scatter_over_slope_14_15": 0.222}
    worse = {name: 2 * value for name, value in numbers.items()}
    metrics = numbers | {
        "baselines": {"msigma_inverse": worse, "msigma_regression": numbers, "richness": {}},
        "population": "flat",
        "kind": "contaminated",
        "mode": "paper",
        "n_clusters": 7,
        "prior": "flat",
        "prior_log10_mass_range": [13.5, 15.6],
        "coverage_statement": "Nominal.",
        "coverage_can_be_nominal": True,
        "calibration": "Calibrated.",
        "equation_8": {"log10_mass_range": (13.5, 15.0), "n_median": 41.6},
        "n_members_definition": "members",
    }
    lines = format_summary(metrics).split("\n")
    assert lines[0].startswith(
        "7 contaminated paper clusters, flat-mass test set, flat prior over 13.5-15.6;"
    )
    assert lines[1] == lines[3] == "-" * len(lines[2])
    assert [line.split("  ")[0] for line in lines[4:6]] == ["this model", "M-sigma, best of 2 (regression)"]
    assert all(len(line) == len(lines[2]) for line in lines[1:7])
    assert lines[4].endswith("0.222")
    assert "galaxy count" not in "".join(lines)
    text = format_text(metrics)
    assert "Calibrated." in text
    assert "N = members, median 42, over log10 M = 13.50-15.00" in text
    assert "Calibrated." not in format_text(metrics | {"coverage_can_be_nominal": False})


def test_a_table_in_markdown_and_as_text_is_what_it_looks_like():
    metrics = {
        "mean_residual": -0.01,
        "mean_residual_se": 0.004,
        "scatter": 0.2,
        "baselines": {"richness": {"scatter": 0.25, "scatter_se": 0.0123}, "mine": {"slope": 1.0}},
        "population": "hmf",
        "kind": "contaminated",
        "mode": "",
        "n_clusters": 12,
        "prior": "hmf",
        "prior_log10_mass_range": [13.5, 15.0],
        "coverage_statement": "Nominal.",
    }
    markdown = format_markdown(metrics).split("\n")
    assert markdown[0] == (
        "12 contaminated clusters, mass-function test set, hmf prior over 13.5-15;"
        " residual = log10(M_true/M_pred) [dex]"
    )
    assert markdown[1] == ""
    assert markdown[2] == (
        "| estimator | mean | scatter | b | scat/b | 14-15 | b | scat/b | abs 15 | in 68% | in 95% | s_N | s_0 |"
    )
    assert markdown[3] == "|---" * 13 + "|"
    assert markdown[4] == "| this model | -0.010 ± 0.004 | 0.200" + " | -" * 10 + " |"
    assert markdown[5] == "| galaxy count alone | - | 0.250 ± 0.012" + " | -" * 10 + " |"
    assert markdown[6] == "| mine | - | - | 1.000" + " | -" * 9 + " |"
    assert markdown[7].startswith("| [Kodi Ramanah+2020: flow] | ")
    blank = markdown.index("", 2)
    assert all(line.startswith("| [") and line.count("|") == 14 for line in markdown[7:blank])
    assert markdown[blank + 2] == "Nominal."
    assert markdown[blank + 3] == "[...]: published, on other mocks of the same kind, under a flat prior."
    assert len(markdown) == blank + 4
    text = format_text(metrics).split("\n")
    rows, width = len(markdown[4:blank]), len(text[1])
    assert text[1] == text[3] == text[4 + rows] == "-" * width
    assert all(len(line) == width for line in text[1 : 5 + rows])
    assert " ".join(text[2].split()) == "mean scatter b scat/b 14-15 b scat/b abs 15 in 68% in 95% s_N s_0"
    assert text[4].startswith("this model  ")
    assert text[4].split()[2:4] == ["-0.010", "0.200"]
    assert text[5 + rows :] == markdown[blank + 1 :]
    summary = format_summary(metrics).split("\n")
    assert summary[-1] == "[...]: published, on other mocks of the same kind."
    assert format_summary(metrics | {"population": "flat"}).split("\n")[-1].startswith("Scatter [dex]")


def test_an_image_is_over_the_limits_of_its_grid_and_none_where_there_is_no_density(estimator):
    cluster = toy_catalog(1, seed=3)
    image, extent = phase_space_image(estimator, cluster)
    grid = estimator.encoder.kde.grid
    assert extent == (grid.lower[0], grid.upper[0], grid.lower[1], grid.upper[1])
    assert image.shape == (20, 20)
    assert image.sum() == pytest.approx(1.0)
    # Most of the galaxies are slow, so that the density is that of the middle rows.
    assert image[:, 5:15].sum() > 0.55
    same = cluster.with_galaxies(v_los=np.full(cluster.n_galaxies_total, 5.0))
    assert phase_space_image(estimator, same) == (None, extent)


def test_fewer_than_five_clusters_say_nothing_of_a_sample(estimator):
    assert FEWEST == 5
    assert novelty_header(None, [], toy_catalog(9), 0) == {}
    assert novelty_header(object(), [(np.arange(4), None)], toy_catalog(9), 0) == {}
    with pytest.raises((AttributeError, TypeError)):
        novelty_header(object(), [(np.arange(5), None)], toy_catalog(9), 0)
