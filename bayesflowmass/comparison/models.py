"""Which models are compared: runs on a command line, or the folders of a work folder.

A *method* is a label and one or more *runs* of it: trainings that differ only in their seed. On a command
line ``point=runs/a,runs/b`` says so; without a label the folder's name does, ``variational-3`` being run 3 of
``variational``. A run is a model folder, a folder with stored predictions, or the file of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bayesflowmass.estimator.description import DESCRIPTION
from bayesflowmass.evaluation.files import PREDICTIONS


@dataclass(frozen=True)
class RunSource:
    """Where the predictions of one training come from.

    Attributes:
        path: a model folder, or a parquet file of predictions.
        seed: what tells the runs of a method apart; runs of two methods with one seed are compared with each
            other.
        is_model: whether ``path`` is a model folder, which has to predict.
    """

    path: Path
    seed: str
    is_model: bool


def parse_models(words: Iterable[str]) -> dict[str, tuple[RunSource, ...]]:
    """Label -> runs, in the order given.

    Args:
        words: ``RUN`` or ``LABEL=RUN,RUN,...``. Unlabelled runs named ``NAME-<number>`` are runs of one method,
            NAME.

    Raises:
        ValueError: a run is neither a model nor predictions, or two runs of a method have one seed.
    """
    found: dict[str, list[tuple[str | None, Path]]] = {}
    for word in words:
        label, equals, rest = word.partition("=")
        if not equals or Path(word).exists():
            name, seed = _name(Path(word))
            found.setdefault(name, []).append((seed, Path(word)))
            continue
        if not label or not rest:
            raise ValueError(f"'{word}' does not name models; expected RUN or LABEL=RUN,RUN.")
        paths = [Path(part) for part in rest.split(",") if part]
        seeds = [_name(path)[1] for path in paths]
        # Numbers that do not tell the runs apart, such as those of runs/a-1 and runs/b-1, are no seeds.
        known = None not in seeds and len(set(seeds)) == len(seeds)
        found.setdefault(label, []).extend(
            (seed if known else None, p) for seed, p in zip(seeds, paths, strict=True)
        )
    methods = {}
    for label, runs in found.items():
        numbered = None not in [seed for seed, _ in runs]
        sources = tuple(
            _source(path, str(seed) if numbered else str(i)) for i, (seed, path) in enumerate(runs)
        )
        for i, source in enumerate(sources):
            twin = next((other for other in sources[:i] if other.seed == source.seed), None)
            if twin is not None:
                raise ValueError(
                    f"'{twin.path}' and '{source.path}' are both run {source.seed} of '{label}'; give each method a "
                    "label, LABEL=RUN,RUN."
                )
        methods[label] = sources
    return methods


def find_work(
    work: str | Path, sets: Iterable[str] = (), file: str = PREDICTIONS, methods: Iterable[str] = ()
) -> dict[str, dict[str, tuple[RunSource, ...]]]:
    """Set -> label -> runs with stored predictions, WORK/SET/LABEL-SEED/``file`` (or WORK/LABEL-SEED/``file``).

    Args:
        work: the folder.
        sets: names of the sets that are wanted, in this order; all by default.
        file: name of the files of predictions.
        methods: labels that are wanted, in this order; all by default.

    Raises:
        ValueError: there are no such files, or a wanted set or method has none.
    """
    folder = Path(work)
    if not folder.is_dir():
        raise ValueError(
            f"The work folder '{work}' does not exist; give a folder that holds SET/METHOD-SEED/{file}."
        )
    found: dict[str, dict[str, list[RunSource]]] = {}
    for path in sorted([*folder.glob(f"*/{file}"), *folder.glob(f"*/*/{file}")], key=_order):
        label, seed = _name(path.parent)
        if seed is not None:
            where = path.parent.parent
            name = folder.resolve().name if where == folder else where.name
            found.setdefault(name, {}).setdefault(label, []).append(RunSource(path, seed, is_model=False))
    wanted = list(sets) or list(found)
    missing = [name for name in wanted if name not in found]
    if missing or not found:
        what = f"nothing for the set '{missing[0]}'" if missing and found else "no predictions"
        known = f"; it has {', '.join(found)}" if found else ""
        raise ValueError(f"'{work}' holds {what}{known}: expected SET/METHOD-SEED/{file}.")
    chosen = {}
    for name in wanted:
        labels = list(methods) or list(found[name])
        absent = [label for label in labels if label not in found[name]]
        if absent:
            raise ValueError(
                f"The set '{name}' of '{work}' has no method '{absent[0]}'; it has {', '.join(found[name])}."
            )
        chosen[name] = {label: tuple(found[name][label]) for label in labels}
    return chosen


def _order(path: Path) -> tuple[str, str, int]:
    label, seed = _name(path.parent)
    return str(path.parent.parent), label, int(seed or 0)


def _name(path: Path) -> tuple[str, str | None]:
    """Label and seed in the name of a run."""
    named = path.parent if path.suffix == ".parquet" and path.name == PREDICTIONS else path
    name = named.resolve().name.removesuffix(".parquet")
    match = re.fullmatch(r"(.+)-(\d+)", name)
    return (match[1], match[2]) if match else (name, None)


def _source(path: Path, seed: str) -> RunSource:
    if path.is_file() and path.suffix == ".parquet":
        return RunSource(path, seed, is_model=False)
    if (path / DESCRIPTION).is_file():
        return RunSource(path, seed, is_model=True)
    if (path / PREDICTIONS).is_file():
        return RunSource(path / PREDICTIONS, seed, is_model=False)
    what = "does not exist" if not path.exists() else f"holds neither {DESCRIPTION} nor {PREDICTIONS}"
    raise ValueError(f"The run '{path}' {what}; give a model folder, or a parquet file of predictions.")
