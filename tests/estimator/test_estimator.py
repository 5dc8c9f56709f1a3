"""MassEstimator: what it saves, what it refuses to load, what it knows of its training set, its flags."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from model_files import edited, signed
from numpy.testing import assert_allclose
from safetensors.torch import save_file
from small_model import toy_catalog, toy_estimator

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.estimator import FLAGS, MassEstimator, ModelError, Reference, TrainingInfo, resolve_device
from bayesflowmass.estimator.flags import usable_clusters
from bayesflowmass.estimator.reference import SMALL_FIELD
from bayesflowmass.selection import completeness, remove_interlopers


@pytest.fixture
def model(estimator, tmp_path):
    return estimator.save(tmp_path / "model")


def test_a_loaded_model_gives_the_same_posteriors(estimator, model):
    again, clusters = MassEstimator.load(model, "cpu"), toy_catalog(20, seed=1)
    assert again.training_info == estimator.training_info
    x = np.linspace(13.5, 15.5, 5)[:, None]
    for prior in ("flat", "hmf"):
        assert np.array_equal(
            again.posterior(clusters, prior).pdf(x), estimator.posterior(clusters, prior).pdf(x)
        )
    assert sorted(p.name for p in model.iterdir()) == ["model.json", "model.safetensors"]


def test_chunks_make_no_difference(estimator):
    clusters = toy_catalog(23, seed=1)
    whole, parts = estimator.posterior(clusters), estimator.posterior(clusters, chunk=5)
    # Matrix products of another size round differently.
    assert_allclose(whole.median, parts.median, atol=1e-5)
    assert len(parts.flow_density.blocks) == 5


def test_saving_twice_replaces_the_model(estimator, model):
    (model / "history.csv").write_text("update\n", encoding="utf-8")
    estimator.save(model)
    assert MassEstimator.load(model, "cpu").training_info == estimator.training_info
    assert (model / "history.csv").exists()


def spoil_truncated_json(model):
    text = (model / "model.json").read_text(encoding="utf-8")
    (model / "model.json").write_text(text[: len(text) // 2], encoding="utf-8")


def spoil_truncated_weights(model):
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data[: len(data) // 2])


def spoil_pickle(model):
    torch.save({"weight": torch.zeros(1)}, model / "model.safetensors")


def spoil_other_weights(model):
    save_file({"flow.x": torch.zeros(1)}, model / "model.safetensors")


def spoil_encoder(model):
    signed(model, encoder={"kind": "something else"})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_truncated_json, r"model\.json' is truncated or not JSON"),
        (spoil_truncated_weights, r"model\.safetensors' is truncated or not the file"),
        (spoil_pickle, r"model\.safetensors' is truncated or not the file"),
        (spoil_other_weights, r"not the file that model\.json describes"),
        (spoil_encoder, "does not describe a model that this version knows"),
        (
            lambda m: (m / "model.json").write_text("[1]", encoding="utf-8"),
            "does not describe a bayesflowmass model",
        ),
        (lambda m: edited(m / "model.json", format="other"), "does not describe a bayesflowmass model"),
        (lambda m: edited(m / "model.json", format_version=99, version="9.9"), r"newer bayesflowmass \(9\.9"),
        (lambda m: signed(m, training={}), "no key 'log10_mass_range'"),
        (lambda m: (m / "model.safetensors").unlink(), r"is not a model: it has no model\.safetensors"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_in_a_sentence(model, spoil, message):
    spoil(model)
    with pytest.raises(ModelError, match=message) as caught:
        MassEstimator.load(model, "cpu")
    assert "\n" not in str(caught.value)


def test_a_missing_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"is not a model: it has no model\.json"):
        MassEstimator.load(tmp_path / "nothing")


def test_devices_have_names():
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="Unknown device 'tpux'"):
        resolve_device("tpux")
    if not torch.cuda.is_available():
        assert resolve_device("auto").type == "cpu"
        with pytest.raises(ValueError, match="CUDA is not available"):
            resolve_device("cuda")


def test_training_info_is_that_of_the_catalogue(estimator):
    info = estimator.training_info
    assert info.log10_mass_range == (13.2, 15.6)
    assert (info.kind, info.mode, info.masses, info.n_train) == ("contaminated", "paper", "flat", 1200)
    assert TrainingInfo.from_dict(json.loads(json.dumps(info.to_dict()))) == info


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainingInfo((15.0, 14.0)), "two increasing finite values"),
        (lambda: TrainingInfo((14.0, 14.0)), "all training masses are equal"),
        (lambda: TrainingInfo((13.0, 15.0), masses="steep"), "expected one of flat, hmf"),
        (lambda: TrainingInfo.from_dict({"log10_mas_range": [13, 15]}), "unknown key 'log10_mas_range'"),
        (
            lambda: TrainingInfo.from_catalog(toy_catalog(5).without("log10_mass"), uses_richness=False),
            "no column log10_mass",
        ),
        (lambda: Reference.from_dict({"richness": []}), "the keys are"),
    ],
)
def test_impossible_training_facts_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def flagged(estimator, catalog, name, **options):
    return np.array([name in flags.split(",") for flags in estimator.flags(catalog, **options)])


def with_galaxies(rows):
    """Clusters from lists of (x, v) at y = 0."""
    counts = [len(row) for row in rows]
    flat = np.array([galaxy for row in rows for galaxy in row], dtype=np.float64).reshape(-1, 2)
    return ClusterCatalog.from_arrays(
        {"cluster_id": np.arange(len(rows)), "redshift": np.full(len(rows), 0.117)},
        {"x": flat[:, 0], "y": np.zeros(len(flat)), "v_los": flat[:, 1]},
        counts,
    )


def test_clusters_without_a_density_are_known():
    spread = [(0.1, 300.0), (0.4, -200.0), (0.9, 500.0)]
    catalog = with_galaxies(
        [
            [],
            spread[:2],
            spread,
            [(r, 100.0) for r in (0.1, 0.5, 0.9)],
            [(0.5, v) for v in (-100.0, 0.0, 200.0)],
            [(r, 1000.0 * r) for r in (0.1, 0.5, 0.9)],
        ]
    )
    expected = ["too_few_galaxies", "too_few_galaxies", "", "no_density", "no_density", "no_density"]
    assert list(usable_clusters(catalog)) == expected


def test_the_estimator_refuses_clusters_without_a_density(estimator):
    with pytest.raises(CatalogError, match="Cluster 0 has fewer than 3 galaxies"):
        estimator.posterior(with_galaxies([[(0.1, 1.0), (0.2, 2.0)]]))
    with pytest.raises(CatalogError, match="no clusters"):
        estimator.posterior(toy_catalog(3)[:0])


def test_clusters_like_the_training_set_are_rarely_flagged(estimator):
    flags = estimator.flags(toy_catalog(1000, seed=3))
    assert np.mean(flags == "small_field") < SMALL_FIELD + 0.03
    assert np.mean((flags != "") & (flags != "small_field")) < 0.05


def test_flags_are_names_of_the_list_in_its_order(estimator):
    rng = np.random.default_rng(0)
    few = with_galaxies([rng.normal((0.5, 900.0), (0.3, 100.0), (5, 2)).tolist()])
    found = estimator.flags(few)[0].split(",")
    assert found == [name for name in FLAGS if name in found]
    assert {"few_galaxies", "velocity_offset", "mode"} <= set(found)


def test_edge_is_flagged_where_the_pdf_is_pressed_against_it(estimator):
    clusters = toy_catalog(50, seed=3)
    posterior = estimator.posterior(clusters)
    low = posterior.pdf(13.2) > np.exp(-2.0) * posterior.pdf(posterior.map)
    leaks = (posterior.cdf(13.2) > 0.025) | (posterior.cdf(15.6) < 0.975)
    high = posterior.pdf(15.6) > np.exp(-2.0) * posterior.pdf(posterior.map)
    assert np.array_equal(flagged(estimator, clusters, "edge", posterior=posterior), low | high | leaks)


def test_redshift_mode_kind_and_cylinder_outside_training(estimator):
    clusters = toy_catalog(5, seed=3)
    assert flagged(estimator, toy_catalog(5, redshift=0.2), "redshift").all()
    assert not flagged(estimator, toy_catalog(5, redshift=0.12), "redshift").any()
    assert flagged(estimator, clusters.with_metadata(mode="survey"), "mode").all()
    assert flagged(estimator, clusters.with_metadata(mode=None), "mode").all()
    mixed = clusters.with_columns(mode=["paper", "survey", "paper", "paper", "survey"])
    assert list(flagged(estimator, mixed, "mode")) == [False, True, False, False, True]
    assert flagged(estimator, clusters.with_metadata(kind="pure"), "kind").all()
    selection = clusters.metadata.selection
    for change in (
        {"r_max": 1.0},
        {"completeness": 0.3},
        {"magnitude_limit": -20.0},
        {"velocity_error": 300.0},
    ):
        assert flagged(estimator, clusters.with_metadata(selection=selection | change), "selection").all()
    assert not flagged(estimator, clusters, "selection").any()


def test_a_model_that_counts_galaxies_distrusts_incomplete_samples():
    counting = toy_estimator(uses_richness=True)
    thinned = completeness(toy_catalog(200, seed=4, log10_mass=15.2), 0.05, seed=1)
    assert flagged(counting, thinned, "richness").all()
    undeclared = thinned.without("completeness") if thinned.has("completeness") else thinned
    undeclared = undeclared.with_metadata(selection=toy_catalog(1).metadata.selection)
    assert flagged(counting, undeclared, "richness").mean() > 0.5
    assert not flagged(counting, toy_catalog(200, seed=4), "richness").mean() > 0.05


def test_centres_far_off_are_flagged(estimator):
    clusters = toy_catalog(60, seed=5, log10_mass=14.5)
    shifted = clusters.with_galaxies(v_los=clusters.galaxies("v_los") + 600.0)
    assert flagged(estimator, shifted, "velocity_offset").all()
    moved = clusters.with_galaxies(x=clusters.galaxies("x") + 0.6)
    assert flagged(estimator, moved, "position_offset").all()
    assert flagged(estimator, clusters, "velocity_offset").mean() < 0.1
    assert flagged(estimator, clusters, "position_offset").mean() < 0.1


def test_cleaned_catalogues_are_flagged_by_declaration_and_by_their_galaxies(estimator):
    clusters = toy_catalog(200, seed=6)
    cleaned = remove_interlopers(clusters)
    assert flagged(estimator, cleaned, "cleaned").all()
    silent = cleaned.with_metadata(selection=clusters.metadata.selection)
    assert flagged(estimator, silent, "cleaned").all()
    assert flagged(estimator, clusters, "cleaned").mean() < 0.01
