"""A catalogue of known masses as columns: what is known of its clusters, what a model and simple estimators say.

Everything an evaluation states is computed from these, some hundreds of bytes for each cluster. PDFs and galaxies are
let go batch by batch, so that it does not matter whether a catalogue is put to the test at once or in parts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.baselines import predict_baselines
from bayesflowmass.baselines.suite import Baseline
from bayesflowmass.catalog import CatalogError, CatalogMetadata, ClusterCatalog
from bayesflowmass.common.arrays import FloatArray, IntArray, columns_under
from bayesflowmass.diagnostics import PosteriorSummary
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.estimator.cylinder import in_cylinder
from bayesflowmass.estimator.flags import UNUSABLE
from bayesflowmass.evaluation.predictions import Predictions, predict
from bayesflowmass.evaluation.truth import member_counts
from bayesflowmass.novelty import Assessment

_KNOWN = ("cluster_id", "halo_id", "redshift", "log10_mass")


@dataclass(frozen=True)
class Tested:
    """Clusters and what is said of them.

    Attributes:
        clusters: all n, as the model sees them, without their galaxies (their number is known).
        predictions: of the model, which has a mass for k of them.
        simple: log10 M200c [Msun/h] by each baseline, of those (k,).
        members: of each of those, N of equation 8 (k,); None where nobody knows.
        counted: what was counted, in words.
    """

    clusters: ClusterCatalog
    predictions: Predictions
    simple: Mapping[str, FloatArray]
    members: IntArray | None
    counted: str

    @property
    def judged(self) -> ClusterCatalog:
        """The k clusters that have a mass from the model, without their galaxies."""
        return self.clusters.filter(self.predictions.usable)


def put_to_test(
    estimator: MassEstimator, catalog: ClusterCatalog, baselines: Mapping[str, Baseline], **options: Any
) -> Tested:
    """Clusters of known mass, or a part of them, beside what a model and baselines say.

    Args:
        estimator: the model.
        catalog: clusters with ``log10_mass``.
        baselines: fitted; whatever stands beside the model sees the clusters as it does.
        options: of `predict`.

    Raises:
        CatalogError, ValueError: see `predict`.
    """
    predictions = predict(estimator, catalog, **options)
    seen = in_cylinder(catalog, estimator.training_info.selection)
    judged = seen.filter(predictions.usable)
    simple = predict_baselines(baselines, judged) if len(judged) else {}
    members, counted = member_counts(judged)
    known = {name: seen.column(name) for name in _KNOWN if seen.has(name)}
    return Tested(
        ClusterCatalog.from_arrays(known, {}, seen.n_galaxies, seen.metadata),
        predictions,
        {name: found.log10_mass for name, found in simple.items()},
        members,
        counted,
    )


def packed(tested: Tested) -> dict[str, NDArray[Any]]:
    """Arrays by name, for a file of numpy; `gathered` is the inverse."""
    found = tested.predictions
    columns: dict[str, Any] = {f"known.{name}": tested.clusters.column(name) for name in _KNOWN if
                               tested.clusters.has(name)}  # fmt: skip
    columns |= {"n_galaxies": tested.clusters.n_galaxies, "usable": found.usable, "flags": found.flags}
    if len(found.summary):
        columns["words"] = np.array(json.dumps([tested.counted, found.recalibration]))
        columns |= _named("summary", found.summary) | _named("matching", found.matching)
        columns |= _named("strange", found.strange)
        columns |= {f"epistemic.{name}": values for name, values in found.epistemic.items()}
        columns |= {f"simple.{name}": values for name, values in tested.simple.items()}
        columns["members"] = tested.members
    if found.strange is not None:
        # Features are those of half precision already.
        columns["strange.features"] = found.strange.features.astype(np.float16)
    return {name: np.asarray(values) for name, values in columns.items() if values is not None}


def gathered(files: Sequence[Path], metadata: CatalogMetadata) -> Tested:
    """What was said of the parts of a catalogue, as if it had been one.

    Args:
        files: of `packed`, in the order of the parts.
        metadata: of the catalogue.

    Raises:
        CatalogError: none of the clusters has a mass.
    """
    names: dict[str, None] = {}
    for file in files:
        with np.load(file) as stored:
            names |= dict.fromkeys(stored.files)
            if "words" in stored:
                counted, recalibration = json.loads(str(stored["words"]))
    columns = {name: np.concatenate(list(_column(files, name))) for name in names if name != "words"}
    known = columns_under(columns, "known")
    clusters = ClusterCatalog.from_arrays(known, {}, columns["n_galaxies"], metadata)
    if "words" not in names:
        first = set(str(columns["flags"][0]).split(","))
        why = next(why for flag, why in UNUSABLE.items() if flag in first)
        raise CatalogError(
            f"None of the {len(clusters)} clusters can have a mass: cluster {known['cluster_id'][0]} {why}."
        )
    matching, strange = columns_under(columns, "matching"), columns_under(columns, "strange")
    predictions = Predictions(
        columns["usable"],
        columns["flags"],
        _summary(columns_under(columns, "summary")),
        columns_under(columns, "epistemic"),
        Assessment(**strange) if strange else None,
        recalibration,
        _summary(matching) if matching else None,
    )
    return Tested(clusters, predictions, columns_under(columns, "simple"), columns.get("members"), counted)


def _column(files: Sequence[Path], name: str) -> Iterator[NDArray[Any]]:
    """One column of each part that has it."""
    for file in files:
        with np.load(file) as stored:
            if name not in stored:
                continue
            values = stored[name]
        if name == "flags":
            # A few texts, each many times: one object of each instead of a wide array.
            kinds, index = np.unique(values, return_inverse=True)
            values = kinds.astype(object)[index]
        yield values


def _named(prefix: str, group: object) -> dict[str, Any]:
    """The arrays of a dataclass, its name before theirs; none of None."""
    if group is None:
        return {}
    return {f"{prefix}.{one.name}": getattr(group, one.name) for one in fields(group)}  # type: ignore[arg-type]


def _summary(columns: Mapping[str, NDArray[Any]]) -> PosteriorSummary:
    whole: dict[str, Any] = {"population_quantiles": None, **columns}
    return PosteriorSummary(**whole)
