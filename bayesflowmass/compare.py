"""Any number of models on one catalogue: who is better where, and by how much more than chance.

``bayesflowmass compare --models point=runs/a,runs/b variational=runs/c,runs/d --catalog test.parquet --out DIR``
writes

* ``comparison.md``: the first page, deterministic against Bayesian by bins of mass, then all numbers,
* ``comparison.json``: every number with its errors, every verdict (``docs/comparison.md``),
* ``first_page`` and ``accuracy``, figures as pdf and png (one pair for each set of a work folder),
* ``LABEL-SEED/predictions.parquet``: what each model says, made once; a rerun reads it,

and prints the verdicts. ``--work runs/flagship`` compares stored predictions, set by set.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, field_validator, model_validator

from bayesflowmass.command import run_command
from bayesflowmass.command.limits import Seed
from bayesflowmass.command.paths import InputPath, OutFolder
from bayesflowmass.command.record import write_record
from bayesflowmass.command.shared import PosteriorSettings
from bayesflowmass.common.files import write_json, write_whole
from bayesflowmass.common.terminal import say
from bayesflowmass.common.version import __version__

# The rest is imported where it is used: --help, and an error in the input, should not wait for torch.
if TYPE_CHECKING:
    from bayesflowmass.catalog import ClusterCatalog
    from bayesflowmass.comparison.models import RunSource
    from bayesflowmass.comparison.statistics import Bin, Comparison, Method
    from bayesflowmass.comparison.verdicts import Verdict
    from bayesflowmass.evaluation.files import StoredPredictions

__all__ = ["CompareSettings", "compare", "main"]

Sections = Mapping[str, Mapping[str, Sequence["StoredPredictions"]]]


class CompareSettings(PosteriorSettings):
    """`bayesflowmass compare`: any number of models on one catalogue of known masses."""

    models: tuple[str, ...] = Field(
        (),
        description="models: RUN, or LABEL=RUN,RUN,... for trainings with several seeds; RUN is a model folder or a "
        "parquet file of predictions; folders NAME-0, NAME-1, ... are seeds of NAME",
    )
    work: InputPath | None = Field(
        None,
        description="instead of models: folder with SET/METHOD-SEED/predictions.parquet, and test.parquet",
    )
    sets: tuple[str, ...] = Field((), description="sets of the work folder; default: all")
    methods: tuple[str, ...] = Field((), description="methods of the work folder; default: all")
    predictions: str = Field("predictions.parquet", description="name of the files in the work folder")
    catalog: InputPath | None = Field(None, description="test catalogue with log10_mass (parquet)")
    out: OutFolder = Field(
        Path("comparison"), description="folder for comparison.json, comparison.md and figures"
    )
    reference: str | None = Field(
        None,
        description="label of the model that others are compared with; default: the first without uncertain weights",
    )
    edges: tuple[float, ...] = Field(
        (14.0, 14.3, 14.7, 15.0, 15.4), description="edges of the mass bins, log10 M200c [Msun/h]"
    )
    baselines: bool = Field(False, description="M-sigma relations and galaxy count among the models")
    baseline_catalog: InputPath | None = Field(
        None, description="catalogue to fit the baselines on; simulated when absent"
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="familywise error rate of the verdicts")
    tolerance_log_score: float = Field(0.02, ge=0, description="loss of log score that counts as none [nats]")
    tolerance_crps: float = Field(0.002, ge=0, description="loss of CRPS that counts as none [dex]")
    seed: Seed = Field(0, description="random seed of the draws and of the simulated baseline clusters")

    @field_validator("edges")
    @classmethod
    def _increasing(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        if len(edges) < 2 or any(a >= b for a, b in itertools.pairwise(edges)):
            raise ValueError("at least two edges, increasing, are expected")
        return edges

    @model_validator(mode="after")
    def _one_source(self) -> CompareSettings:
        if bool(self.models) == (self.work is not None):
            raise ValueError("either --models or --work says what to compare; give one of them")
        return self


def compare(
    sections: Sections,
    out: str | Path,
    *,
    catalog: ClusterCatalog | None = None,
    prior: str = "flat",
    reference: str | None = None,
    edges: Sequence[float] = (14.0, 14.3, 14.7, 15.0, 15.4),
    alpha: float = 0.05,
    tolerances: Mapping[str, float] | None = None,
    figures: bool = True,
) -> dict[str, Any]:
    """Compare predictions and write comparison.json, comparison.md and figures.

    Args:
        sections: name of a set ("" for a single one) -> label of a method -> its runs.
        out: folder to write into.
        catalog: the clusters; gives ``halo_id`` and how the masses were drawn. Without it coverage is not judged.
        prior: "flat" or "hmf", of predictions that do not say it themselves.
        reference: label that the others are compared with; by default the first without uncertain weights.
        edges: of the mass bins, log10 M200c [Msun/h].
        alpha: familywise error rate of the verdicts of a section.
        tolerances: loss of ``log_score`` [nats] and ``crps`` [dex] that counts as none; default: `TOLERANCES`.
        figures: draw them.

    Returns:
        The content of ``comparison.json``.

    Raises:
        ValueError: there is nothing to compare, or the predictions are of different clusters or priors.
    """
    from bayesflowmass.comparison.report import format_markdown
    from bayesflowmass.comparison.statistics import Comparison, mass_bins
    from bayesflowmass.comparison.verdicts import TOLERANCES, section_verdicts
    from bayesflowmass.diagnostics.calibration import nominal_pair

    folder, tolerances = Path(out), dict(tolerances or TOLERANCES)
    folder.mkdir(parents=True, exist_ok=True)
    bins = mass_bins(edges)
    population = None if catalog is None else (catalog.metadata.masses or {}).get("distribution")
    nominal, statement = nominal_pair(population, prior)
    remarks = _remarks_on_the_pair(catalog, population, prior)
    reason = "the population is unknown" if population is None else "population and prior differ"
    written = []
    for name, given in sections.items():
        methods, halo = _aligned(given, catalog, prior)
        left_out = len(next(iter(given.values()))[0].cluster_id) - halo.size
        if left_out:
            remarks.append(
                f"{left_out} clusters have no mass from one of the models and are left out of all."
            )
        chosen = reference or next((m.label for m in methods if not m.bayesian), methods[0].label)
        if chosen not in given:
            raise ValueError(
                f"The reference '{chosen}' is not among the models; they are {', '.join(given)}."
            )
        if len(methods) < 2:
            raise ValueError(f"There is only one model to compare, '{methods[0].label}'; give two or more.")
        comparison = Comparison(methods, halo, chosen)
        remarks += [r for r in (_remarks(methods, catalog) if nominal else []) if r not in remarks]
        verdicts = section_verdicts(
            comparison, bins, nominal=nominal, why_not=reason, alpha=alpha, tolerances=tolerances
        )
        section = _section(name, comparison, bins, verdicts)
        if figures:
            section["figures"] = _draw(folder, section)
        written.append(section)
    if not written:
        raise ValueError("There are no models to compare.")
    result = {
        "prior": prior,
        "population": population,
        "coverage_can_be_nominal": nominal,
        "coverage_statement": statement,
        "remarks": remarks,
        "n_clusters": int(halo.size),
        "n_haloes": int(np.unique(halo).size),
        "edges": list(edges),
        "alpha": alpha,
        "tolerances": tolerances,
        "version": __version__,
        "date": datetime.now(UTC).date().isoformat(),
        "sections": written,
    }
    write_json(folder / "comparison.json", result)
    write_whole(folder / "comparison.md", format_markdown(result).encode())
    return result


def _aligned(
    given: Mapping[str, Sequence[StoredPredictions]], catalog: ClusterCatalog | None, prior: str
) -> tuple[list[Method], np.ndarray[Any, np.dtype[np.int64]]]:
    from bayesflowmass.comparison.alignment import align
    from bayesflowmass.comparison.statistics import Method

    runs = [run for method in given.values() for run in method]
    for run in runs:
        stated = run.note.get("prior")
        if stated not in (None, prior):
            raise ValueError(
                f"'{run.source}' was predicted under the {stated} prior and {prior} is asked for; give "
                f"--prior {stated} or predict again."
            )
    aligned, halo = align(runs, catalog)
    methods, start = [], 0
    for label, its in given.items():
        methods.append(Method(label, tuple(aligned[start : start + len(its)])))
        start += len(its)
    return methods, halo


def _section(
    name: str, comparison: Comparison, bins: Sequence[Bin], verdicts: Sequence[Verdict]
) -> dict[str, Any]:
    """What ``comparison.json`` holds of one set."""
    from bayesflowmass.comparison.statistics import section_numbers
    from bayesflowmass.comparison.verdicts import summary_sentence

    return {
        "name": name,
        **section_numbers(comparison, bins),
        "summary": [
            summary_sentence(verdicts, m.label, comparison.reference.label, comparison.n_pairs(m.label))
            for m in comparison.others
        ],
        "verdicts": [verdict.to_dict() for verdict in verdicts],
    }


def _remarks_on_the_pair(catalog: ClusterCatalog | None, population: str | None, prior: str) -> list[str]:
    """What a reader must know where population and prior do not go together."""
    if catalog is None:
        return ["No catalogue was given: the population is unknown and coverage is not judged (--catalog)."]
    if population not in (None, prior):
        return [
            "Scores, too, are those of a mixed pair: they favour masses that are common in the set. To judge, give the "
            f"prior of the set (--prior {population})."
        ]
    return []


def _remarks(methods: Sequence[Method], catalog: ClusterCatalog | None) -> list[str]:
    """What a reader must know of priors that are not those of the test set."""
    masses = {} if catalog is None else catalog.metadata.masses or {}
    ends = [float(masses[name]) for name in ("log10_mass_min", "log10_mass_max") if name in masses]
    # Baselines know no prior.
    unknown = any(
        not {"prior_log10_mass_range", "baseline"} & set(run.note) for m in methods for run in m.runs
    )
    remarks = []
    if unknown:
        remarks.append(
            "Stored predictions do not say where their prior ends; it is taken to end where the test masses do."
        )
    if len(ends) == 2:
        for method in methods:
            limits = method.runs[0].note.get("prior_log10_mass_range")
            if limits and max(abs(a - b) for a, b in zip(limits, ends, strict=True)) > 0.02:
                remarks.append(
                    f"The prior of {method.label} covers {limits[0]:g}-{limits[1]:g}, the test masses "
                    f"{ends[0]:g}-{ends[1]:g}: near these ends coverage is nominal for no posterior."
                )
    return remarks


def _draw(folder: Path, section: Mapping[str, Any]) -> dict[str, str]:
    from bayesflowmass.plots.checks.comparison import ACCURACY, FIRST_PAGE, plot_comparison
    from bayesflowmass.plots.style import save_figure

    suffix = f"_{section['name']}" if section["name"] else ""
    names = {"first": f"first_page{suffix}", "accuracy": f"accuracy{suffix}"}
    for key, panels in (("first", FIRST_PAGE), ("accuracy", ACCURACY)):
        save_figure(plot_comparison(section, panels, title=section["name"] or None), folder / names[key])
    return names


def run(settings: CompareSettings, report: Callable[[str], None] = say) -> dict[str, Any]:
    """The command: predict what is not stored, compare, report."""
    from bayesflowmass.catalog import CatalogError, ClusterCatalog
    from bayesflowmass.comparison.report import format_text
    from bayesflowmass.comparison.runs import baseline_runs, model_run
    from bayesflowmass.evaluation.files import file_hash, read_predictions

    path, sections = settings.catalog, _sources(settings)
    if path is None and settings.work is not None and (settings.work / "test.parquet").is_file():
        path = settings.work / "test.parquet"
    models = [s for given in sections.values() for runs in given.values() for s in runs if s.is_model]
    if path is None and (models or settings.baselines):
        who = f"'{models[0].path}'" if models else "Baselines"
        raise ValueError(
            f"{who} must predict and there is no catalogue; give --catalog FILE with true masses."
        )
    catalog = None if path is None else ClusterCatalog.read(path)
    if catalog is not None and (len(catalog) == 0 or not catalog.has("log10_mass")):
        raise CatalogError(
            f"The catalogue '{path}' has no clusters or no column log10_mass; true masses are needed."
        )
    fingerprint = "" if path is None else file_hash(path)
    predicted: dict[str, dict[str, list[StoredPredictions]]] = {}
    for name, given in sections.items():
        for label, sources in given.items():
            for source in sources:
                if source.is_model:
                    assert catalog is not None
                    made = model_run(
                        source, settings.out / f"{label}-{source.seed}", catalog, fingerprint,
                        prior=settings.prior, n_draws=settings.n_draws, seed=settings.seed,
                        device=settings.device, progress=settings.progress, report=report,
                    )  # fmt: skip
                else:
                    made = read_predictions(source.path, source.seed)
                predicted.setdefault(name, {}).setdefault(label, []).append(made)
        if settings.baselines:
            assert catalog is not None
            trained = next((s.path for s in models), None)
            predicted[name] |= baseline_runs(
                settings.out, catalog, fingerprint, trained, settings.baseline_catalog,
                prior=settings.prior, seed=settings.seed, report=report,
            )  # fmt: skip
    result = compare(
        predicted,
        settings.out,
        catalog=catalog,
        prior=settings.prior,
        reference=settings.reference,
        edges=settings.edges,
        alpha=settings.alpha,
        tolerances={"log_score": settings.tolerance_log_score, "crps": settings.tolerance_crps},
    )
    write_record(settings.out, "bayesflowmass compare", settings)
    report(format_text(result))
    report("")
    for file in sorted([*settings.out.glob("*.p[dn][fg]"), *settings.out.glob("comparison.*")]):
        report(str(file))
    return result


def _sources(settings: CompareSettings) -> Mapping[str, Mapping[str, Sequence[RunSource]]]:
    from bayesflowmass.comparison.models import find_work, parse_models

    if settings.work is not None:
        return find_work(settings.work, settings.sets, settings.predictions, settings.methods)
    return {"": parse_models(settings.models)}


def main(argv: Sequence[str] | None = None) -> int:
    """``bayesflowmass compare``; returns the exit code."""
    return run_command(CompareSettings, run, argv, prog="bayesflowmass compare")


if __name__ == "__main__":
    sys.exit(main())
