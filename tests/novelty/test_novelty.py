"""Novelty: summaries, exact p-values of clusters, exact test of catalogues, what the model stores and says."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats
from small_model import toy_catalog, toy_estimator

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.infer import infer, summary
from bayesflowmass.novelty import (
    ALARM,
    NOTICEABLE,
    SUMMARIES,
    Assessment,
    NoveltyDetector,
    judge,
    phase_space_summaries,
    verdict_sentence,
)
from bayesflowmass.novelty.catalogue import permutation_test
from bayesflowmass.novelty.conformal import classes_of, conformal_p_values, one_per_halo
from bayesflowmass.novelty.context_space import ContextSpace
from bayesflowmass.novelty.features import ConditionalNormal
from bayesflowmass.selection import completeness, remove_interlopers
from bayesflowmass.train import train
from bayesflowmass.training.novelty import fit_novelty

CYLINDER = {"r_max": 1.6, "v_max": 2500.0}


def clusters_of(*galaxies):
    """A catalogue of clusters given as arrays (n, 3) of x, y, v_los."""
    flat = np.concatenate(galaxies)
    n = len(galaxies)
    return ClusterCatalog.from_arrays(
        {"cluster_id": np.arange(n), "redshift": np.full(n, 0.117)},
        {"x": flat[:, 0], "y": flat[:, 1], "v_los": flat[:, 2]},
        [len(one) for one in galaxies],
    )


def random_galaxies(seed, n):
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.normal(0.0, 0.5, (n, 2)), rng.normal(100.0, 700.0, n)])


# Summaries


def test_summaries_are_those_of_a_loop_over_the_clusters():
    galaxies = [random_galaxies(seed, n) for seed, n in enumerate((3, 8, 41, 200))]
    found = dict(zip(SUMMARIES, phase_space_summaries(clusters_of(*galaxies), **CYLINDER).T, strict=True))
    for i, one in enumerate(galaxies):
        r, v, n = np.hypot(one[:, 0], one[:, 1]), one[:, 2], len(one)
        ordered = np.sort(v)
        weight = np.arange(1, n) * np.arange(n - 1, 0, -1)
        gapper = np.sqrt(np.pi) / (n * (n - 1)) * np.sum(weight * np.diff(ordered))
        assert_allclose(found["gapper dispersion"][i], np.log(gapper))
        mad = 1.4826 * np.median(np.abs(v - np.median(v)))
        assert_allclose(found["core dispersion"][i], np.log(mad / gapper))
        assert_allclose(found["velocity offset"][i], np.median(v) / gapper * np.sqrt(n))
        k = np.sum(np.abs(v) > 1000.0)
        assert_allclose(found["velocities above 0.4 v_max"][i], np.log((k + 0.5) / (n - k + 0.5)))
        assert_allclose(found["second galaxy"][i], np.log(np.sort(r)[1] * np.sqrt(n) / 1.6))
        moments = np.cov(one[:, :2].T, bias=True) + np.outer(one[:, :2].mean(0), one[:, :2].mean(0))
        low, high = np.linalg.eigvalsh(moments)
        assert_allclose(found["elongation"][i], 0.5 * np.log(low / high))
        inner = r < np.median(r)
        ratio = np.abs(v[inner]).mean() / np.abs(v[~inner]).mean()
        assert_allclose(found["dispersion profile"][i], np.log(ratio))


@settings(max_examples=20, deadline=None)
@given(st.floats(0.0, 2.0 * np.pi), st.integers(3, 60), st.randoms(use_true_random=False))
def test_summaries_do_not_depend_on_the_order_or_the_orientation(angle, n, random):
    one = random_galaxies(n, n)
    turned = one.copy()
    turned[:, 0] = np.cos(angle) * one[:, 0] - np.sin(angle) * one[:, 1]
    turned[:, 1] = np.sin(angle) * one[:, 0] + np.cos(angle) * one[:, 1]
    order = list(range(n))
    random.shuffle(order)
    first, second = phase_space_summaries(clusters_of(one, turned[order]), **CYLINDER)
    assert_allclose(first, second, atol=1e-6)


def test_clusters_too_poor_to_measure_are_nan_and_coinciding_galaxies_are_not():
    same = np.tile([[0.3, 0.0, 50.0]], (5, 1))
    found = phase_space_summaries(clusters_of(random_galaxies(0, 2), same), **CYLINDER)
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()


# p-values of clusters


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=2, max_size=40))
def test_conformal_p_values_are_exact_over_all_choices_of_the_new_cluster(scores):
    """Each of the m + 1 clusters is the new one once: at most k of them get p <= k / (m + 1), k where none tie."""
    values = np.array(scores, dtype=float)
    n = len(values)
    one = np.zeros(1, dtype=np.int64)
    p = [
        conformal_p_values(values[i : i + 1], one, np.delete(values, i), np.zeros(n - 1, np.int64))[0]
        for i in range(n)
    ]
    for k in range(1, n + 1):
        found = np.sum(np.array(p) <= k / n + 1e-12)
        assert found <= k
        if len(set(scores)) == n:
            assert found == k


def test_classes_are_judged_by_their_own_held_out_clusters():
    score, kind = np.array([2.5, 2.5, np.nan]), np.array([0, 1, 1])
    held, held_kind = np.array([1.0, 2.0, 3.0, 1.0, 2.0]), np.array([0, 0, 0, 1, 1])
    assert_allclose(conformal_p_values(score, kind, held, held_kind), [2 / 4, 1 / 3, np.nan])
    assert classes_of(np.array([0.0, 1.0, 5.0]), np.array([1.0, 2.0])).tolist() == [0, 1, 2]


def test_one_cluster_of_each_halo_is_taken_at_random():
    halo = np.array([7, 7, 3, 7, 3, 5])
    chosen = {tuple(one_per_halo(halo, seed)) for seed in range(40)}
    assert all(sorted(halo[list(rows)]) == [3, 5, 7] for rows in chosen)
    assert len(chosen) == 6


# Features


def test_features_are_standard_normal_at_every_richness_and_go_on_beyond():
    rng = np.random.default_rng(0)
    log_n = rng.uniform(2.3, 5.5, 4000)
    raw = np.stack([log_n + np.exp(-log_n / 3) * rng.standard_t(4, 4000), rng.poisson(0.4, 4000)], axis=1)
    normal = ConditionalNormal.fit(raw, log_n)
    g = normal(raw, log_n)
    for low, high in ((2.3, 3.3), (4.0, 4.7)):
        rows = (log_n > low) & (log_n < high)
        assert stats.kstest(g[rows, 0], "norm").pvalue > 1e-3
    x = np.linspace(-20.0, 30.0, 200)
    curve = normal(np.stack([x, np.zeros(200)], axis=1), np.full(200, 4.0))[:, 0]
    assert np.all(np.diff(curve) >= -1e-9)
    assert curve[0] == -12.0
    assert curve[-1] == 12.0


def test_the_context_space_is_that_of_the_singular_value_decomposition():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 8)) * np.array([9, 7, 5, 4, 3, 1, 0.5, 0.2]) @ rng.normal(size=(8, 50))
    space = ContextSpace.fit(torch.from_numpy(x), 3, seed=0)
    exact = np.linalg.svd(x - x.mean(0), full_matrices=False)[2][:3]
    assert_allclose(np.abs(exact @ space.basis.double().numpy()), np.eye(3), atol=5e-3)
    coordinates = space(torch.from_numpy(x))
    left = (x - x.mean(0)) - (x - x.mean(0)) @ exact.T @ exact
    assert_allclose(coordinates[:, -1], np.log(np.linalg.norm(left, axis=1)), atol=0.02)


# The test of a catalogue


def null_columns(rng, n, shift=0.0):
    g = rng.normal(size=(n, 5))
    g[:, 2] += shift
    return g, g @ np.linalg.qr(rng.normal(size=(5, 5)))[0], np.abs(g).max(1), rng.integers(0, 2, n)


def test_the_permutation_test_rejects_at_its_level_and_names_what_is_shifted():
    """200 null catalogues: the share rejected at 5 % is binomial. A shift of 0.6 sigma in one of five features is
    caught in 60 clusters at least nine times in ten (power measured: 0.98).
    """
    rng = np.random.default_rng(2)
    names, p = list("abcde"), []
    for trial in range(200):
        ours, theirs = null_columns(rng, 15), null_columns(rng, 100)
        p.append(permutation_test(*ours, theirs, names, n_permutations=99, seed=trial)[0])
    rejected = np.sum(np.array(p) <= 0.05)
    low, high = stats.binom.ppf([0.001, 0.999], 200, 0.05)
    assert low <= rejected <= high
    caught = 0
    for trial in range(30):
        ours, theirs = null_columns(rng, 60, shift=0.6), null_columns(rng, 400)
        p_value, _, found = permutation_test(*ours, theirs, names, n_permutations=99, seed=trial)
        caught += p_value <= 0.05 and "c" in {one.name for one in found}
    assert caught >= 27


def test_the_permutation_test_of_a_single_cluster_is_its_rank():
    """One feature that alone is far out: the p-value is 1 / (m + 1), up to the noise of the permutations."""
    rng = np.random.default_rng(3)
    theirs = null_columns(rng, 19)
    ours = tuple(a[:1].copy() for a in null_columns(rng, 1))
    ours[0][:] = 40.0
    ours[1][:] = 40.0
    ours[2][:] = 40.0
    same_class = np.zeros(19, np.int64)
    p_value, _, _ = permutation_test(
        *ours[:3], np.zeros(1, np.int64), (*theirs[:3], same_class), list("abcde"), n_permutations=3000
    )
    assert p_value == pytest.approx(1 / 20, abs=0.015)


# The detector


@pytest.fixture(scope="module")
def estimator():
    plain = toy_estimator()
    training, held_out = toy_catalog(800, seed=21), toy_catalog(800, seed=22)
    plain.novelty = fit_novelty(
        plain.encoder, training, held_out, plain.training_info, seed=0, device=torch.device("cpu")
    )
    return plain


@pytest.fixture(scope="module")
def usual(estimator):
    """1200 clusters like the training set."""
    return estimator.assess(toy_catalog(1200, seed=23))


def part(found, rows):
    return Assessment(found.p_value[rows], found.score[rows], found.features[rows], found.kind[rows])


def test_false_alarms_of_clusters_are_as_stated_at_every_richness(usual):
    """The rate of one detector varies with its 400 held-out clusters of a class: both errors count."""
    for alpha in (0.05, 0.2):
        for one in (0, 1):
            p = usual.p_value[usual.kind == one]
            spread = np.sqrt(alpha * (1 - alpha) * (1 / len(p) + 1 / 400))
            assert abs(np.mean(p <= alpha) - alpha) < 3.5 * spread


def test_the_p_value_does_not_depend_on_mass_through_the_number_of_galaxies(usual):
    mass = toy_catalog(1200, seed=23).column("log10_mass")
    assert abs(stats.spearmanr(mass, usual.p_value)[0]) < 0.12


def test_strange_clusters_are_found(estimator, usual):
    rng = np.random.default_rng(4)
    base = toy_catalog(150, seed=24)
    n = base.n_galaxies_total
    radius, angle = 1.6 * np.sqrt(rng.random(n)), 2 * np.pi * rng.random(n)
    noise = base.with_galaxies(
        x=radius * np.cos(angle), y=radius * np.sin(angle), v_los=rng.uniform(-2500.0, 2500.0, n)
    )
    assert np.mean(estimator.assess(noise).p_value <= ALARM) > 0.9
    assert np.mean(usual.p_value <= ALARM) < 0.03


def test_catalogues_are_told_apart_where_single_clusters_are_not(estimator, usual):
    detector = estimator.novelty
    base = toy_catalog(200, seed=25)
    for changed in (completeness(base, 0.5, 1), remove_interlopers(base)):
        found = estimator.assess(changed.filter(changed.n_galaxies >= 5))
        verdict = detector.test(found)
        assert verdict.p_value <= ALARM
        assert "do not look like training clusters" in verdict_sentence(verdict)
    p = [detector.test(part(usual, slice(k, k + 50)), n_permutations=99).p_value for k in range(0, 1200, 50)]
    assert np.sum(np.array(p) <= 0.05) <= stats.binom.ppf(0.999, 24, 0.05)
    assert "look like training clusters" in verdict_sentence(detector.test(part(usual, slice(0, 50))))


def test_projections_of_one_halo_are_no_evidence_of_their_own(estimator, usual):
    """Twenty haloes seen twelve times each: taken as 240 clusters they alarm; as 20 haloes they do not."""
    rows = np.repeat(np.arange(20), 12)
    again, halo = part(usual, rows), rows
    naive = [estimator.novelty.test(part(usual, rows + 20 * k)).p_value for k in range(5)]
    aware = [estimator.novelty.test(part(usual, rows + 20 * k), halo).p_value for k in range(5)]
    assert np.sum(np.array(naive) <= 0.05) >= 3
    assert np.sum(np.array(aware) <= 0.05) <= 1
    assert estimator.novelty.test(again, halo).n_haloes == 20


def test_a_mass_function_catalogue_is_judged_by_that_population(estimator):
    """Masses of the toy drawn from the mass function: far lighter at a given richness, and no alarm."""
    detector = estimator.novelty
    kept = detector._thinned(np.arange(len(detector.log_n)), seed=0)
    weight = np.exp(detector.log_hmf - detector.log_hmf.max())
    assert 20 < len(kept) < 0.8 * len(detector.log_n)
    assert detector.log_hmf[kept].mean() > detector.log_hmf.mean()
    assert weight.min() < 0.01
    with pytest.raises(ValueError, match="Unknown population 'all'"):
        detector.test(estimator.assess(toy_catalog(5)), population="all")


def cut_in_mass(n, low, high, seed):
    """Clusters of the toy between two masses, as a mock catalogue says it."""
    catalog = toy_catalog(n, seed=seed)
    mass = np.asarray(catalog.column("log10_mass"))
    catalog = catalog.filter((mass >= low) & (mass <= high))
    masses = {"distribution": "flat", "log10_mass_min": low, "log10_mass_max": high}
    return catalog.with_metadata(masses=masses)


def test_mocks_with_other_limits_of_mass_are_not_accused(estimator):
    """At a given richness a cut in true mass shifts everything; the mocks say that they were cut."""
    catalog = cut_in_mass(12000, 13.2, 13.7, seed=31)
    found = estimator.assess(catalog)
    cut = [judge(estimator.novelty, catalog, found, seed=seed) for seed in range(5)]
    whole = estimator.novelty.test(found, population="training")
    assert whole.p_value <= 0.01
    assert np.median([verdict.p_value for verdict in cut]) > 0.01
    assert cut[0].n_held_out < whole.n_held_out
    with pytest.raises(ValueError, match="no cluster with a log10 mass in 16-17"):
        estimator.novelty.test(found, log10_mass_range=(16.0, 17.0))


def test_a_small_difference_of_many_clusters_is_said_without_an_alarm(estimator):
    """Velocities 4 % too large: seen in thousands of clusters, a small part of the scatter of each summary."""
    catalog = toy_catalog(6000, seed=33)
    catalog = catalog.with_galaxies(v_los=0.96 * np.asarray(catalog.galaxies("v_los")))
    verdict = judge(estimator.novelty, catalog, estimator.assess(catalog), seed=0)
    assert verdict.p_value <= ALARM
    assert 0.0 < verdict.effect < NOTICEABLE
    sentence = verdict_sentence(verdict)
    assert f"but little (permutation test, p = 0.001 or less, largest shift {verdict.effect:.2f}" in sentence
    assert "Do not trust" not in sentence


def test_the_effect_is_the_shift_of_the_largest_difference_that_is_shown():
    """Features of unit variance: one is shifted by 0.5, all others by nothing."""
    rng = np.random.default_rng(7)
    theirs, ours = rng.normal(size=(2000, 5)), rng.normal(size=(2000, 5))
    ours[:, 3] += 0.5
    kind = np.zeros(2000, np.int64)
    p_value, effect, differences = permutation_test(
        ours, ours, ours[:, 0], kind, (theirs, theirs, theirs[:, 0], kind), list("abcde"), n_permutations=199
    )
    assert p_value <= 0.01
    assert differences[0].name == "d"
    # The catalogue minus the pool of both: half of the shift; sd of the mean 0.5 sqrt(2 / 2000) = 0.016.
    assert effect == pytest.approx(0.25, abs=0.08)


def test_a_detector_of_version_0_1_takes_all_held_out_clusters(estimator):
    old = replace(estimator.novelty, log10_mass=None)
    again = NoveltyDetector.from_state(old.state(), old.describe())
    assert again.log10_mass is None
    verdict = again.test(estimator.assess(toy_catalog(50, seed=3)), log10_mass_range=(14.0, 14.5))
    assert verdict.n_held_out >= len(again.log_n) // 8


def test_too_few_clusters_give_no_detector(estimator):
    arguments = {"seed": 0, "device": torch.device("cpu")}
    for training, held_out in ((100, 300), (500, 100)):
        few = fit_novelty(
            estimator.encoder,
            toy_catalog(training),
            toy_catalog(held_out, 1),
            estimator.training_info,
            **arguments,
        )
        assert few is None


def test_the_same_seed_gives_the_same_detector(estimator):
    training, held_out = toy_catalog(800, seed=21), toy_catalog(800, seed=22)
    again = fit_novelty(
        estimator.encoder, training, held_out, estimator.training_info, seed=0, device=torch.device("cpu")
    )
    for name, value in estimator.novelty.state().items():
        assert torch.equal(value, again.state()[name]), name


# The model folder, infer, train


def test_a_saved_detector_says_the_same_and_is_small(estimator, usual, tmp_path):
    folder = estimator.save(tmp_path / "model")
    again = MassEstimator.load(folder, "cpu")
    found = again.assess(toy_catalog(1200, seed=23))
    assert np.array_equal(found.p_value, usual.p_value)
    assert again.novelty.test(part(found, slice(0, 50))) == estimator.novelty.test(part(usual, slice(0, 50)))
    assert sum(t.numel() * t.element_size() for t in estimator.novelty.state().values()) < 300_000


def test_models_without_novelty_load_and_leave_the_column_empty(estimator, tmp_path):
    old = toy_estimator()
    folder = old.save(tmp_path / "old")
    assert "novelty" not in json.loads((folder / "model.json").read_text(encoding="utf-8"))
    table = infer(MassEstimator.load(folder, "cpu"), toy_catalog(6))
    assert table["p_novelty"].mask.all()
    assert "novelty" not in table.meta


def test_a_detector_of_another_version_is_refused(estimator):
    state, description = estimator.novelty.state(), estimator.novelty.describe()
    with pytest.raises(ValueError, match="other summaries"):
        NoveltyDetector.from_state(state, description | {"names": ["mass"]})
    with pytest.raises(ValueError, match="which this version does not know"):
        NoveltyDetector.from_state(state, {"kind": "oracle"})
    with pytest.raises(ValueError, match="novelty lacks 'edges'"):
        NoveltyDetector.from_state({k: v for k, v in state.items() if k != "edges"}, description)


def test_infer_flags_strange_clusters_and_judges_the_catalogue(estimator, tmp_path):
    base = toy_catalog(30, seed=26)
    rng = np.random.default_rng(5)
    owner, first = base.galaxy_rows, base.galaxy_rows == 0
    velocity = np.where(first, rng.uniform(-2500.0, 2500.0, owner.size), base.galaxies("v_los"))
    radius, angle = 1.6 * np.sqrt(rng.random(owner.size)), 2 * np.pi * rng.random(owner.size)
    x = np.where(first, radius * np.cos(angle), base.galaxies("x"))
    y = np.where(first, radius * np.sin(angle), base.galaxies("y"))
    odd = base.with_galaxies(x=x, y=y, v_los=velocity).filter_galaxies(
        (owner != 7) | (np.arange(owner.size) % 50 == 0)
    )
    few = int(odd.n_galaxies[7])
    table = infer(estimator, odd)
    assert table["p_novelty"][0] <= ALARM
    assert "unlike_training" in str(table["flags"][0]).split(",")
    assert bool(table["p_novelty"].mask[7]) is (few < 3)
    flagged = ["unlike_training" in str(row).split(",") for row in table["flags"]]
    assert flagged == [bool(p <= ALARM) for p in np.ma.filled(table["p_novelty"], 1.0)]
    assert table.meta["novelty"] in summary(table, "x")
    assert "Novelty: the" in table.meta["novelty"]
    table.write(tmp_path / "m.ecsv")
    assert Table.read(tmp_path / "m.ecsv").meta["p_sample"] == table.meta["p_sample"]


def test_train_measures_its_training_set(tmp_path, capsys):
    options = {"max_updates": 2, "validate_every": 1, "batch_size": 100}
    trained = train(
        toy_catalog(720, seed=27),
        out=tmp_path / "run",
        encoder=toy_estimator().encoder,
        flow={"kind": "affine", "hidden": (4,)},
        validation_fraction=0.3,
        options=options,
        progress=False,
        device="cpu",
    )
    assert trained.novelty is not None
    assert MassEstimator.load(tmp_path / "run", "cpu").novelty.names == trained.novelty.names


# Distances without directions


def radial(catalog):
    """As a table of cluster_id, r_proj, v_los is read."""
    flat = catalog.with_galaxies(x=catalog.r_proj, y=np.zeros(catalog.n_galaxies_total))
    return flat.with_metadata(selection=catalog.metadata.selection | {"positions": "radial"})


def test_distances_without_directions_are_judged_by_what_they_tell(estimator, usual):
    clusters = radial(toy_catalog(1200, seed=23))
    found = estimator.assess(clusters)
    for alpha in (0.01, 0.05, 0.2):
        expected = np.sqrt(alpha * (1 - alpha) * (1 / len(clusters) + 2 / 400))
        assert abs(np.mean(found.p_value <= alpha) - alpha) < 3.5 * expected
    # Two of 33 summaries are missing: the order of strangeness is nearly that of the whole.
    assert stats.spearmanr(found.p_value, usual.p_value).statistic > 0.9
    assert estimator.novelty.test(found, seed=1).p_value > ALARM


def test_strange_velocities_are_seen_without_directions(estimator):
    clusters = radial(toy_catalog(40, seed=24))
    slow = clusters.with_galaxies(v_los=0.2 * clusters.galaxies("v_los"))
    found = estimator.assess(slow)
    assert np.mean(found.p_value <= ALARM) > 0.5
    verdict = estimator.novelty.test(found, seed=1)
    assert verdict.p_value <= ALARM
    assert "position offset" not in {difference.name for difference in verdict.differences}


def test_the_score_of_all_features_restricted_to_all_is_itself(estimator):
    score, features = estimator.novelty.strangeness, estimator.novelty.features
    every = score.restricted(np.ones(features.shape[1], dtype=bool), features)
    distance, again = (np.square(one.whiten(features)).sum(axis=1) for one in (score, every))
    # Covariances with eigenvalues of 0.02 and more: the two inversions agree to far better than this.
    assert_allclose(again, distance, rtol=1e-9)
