"""Which commands on which files go part by part, so that memory is that of a part and several processes can help."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from bayesflowmass.command.shared import DrawSettings

_LARGE = 65_536
"""Clusters beyond which a catalogue goes in parts by itself."""


class PartSettings(DrawSettings):
    """Who makes the parts of a table."""

    listed_last: ClassVar[tuple[str, ...]] = ("workers", "scheduler", *DrawSettings.listed_last)

    workers: int | None = Field(
        None,
        gt=0,
        le=1024,
        description=f"processes, for parquet files; default: one, or one per core beyond {_LARGE} clusters",
    )
    scheduler: str | None = Field(
        None, description="address of a Dask scheduler whose workers do it, e.g. tcp://node1:8786"
    )


_READ_WHOLE = (
    *("clusters", "members", "cards", "column", "unit", "cluster_id", "redshift", "table_cosmology"),
    *("aperture", "footprint"),
)
"""Settings of ``infer`` that need all clusters at once."""


def goes_in_parts(settings: Mapping[str, Any]) -> bool:
    """Whether masses are made part by part: where somebody is to help, and of large catalogues (65 536 clusters).

    Args:
        settings: values of `bayesflowmass.infer.InferSettings` by name.

    Raises:
        ValueError: somebody is to help, and a setting or a file does not allow it.
        CatalogError: the file cannot be read.
    """
    # Late, since --help should not wait for pyarrow.
    from bayesflowmass.catalog.files import is_catalog_file

    path = Path(settings["galaxies"])
    priors = [settings["prior"] or "flat", *settings["also"]]
    odd = ["--" + name.replace("_", "-") for name in _READ_WHOLE if settings[name]]
    odd += ["a prior richness:N"] * any(prior.startswith("richness:") for prior in priors)
    parquet = (path.suffix == ".parquet" or path.is_dir()) and Path(settings["out"]).suffix == ".parquet"
    fits = parquet and not odd and is_catalog_file(path)
    if settings["workers"] is None and settings["scheduler"] is None:
        return fits and _is_large(path)
    if odd:
        raise ValueError(
            f"{odd[0]} needs the catalogue as a whole; leave out --workers and --scheduler, or it."
        )
    if not fits:
        raise ValueError(
            "--workers and --scheduler go from a catalogue (parquet) to a masses table (parquet): give such names to"
            " --galaxies and --out, or leave them out."
        )
    return True


def evaluated_in_parts(settings: Mapping[str, Any]) -> bool:
    """Whether a catalogue of known masses is judged part by part: where somebody is to help, and if it is large.

    Args:
        settings: values of `bayesflowmass.evaluate.EvaluateSettings` by name.

    Raises:
        CatalogError: the file cannot be read.
    """
    return bool(settings["workers"] or settings["scheduler"]) or _is_large(Path(settings["catalog"]))


def _is_large(path: Path) -> bool:
    from bayesflowmass.catalog.files import parts_of

    return sum(part.n_rows for part in parts_of(path)) > _LARGE
