"""Test clusters like those of training: observed as they were, whatever the model was trained on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_model import toy_catalog

from bayesflowmass.estimator import TrainingInfo
from bayesflowmass.evaluation import like_training, test_sets
from bayesflowmass.evaluation.test_sets import baseline_set, drawn_like
from bayesflowmass.mocks import MockParameters, simulate_catalog

SIMULATE = {"masses": "flat", "log10_mass_range": [14.0, 15.2], "redshift": [0.05, 0.2], "n_projections": 2}
AUGMENTATION = {
    "completeness": [0.5, 0.6],
    "miscentre_r": 0.05,
    "velocity_error": [0.0, 50.0],
    "known": {"completeness": 0.5},
}


def info(simulate=SIMULATE, augmentation=None, **facts):
    """What a model says of its training."""
    config = {"simulate": simulate, "augmentation": augmentation or {}}
    facts = {"selection": {"r_max": 1.6, "v_max": 2500.0, "min_galaxies": 10}, **facts}
    return TrainingInfo(log10_mass_range=(14.0, 15.2), redshift_range=(0.05, 0.2), config=config, **facts)


def test_clusters_are_simulated_as_those_of_training_each_a_halo_of_its_own(capsys):
    catalog = like_training(info(), 60, seed=3)
    assert capsys.readouterr().err == ""
    expected = simulate_catalog(60, seed=3, **SIMULATE | {"n_projections": 1})
    assert catalog.equals(expected)


@pytest.mark.parametrize("simulate", [SIMULATE, None], ids=["mocks", "a catalogue that was given"])
def test_the_augmentation_of_training_is_applied(simulate):
    plain = like_training(info(simulate), 80, seed=3)
    seen = like_training(info(simulate, AUGMENTATION), 80, seed=3)
    low, high = seen.metadata.selection["completeness"]
    assert 0.5 <= low < high <= 0.6
    assert seen.n_galaxies.mean() == pytest.approx(0.55 * plain.n_galaxies.mean(), rel=0.15)
    assert np.hypot(seen.galaxies("x"), seen.galaxies("y")).max() < 1.6
    assert np.isnan(seen.column("completeness")).any()
    assert seen.equals(like_training(info(simulate, AUGMENTATION), 80, seed=3))
    assert not np.array_equal(
        seen.n_galaxies[:20], like_training(info(simulate, AUGMENTATION), 80, seed=4).n_galaxies[:20]
    )


def test_settings_can_be_changed():
    catalog = like_training(
        info(augmentation=AUGMENTATION),
        40,
        seed=3,
        simulate={"redshift": 0.3},
        augmentation={"completeness": None, "known": {}},
    )
    assert set(catalog.column("redshift")) == {0.3}
    assert "completeness" not in catalog.metadata.selection


def test_mocks_that_nobody_can_make_again_are_refused_where_it_matters():
    with pytest.raises(ValueError, match="trained on a catalogue that was given"):
        like_training(info(None), 10, seed=0, exact=True)
    catalog = like_training(info(None, mode="survey"), 40, seed=0)
    assert catalog.metadata.mode == "survey"
    assert catalog.column("log10_mass").min() >= 14.0
    assert catalog.column("redshift").max() <= 0.2


def test_baselines_are_fitted_on_flat_masses_observed_as_in_training(monkeypatch):
    monkeypatch.setattr(test_sets, "BASELINE_CLUSTERS", 60)
    hmf = SIMULATE | {"masses": "hmf"}
    catalog = baseline_set(info(hmf, AUGMENTATION, masses="hmf"), toy_catalog(5).metadata, seed=1)
    assert catalog.metadata.masses["distribution"] == "flat"
    assert catalog.metadata.selection["completeness"][0] >= 0.5
    # Every completeness is told.
    assert np.isfinite(catalog.column("completeness")).all()


def test_masses_and_redshifts_can_be_those_of_another_catalogue():
    shown = simulate_catalog(30, masses="hmf", log10_mass_range=(14.1, 14.6), redshift=(0.1, 0.12), seed=2)
    catalog = like_training(info(), 40, seed=1, simulate=drawn_like(shown) | {"kind": "pure"})
    assert catalog.metadata.kind == "pure"
    assert catalog.metadata.masses == shown.metadata.masses
    assert catalog.column("redshift").min() >= 0.1
    assert catalog.column("redshift").max() <= 0.12


@pytest.mark.parametrize(("simulate", "taken"), [(None, True), (SIMULATE, False)])
def test_parameters_of_the_test_mocks_hold_for_baselines_of_a_catalogue_that_was_given(
    monkeypatch, simulate, taken
):
    monkeypatch.setattr(test_sets, "BASELINE_CLUSTERS", 5)
    like = toy_catalog(5).metadata
    told = like.replace(extra={"mock_parameters": MockParameters(velocity_bias=1.25).to_dict()})
    found = [
        baseline_set(info(simulate), one, seed=1).metadata.extra["mock_parameters"] for one in (told, like)
    ]
    assert [one["velocity_bias"] == 1.25 for one in found] == [taken, False]


def test_what_a_catalogue_does_not_say_of_its_masses_is_seen_in_it():
    shown = toy_catalog(9, redshift=0.3)
    truth = shown.column("log10_mass")
    found = drawn_like(shown.with_metadata(masses=None))
    assert (found["masses"], found["redshift"]) == ("hmf", 0.3)
    assert found["log10_mass_range"] == (truth.min(), truth.max())
    assert drawn_like(shown)["masses"] == "flat"


def test_what_is_known_of_a_catalogue_that_was_given_is_that_of_its_mocks():
    known = info(None, kind="pure", mode="survey", masses="hmf", selection={"r_max": 1.0, "v_max": 2000.0})
    catalog = like_training(known, 20, seed=0)
    assert (catalog.metadata.kind, catalog.metadata.mode) == ("pure", "survey")
    assert catalog.metadata.masses["distribution"] == "hmf"
    one = replace(info(None), redshift_range=(0.1, 0.1))
    found = like_training(one, 20, seed=0)
    assert (found.metadata.kind, found.metadata.mode) == ("contaminated", "paper")
    assert set(found.column("redshift")) == {0.1}
    assert found.metadata.selection["r_max"] == 1.6
    assert found.metadata.selection["v_max"] == 2500.0
