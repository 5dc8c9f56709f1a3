"""Models side by side: who is better where, and by how much more than chance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bayesflowmass.common.numbers import UNKNOWN, percent, with_error
from bayesflowmass.evaluation.table import POPULATIONS, PRIORS
from bayesflowmass.page.document import Block, Paragraph, Section, Table, Tone, Verdict

_TITLES = {"coverage_68": "coverage", "log_score": "log score", "crps": "CRPS"}


def comparison_verdicts(comparison: Mapping[str, Any]) -> Iterator[Verdict]:
    """One for each method but the reference, of each set.

    Args:
        comparison: content of comparison.json.
    """
    # What holds for all is said once.
    general = [] if comparison["coverage_can_be_nominal"] else [str(comparison["coverage_statement"])]
    general += map(str, comparison.get("remarks", ()))
    for section in comparison["sections"]:
        for label, summary in zip(section["differences"], section["summary"], strict=True):
            answers = [v["answer"] for v in section["verdicts"] if v["method"] == label]
            tone: Tone = "bad" if "worse" in answers else "good" if "better" in answers else "open"
            counts = ", ".join(
                f"{answers.count(answer)} {answer}"
                for answer in ("better", "not worse", "undecided", "worse", "not tested")
                if answer in answers
            )
            points = [f"Of {len(answers)} questions, corrected for their number: {counts}."]
            points += general
            general = []
            name = f"{section['name']}: " if section["name"] else ""
            yield Verdict(tone, f"{name}{summary}", tuple(points))


def comparison_sections(
    comparison: Mapping[str, Any], figures: Mapping[str, Sequence[Block]]
) -> Iterator[Section]:
    """One section for each set: bins of predicted mass, which the verdicts are about; the verdicts; bins of true mass.

    Args:
        comparison: content of comparison.json.
        figures: name of a set -> its pictures.
    """
    sample = (
        f"{comparison['n_clusters']} {POPULATIONS.get(str(comparison.get('population')), 'clusters')}, of"
        f" {comparison['n_haloes']} haloes; {PRIORS.get(str(comparison.get('prior')), 'prior')}."
    )
    for section in comparison["sections"]:
        yield Section(
            f"Comparison: {section['name']}" if section["name"] else "Comparison",
            (
                Paragraph(
                    f"{sample} Differences are from {section['reference']}, on the same clusters and seeds."
                ),
                *figures.get(section["name"], ()),
                _table(section, "predicted", "the verdicts are about these"),
                _answers(section),
                _table(section, "true", "they describe and do not judge"),
            ),
        )


def comparison_figures(comparison: Mapping[str, Any]) -> dict[str, tuple[str, str, str]]:
    """File name -> name of the set, caption, and the text for readers who cannot see it."""
    found = {}
    for section in comparison["sections"]:
        labels = ", ".join(section["methods"])
        names = section.get("figures") or {}
        if "first" in names:
            found[str(names["first"])] = (
                section["name"],
                "By predicted mass: coverage, differences of scores from the reference, and the share of the"
                " variance that comes from the weights.",
                f"Coverage, score differences and epistemic share of {labels} by predicted mass."
                f" {' '.join(section['summary'])}",
            )
        if "accuracy" in names:
            last = section["methods"][section["reference"]]["by_true"][-1]
            found[str(names["accuracy"])] = (
                section["name"],
                "By true mass: bias, scatter, widths and differences of the log score.",
                f"Bias, scatter, widths and score differences of {labels} by true mass; scatter of"
                f" {section['reference']} over {last['bin']}: {_cell(last, 'scatter')} dex.",
            )
    return found


def _table(section: Mapping[str, Any], by: str, what: str) -> Table:
    rows = []
    labels = [section["reference"], *section["differences"]]
    for i, entry in enumerate(section["methods"][labels[0]][f"by_{by}"]):
        for label in labels:
            alone = section["methods"][label][f"by_{by}"][i]
            other = section["differences"].get(label, {}).get(f"by_{by}")
            difference = other[i] if other else {}
            rows.append(
                (
                    f"{entry['bin']}, {label}",
                    str(alone["n"]),
                    _cell(alone, "coverage_68"),
                    _cell(alone, "coverage_95"),
                    _cell(difference, "log_score", sign=True),
                    _cell(difference, "crps", digits=4, sign=True),
                    _cell(alone, "mean_residual", sign=True),
                    _cell(alone, "scatter"),
                    _cell(alone, "width_68"),
                    _cell(alone, "epistemic_share"),
                )
            )
    return Table(
        f"By {by} mass, log10 M200c [Msun/h]: {what}",
        (
            "bin, model",
            "clusters",
            "in 68 % interval",
            "in 95 % interval",
            "Δ log score [nats]",
            "Δ CRPS [dex]",
            "mean residual [dex]",
            "scatter [dex]",
            "68 % width [dex]",
            "epistemic share",
        ),
        tuple(rows),
        "Δ log score: better above zero; Δ CRPS: better below. Errors: over haloes, and over trainings where there are"
        " several.",
    )


def _answers(section: Mapping[str, Any]) -> Table:
    return Table(
        "The questions and their answers",
        ("bin, model, question", "answer", "gain", "p, corrected"),
        tuple(
            (
                f"{v['bin']}, {v['method']}, {_TITLES.get(v['quantity'], v['quantity'])}",
                str(v["answer"]),
                with_error(v["gain"], v["error"], 4, sign=True),
                UNKNOWN if v["p_holm"] is None else f"{v['p_holm']:.3f}",
            )
            for v in section["verdicts"]
        ),
        "Gain: above zero where the model is better than the reference: coverage closer to nominal, higher log score,"
        " lower CRPS. Not worse: a loss beyond the tolerance is excluded. Undecided: neither is shown.",
    )


def _cell(entry: Mapping[str, Any], name: str, digits: int = 3, *, sign: bool = False) -> str:
    found = entry.get(name)
    if found is None:
        return UNKNOWN
    if name.startswith("coverage"):
        return percent(found["value"], found["error"])
    return with_error(found["value"], found["error"], digits, sign=sign)
