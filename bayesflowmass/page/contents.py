"""What a run folder says, put together as one page: the verdict first, then what it rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bayesflowmass.common.version import __version__
from bayesflowmass.estimator.flags import FLAGS
from bayesflowmass.evaluation.table import NAMES, comparison_rows
from bayesflowmass.page.accuracy import accuracy_section
from bayesflowmass.page.calibration import calibration_section
from bayesflowmass.page.comparison import comparison_figures, comparison_sections, comparison_verdicts
from bayesflowmass.page.document import Block, Page, Paragraph, Picture, Section, Verdict
from bayesflowmass.page.folder import MassTable, RunFolder, read_run_folders
from bayesflowmass.page.masses import card_alt, masses_section, masses_verdict
from bayesflowmass.page.notes import note_sections
from bayesflowmass.page.paper_figures import paper_figures
from bayesflowmass.page.pictures import described, picture
from bayesflowmass.page.provenance import provenance_section
from bayesflowmass.page.training import loss_alt, training_section, training_verdict
from bayesflowmass.page.verdict import evaluation_verdict
from bayesflowmass.plots.card.names import card_names
from bayesflowmass.plots.evaluated import evaluation_figures

# Pages of single clusters shown, flagged ones first: each is some 200 kB.
_MOST_CARDS = 24


def report_page(folder: str | Path) -> Page:
    """The parts of the page of a run folder, before they become HTML; arguments and errors as of `report`."""
    root = Path(folder)
    runs, left_out = read_run_folders(root)
    # Of models first, of masses then.
    verdicts = [
        (run, verdict) for of in (_model_verdicts, _mass_verdicts) for run in runs for verdict in of(run)
    ]
    if not verdicts:
        verdicts = [(run, training_verdict(run.model)) for run in runs if run.model]
    blocks: list[Block] = [_named(verdict, _place(run, root), len(verdicts)) for run, verdict in verdicts]
    if not blocks:
        blocks.append(Paragraph("Nothing here judges a model: figures and tables speak for themselves."))
    if left_out:
        blocks.append(
            Paragraph(f"{left_out} more folders with results are not shown: report on each of them.")
        )
    # Of one kind side by side, in the order in which a reader asks.
    kinds = (_comparison, _accuracy, _calibration, _notes)
    parts = [(run, section) for kind in kinds for run in runs for section in kind(run)]
    masses, cards = _masses(runs)
    parts += masses
    parts += [(run, section) for run in runs for section in _other_figures(run, cards)]
    parts += [(run, section) for run in runs for section in _training(run, runs)]
    titles = Counter(section.title for _, section in parts)
    sections = [
        replace(section, title=f"{section.title}: {_place(run, root)}")
        if titles[section.title] > 1
        else section
        for run, section in parts
    ]
    return Page(
        title=_title(runs),
        subtitle=root.resolve().name,
        sections=(Section("Verdict", tuple(blocks)), *sections, _provenance(runs, root)),
        footer=f"Written by bayesflowmass {__version__} on {datetime.now(UTC).date().isoformat()}.",
    )


def _title(runs: Sequence[RunFolder]) -> str:
    if any(run.comparison for run in runs):
        return "Models compared"
    if any(run.metrics for run in runs):
        return "How good is this model?"
    if any(run.masses for run in runs):
        return "Masses of clusters"
    if any(run.model for run in runs):
        return "A trained model"
    return "Results"


def _place(run: RunFolder, root: Path) -> str:
    """Name of a folder inside the one reported on; its own name for that one."""
    return root.resolve().name if run.path == root else run.path.name


def _named(verdict: Verdict, place: str, n: int) -> Verdict:
    return replace(verdict, headline=f"{place}: {verdict.headline}") if n > 1 else verdict


def _model_verdicts(run: RunFolder) -> Iterator[Verdict]:
    if run.comparison:
        yield from comparison_verdicts(run.comparison)
    if run.metrics:
        yield evaluation_verdict(run.metrics, run.calibration)


def _mass_verdicts(run: RunFolder) -> Iterator[Verdict]:
    for table in run.masses:
        yield masses_verdict(table, FLAGS)


def _comparison(run: RunFolder) -> Iterator[Section]:
    if run.comparison:
        pictures: dict[str, list[Picture]] = {}
        for stem, (name, caption, alt) in comparison_figures(run.comparison).items():
            if stem in run.figures:
                pictures.setdefault(name, []).append(picture(run.figures[stem], alt=alt, caption=caption))
        yield from comparison_sections(run.comparison, pictures)


def _accuracy(run: RunFolder) -> Iterator[Section]:
    if run.metrics:
        entries = {NAMES.get(name, name): entry for name, entry in run.metrics.get("baselines", {}).items()}
        entries["this model"] = run.metrics
        rows = [(name, numbers, entries.get(name, {})) for name, numbers in comparison_rows(run.metrics)]
        yield accuracy_section(run.metrics, rows, _pictures(run, "accuracy"))


def _calibration(run: RunFolder) -> Iterator[Section]:
    if run.calibration:
        yield calibration_section(run.calibration, _pictures(run, "calibration"))


def _masses(runs: Sequence[RunFolder]) -> tuple[list[tuple[RunFolder, Section]], set[Path]]:
    """Tables of masses with the cards of their clusters, wherever those lie; and the cards that there are."""
    figures = {name: path for run in reversed(runs) for name, path in run.figures.items()}
    parts, cards = [], set()
    for run in runs:
        for table in run.masses:
            own = _cards(table, figures)
            cards |= {path for path, _ in own}
            shown = [
                picture(path, alt=card_alt(row, table.header), caption=f"Cluster {row['cluster_id']}")
                for path, row in own[:_MOST_CARDS]
            ]
            more: list[Block] = [*shown]
            if len(own) > _MOST_CARDS:
                more.append(
                    Paragraph(f"{len(own) - _MOST_CARDS} more cards are in {own[0][0].parent.name}/.")
                )
            parts.append((run, masses_section(table, more)))
    return parts, cards


def _cards(table: MassTable, figures: Mapping[str, Path]) -> list[tuple[Path, Mapping[str, Any]]]:
    """Card and row of each cluster that has one, flagged ones first."""
    if not figures:
        return []
    names = card_names(table.columns["cluster_id"].to_pylist())
    found = [(figures[name], table.row(number)) for number, name in enumerate(names) if name in figures]
    return sorted(found, key=lambda card: not card[1]["flags"])


def _notes(run: RunFolder) -> Iterator[Section]:
    for name, text in run.notes.items():
        yield from note_sections(name, text)


def _training(run: RunFolder, runs: Sequence[RunFolder]) -> Iterator[Section]:
    """How the model of a folder was trained; in an evaluation where its model is not among the folders."""
    if run.model or run.history:
        pictures = []
        if run.history and "loss" in run.figures:
            caption = "Loss of training and validation clusters."
            pictures.append(picture(run.figures["loss"], alt=loss_alt(run.history), caption=caption))
        training = run.model["training"] if run.model else None
        yield training_section(training, model=run.model, history=run.history, figures=pictures)
    elif run.metrics and not any(other.model for other in runs):
        yield training_section(run.metrics.get("trained_on"))


def _pictures(run: RunFolder, section: str) -> list[Picture]:
    """Figures of an evaluation that belong to a section, as far as they are there."""
    metrics, calibration = run.metrics or {}, run.calibration or {}
    return [
        picture(run.figures[figure.name], alt=figure.alt(metrics, calibration), caption=figure.caption)
        for figure in evaluation_figures()
        if figure.section == section and figure.name in run.figures
    ]


def _other_figures(run: RunFolder, cards: Collection[Path]) -> Iterator[Section]:
    """Figures that no other section shows, with what they say of themselves."""
    of_paper = paper_figures(run.drawn)
    sections = {"accuracy": run.metrics, "calibration": run.calibration}
    known = {figure.name for figure in evaluation_figures() if sections[figure.section]}
    known |= {"loss"} if run.history else set()
    known |= set(comparison_figures(run.comparison)) if run.comparison else set()
    shown = []
    for name, path in run.figures.items():
        if name not in known and path not in cards:
            words = name.replace("_", " ")
            text = described(path) or f"{words[0].upper()}{words[1:]}."
            caption, alt = of_paper.get(name, (text, text))
            shown.append(picture(path, alt=alt, caption=caption))
    if shown:
        yield Section("Figures", tuple(shown))


def _provenance(runs: Sequence[RunFolder], root: Path) -> Section:
    order = sorted(runs, key=lambda run: run.model is None)
    records = [(_place(run, root), run.record) for run in order if run.record]
    commands = [str(t.header["command"]) for run in runs for t in run.masses if t.header.get("command")]
    settings = [
        (f"{run.path.name}/settings.yaml, all settings of the training run", run.settings)
        for run in order
        if run.settings
    ]
    versions = [
        (
            f"{_place(run, root)}/metrics.json",
            "bayesflowmass {version}, {date}, seed {seed}".format(**run.metrics),
        )
        for run in runs
        if run.metrics and not run.record
    ]
    return provenance_section(records, commands=commands, settings=settings, versions=versions)
