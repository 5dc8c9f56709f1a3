"""What a power cut leaves: the old or the new, at every instant; the new, once the writer has returned."""

from __future__ import annotations

import sys

import pytest
import torch
from losing_disk import LosingDisk
from small_model import toy_catalog, toy_estimator

from bayesflowmass.common.files import whole_file, write_whole
from bayesflowmass.encoders import ContextEncoder, KDEEncoder
from bayesflowmass.estimator import MassEstimator, ModelError
from bayesflowmass.train import train
from bayesflowmass.training.checkpoint import read_checkpoint, write_checkpoint, write_settings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="descriptors have no names elsewhere")


@pytest.fixture
def cuts(tmp_path):
    """What power cuts leave of a disk, one after another in folders of their own."""
    count = iter(range(10_000))

    def left_on(disk):
        return [disk.after_power_cut(tmp_path / f"cut{next(count)}", names) for names in (True, False)]

    return left_on


@pytest.fixture
def root(tmp_path):
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


def test_the_disk_loses_what_is_not_flushed(root, cuts):
    (root / "old").write_text("old", encoding="utf-8")
    disk = LosingDisk(root)
    with disk.watch():
        (root / "new").write_text("new", encoding="utf-8")
        (root / "old").write_text("young", encoding="utf-8")
        (root / "old").rename(root / "renamed")
        early, late = cuts(disk)
    assert {path.name: path.read_text(encoding="utf-8") for path in early.iterdir()} == {
        "new": "",
        "renamed": "old",
    }
    assert {path.name: path.read_text(encoding="utf-8") for path in late.iterdir()} == {"old": "old"}


def by_another(path, content):
    """As libraries write, which flush nothing."""
    with whole_file(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


@pytest.mark.parametrize("write", [write_whole, by_another])
def test_a_file_is_old_or_new_at_every_instant_and_new_at_the_end(root, cuts, write):
    (root / "a").write_text("old", encoding="utf-8")
    disk = LosingDisk(root)
    found = []

    def look():
        found.extend((left / "a").read_text(encoding="utf-8") for left in cuts(disk))

    with disk.watch(look):
        write(root / "a", "new")
        assert set(found) <= {"old", "new"}
        found.clear()
        look()
    assert found == ["new", "new"]


def test_a_checkpoint_is_the_last_or_the_one_before_at_every_instant(root, cuts):
    tensors = [{"w": torch.full((3,), float(update))} for update in range(4)]
    done = 0
    disk = LosingDisk(root)

    def look(least=0):
        for left in cuts(disk):
            read = read_checkpoint(left / "checkpoint")
            update = 0 if read is None else read[1]["update"]
            assert max(least, done) <= update <= done + 1
            assert read is None or torch.equal(read[0]["w"], tensors[update]["w"])

    with disk.watch(look):
        write_settings(root / "checkpoint", {"seed": 1})
        for update in (1, 2, 3):
            write_checkpoint(root / "checkpoint", update, tensors[update], {})
            look(update)
            done = update


def test_a_model_is_one_of_both_or_refused_and_the_new_at_the_end(root, cuts):
    estimator = toy_estimator()
    estimator.save(root / "model")
    changed = toy_estimator()
    with torch.no_grad():
        for weight in changed.flow.parameters():
            weight += 0.01

    def weights(model):
        return torch.cat([weight.detach().reshape(-1) for weight in model.flow.parameters()])

    known = [weights(model) for model in (estimator, changed)]
    disk = LosingDisk(root)

    def look():
        for left in cuts(disk):
            try:
                found = weights(MassEstimator.load(left / "model", "cpu"))
            except ModelError:
                continue
            assert any(torch.equal(found, one) for one in known)

    with disk.watch(look):
        changed.save(root / "model")
        assert all(
            torch.equal(weights(MassEstimator.load(left / "model", "cpu")), known[1]) for left in cuts(disk)
        )


def test_a_run_goes_on_after_a_power_cut_to_the_same_weights(root, cuts, tmp_path, monkeypatch):
    monkeypatch.setattr("bayesflowmass.command.trained.draw_losses", lambda *_: None)
    toy_catalog(60, seed=1).write(tmp_path / "c.parquet")

    def run(out, resume):
        train(
            tmp_path / "c.parquet",
            out=out,
            encoder=ContextEncoder(KDEEncoder(grid=(6, 6))),
            flow={"kind": "affine", "hidden": (4,)},
            options={
                "batch_size": 8,
                "max_updates": 12,
                "validate_every": 4,
                "checkpoint_every": 3,
                "patience_updates": None,
            },
            device="cpu",
            resume=resume,
            progress=False,
        )
        return (out / "model.safetensors").read_bytes()

    (root / "run").mkdir()
    disk = LosingDisk(root)
    number, left = 0, []

    def look():
        nonlocal number
        number += 1
        if number % 20 == 13:
            left.extend(cuts(disk))

    with disk.watch(look):
        whole = run(root / "run", resume=False)
        left.extend(cuts(disk))
    assert len(left) >= 4
    assert all(run(one / "run", resume=True) == whole for one in left)
    # The last two have ended.
    assert all((one / "run" / "model.json").is_file() for one in left)
