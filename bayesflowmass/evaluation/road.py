"""The road from a catalogue to posteriors: every command that gives a mass goes along it.

Clusters are cut to the cylinder of the model, those that have no kernel density are set aside with the reason, the
others are encoded and get their posteriors, batch by batch, all with the same draws of the weights. A batch holds few
enough clusters and few enough galaxies to be small whatever the catalogue: a caller takes from it what it needs,
columns for the most part, and lets it go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.catalog.slices import cluster_slices
from bayesflowmass.common.arrays import BoolArray, FloatArray, IntArray
from bayesflowmass.common.memory import kept
from bayesflowmass.common.progress import progress_bar
from bayesflowmass.encoders import Contexts, KDEError, concatenate
from bayesflowmass.estimator import MassEstimator, TrainingInfo
from bayesflowmass.estimator.cylinder import in_cylinder
from bayesflowmass.estimator.flags import UNUSABLE, cluster_flags, pressed_against_edge, usable_clusters
from bayesflowmass.estimator.memberships import MembershipNotes, Memberships
from bayesflowmass.estimator.statistics import ClusterStatistics
from bayesflowmass.estimator.systematic import sigma_systematic
from bayesflowmass.novelty import Assessment
from bayesflowmass.posterior import MassPosterior, MassPrior

CLUSTERS_AT_ONCE = 2048
"""Most clusters of a batch: their contexts and tables of densities take some 100 MB."""

GALAXIES_AT_ONCE = 1 << 20
"""Most galaxies of a batch, unless one cluster has more."""


class Batch:
    """Consecutive clusters of a catalogue: which of them have a mass, and their posteriors.

    Attributes:
        first: row in the catalogue of the first of its m clusters.
        everyone: all m clusters, cut to the cylinder of the model.
        problems: why a cluster has no mass (a key of `UNUSABLE`), or empty (m,).
        clusters: the k clusters that have a mass, cut to the cylinder.
        contexts: of those.
        posterior: of those; None where k is 0.
        memberships: which of their galaxies are members; None for a model that does not say, or where k is 0.
    """

    def __init__(
        self,
        estimator: MassEstimator,
        first: int,
        everyone: ClusterCatalog,
        problems: npt.NDArray[np.str_],
        contexts: Contexts,
        posterior: MassPosterior | None,
        prior: str | MassPrior,
        catalogue: _Catalogue,
        memberships: Memberships | None,
    ) -> None:
        self.first = first
        self.everyone = everyone
        self.problems = problems
        self.contexts = contexts
        self.posterior = posterior
        self.clusters = everyone.filter(self.usable)
        self._estimator = estimator
        self._prior = prior
        self._catalogue = catalogue
        self.memberships = memberships

    def __len__(self) -> int:
        return len(self.everyone)

    @property
    def usable(self) -> BoolArray:
        """Which of the m clusters have a mass (m,)."""
        return np.asarray(self.problems == "")

    @property
    def rows(self) -> IntArray:
        """Rows in the catalogue of the k clusters that have a mass (k,)."""
        return self.first + np.flatnonzero(self.usable)

    def under(self, prior: str | MassPrior) -> MassPosterior:
        """The posteriors of the k clusters under another prior.

        Raises:
            ValueError: there are none, or see `MassEstimator.under`.
        """
        if self.posterior is None:
            raise ValueError("No cluster of this batch has a mass.")
        return self._estimator.under(self.posterior.raw, prior)

    @cached_property
    def novelty(self) -> Assessment | None:
        """How unlike the training set each of the k clusters is; None for a model that does not know."""
        if self.posterior is None:
            return None
        return self._estimator.assess(self.clusters, self.contexts)

    @cached_property
    def p_novelty(self) -> FloatArray:
        """p-value of each of the m clusters (m,), NaN where there is none."""
        result = np.full(len(self), np.nan)
        if self.novelty is not None:
            result[self.usable] = self.novelty.p_value
        return result

    @cached_property
    def flags(self) -> npt.NDArray[np.str_]:
        """Flags of each of the m clusters (m,): names joined by commas (docs/flags.md).

        They are those of the whole catalogue, however it is cut into batches.
        """
        info = self._estimator.training_info
        edge = np.zeros(len(self), dtype=bool)
        if self.posterior is not None:
            edge[self.usable] = pressed_against_edge(self.posterior, info)
        measured = self._catalogue.measured
        return cluster_flags(
            self.everyone,
            info,
            edge,
            self.problems,
            self.p_novelty,
            measured=None if measured is None else measured.part(self.first, self.first + len(self)),
            empty_together=self._catalogue.empty_together,
        )

    @cached_property
    def sigma_systematic(self) -> FloatArray | None:
        """Systematic part of the standard deviation of the k clusters (k,), dex; None where the model knows none."""
        if self.posterior is None:
            return None
        return sigma_systematic(self._estimator, self.clusters, self._prior, self.contexts)


class _Catalogue:
    """What flags need to know of a catalogue as a whole: 60 bytes for each cluster, measured when first asked for."""

    def __init__(
        self,
        catalog: ClusterCatalog,
        info: TrainingInfo,
        slices: Sequence[tuple[int, int]],
        empty_together: bool | None,
    ) -> None:
        self._catalog = catalog
        self._empty_together = empty_together
        self._info = info
        self._slices = slices

    @cached_property
    def measured(self) -> ClusterStatistics | None:
        """Statistics of the galaxies of all clusters; None for a model that knows no `Reference`."""
        reference, selection = self._info.reference, self._info.selection
        if reference is None:
            return None
        parts = (self._catalog[first:last] for first, last in self._slices)
        return ClusterStatistics.concatenate(
            [reference.measure(in_cylinder(part, selection)) for part in parts]
        )

    @cached_property
    def empty_together(self) -> bool | None:
        """`Reference.together_empty`; None for a model that knows no `Reference`."""
        reference = self._info.reference
        if reference is None or self._empty_together is not None:
            return self._empty_together
        assert self.measured is not None
        return reference.together_empty(self.measured)


def posteriors(
    estimator: MassEstimator,
    catalog: ClusterCatalog,
    prior: str | MassPrior = "flat",
    *,
    n_draws: int | None = None,
    seed: int = 0,
    log10_mass_range: tuple[float, float] | None = None,
    recalibrated: bool | None = None,
    clusters_at_once: int = CLUSTERS_AT_ONCE,
    galaxies_at_once: int = GALAXIES_AT_ONCE,
    empty_together: bool | None = None,
    a_part: bool = False,
    progress: bool = False,
    label: str = "masses",
) -> Iterator[Batch]:
    """Posteriors of a catalogue, batch by batch; an unusable cluster does not hold up the others.

    Memory is that of one batch, if the caller keeps none. A batch that is interrupted leaves nothing behind.

    Args:
        estimator: the model.
        catalog: clusters.
        prior: ``"flat"``, ``"hmf"`` or a `MassPrior`.
        n_draws, seed: of the weights, the same draws for all clusters (`MassEstimator.draw`).
        log10_mass_range, recalibrated: see `MassEstimator.posterior`.
        clusters_at_once, galaxies_at_once: limits of a batch.
        empty_together: `Reference.together_empty` of the catalogue that these clusters are a part of; None: they are
            all of it.
        a_part: others of the catalogue may have masses where these have none.
        progress: show a bar on standard error.
        label: of the bar.

    Raises:
        CatalogError: there are no clusters, or (after the last) none of them can have a mass.
        ValueError: see `MassEstimator.posterior`.
    """
    if len(catalog) == 0:
        raise CatalogError("The catalogue has no clusters, so there is nothing to infer.")
    info = estimator.training_info
    slices = list(cluster_slices(catalog.offsets, clusters_at_once, galaxies_at_once))
    whole = _Catalogue(catalog, info, slices, empty_together)
    options: dict[str, Any] = {
        "draws": estimator.draw(n_draws, seed),
        "log10_mass_range": log10_mass_range,
        "recalibrated": recalibrated,
    }
    first_problem, found = "", False
    with kept(), progress_bar(len(catalog), label, " clusters", progress) as bar:
        for first, last in slices:
            everyone = in_cylinder(catalog[first:last], info.selection)
            problems = usable_clusters(everyone)
            contexts, posterior, members = _of_usable(estimator, everyone, problems, prior, options)
            found = found or posterior is not None
            first_problem = first_problem or str(problems[0])
            yield Batch(estimator, first, everyone, problems, contexts, posterior, prior, whole, members)
            bar.update(last - first)
    if not found and not a_part:
        name = catalog.column("cluster_id")[0]
        raise CatalogError(
            f"None of the {len(catalog)} clusters can have a mass: cluster {name} {UNUSABLE[first_problem]}."
        )


def _of_usable(
    estimator: MassEstimator,
    clusters: ClusterCatalog,
    problems: npt.NDArray[np.str_],
    prior: str | MassPrior,
    options: Mapping[str, Any],
) -> tuple[Contexts, MassPosterior | None, Memberships | None]:
    """Contexts, posterior and memberships of the clusters without a problem.

    What turns out to have no mass joins the problems.
    """
    contexts = _encode(estimator, clusters, problems)
    if problems.all():
        return contexts, None, None
    notes = MembershipNotes(estimator.flow)
    with notes.taken():
        posterior = estimator.posterior(clusters.filter(problems == ""), prior, contexts=contexts, **options)
    members, has_mass = notes.memberships(), posterior.has_mass
    if has_mass.all():
        return contexts, posterior, members
    problems[np.flatnonzero(problems == "")[~has_mass]] = "no_density"
    if not has_mass.any():
        return contexts[:0], None, None
    contexts = contexts[torch.from_numpy(has_mass).to(contexts.device)]
    if members is not None:
        members = estimator.memberships(clusters, contexts=contexts, draws=options["draws"])
    return contexts, posterior[has_mass], members


def _encode(estimator: MassEstimator, clusters: ClusterCatalog, problems: npt.NDArray[np.str_]) -> Contexts:
    """Contexts of the clusters without a problem; those that turn out to have no density join the problems."""
    rows, nothing = np.flatnonzero(problems == ""), torch.zeros(0)
    if not len(rows):
        return nothing
    try:
        return estimator.encode(clusters[rows])
    except CatalogError as error:
        if not isinstance(error.__cause__, KDEError):
            raise
    if len(rows) == 1:
        problems[rows] = "no_density"
        return nothing
    # By halves, so that one cluster without a density costs a few repetitions and not one for each of the others.
    parts = []
    for half in (slice(0, rows[len(rows) // 2]), slice(rows[len(rows) // 2], None)):
        # The slice of the problems is a view: what is found in it is found in the whole.
        part = _encode(estimator, clusters[half], problems[half])
        if len(part):
            parts.append(part)
    return concatenate(parts) if parts else nothing


def posterior_columns(
    estimator: MassEstimator,
    catalog: ClusterCatalog,
    columns: Mapping[str, Callable[[MassPosterior, ClusterCatalog], npt.ArrayLike]],
    prior: str | MassPrior = "flat",
    **options: Any,
) -> dict[str, FloatArray]:
    """Numbers of each cluster of a catalogue from its posterior: NaN for a cluster that has none.

    Args:
        estimator: the model.
        catalog: n clusters.
        columns: name -> function of the posteriors of k clusters and these, with k rows: (k,) or (k, q).
        prior: see `posteriors`.
        options: of `posteriors`.

    Returns:
        Name -> (n,) or (n, q) float64.

    Raises:
        CatalogError, ValueError: see `posteriors`.
    """
    result: dict[str, FloatArray] = {}
    for batch in posteriors(estimator, catalog, prior, **options):
        if batch.posterior is None:
            continue
        for name, function in columns.items():
            values = np.asarray(function(batch.posterior, batch.clusters), dtype=np.float64)
            whole = result.setdefault(name, np.full((len(catalog), *values.shape[1:]), np.nan))
            whole[batch.rows] = values
    return result
