"""One self-contained HTML page from a run folder: ``bayesflowmass report DIR``.

The verdict first, then accuracy and calibration, masses, what was trained on what, and the commands to get
the same again. The page needs no network, no script and no second file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, field_validator

from bayesflowmass.command import run_command
from bayesflowmass.command.paths import InputPath
from bayesflowmass.common.files import write_whole
from bayesflowmass.common.settings import Settings
from bayesflowmass.common.terminal import say

__all__ = ["ReportSettings", "main", "report"]

PAGE = "report.html"


class ReportSettings(Settings):
    """`bayesflowmass report DIR`: one self-contained HTML page from a run folder."""

    folder: InputPath = Field(description="folder that train, evaluate, compare, infer or demo wrote")
    out: Path | None = Field(None, description="page to write; default: report.html in the folder")

    @field_validator("out")
    @classmethod
    def _a_file(cls, out: Path | None) -> Path | None:
        if out is not None and (out.is_dir() or out.suffix.lower() not in (".html", ".htm")):
            raise ValueError(f"'{out}' is not the name of a page; give one that ends in .html")
        return out


def report(folder: str | Path, out: str | Path | None = None) -> Path:
    """Write the page of a run folder, whole or not at all.

    Args:
        folder: what train, evaluate, compare, infer or demo wrote; results in folders directly inside it
            are taken in.
        out: page to write; default: ``report.html`` in the folder.

    Returns:
        The path of the page.

    Raises:
        ReportError: the folder holds nothing to report, or a file in it cannot be read.
    """
    # Imported late: --help, and the name of a folder that is not there, should not wait for torch.
    from bayesflowmass.page.contents import report_page
    from bayesflowmass.page.render import render_page

    place = Path(out) if out is not None else Path(folder) / PAGE
    html = render_page(report_page(folder))
    place.parent.mkdir(parents=True, exist_ok=True)
    return write_whole(place, html)


def main(argv: Sequence[str] | None = None) -> int:
    """``bayesflowmass report DIR``; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-"):
        words = ["--folder", *words]

    def body(settings: ReportSettings) -> None:
        page = report(settings.folder, settings.out)
        say(f"{page} ({page.stat().st_size / 1e6:.1f} MB)")

    return run_command(ReportSettings, body, words, prog="bayesflowmass report")


if __name__ == "__main__":
    sys.exit(main())
