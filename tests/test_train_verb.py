"""The verb `train`: from nothing or a catalogue to a model folder, and what it says of mistakes."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common import files
from bayesflowmass.common.lock import sole_writer
from bayesflowmass.encoders import ContextEncoder, KDEEncoder
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.mocks import catalog_builder, simulate_catalog
from bayesflowmass.train import main, train
from bayesflowmass.training import run as run_module
from bayesflowmass.training.augmentation import Augmentation
from bayesflowmass.training.history import read_history
from bayesflowmass.training.preparation import prepare
from bayesflowmass.training.random_state import derive_seed
from bayesflowmass.training.run_files import RunFiles
from bayesflowmass.training.sources import CatalogSource, FixedSource

MOCKS = {"n_clusters": 60, "log10_mass_range": (13.8, 14.4)}
FLOW = {"kind": "affine", "hidden": (16,)}
OPTIONS = {"max_updates": 12, "validate_every": 4, "batch_size": 10, "checkpoint_every": 5}
SETTINGS = {
    "simulate": {"n_clusters": 60, "log10_mass_range": [13.8, 14.4]},
    "encoder": {"grid": [8, 8]},
    "flow": {"kind": "affine", "options": {"hidden": [16]}},
    "fit": OPTIONS,
    "device": "cpu",
    "progress": False,
}


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalog_builder, "_BATCH_ROWS", 64)


@pytest.fixture(scope="module")
def catalog() -> ClusterCatalog:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog_builder, "_BATCH_ROWS", 64)
        return simulate_catalog(**MOCKS, n_projections=2, seed=3)


def encoder() -> ContextEncoder:
    return ContextEncoder(KDEEncoder(grid=(8, 8)))


def small(out: Path, catalog: ClusterCatalog | None = None, **changes) -> MassEstimator:
    arguments = {
        "simulate": MOCKS,
        "encoder": encoder(),
        "flow": FLOW,
        "options": OPTIONS,
        "device": "cpu",
        "progress": False,
    }
    return train(catalog, out=out, **arguments | changes)


def command(tmp_path: Path, *flags: str, settings: dict | None = None) -> int:
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(SETTINGS if settings is None else settings), encoding="utf-8")
    return main(["--config", str(path), "--out", str(tmp_path / "run"), *flags])


def test_from_nothing_to_a_model_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert command(tmp_path) == 0
    shown = capsys.readouterr()
    assert shown.err.strip() == "No catalogue given: simulating 60 clusters to train and validate on."
    assert shown.out.startswith("Trained 12 updates in ")
    assert "no flag unlike_training): that takes 400 of them for training and 199 for validation" in shown.out
    run = tmp_path / "run"
    expected = [
        "history.csv",
        "loss.pdf",
        "loss.png",
        "model.json",
        "model.safetensors",
        "run.json",
        "settings.yaml",
    ]
    assert sorted(path.name for path in run.iterdir()) == expected
    assert [row.update for row in read_history(run / "history.csv")] == [4, 8, 12]
    estimator = MassEstimator.load(run, "cpu")
    info = estimator.training_info
    assert info.n_train == 54
    assert info.log10_mass_range == (13.8, 14.4)
    assert info.config["fit"]["max_updates"] == 12
    assert info.selection["r_max"] == 1.6
    posterior = estimator.posterior(simulate_catalog(**MOCKS | {"n_clusters": 5}, seed=9))
    assert np.all(np.isfinite(posterior.median))


def test_flags_override_the_file(tmp_path: Path):
    assert command(tmp_path, "--fit.max-updates", "4", "--fit.flip-velocity") == 0
    config = MassEstimator.load(tmp_path / "run", "cpu").training_info.config
    assert config["fit"]["max_updates"] == 4
    assert config["flip_velocity"] is True


def test_a_catalogue_file_and_its_object_give_the_same_weights(tmp_path: Path, catalog: ClusterCatalog):
    catalog.write(tmp_path / "catalog.parquet")
    from_file = small(tmp_path / "a", tmp_path / "catalog.parquet")
    from_object = small(tmp_path / "b", catalog)
    for name, value in from_file.flow.state_dict().items():
        assert torch.equal(value, from_object.flow.state_dict()[name])


def test_constants_come_from_the_training_split_and_no_halo_is_on_both_sides(
    tmp_path: Path, catalog: ClusterCatalog
):
    estimator = small(tmp_path / "run", catalog, validation_fraction=0.3, seed=8)
    inside, outside = catalog.split([0.7, 0.3], derive_seed(8, "split"))
    masses = inside.column("log10_mass")
    assert float(estimator.flow.describe()["loc"]) == pytest.approx(masses.mean(), rel=1e-12)
    assert float(estimator.flow.describe()["scale"]) == pytest.approx(masses.std(), rel=1e-12)
    assert estimator.training_info.n_train == len(inside)
    assert not set(inside.column("halo_id")) & set(outside.column("halo_id"))


def test_initial_weights_follow_the_seed(tmp_path: Path, catalog: ClusterCatalog):
    kept = [
        small(tmp_path / str(i), catalog, seed=seed).flow.state_dict() for i, seed in enumerate((1, 1, 2))
    ]
    name = next(name for name, value in kept[0].items() if value.ndim == 2)
    assert torch.equal(kept[0][name], kept[1][name])
    assert not torch.equal(kept[0][name], kept[2][name])


def interrupt_at(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    seen: list[object] = []
    note = RunFiles.note

    def interrupting(self: RunFiles, row: object) -> None:
        note(self, row)
        seen.append(row)
        if len(seen) == count:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(RunFiles, "note", interrupting)


def test_ctrl_c_keeps_a_checkpoint_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        assert command(tmp_path) == 130
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "Training stopped at update 8; the same command with --resume goes on from there." in last
    assert command(tmp_path) == 2
    assert "holds an unfinished training run; add --resume" in capsys.readouterr().err
    assert command(tmp_path, "--resume", "--fit.learning-rate", "0.01") == 2
    assert "learning_rate was 0.0001 and is now 0.01" in capsys.readouterr().err
    assert command(tmp_path, "--resume") == 0
    resumed = MassEstimator.load(tmp_path / "run", "cpu").flow.state_dict()
    whole = tmp_path / "whole"
    whole.mkdir()
    assert command(whole) == 0
    for name, value in MassEstimator.load(whole / "run", "cpu").flow.state_dict().items():
        assert torch.equal(resumed[name], value)


def test_resuming_what_has_ended_returns_it_and_refuses_other_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert command(tmp_path, "--resume") == 0
    before = (tmp_path / "run" / "model.json").read_bytes()
    capsys.readouterr()
    assert command(tmp_path, "--resume") == 0
    assert capsys.readouterr().out.startswith("Training had ended.")
    assert (tmp_path / "run" / "model.json").read_bytes() == before
    assert command(tmp_path, "--resume", "--seed", "7") == 2
    assert "seed was 0 and is now 7" in capsys.readouterr().err


def test_other_data_are_refused_on_resuming(
    tmp_path: Path, catalog: ClusterCatalog, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            small(tmp_path / "run", catalog)
    with pytest.raises(ValueError, match="training data was"):
        small(tmp_path / "run", catalog[10:], resume=True)


def test_a_full_disk_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    write = files.write_through

    def full(path: Path, content: bytes) -> None:
        if path.parent.name.endswith("10"):
            path.write_bytes(content[:100])
            raise OSError(28, "No space left on device")
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_through", full)
        assert command(tmp_path) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "Cannot write the checkpoint of update 10" in error
    assert "the disk is full; update-0000005 is intact: make room and go on with --resume." in error
    assert command(tmp_path, "--resume") == 0


def test_two_trainings_in_one_folder_are_refused(tmp_path: Path, catalog: ClusterCatalog):
    with (
        sole_writer(tmp_path / "run", "training"),
        pytest.raises(ValueError, match="run' is in use by training, process"),
    ):
        small(tmp_path / "run", catalog, resume=True)


def test_a_run_killed_at_the_very_end_draws_its_losses_when_resumed(
    tmp_path: Path, catalog: ClusterCatalog, monkeypatch: pytest.MonkeyPatch
):
    def dies(*_: object) -> None:
        raise RuntimeError("killed")

    for name in ("save", "tidy up"):
        out = tmp_path / name
        with monkeypatch.context() as patch:
            if name == "save":
                patch.setattr(MassEstimator, "save", dies)
            else:
                patch.setattr(run_module, "tidy_up", dies)
            with pytest.raises(RuntimeError, match="killed"):
                small(out, catalog)
        small(out, catalog, resume=True)
        assert sorted(path.name for path in out.iterdir()) == [
            "history.csv", "loss.pdf", "loss.png", "model.json", "model.safetensors",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--out", "/dev/null/run"], "'/dev/null' is a file; give a folder"),
        (["--weights", "variational", "--weights.fit", "max_update=3"], "did you mean 'max_updates'?"),
        (["--fit.cuda-graphs"], "cuda_graphs is on, which needs a CUDA device"),
        (["--fit.max-update", "3"], "did you mean --fit.max-updates?"),
        (["--fit.max-updates", "0"], "fit.max_updates"),
        (["--flow.kind", "gaussian"], "unknown flow kind 'gaussian'"),
        (["--flow.options", "hiden=3"], "hiden"),
        (["--catalog", "nowhere.parquet"], "nowhere.parquet"),
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--simulate.parameters", "richness=2"], "there is no mock parameter 'richness'"),
        (["--augmentation.completeness", "0.9", "0.2"], "completeness is [0.9, 0.2]"),
        (["--validation-fraction", "1.5"], "validation_fraction"),
    ],
    ids=lambda value: value[0].strip("-") if isinstance(value, list) else "",
)
def test_bad_settings_end_with_one_sentence_and_code_2(
    tmp_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    try:
        code = command(tmp_path, *flags)
    except SystemExit as ended:
        code = int(str(ended.code))
    assert code == 2
    shown = capsys.readouterr().err.strip().splitlines()
    assert message in shown[-1]
    assert not any("Traceback" in line for line in shown)


def test_a_catalogue_without_masses_is_refused(tmp_path: Path, catalog: ClusterCatalog):
    with pytest.raises(ValueError, match="has no column log10_mass; add the true log10 M200c"):
        small(tmp_path / "run", catalog.without("log10_mass"))


def test_fresh_mocks_and_a_catalogue_contradict_each_other(tmp_path: Path, catalog: ClusterCatalog):
    with pytest.raises(ValueError, match="fresh_mocks simulates new clusters, but a catalogue was given"):
        small(tmp_path / "run", catalog, fresh_mocks=True)


# What the data of a run are


def data_of(catalog: ClusterCatalog | None = None, **changes):
    arguments = {"augmentation": Augmentation(), "device": torch.device("cpu"), "progress": False, "seed": 4}
    return prepare(catalog, MOCKS, changes.pop("encoder", encoder()), **arguments | changes)


def test_without_augmentation_the_clusters_are_encoded_once(catalog: ClusterCatalog):
    data = data_of(catalog)
    assert isinstance(data.source, FixedSource)
    assert data.source.epoch(0).context is data.source.epoch(5).context
    assert torch.equal(data.source.epoch(0).context, encoder().encode(data.seen))


def test_augmentation_changes_from_draw_to_draw_and_repeats(catalog: ClusterCatalog):
    changes = {"augmentation": Augmentation(completeness=(0.5, 0.9)), "validation_fraction": 0.2}
    first, again = data_of(catalog, **changes).source, data_of(catalog, **changes).source
    assert isinstance(first, CatalogSource)
    assert first.fingerprint() == again.fingerprint()
    assert torch.equal(first.epoch(0).context, again.epoch(0).context)
    assert torch.equal(first.epoch(3).context, again.epoch(3).context)
    sizes = {len(first.epoch(index).log10_mass) for index in range(4)}
    contexts = [first.epoch(index).context.sum(0) for index in range(2)]
    assert not torch.equal(*contexts)
    assert max(sizes) <= 48


def test_fresh_mocks_differ_from_each_other_and_from_the_validation_set():
    data = data_of(fresh_mocks=True, validation_fraction=0.2)
    draws = [data.source.epoch(index).log10_mass for index in range(3)]
    assert [len(draw) for draw in draws] == [48, 48, 48]
    seen = [set(draw.tolist()) for draw in [*draws, data.validation[1]]]
    assert all(not a & b for i, a in enumerate(seen) for b in seen[i + 1 :])
    assert torch.equal(
        data_of(fresh_mocks=True, validation_fraction=0.2).source.epoch(2).log10_mass, draws[2]
    )


def test_mocks_are_cut_wider_where_centres_move(monkeypatch: pytest.MonkeyPatch):
    asked: list[dict] = []

    def watched(**arguments):
        asked.append(arguments)
        return simulate_catalog(**arguments)

    monkeypatch.setattr("bayesflowmass.training.preparation.simulate_catalog", watched)
    augmentation = Augmentation(
        miscentre_r=0.05, miscentre_v=100.0, velocity_error=(0.0, 50.0), recentre=True
    )
    data = data_of(augmentation=augmentation)
    wide_r, wide_v = augmentation.margins()
    assert asked[0]["r_max"] == 1.6 + wide_r > 1.8
    assert asked[0]["v_max"] == 2500.0 + wide_v > 2900.0
    assert data.seen.metadata.selection["r_max"] == 1.6
    assert data.seen.metadata.selection["v_max"] == 2500.0
    assert data.seen.metadata.selection["miscentre_exact"] is True
    assert data.seen.r_proj.max() < 1.6
    assert np.abs(data.seen.galaxies("v_los")).max() < 2500.0
    assert "recentred" in data.seen.metadata.selection


def test_augmentation_does_what_it_says(catalog: ClusterCatalog):
    rng = np.random.default_rng(0)
    augmentation = Augmentation(
        completeness=(0.5, 0.6), velocity_error=(100.0, 200.0), central_losses=(0.1, 0.2)
    )
    seen = augmentation.apply(catalog, rng)
    assert np.all((seen.column("completeness") >= 0.5) & (seen.column("completeness") <= 0.6))
    assert np.all((seen.column("sigma_v_err") >= 100) & (seen.column("sigma_v_err") <= 200))
    assert len(np.unique(seen.column("sigma_v_err"))) == len(seen)
    assert seen.n_galaxies.min() >= 10
    assert seen.n_galaxies_total < 0.6 * catalog.n_galaxies_total
    assert json.dumps(augmentation.to_dict())
    assert not Augmentation()
    assert augmentation


def test_magnitude_limits_ask_the_mocks_for_magnitudes():
    bright = data_of(augmentation=Augmentation(magnitude_limit=(-19.5, -19.0), apparent=False)).seen
    assert bright.galaxies("gal_abs_mag").max() < -19.0
    assert "magnitude_limit" in bright.metadata.selection


@pytest.mark.parametrize(
    "wrong",
    [
        {"completeness": (0.0, 1.0)},
        {"completeness": (0.5, 1.5)},
        {"velocity_error": (200.0, 100.0)},
        {"velocity_error": (0.0, float("inf"))},
        {"miscentre_r": -1.0},
        {"miscentre_v": float("nan")},
    ],
    ids=str,
)
def test_augmentation_refuses_what_has_no_meaning(wrong: dict):
    with pytest.raises(ValueError, match=f"augmentation: {next(iter(wrong))}"):
        Augmentation(**wrong)
