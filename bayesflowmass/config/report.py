"""Settings of `report`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from bayesflowmass.config.base import Settings

__all__ = ["ReportSettings"]


class ReportSettings(Settings):
    """`bayesflowmass report DIR`: one self-contained HTML page from a run folder."""

    folder: Path = Field(description="what train, evaluate, compare, infer or demo wrote")
    out: Path | None = Field(None, description="page to write; default: report.html in the folder")

    @field_validator("out")
    @classmethod
    def _a_file(cls, out: Path | None) -> Path | None:
        if out is not None and (out.is_dir() or out.suffix.lower() not in (".html", ".htm")):
            raise ValueError(f"'{out}' is not the name of a page; give one that ends in .html")
        return out
