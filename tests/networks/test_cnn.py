"""The convolutional network of Ho et al. 2019 as a mass estimator: trained, interrupted, saved, used."""

from __future__ import annotations

import signal

import numpy as np
import pytest
import torch

from bayesflowmass.command import TrainSettings, build_settings, load_yaml
from bayesflowmass.encoders import ContextEncoder, KDEEncoder
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.mocks import catalog_builder, simulate_catalog
from bayesflowmass.train import train
from bayesflowmass.training.run_files import RunFiles

MOCKS = {"n_clusters": 60, "log10_mass_range": (13.8, 14.4)}


@pytest.fixture(scope="module")
def catalog():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog_builder, "_BATCH_ROWS", 64)
        return simulate_catalog(**MOCKS, seed=3)


def fit(out, catalog, **changes):
    """The network of cnn.yaml on small images, for a few updates."""
    flow = load_yaml("cnn.yaml")["flow"]
    return train(
        catalog,
        out=out,
        encoder=ContextEncoder(KDEEncoder(grid=(8, 12)), constant=40.0),
        flow={"kind": flow["kind"], **flow["options"]},
        options={"max_updates": 12, "validate_every": 4, "batch_size": 10, "checkpoint_every": 5},
        flip_velocity=True,
        seed=5,
        device="cpu",
        progress=False,
        **changes,
    )


def test_the_configuration_takes_mock_and_image_of_the_paper_and_twenty_epochs():
    settings = build_settings(TrainSettings, load_yaml("cnn.yaml"))
    paper = build_settings(TrainSettings, load_yaml("paper.yaml"))
    assert settings.simulate == paper.simulate
    assert settings.encoder == paper.encoder
    assert settings.fit.max_updates * settings.fit.batch_size == 20 * 18_000


def test_training_goes_on_after_an_interruption_to_the_same_weights_and_gives_pdfs(
    catalog, tmp_path, monkeypatch
):
    whole = fit(tmp_path / "whole", catalog)
    seen, note = [], RunFiles.note

    def interrupting(self, row):
        note(self, row)
        seen.append(row)
        if len(seen) == 2:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(RunFiles, "note", interrupting)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "stopped", catalog)
    resumed = fit(tmp_path / "stopped", catalog, resume=True)
    for name, value in whole.flow.state_dict().items():
        assert torch.equal(resumed.flow.state_dict()[name], value), name
    loaded = MassEstimator.load(tmp_path / "stopped", "cpu")
    assert loaded.flow.describe()["image_shape"] == [1, 8, 12]
    first, second = (model.posterior(catalog[:5]) for model in (whole, loaded))
    np.testing.assert_array_equal(first.median, second.median)
    assert np.isfinite(first.sigma).all()
    # The mirror image of a cluster is another context, on which the convolutions along v_los answer otherwise.
    flipped = catalog[:5].with_galaxies(v_los=-catalog[:5].galaxies("v_los"))
    assert (whole.posterior(flipped).median != first.median).all()
