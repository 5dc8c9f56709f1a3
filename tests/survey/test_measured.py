"""What is read off a survey that was made from mocks with known losses and errors."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from bayesflowmass.catalog import CatalogError
from bayesflowmass.command import TrainSettings, build_settings, load_yaml
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluation.test_sets import like_training
from bayesflowmass.mocks import PRIORS
from bayesflowmass.survey import measured
from bayesflowmass.survey.measured import Fact, measure
from bayesflowmass.survey.settings_file import configuration, written

TRUE = {
    "completeness": 0.4,
    "aperture": 1.0,
    "velocity_error": 60.0,
    "miscentre_r": 0.08,
    "miscentre_v": 200.0,
}


@pytest.fixture(scope="module")
def sky():
    return MassEstimator.load("sky", "cpu")


@pytest.fixture(scope="module")
def survey(sky):
    """150 clusters, of which a table would tell the velocity errors alone."""
    both = {name: (TRUE[name],) * 2 for name in ("completeness", "aperture", "velocity_error")}
    observed = both | {"miscentre_r": 0.08, "miscentre_v": 200.0, "magnitude_limit": None, "cleaning": 0.0}
    simulate = {"log10_mass_range": (14.0, 15.2), "redshift": (0.05, 0.3), "mode": "survey"}
    catalog = like_training(
        sky.training_info, 150, 31, simulate=simulate, augmentation=observed | {"known": {}}
    )
    return catalog.without("completeness", "aperture")


@pytest.fixture(scope="module")
def facts(sky, survey):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measured, "_MOCKS", 1500)
        return measure(survey, sky, seed=5)


def test_losses_fields_and_errors_are_those_that_the_survey_has(facts, survey):
    for name, true in TRUE.items():
        fact, rounding = facts[name], 0.02 * true
        # Both errors of ln f, or of a mean of squares, at three sigma.
        assert abs(fact.value - true) < 3.0 * fact.error + rounding, name
        assert fact.limits[0] <= fact.value * 1.01, name
        assert fact.limits[1] >= fact.value * 0.99, name
    for name in ("completeness", "aperture", "velocity_error"):
        assert facts[name].limits[0] <= 1.02 * TRUE[name]
        assert facts[name].limits[1] >= 0.98 * TRUE[name]
    assert facts["completeness"].error < 0.2
    assert facts["aperture"].error < 0.02
    assert facts["velocity_error"].told == 1.0
    assert facts["completeness"].told == facts["aperture"].told == 0.0
    assert facts["min_galaxies"].limits[0] == survey.n_galaxies.min()
    low, high = facts["redshift_range"].limits
    assert low <= survey.column("redshift").min() < survey.column("redshift").max() <= high
    assert facts["mode"].limits == (1.0, 1.0)
    assert facts["cleaning"].limits == (0.0, 0.0)
    assert "magnitude_limit" not in facts


def test_the_configuration_has_these_numbers_each_with_its_reason(facts):
    base = load_yaml("sky.yaml")
    values = configuration(base, facts, 30_000) | {"start": "sky"}
    text = written(values, facts, "sky", "bayesflowmass adapt --galaxies g.csv")
    read = build_settings(TrainSettings, yaml.safe_load(text))
    assert read.augmentation.velocity_error == pytest.approx((60.0, 60.0))
    assert read.augmentation.aperture == pytest.approx(facts["aperture"].limits, rel=1e-3)
    assert read.augmentation.completeness == pytest.approx(facts["completeness"].limits, rel=1e-3)
    assert read.simulate.min_galaxies == facts["min_galaxies"].limits[0]
    # Of no survey is told what its tables do not say; what has no column in the mocks is left out.
    known = read.augmentation.known
    assert {name: share for name, share in known.items() if name not in PRIORS} == {
        "sigma_v_err": 1.0,
        "completeness": 0.0,
        "aperture": 0.0,
    }
    assert known["velocity_bias"] == base["augmentation"]["known"]["velocity_bias"]
    assert read.augmentation.magnitude_limit is None
    assert read.simulate.randomise == build_settings(TrainSettings, base).simulate.randomise
    lines = {line.split(":")[0].strip(): line for line in text.splitlines() if "  #" in line}
    assert "outermost galaxies" in lines["aperture"]
    assert "beside mocks" in lines["completeness"]
    assert "# Not known, and left open: depth" in text


def test_what_tables_tell_is_taken(sky, survey):
    told = survey.with_columns(
        completeness=np.full(len(survey), 0.5),
        aperture=np.where(np.arange(len(survey)) % 2, 1.0, np.nan),
        abs_mag_limit=np.full(len(survey), -20.0),
    )
    facts = measured._told(told, sky)
    assert facts["completeness"] == Fact((0.5, 0.5), "told of 100% of the clusters", 0.5, told=1.0)
    assert facts["magnitude_limit"].limits == (-20.0, -20.0)
    assert facts["aperture"].told == pytest.approx(0.5, abs=0.01)


def test_too_few_clusters_are_refused_in_a_sentence(sky, survey):
    with pytest.raises(CatalogError, match=r"^9 of 9 clusters have a redshift and 5 galaxies .* at least 10"):
        measure(survey[:9], sky)
