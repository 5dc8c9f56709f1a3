"""Stopping, schedules, random states, history, checkpoints and batches, each by itself."""

from __future__ import annotations

import json
import math
import random
import signal
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesflowmass.common.files import write_whole
from bayesflowmass.plots.checks.loss import plot_loss
from bayesflowmass.plots.style import save_figure
from bayesflowmass.training.checkpoint import (
    CheckpointError,
    check_same_settings,
    has_checkpoint,
    read_checkpoint,
    read_settings,
    remove_checkpoints,
    write_checkpoint,
    write_settings,
)
from bayesflowmass.training.device import batches
from bayesflowmass.training.history import HistoryRow, append_history, read_history, write_history
from bayesflowmass.training.interrupt import DeferredInterrupt
from bayesflowmass.training.learning_rate import LearningRate
from bayesflowmass.training.random_state import (
    capture_global_state,
    derive_seed,
    numpy_generator,
    restore_global_state,
    seeded_globals,
    torch_generator,
)
from bayesflowmass.training.stopping import SmoothedStopping

CPU = torch.device("cpu")


# Stopping


def test_smoothing_is_the_exponential_average_of_its_docstring():
    stopping = SmoothedStopping(smoothing_updates=50)
    times, losses = [20, 40, 80, 100], [1.0, 0.4, 0.7, 0.1]
    expected = losses[0]
    for i, (time, loss) in enumerate(zip(times, losses, strict=True)):
        stopping.observe(time, loss)
        if i:
            expected += (1 - math.exp(-(time - times[i - 1]) / 50)) * (loss - expected)
        assert stopping.average == pytest.approx(expected, rel=1e-12)


def test_smoothing_makes_the_stop_repeatable_where_the_raw_loss_plays_dice():
    def stop(seed: int, smoothing: float) -> int:
        noise = np.random.default_rng(seed).normal(0, 0.03, 1000)
        stopping = SmoothedStopping(200, smoothing)
        for i in range(1000):
            update = 10 * (i + 1)
            stopping.observe(update, math.exp(-update / 400) + 2e-5 * update + noise[i])
            if stopping.exhausted:
                return update
        return 10000

    raw = [stop(seed, 0) for seed in range(30)]
    smooth = [stop(seed, 150) for seed in range(30)]
    assert np.std(smooth) < 0.7 * np.std(raw)
    assert np.median(raw) < np.median(smooth)


def test_stopping_survives_json_in_the_middle():
    whole, half = SmoothedStopping(), SmoothedStopping()
    losses = [1.0, 0.9, 0.95, 0.8, 0.85, 0.1 + 0.2]
    for i, loss in enumerate(losses):
        whole.observe(20 * i + 20, loss)
        half.observe(20 * i + 20, loss)
        resumed = SmoothedStopping()
        resumed.load_state(json.loads(json.dumps(half.state())))
        half = resumed
    assert half == whole


def test_stopping_refuses_a_loss_that_is_not_finite():
    with pytest.raises(ValueError, match="validation loss is nan at update 20: training diverged"):
        SmoothedStopping().observe(20, float("nan"))


# Learning rate


def test_schedules_have_their_shapes():
    assert {LearningRate(1e-4).at(u) for u in (0, 500, 1999)} == {1e-4}
    cosine = LearningRate(1e-3, "cosine", warmup_updates=10, max_updates=100, final_fraction=0.1)
    assert [cosine.at(u) for u in (0, 4, 9)] == pytest.approx([1e-4, 5e-4, 1e-3])
    assert cosine.at(10) == pytest.approx(1e-3)
    assert cosine.at(99) == pytest.approx(1e-4)
    falling = [cosine.at(u) for u in range(10, 100)]
    assert falling == sorted(falling, reverse=True)


def test_plateau_falls_once_for_each_spent_patience():
    rate = LearningRate(1.0, "plateau", plateau_updates=100, factor=0.5, final_fraction=0.2)
    seen = []
    for update in range(20, 600, 20):
        rate.observe(update, best_update=100)
        seen.append((update, rate.at(update)))
    changes = [update for (update, now), (_, before) in zip(seen[1:], seen, strict=False) if now != before]
    assert changes == [200, 300, 400]
    assert seen[-1][1] == 0.2


# Randomness


@given(st.integers(0, 2**63), st.integers(0, 10**6), st.integers(0, 10**6))
@settings(deadline=None, max_examples=50)
def test_streams_are_functions_of_their_path(seed, a, b):
    assert derive_seed(seed, "mocks", a) == derive_seed(seed, "mocks", a)
    assert (derive_seed(seed, "mocks", a) == derive_seed(seed, "mocks", b)) == (a == b)
    assert derive_seed(seed, "mocks", a) != derive_seed(seed, "permutation", a)
    assert 0 <= derive_seed(seed, a, b) < 2**63


def test_generators_of_a_stream_repeat():
    assert numpy_generator(1, "a").random() == numpy_generator(1, "a").random()
    assert torch.equal(
        torch.rand(3, generator=torch_generator(1, "a")), torch.rand(3, generator=torch_generator(1, "a"))
    )


def draw_all() -> list[float]:
    return [random.gauss(0, 1), float(np.random.normal()), float(torch.randn(()))]  # noqa: NPY002


def test_global_states_survive_json():
    with seeded_globals(5):
        draw_all()
        tensors, others = capture_global_state()
        expected = [draw_all(), draw_all()]
        restore_global_state(tensors, json.loads(json.dumps(others)))
        assert [draw_all(), draw_all()] == expected


def test_seeded_globals_start_from_the_seed_and_put_back():
    outside = capture_global_state()
    with seeded_globals(5):
        first = draw_all()
    with seeded_globals(5):
        assert draw_all() == first
    with seeded_globals(6):
        # Each generator of the three follows the seed.
        assert all(other != drawn for other, drawn in zip(draw_all(), first, strict=True))
    after = capture_global_state()
    assert torch.equal(after[0]["torch"], outside[0]["torch"])
    assert after[1] == outside[1]


# History

ROWS = [HistoryRow(20, 0, 1.5, 0.1 + 0.2, 1.4, 1e-4, 0.5), HistoryRow(40, 1, 1.25, -1.35, 1.3, 1e-4, 1.0)]


def test_history_round_trip_is_exact(tmp_path: Path):
    path = tmp_path / "run" / "history.csv"
    write_history(path, ROWS[:1])
    append_history(path, ROWS[1])
    assert read_history(path) == ROWS


def test_history_says_which_line_is_damaged(tmp_path: Path):
    path = tmp_path / "history.csv"
    write_history(path, ROWS)
    path.write_text(path.read_text(encoding="utf-8")[:-12], encoding="utf-8")
    with pytest.raises(ValueError, match="damaged row at line 3"):
        read_history(path)
    path.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(ValueError, match="is not a training history"):
        read_history(path)


# Checkpoints


def checkpoint(folder: Path, update: int) -> None:
    write_checkpoint(folder, update, {"w": torch.full((5,), float(update))}, {"x": update})


def test_checkpoints_round_trip_and_only_the_latest_stays(tmp_path: Path):
    folder = tmp_path / "checkpoint"
    write_settings(folder, {"seed": 1})
    assert read_checkpoint(folder) is None
    assert not has_checkpoint(folder)
    for update in (10, 20):
        checkpoint(folder, update)
        tensors, state = read_checkpoint(folder)
        assert (state["update"], state["x"], tensors["w"].tolist()) == (update, update, [update] * 5)
    assert sorted(path.name for path in folder.iterdir()) == ["latest", "settings.json", "update-0000020"]
    assert read_settings(folder) == {"seed": 1}


def test_removing_checkpoints_leaves_what_is_not_ours(tmp_path: Path):
    folder = tmp_path / "checkpoint"
    write_settings(folder, {})
    checkpoint(folder, 10)
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    remove_checkpoints(folder)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    (folder / "notes.txt").unlink()
    remove_checkpoints(folder)
    assert not folder.exists()
    remove_checkpoints(folder)


def test_starting_anew_forgets_the_old_checkpoint(tmp_path: Path):
    write_settings(tmp_path, {"seed": 1})
    checkpoint(tmp_path, 10)
    write_settings(tmp_path, {"seed": 2})
    assert read_checkpoint(tmp_path) is None


@pytest.mark.parametrize("broken", ["tensors.safetensors", "state.json"])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, broken: str):
    checkpoint(tmp_path, 10)
    path = tmp_path / "update-0000010" / broken
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=f"{broken}' is damaged"):
        read_checkpoint(tmp_path)


def test_a_flipped_bit_anywhere_in_a_checkpoint_is_refused(tmp_path: Path):
    folder, rng = tmp_path / "checkpoint", np.random.default_rng(0)
    tensors = {"weights/w": torch.randn(40), "random/torch": torch.arange(64, dtype=torch.uint8)}
    write_settings(folder, {"seed": 1})
    write_checkpoint(
        folder, 10, tensors, {"position": [0, 3], "seconds": 0.25, "history": [ROWS[0].to_list()]}
    )

    def read() -> object:
        return read_settings(folder), read_checkpoint(folder)

    read()
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    assert len(paths) == 4
    for path in paths:
        content = path.read_bytes()
        for place in rng.integers(0, 8 * len(content), 50):
            damaged = bytearray(content)
            damaged[place // 8] ^= 1 << (place % 8)
            path.write_bytes(damaged)
            with pytest.raises(CheckpointError, match=r"is damaged|which is not there"):
                read()
        path.write_bytes(content)
    read()


def test_a_foreign_pointer_is_refused(tmp_path: Path):
    (tmp_path / "latest").write_text("../elsewhere", encoding="utf-8")
    with pytest.raises(CheckpointError, match="which is not there"):
        read_checkpoint(tmp_path)


def test_a_checkpoint_of_another_format_is_refused(tmp_path: Path):
    checkpoint(tmp_path, 10)
    (tmp_path / "update-0000010" / "state.json").write_text('{"format": 99}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="has format 99; this version reads 2"):
        read_checkpoint(tmp_path)


def test_changed_settings_are_named():
    begun = {"seed": 1, "fit": {"learning_rate": 1e-4, "betas": [0.9, 0.99]}, "old": 1}
    check_same_settings(
        begun, {"fit": {"betas": (0.9, 0.99), "learning_rate": 1e-4}, "seed": 1, "old": 1}, "RUN"
    )
    now = {"seed": 1, "fit": {"learning_rate": 3e-4, "betas": (0.9, 0.99)}, "new": True}
    with pytest.raises(CheckpointError) as caught:
        check_same_settings(begun, now, "RUN")
    message = str(caught.value)
    assert "fit.learning_rate was 0.0001 and is now 0.0003" in message
    assert "old was 1 and is now None" in message
    assert "new was None and is now True" in message
    assert "seed" not in message


def test_a_full_disk_is_one_sentence_and_the_previous_checkpoint_stays(tmp_path: Path):
    resource = pytest.importorskip("resource")
    folder = tmp_path / "checkpoint"
    checkpoint(folder, 10)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A file may not grow beyond a limit: the system refuses the write half-way, as a full disk does.
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(CheckpointError) as caught:
            write_checkpoint(folder, 20, {"w": torch.zeros(100_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert "update-0000010 is intact: make room and go on with --resume." in str(caught.value)
    assert read_checkpoint(folder)[1]["update"] == 10
    assert sorted(path.name for path in folder.iterdir()) == ["latest", "update-0000010"]


def test_a_full_device_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match="the disk is full; make room and start again"):
        checkpoint(tmp_path / "checkpoint", 10)


def test_atomic_write_keeps_the_old_content_on_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "file"
    write_whole(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("no")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# Interruptions


def interrupted(reached: list[str], signals: int, held: bool) -> None:
    with DeferredInterrupt() as interrupt, interrupt.deferred() if held else nullcontext():
        for _ in range(signals):
            signal.raise_signal(signal.SIGTERM)
        reached.append("end of block")


@pytest.mark.parametrize(
    ("signals", "held", "expected"),
    [(1, True, ["end of block"]), (1, False, []), (2, True, [])],
    ids=["waits for the end of the block", "does not wait outside", "the second does not wait"],
)
def test_signal(signals: int, held: bool, expected: list[str]):
    reached: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted(reached, signals, held)
    assert reached == expected


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with DeferredInterrupt():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


# Devices and batches


def test_batches_cover_the_order_and_leave_the_rest_out():
    context, target = torch.arange(20.0).reshape(10, 2), torch.arange(10.0)
    order = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
    parts = (context, target, None)
    found = list(batches(parts, order, 4, CPU))
    assert [t.tolist() for _, t, _ in found] == [[3, 1, 4, 0], [5, 9, 2, 6]]
    assert all(torch.equal(c, context[t.long()]) and w is None for c, t, w in found)
    assert [t.tolist() for _, t, _ in batches(parts, order, 4, CPU, first=1)] == [[5, 9, 2, 6]]
    assert [len(t) for _, t, _ in batches(parts, order, 99, CPU)] == [10]
    assert list(batches(parts, order, 99, CPU, first=1)) == []


def test_the_loss_figure_shows_three_losses_and_the_best_update(tmp_path: Path):
    update = np.arange(20, 4020, 20)
    loss = np.exp(-update / 100.0)
    figure = plot_loss(update, 50 * loss, loss + 0.1, loss + 0.2, best_update=4000)
    (axis,) = figure.axes
    assert len(axis.lines) == 4
    assert axis.get_xlabel() == "updates"
    assert axis.get_ylabel().endswith("[nats]")
    assert axis.get_ylim()[1] < 50 * loss[0]
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "best, 4000"
    assert all(path.stat().st_size > 0 for path in save_figure(figure, tmp_path / "loss"))
    with pytest.raises(ValueError, match="no history to draw"):
        plot_loss([], [], [], [])
