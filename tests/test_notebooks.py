"""The notebooks as they are committed, without executing them (`make notebooks` does)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bayesflowmass.plots.style import column_figure

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST = 600_000


def cells_of(path, kind=None):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if kind in (None, cell["cell_type"])]


def source(cell):
    return "".join(cell["source"])


def outputs_of(path):
    return [output for cell in cells_of(path, "code") for output in cell["outputs"]]


def text_of(output):
    """Everything in an output but pictures."""
    parts = [output.get("text", "")]
    parts += [value for kind, value in output.get("data", {}).items() if not kind.startswith("image/")]
    return "\n".join("".join(part) for part in parts)


each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_the_seven_are_there():
    assert [path.name[0] for path in NOTEBOOKS] == list("1234567")


@each
def test_it_was_executed_from_top_to_bottom(path):
    counts = [cell["execution_count"] for cell in cells_of(path, "code")]
    assert counts == list(range(1, len(counts) + 1))


@each
def test_it_shows_numbers_and_figures(path):
    outputs = outputs_of(path)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any(re.search(r"\d", text_of(output)) for output in outputs)


@each
def test_nothing_went_wrong(path):
    outputs = outputs_of(path)
    assert all(output["output_type"] != "error" for output in outputs)
    assert all(output.get("name") != "stderr" for output in outputs)


@each
def test_it_begins_with_prose(path):
    first = cells_of(path)[0]
    assert first["cell_type"] == "markdown"
    assert source(first).startswith(f"# {path.name[0]}. ")


@each
def test_it_can_be_run_at_two_scales(path):
    setup = source(cells_of(path, "code")[0])
    assert 'SCALE = os.environ.get("SCALE", "small")' in setup
    assert re.search(r'\{"small": \d+, "full": \d+\}\[SCALE\]', setup)


@each
def test_it_knows_nothing_of_the_machine(path):
    texts = [source(cell) for cell in cells_of(path)] + [text_of(output) for output in outputs_of(path)]
    assert not [
        t for text in texts for t in re.findall(r"(?<![\w.)])/(?:home|tmp|work|root|Users)\b\S*", text)
    ]
    metadata = json.loads(path.read_text(encoding="utf-8"))["metadata"]
    assert metadata["kernelspec"]["name"] == "python3"
    assert all(cell["metadata"] == {} for cell in cells_of(path))


@each
def test_it_is_small(path):
    assert path.stat().st_size < LARGEST


@each
def test_its_links_lead_somewhere(path):
    for cell in cells_of(path, "markdown"):
        for target in re.findall(r"\]\(([^)\s]+)\)", source(cell)):
            if not target.startswith(("http://", "https://")):
                assert (path.parent / target.partition("#")[0]).is_file(), target


def test_figures_show_themselves_in_notebooks():
    figure, _ = column_figure()
    picture = figure._repr_png_()
    assert picture.startswith(b"\x89PNG")
    assert picture == figure._repr_png_()
