"""Which commands on which files go part by part, so that memory is that of a part and several processes can help."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from bayesflowmass.command.shared import DrawSettings


class PartSettings(DrawSettings):
    """Who makes the parts of a table."""

    listed_last: ClassVar[tuple[str, ...]] = ("workers", "scheduler", *DrawSettings.listed_last)

    workers: int | None = Field(
        None, gt=0, le=1024, description="processes, from parquet to parquet; default: one per core if large"
    )
    scheduler: str | None = Field(
        None, description="address of a Dask scheduler whose workers do it, e.g. tcp://node1:8786"
    )


_READ_WHOLE = (
    *(
        "clusters",
        "members",
        "cards",
        "column",
        "unit",
        "cluster_id",
        "redshift",
        "table_cosmology",
        "aperture",
    ),
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
    from bayesflowmass.catalog.files import is_catalog_file, parts_of

    path = Path(settings["galaxies"])
    priors = [settings["prior"] or "flat", *settings["also"]]
    odd = ["--" + name.replace("_", "-") for name in _READ_WHOLE if settings[name]]
    odd += ["a prior richness:N"] * any(prior.startswith("richness:") for prior in priors)
    parquet = (path.suffix == ".parquet" or path.is_dir()) and Path(settings["out"]).suffix == ".parquet"
    fits = parquet and not odd and is_catalog_file(path)
    if settings["workers"] is None and settings["scheduler"] is None:
        return fits and sum(part.n_rows for part in parts_of(path)) > 65_536
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
