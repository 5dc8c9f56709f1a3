"""The one command for a GPU runs, so that an hour with one is not spent on its mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import gpu_check


def test_every_row_is_measured(tmp_path: Path):
    gpu_check.main(["--device", "cpu", "--small", "--out", str(tmp_path / "gpu.md")])
    text = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    for what in (
        "KDE",
        "local densities",
        "update, plain",
        "variational",
        "mean field",
        "inference",
        "training",
    ):
        assert what in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    gpu_check.main(["--out", str(tmp_path / "gpu.md")])
    assert "skipped, since torch finds no CUDA device" in capsys.readouterr().out
    assert not (tmp_path / "gpu.md").exists()


def test_every_file_with_gpu_tests_is_run():
    tests = Path(__file__).parents[1]
    marked = {
        path.relative_to(tests).as_posix()
        for path in tests.rglob("test_*.py")
        if "pytest.mark.gpu" in path.read_text(encoding="utf-8") and path != Path(__file__)
    }
    assert marked - {"benchmarks/test_gpu_check.py"} == set(gpu_check.TESTS)
