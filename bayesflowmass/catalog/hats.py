"""HATS catalogues, the folders that LSDB writes: which of their files hold the rows."""

from __future__ import annotations

from pathlib import Path

from bayesflowmass.catalog.errors import CatalogError

COLLECTION = "collection.properties"
TABLE = ("hats.properties", "properties")


def is_hats(folder: Path) -> bool:
    """Whether a folder is a HATS table, or a collection with one."""
    return (folder / COLLECTION).is_file() or (
        (folder / "dataset").is_dir() and any((folder / name).is_file() for name in TABLE)
    )


def hats_parts(folder: Path) -> tuple[list[Path], int | None]:
    """The parquet files of a HATS table, or of the main table of a collection, and the rows that they should have.

    Margins and indices of a collection repeat its rows, and are left alone. Source: the HATS note of the IVOA,
    version 1.0 (2025).

    Args:
        folder: one for which `is_hats` is true.

    Returns:
        Files in the order of their names, and the number of rows in the properties; None where it is not said.

    Raises:
        CatalogError: the main table is not inside of the collection, or has no files.
    """
    if (folder / COLLECTION).is_file():
        name = _properties(folder / COLLECTION).get("hats_primary_table_url", "")
        table = folder / name
        if name != table.name or not table.is_dir() or not is_hats(table):
            raise CatalogError(
                f"{folder / COLLECTION}: hats_primary_table_url is {name!r}; a folder beside this file, with the "
                "main table of the collection, is expected. Give the folder of the table itself."
            )
        folder = table
    said = _properties(next(folder / name for name in TABLE if (folder / name).is_file()))
    files = sorted((folder / "dataset").glob("Norder=*/Dir=*/Npix=*.parquet"))
    files += sorted((folder / "dataset").glob("Norder=*/Dir=*/Npix=*/*.parquet"))
    if not files:
        raise CatalogError(f"{folder}: the HATS table has no files dataset/Norder=*/Dir=*/Npix=*.parquet.")
    rows = said.get("hats_nrows", "")
    return files, int(rows) if rows.isdecimal() else None


def _properties(path: Path) -> dict[str, str]:
    """Lines ``key=value`` of a file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(f"{path}: cannot be read as text ({error}).") from error
    pairs = (line.partition("=") for line in lines if not line.lstrip().startswith("#"))
    return {key.strip(): value.strip() for key, _, value in pairs}
