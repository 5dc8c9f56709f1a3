"""What a file is, what is wrong with it, and which command takes it: ``bayesflowmass inspect FILE``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from bayesflowmass.command import ConfigError, Settings, TrainSettings, build_settings, load_yaml, run_command
from bayesflowmass.common.terminal import say
from bayesflowmass.estimator.description import DESCRIPTION, WEIGHTS

# The rest is imported where it is used: --help, and an error in the input, should not wait for torch.
if TYPE_CHECKING:
    from bayesflowmass.inspection.report import Inspection

__all__ = ["InspectSettings", "inspect_file", "main"]


class InspectSettings(Settings):
    """`bayesflowmass inspect FILE`: what a file is, what is wrong with it, and which command takes it."""

    file: Path = Field(description="table, catalogue, N-body box, model folder or settings")
    clusters: Path | None = Field(None, description="table of clusters that goes with a table of galaxies")
    column: dict[str, str] = Field(default_factory=dict, description="OURS=THEIRS, names of columns")
    unit: dict[str, str] = Field(default_factory=dict, description="OURS=UNIT, units of columns")
    cluster_id: str | None = Field(None, description="all galaxies belong to this cluster")
    redshift: float | None = Field(None, description="redshift of all clusters, where tables have none")
    quick: bool = Field(False, description="of an N-body box, look at the first part only")


def inspect_file(
    path: str | Path,
    *,
    clusters: str | Path | None = None,
    column: Mapping[str, str] | None = None,
    unit: Mapping[str, str] | None = None,
    cluster_id: str | None = None,
    redshift: float | None = None,
    quick: bool = False,
) -> Inspection:
    """Look at a file or folder.

    Args:
        path: a table, a catalogue, an N-body box, a model folder, or settings.
        clusters: table of clusters that goes with a table of galaxies.
        column, unit, cluster_id, redshift: as for ``infer``.
        quick: of an N-body box, look at the first part only.

    Raises:
        CatalogError: there is no such file.
    """
    from bayesflowmass.catalog import CatalogError
    from bayesflowmass.catalog.files import is_catalog_file
    from bayesflowmass.inspection.files import inspect_box, inspect_catalog, inspect_model, inspect_whole
    from bayesflowmass.inspection.report import Inspection
    from bayesflowmass.inspection.tables import inspect_table
    from bayesflowmass.io.formats import BoxFormat, CatalogFormat, TableFormat, identify
    from bayesflowmass.io.opening import at_rest

    place = at_rest(path)
    if place.is_dir():
        return _inspect_folder(place)
    if place.name in (DESCRIPTION, WEIGHTS):
        return inspect_model(place.parent)
    if place.suffix in (".yaml", ".yml"):
        return _inspect_settings(place)
    try:
        if is_catalog_file(place):
            return inspect_catalog(place)
        known = identify(place)
    except CatalogError as error:
        return Inspection(str(place), "a file that cannot be read", problems=[str(error)], usable=False)
    if isinstance(known, BoxFormat):
        return inspect_box(known, place, quick)
    if isinstance(known, CatalogFormat):
        return inspect_whole(known, place, redshift)
    assert known is None or isinstance(known, TableFormat)
    others = None if clusters is None else at_rest(clusters)
    return inspect_table(place, known, others, column or {}, unit or {}, cluster_id, redshift)


def _inspect_folder(place: Path) -> Inspection:
    from bayesflowmass.catalog.hats import is_hats
    from bayesflowmass.inspection.files import inspect_catalog, inspect_model, is_model_folder
    from bayesflowmass.inspection.report import Inspection, command

    if is_model_folder(place):
        return inspect_model(place)
    if is_hats(place) or any(place.glob("*.parquet")):
        return inspect_catalog(place)
    report = Inspection(str(place), "a folder", usable=False)
    if (place / "checkpoint").is_dir():
        report.title = "a training run that has not finished"
        report.problems.append("there is a checkpoint and no model yet.")
        report.commands = [f"{command('train', '--resume', '--out', place)} (with its --config)"]
    else:
        report.problems.append("it holds neither a model (model.json) nor a catalogue (*.parquet).")
    return report


def _inspect_settings(path: Path) -> Inspection:
    """A YAML file, which may be a configuration."""
    from bayesflowmass.inspection.report import Inspection, command

    report = Inspection(str(path), "settings (YAML)")
    try:
        values = load_yaml(path)
        report.facts.append(f"keys: {', '.join(map(str, values)) or 'none'}")
        build_settings(TrainSettings, values, source=f"'{path}'")
    except ConfigError as error:
        return report.refuse(error)
    report.commands = [command("train", "--config", path)]
    return report


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``inspect``; returns its exit code, 2 where the file cannot be used."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-"):
        words = ["--file", *words]
    found: list[Inspection] = []

    def look(settings: InspectSettings) -> None:
        given = {name: getattr(settings, name) for name in type(settings).model_fields if name != "file"}
        found.append(inspect_file(settings.file, **given))
        say(found[0].text())

    code = run_command(InspectSettings, look, words, prog="bayesflowmass inspect")
    return code or (0 if found and found[0].usable else 2)


if __name__ == "__main__":
    sys.exit(main())
