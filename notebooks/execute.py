"""Executes the notebooks and fails if one of them fails or complains.

    python notebooks/execute.py [NOTEBOOK ...] [--write]

`make notebooks` runs all of them. Outputs go to a temporary folder; --write puts them into the notebooks that are
committed, without times and other traces of the machine. SCALE=full takes the full sizes.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).resolve().parent


def processor_seconds() -> float:
    """Of all kernels that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def complaints(notebook: nbformat.NotebookNode) -> list[str]:
    """What was written to standard error, cell by cell: warnings and progress bars have no place in a notebook."""
    return [
        f"cell {number}: {output.text.strip()}"
        for number, cell in enumerate(notebook.cells, start=1)
        for output in cell.get("outputs", [])
        if output.output_type == "stream" and output.name == "stderr"
    ]


def without_traces(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without versions and times, so that the same numbers give the same file."""
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata = {}
    return notebook


def execute(path: Path, out: Path, timeout: int) -> list[str]:
    """Execute one notebook in the folder of the notebooks, write it to `out`, and say what is wrong."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(HERE)}},
    )
    try:
        client.execute()
        wrong = complaints(notebook)
    except CellExecutionError as error:
        wrong = [str(error)]
    nbformat.write(without_traces(notebook), out)
    return wrong


def main() -> int:
    """The exit code: 1 if a notebook failed or wrote to standard error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all")
    parser.add_argument("--write", action="store_true", help="keep the outputs in the notebooks themselves")
    parser.add_argument("--timeout", type=int, default=1800, help="of a cell [s]")
    arguments = parser.parse_args()
    # Python says on standard error that its own modules are frozen, which concerns debuggers alone.
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for path in arguments.notebooks or sorted(HERE.glob("*.ipynb")):
            began, used = time.monotonic(), processor_seconds()
            copy = Path(folder) / path.name
            wrong = execute(path, copy, arguments.timeout)
            print(
                f"{path.name:32s} {time.monotonic() - began:5.0f} s, processor {processor_seconds() - used:4.0f} s"
                f"  {'failed' if wrong else 'ok'}",
                flush=True,
            )
            if wrong:
                failed.append(path.name)
                print("\n".join(wrong), file=sys.stderr)
            elif arguments.write:
                path.write_text(copy.read_text(encoding="utf-8"), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
