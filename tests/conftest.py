"""Fixtures and rules that all tests share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
import torch

mpl.use("Agg")
# One thread per test process: with pytest-xdist two processes fill two cores.
torch.set_num_threads(int(os.environ.get("BAYESFLOWMASS_TEST_THREADS", "1")))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real catalogues; tests that need it are skipped where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("BAYESFLOWMASS_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real catalogues at {folder}; set BAYESFLOWMASS_SHARED_DATA to run this test")
    return folder


@pytest.fixture(scope="module")
def estimator() -> Any:
    """An untrained model of a few hundred weights."""
    from small_model import toy_estimator

    return toy_estimator()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips GPU tests, with the reason, where there is no CUDA device."""
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
