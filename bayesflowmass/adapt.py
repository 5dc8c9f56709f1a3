"""A model for one survey: ``bayesflowmass adapt`` and :func:`adapt`."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from bayesflowmass.command import TrainSettings, build_settings, load_yaml, run_command
from bayesflowmass.command.limits import Device, Seed
from bayesflowmass.command.paths import InputPath, ModelPath, OutFolder
from bayesflowmass.command.reading import ReadingSettings
from bayesflowmass.command.record import command_line
from bayesflowmass.command.settings import config_path
from bayesflowmass.command.trained import train_with
from bayesflowmass.common.files import make_folder, write_whole
from bayesflowmass.common.run_folder import SETTINGS
from bayesflowmass.common.terminal import say, say_aside
from bayesflowmass.estimator.observations import read_for
from bayesflowmass.estimator.shipped import DEFAULT_MODEL, model_folder

# The rest is imported where it is used: --help, and an error in a table, should not wait for torch and a model.
if TYPE_CHECKING:
    from bayesflowmass.catalog import ClusterCatalog
    from bayesflowmass.estimator import MassEstimator

__all__ = ["AdaptSettings", "adapt", "main"]

CONFIGURATION, REPORT = "survey.yaml", "survey.json"
"""Names in the model folder: what it is trained with, and how it compares."""

_TRAINED_ON = 20_000
"""Mocks that are left after all losses."""
_PILOT = 1000
_JUDGED = 3000
_MOST = 120_000


class AdaptSettings(ReadingSettings):
    """`bayesflowmass adapt`: a model for one survey, from one that is there, and whether it is better."""

    listed_last: ClassVar[tuple[str, ...]] = (*ReadingSettings.listed_last, "seed", "device", "progress")

    galaxies: InputPath = Field(description="catalogue (parquet), or table of galaxies")
    clusters: InputPath | None = Field(None, description="table of clusters")
    out: OutFolder = Field(Path("runs/my_survey"), description="model folder to write")
    start: ModelPath = Field(Path(DEFAULT_MODEL), description="model to begin with and to compare with")
    stop_at_configuration: bool = Field(
        False,
        description=f"measure the survey and write OUT/{CONFIGURATION}, to be read and edited; no training",
    )
    reference: str | None = Field(
        None, description="column of the clusters with other masses, log10 M200c [Msun/h], to compare with"
    )
    prior: str = Field("flat", description="prior of the masses of the survey, as of infer")
    seed: Seed = Field(0, description="random seed")
    device: Device = Field("auto", description="auto, cpu or cuda")
    progress: bool = Field(True, description="show a progress bar")


def adapt(
    galaxies: Any,
    clusters: Any = None,
    *,
    out: str | Path = "runs/my_survey",
    start: str | Path = DEFAULT_MODEL,
    stop_at_configuration: bool = False,
    reference: str | None = None,
    prior: str = "flat",
    assume: Mapping[str, float] | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
    command: str = "",
    **how: Any,
) -> dict[str, Any]:
    """Measure how a survey was observed, train a model on mocks like it, and compare it with the one it began with.

    ``survey.yaml`` in the folder holds the settings of the training; where it is there already it is taken as it is,
    and a training that was interrupted, or had ended, is taken up.

    Args:
        galaxies, clusters: tables of the survey, as of `bayesflowmass.infer.read_observations`.
        out: model folder.
        start: model to begin with and to compare with.
        stop_at_configuration: write ``survey.yaml`` and no more.
        reference: column of the clusters, log10 M200c [Msun/h].
        prior: of the masses of the survey; the mocks are judged under the flat one.
        assume: what is known of all clusters, see `bayesflowmass.estimator.told.tell`.
        seed: of everything.
        device: auto, cpu or cuda.
        progress: show bars.
        command: that is said in the configuration.
        how: further arguments of `bayesflowmass.estimator.observations.read_for`.

    Returns:
        Content of ``survey.json``: ``mocks`` and ``survey`` (`bayesflowmass.survey.compared`), ``verdict``.

    Raises:
        ValueError: for tables or settings that cannot be used (`CatalogError`, `ConfigError`).
    """
    from bayesflowmass.estimator.training_info import read_training_info

    folder = Path(out)
    catalog = read_for(read_training_info(start), galaxies, clusters, **how)
    other = _reference(catalog, reference)
    from bayesflowmass.estimator import MassEstimator
    from bayesflowmass.estimator.told import notes, tell

    theirs = MassEstimator.load(start, device)
    catalog = tell(catalog, theirs, assume or {})
    for note in [*catalog.metadata.extra.get("notes", []), *notes(catalog, theirs)]:
        say_aside(f"note: {note}")
    path = folder / CONFIGURATION
    if path.is_file():
        say_aside(f"'{path}' is taken as it is; remove it to measure the survey again.")
    else:
        make_folder(folder)
        write_whole(path, _configuration(catalog, theirs, Path(start), folder, seed, command))
        say(f"How the survey was observed, and what the model is trained with: {path}")
    values = load_yaml(path) | {"device": device, "progress": progress, "resume": True}
    settings = build_settings(TrainSettings, values, source=f"'{path}'")
    if stop_at_configuration:
        return {"configuration": str(path)}
    ours = train_with(settings)
    return _compare(ours, theirs, str(start), catalog, other, prior, folder, seed)


def _reference(catalog: ClusterCatalog, column: str | None) -> Any:
    """log10 masses (n,) of a column, NaN where it has none or there is no column."""
    import numpy as np

    from bayesflowmass.catalog import CatalogError

    if column is None:
        return np.full(len(catalog), np.nan)
    if not catalog.has(column):
        raise CatalogError(
            f"--reference {column}: the clusters have no such column ({', '.join(catalog.column_names)})."
        )
    try:
        values = np.asarray(catalog.column(column)).astype(np.float64)
    except ValueError:
        raise CatalogError(f"--reference {column}: it holds no numbers.") from None
    if not (known := np.isfinite(values)).any() or not 10.0 < np.median(values[known]) < 17.0:
        raise CatalogError(
            f"--reference {column}: {np.median(values[known]) if known.any() else 'nothing'} typically; expected log10"
            " M200c [Msun/h], 13 to 16."
        )
    return values


def _configuration(
    catalog: ClusterCatalog, theirs: MassEstimator, start: Path, folder: Path, seed: int, command: str
) -> str:
    """Text of the configuration: the survey measured, and as many mocks as leave enough after their losses."""
    from bayesflowmass.evaluation.test_sets import like_training
    from bayesflowmass.survey.measured import measure, settings_of
    from bayesflowmass.survey.settings_file import configuration, known_shares, written

    own = model_folder(start) / SETTINGS
    base_path = own if own.is_file() else config_path(f"{start}.yaml")
    base = load_yaml(base_path)
    facts = measure(catalog, theirs, seed)
    simulate, observed = settings_of(facts)
    shares = known_shares(base["augmentation"].get("known") or {}, facts)
    observed |= {
        "completeness_log": True,
        "known": shares,
        "magnitude_limit": observed.get("magnitude_limit"),
    }
    pilot = like_training(theirs.training_info, _PILOT, seed + 1, simulate=simulate, augmentation=observed)
    n = max(_TRAINED_ON, min(_MOST, math.ceil(_TRAINED_ON * _PILOT / max(len(pilot), 1))))
    values = configuration(base, facts, n) | {"start": str(start), "out": str(folder), "seed": seed}
    return written(values, facts, str(start), command or "bayesflowmass adapt")


def _compare(
    ours: MassEstimator,
    theirs: MassEstimator,
    start: str,
    catalog: ClusterCatalog,
    reference: Any,
    prior: str,
    folder: Path,
    seed: int,
) -> dict[str, Any]:
    """Both models on mocks of the survey and on the survey; what is found is said and written."""
    import numpy as np

    from bayesflowmass.evaluation.test_sets import like_training
    from bayesflowmass.survey.compared import beside, table, verdict

    say(f"On {_JUDGED} mocks of the survey, and on the survey itself:")
    mocks = like_training(ours.training_info, _JUDGED, seed + 101)
    told = mocks.with_columns(**_typical(ours, mocks))
    models = {
        "this model": (ours, mocks),
        start: (theirs, mocks),
        f"{start}, told what was measured": (theirs, told),
    }
    found = {"mocks": beside(models, np.asarray(mocks.column("log10_mass"), dtype=np.float64), "flat", seed)}
    enough = catalog.n_galaxies >= ours.training_info.selection["min_galaxies"]
    catalog, reference = catalog.filter(enough), reference[enough]
    there = catalog.with_columns(**_typical(ours, catalog))
    models = {
        "this model": (ours, catalog),
        start: (theirs, catalog),
        f"{start}, told what was measured": (theirs, there),
    }
    found["survey"] = beside(models, reference, prior, seed)
    sentence = verdict(found["mocks"], found["survey"])
    say(sentence)
    for title, part in (("mocks of the survey", found["mocks"]), ("the survey", found["survey"])):
        say(f"{title}: {part['n']} clusters, {part['prior']} prior")
        say("\n".join(table(part)))
    shift, error = found["survey"]["models"][start]["minus"]["shift"]
    say(f"On the survey its masses minus those of {start}: {shift:+.3f} +- {error:.3f} dex in the mean.")
    result = {"verdict": sentence, **found}
    write_whole(folder / REPORT, json.dumps(result, indent=1) + "\n")
    return result


def _typical(ours: MassEstimator, catalog: ClusterCatalog) -> dict[str, Any]:
    """Columns that a model can be told, of a typical cluster of the mocks of another, where a catalogue has none."""
    import numpy as np

    observed = ours.training_info.config["augmentation"]
    columns = {}
    for name, setting in (
        ("completeness", "completeness"),
        ("aperture", "aperture"),
        ("sigma_v_err", "velocity_error"),
    ):
        # A completeness is that of galaxies to some depth, which others do not know.
        unfit = name == "completeness" and observed.get("magnitude_limit") is None
        unfit |= name == "sigma_v_err" and catalog.has("gal_v_err")
        if unfit or observed.get(setting) is None:
            continue
        low, high = observed[setting]
        typical = math.sqrt(low * high) if name == "completeness" else 0.5 * (low + high)
        given = (
            np.asarray(catalog.column(name), dtype=np.float64)
            if catalog.has(name)
            else np.full(len(catalog), np.nan)
        )
        columns[name] = np.where(np.isfinite(given), given, typical)
    return columns


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``adapt``; returns its exit code."""
    return run_command(AdaptSettings, _adapt_with, argv, prog="bayesflowmass adapt")


def _adapt_with(settings: AdaptSettings) -> None:
    names = ("galaxies", "clusters", "out", "start", "stop_at_configuration", "reference", "prior", "assume")
    values = {name: getattr(settings, name) for name in (*names, "seed", "device", "progress")}
    adapt(**values, command=command_line("bayesflowmass adapt", settings), **settings.reading())
    if settings.stop_at_configuration:
        say(
            "Edit what you know better, and give the command again without --stop-at-configuration: it trains."
        )
    else:
        again = {"out": Path("masses.ecsv"), "reference": None, "seed": 0, "stop_at_configuration": False}
        line = command_line(
            "bayesflowmass infer", settings.model_copy(update=again | {"start": Path(DEFAULT_MODEL)})
        )
        say(f"Masses: {line} --model {shlex.quote(str(settings.out))}")


if __name__ == "__main__":
    sys.exit(main())
