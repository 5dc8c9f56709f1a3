"""Model folders are read as they were written, or not at all: hashes, numbers that are none, files of version 0.1."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from model_files import as_version_0_1, edited, signed
from safetensors.torch import load_file, save_file
from small_model import toy_catalog, toy_estimator

from bayesflowmass.estimator import MassEstimator, ModelError, shipped_models
from bayesflowmass.estimator.description import read_description
from bayesflowmass.estimator.told import notes
from bayesflowmass.inspect import inspect_file

FILES = ("model.json", "model.safetensors")


@pytest.fixture(scope="module")
def estimator():
    return toy_estimator()


@pytest.fixture
def model(estimator, tmp_path):
    return estimator.save(tmp_path / "model")


def flipped(data: bytes, bit: int) -> bytes:
    place, which = divmod(bit, 8)
    return data[:place] + bytes([data[place] ^ 1 << which]) + data[place + 1 :]


@pytest.mark.parametrize("name", FILES)
def test_a_model_with_one_bit_flipped_is_refused(model, name):
    whole = (model / name).read_bytes()
    for bit in np.random.default_rng(15).choice(8 * len(whole), 100, replace=False).tolist():
        (model / name).write_bytes(flipped(whole, bit))
        with pytest.raises(ModelError):
            MassEstimator.load(model, "cpu")
    (model / name).write_bytes(whole)
    MassEstimator.load(model, "cpu")


def test_every_bit_of_the_head_of_a_description_counts(model):
    """Format, version and hash are what the check itself rests on."""
    whole = (model / "model.json").read_bytes()
    for bit in range(8 * whole.index(b'"weights_sha256"')):
        (model / "model.json").write_bytes(flipped(whole, bit))
        with pytest.raises(ModelError):
            read_description(model)


def test_a_description_that_someone_edits_is_refused(model):
    """A target of 10 in place of 14.4 would move every mass by four dex."""
    description = read_description(model)
    edited(model / "model.json", flow=description["flow"] | {"loc": 10.0})
    with pytest.raises(ModelError, match=r"model\.json' is not as it was written \(its SHA-256 differs\)"):
        MassEstimator.load(model, "cpu")


def with_weight(model, value):
    """The model with one weight replaced, and hashes that fit."""
    tensors = load_file(model / "model.safetensors")
    name = next(name for name in tensors if name.startswith("flow.") and tensors[name].dim() == 2)
    tensors[name][0, 0] = value
    save_file(tensors, model / "model.safetensors")
    signed(model, weights_sha256=hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest())
    return name


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(model, value):
    name = with_weight(model, value)
    with pytest.raises(ModelError, match=f"weights '{name}' in .* are not finite"):
        MassEstimator.load(model, "cpu")
    with_weight(model, 0.5)
    MassEstimator.load(model, "cpu")


def test_a_network_that_diverged_is_not_saved(tmp_path):
    broken = toy_estimator()
    with torch.no_grad():
        next(broken.flow.parameters()).fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite numbers, so there is no model to write"):
        broken.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_model_of_version_0_1_is_read_with_a_note(estimator, model):
    assert notes(toy_catalog(2), MassEstimator.load(model, "cpu")) == []
    as_version_0_1(model)
    old, clusters = MassEstimator.load(model, "cpu"), toy_catalog(5, seed=1)
    assert np.array_equal(old.posterior(clusters).median, estimator.posterior(clusters).median)
    (note,) = notes(clusters, old)
    assert "stored no hash of its description" in note
    assert note in inspect_file(model).text()
    old.save(model)
    assert MassEstimator.load(model, "cpu").notes == ()


def test_weights_of_another_model_are_refused_in_a_model_of_version_0_1(model):
    as_version_0_1(model, weights_sha256=64 * "0")
    with pytest.raises(ModelError, match=r"not the file that model\.json describes"):
        MassEstimator.load(model, "cpu")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "truncated or not JSON"),
        (b'{"format": NaN}', "it holds NaN, which is no number"),
        (b"\xff\xfe", "truncated or not JSON"),
    ],
    ids=["deep", "nan", "not UTF-8"],
)
def test_descriptions_that_are_no_json_are_refused(model, content, message):
    (model / "model.json").write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        MassEstimator.load(model, "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(shipped_models()))
def test_shipped_models_know_the_hash_of_all_that_they_are(name):
    assert read_description(shipped_models()[name])["format_version"] == 2
