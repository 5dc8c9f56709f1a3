"""Reasons to distrust a mass, one name for each (docs/flags.md).

A flag is a name, a sentence and a function that says of which clusters it holds; to add one, write its function and put
it into `_FLAGS`, at the place where readers shall see it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.estimator.beyond_training import incompleteness_differs, selection_differs
from bayesflowmass.estimator.cylinder import APERTURE_MARGIN
from bayesflowmass.estimator.statistics import MINIMUM_GALAXIES, ClusterStatistics
from bayesflowmass.estimator.training_info import TrainingInfo
from bayesflowmass.novelty import ALARM
from bayesflowmass.posterior import MassPosterior

UNUSABLE = {
    "no_redshift": "has no redshift, without which nothing of its galaxies is known",
    "too_few_galaxies": f"has fewer than {MINIMUM_GALAXIES} galaxies, too few for a kernel density",
    "no_density": "has galaxies without spread in R or v, on one line or outside the grid, or is so unlike training"
    " that no density is left in its range of masses",
}
"""Flags of clusters without a mass, and what follows "cluster X"."""

FEW = 10
"""Galaxies from which on a cluster is not called poor: the training clusters have as many."""

# Redshift may leave the training range by this much: over it E(z) changes by less than 0.5 %.
REDSHIFT_MARGIN = 0.01
# exp(-2): an edge two standard deviations from the peak of a Gaussian.
EDGE_DENSITY = float(np.exp(-2.0))
EDGE_LEAK = 0.025
# A tenth of the galaxies moves a dispersion by 5 % at most, less than its own scatter.
SHARED_SHARE = 0.1


@dataclass(frozen=True)
class Clusters:
    """What is known of n clusters; each flag looks at it.

    Attributes:
        catalog: the clusters.
        info: what the model was trained on.
        unusable: keys of `UNUSABLE`, or empty (n,).
        measured: statistics of their galaxies; None for a model that knows no `Reference`.
        edge: whose PDF is `pressed_against_edge` (n,); None: not known.
        p_novelty: p-value (n,), NaN where there is none; None: not known.
        empty_together: `Reference.together_empty` of the catalogue that they are a part of; None: they are all of it.
    """

    catalog: ClusterCatalog
    info: TrainingInfo
    unusable: npt.NDArray[np.str_]
    measured: ClusterStatistics | None
    edge: BoolArray | None
    p_novelty: FloatArray | None
    empty_together: bool | None = None

    @property
    def n_galaxies(self) -> npt.NDArray[np.int64]:
        """Galaxies of each cluster (n,)."""
        return np.asarray(self.catalog.n_galaxies)

    def all_or_none(self, holds: bool) -> BoolArray:
        """The same for every cluster (n,)."""
        return np.full(len(self.catalog), holds)


def _without_a_mass(name: str) -> Callable[[Clusters], BoolArray]:
    return lambda clusters: np.asarray(clusters.unusable == name)


def _few_galaxies(clusters: Clusters) -> BoolArray:
    return (clusters.n_galaxies < FEW) & (clusters.n_galaxies >= MINIMUM_GALAXIES)


def _edge(clusters: Clusters) -> BoolArray | None:
    return clusters.edge


def _redshift(clusters: Clusters) -> BoolArray:
    redshift = np.asarray(clusters.catalog.column("redshift"), dtype=np.float64)
    low, high = clusters.info.redshift_range
    return (redshift < low - REDSHIFT_MARGIN) | (redshift > high + REDSHIFT_MARGIN)


def _mode(clusters: Clusters) -> BoolArray:
    """Data without a stated mode are observations, which see central galaxies too: mode ``survey``."""
    catalog, mode = clusters.catalog, clusters.info.mode
    if mode in ("mixed", None) or catalog.metadata.kind == "pure":
        return clusters.all_or_none(False)
    if catalog.has("mode"):
        return np.asarray(catalog.column("mode").astype(str) != mode)
    return clusters.all_or_none((catalog.metadata.mode or "survey") != mode)


def _kind(clusters: Clusters) -> BoolArray:
    ours, theirs = (kind or "contaminated" for kind in (clusters.catalog.metadata.kind, clusters.info.kind))
    return clusters.all_or_none(ours != theirs)


def _selection(clusters: Clusters) -> BoolArray:
    return selection_differs(clusters.catalog, clusters.info)


def _richness(clusters: Clusters) -> BoolArray:
    info, n = clusters.info, clusters.n_galaxies
    found = (n < info.richness_range[0]) | (n > info.richness_range[1])
    if info.uses_richness:
        found = found | incompleteness_differs(clusters.catalog, info)
        if info.reference is not None and clusters.measured is not None:
            found = found | info.reference.implausible_richness(clusters.measured)
    return found


def _velocity_offset(clusters: Clusters) -> BoolArray | None:
    if clusters.info.reference is None or clusters.measured is None:
        return None
    return clusters.info.reference.velocity_centre_off(clusters.measured)


def _position_offset(clusters: Clusters) -> BoolArray | None:
    """Distances without directions do not say where the centre of the galaxies is."""
    if clusters.info.reference is None or clusters.measured is None or clusters.catalog.metadata.radial:
        return None
    return clusters.info.reference.position_centre_off(clusters.measured)


def _centre_found(clusters: Clusters) -> BoolArray | None:
    catalog = clusters.catalog
    return np.asarray(catalog.column("centre_found"), dtype=bool) if catalog.has("centre_found") else None


def _small_field(clusters: Clusters) -> BoolArray | None:
    """Only where no smaller field was told: what was told is known to the model."""
    reference, catalog = clusters.info.reference, clusters.catalog
    if reference is None or clusters.measured is None:
        return None
    found = reference.field_small(clusters.measured)
    if catalog.has("aperture"):
        found &= ~(np.asarray(catalog.column("aperture")) < (1.0 - APERTURE_MARGIN) * reference.aperture[0])
    return found


def _cleaned(clusters: Clusters) -> BoolArray | None:
    info = clusters.info
    if info.selection.get("cleaned_share"):
        # Trained on clusters with and without interlopers: neither is strange.
        return None
    declared = bool(clusters.catalog.metadata.selection.get("cleaned"))
    found = clusters.all_or_none(declared != bool(info.selection.get("cleaned")))
    if info.reference is not None and clusters.measured is not None:
        found = found | info.reference.looks_cleaned(clusters.measured, clusters.empty_together)
    return found


def _shared(clusters: Clusters) -> BoolArray | None:
    if not clusters.catalog.has("n_shared"):
        return None
    return np.asarray(clusters.catalog.column("n_shared")) > SHARED_SHARE * clusters.n_galaxies


def _unlike_training(clusters: Clusters) -> BoolArray | None:
    return None if clusters.p_novelty is None else clusters.p_novelty <= ALARM


@dataclass(frozen=True)
class _Flag:
    """A name, what it says, and of which clusters (n,) it holds; None: nothing is known of that."""

    name: str
    sentence: str
    holds: Callable[[Clusters], BoolArray | None]


_FLAGS = (
    *(_Flag(name, sentence, _without_a_mass(name)) for name, sentence in UNUSABLE.items()),
    _Flag("few_galaxies", "fewer than ten galaxies: poorer than any training cluster", _few_galaxies),
    _Flag("edge", "the PDF is pressed against an edge of the training range of masses", _edge),
    _Flag("redshift", "outside the redshifts of the training clusters", _redshift),
    _Flag("mode", "interlopers of another kind (paper, survey) than in training", _mode),
    _Flag("kind", "members only, for a model of contaminated clusters, or the reverse", _kind),
    _Flag(
        "selection",
        "cylinder, aperture, completeness, magnitude limit or velocity errors outside those of training",
        _selection,
    ),
    _Flag(
        "richness",
        "number of galaxies outside training, or used by the model where the sample is incomplete",
        _richness,
    ),
    _Flag("velocity_offset", "the mean or median velocity is far from the given redshift", _velocity_offset),
    _Flag("position_offset", "the mean or median position is far from the given centre", _position_offset),
    _Flag("centre_found", "centre, or centre and redshift, were found from the galaxies", _centre_found),
    _Flag(
        "small_field",
        "galaxies end short of the edge of the cylinder, and no smaller field was told (--aperture)",
        _small_field,
    ),
    _Flag(
        "cleaned",
        "interlopers were removed, by declaration or to judge by the empty outer velocities",
        _cleaned,
    ),
    _Flag(
        "shared",
        "more than a tenth of the galaxies are in the cylinder of another cluster of the catalogue too",
        _shared,
    ),
    _Flag(
        "unlike_training",
        "galaxies arranged as in fewer than one training cluster in a hundred of that richness",
        _unlike_training,
    ),
)

FLAGS = {flag.name: flag.sentence for flag in _FLAGS}
"""Name and sentence of every flag, in the order in which they are given."""


def cluster_flags(
    catalog: ClusterCatalog,
    info: TrainingInfo,
    edge: BoolArray | None = None,
    unusable: npt.NDArray[np.str_] | None = None,
    p_novelty: FloatArray | None = None,
    *,
    measured: ClusterStatistics | None = None,
    empty_together: bool | None = None,
) -> npt.NDArray[np.str_]:
    """Flags of each cluster (n,): names of `FLAGS` joined by commas, in their order there.

    Args:
        catalog: clusters.
        info: what the model was trained on.
        edge: clusters whose PDF is `pressed_against_edge` (n,); default: not known, not flagged.
        unusable: keys of `UNUSABLE`, or empty (n,); default: what `usable_clusters` says.
        p_novelty: p-value of each cluster (n,), NaN where there is none; default: not known, not flagged.
        measured: `Reference.measure` of them, where it has been called before.
        empty_together: `Reference.together_empty` of the catalogue that they are a part of; default: they are all of
            it.
    """
    problems = usable_clusters(catalog) if unusable is None else unusable
    if measured is None and info.reference is not None:
        measured = info.reference.measure(catalog)
    clusters = Clusters(catalog, info, problems, measured, edge, p_novelty, empty_together)
    found = {flag.name: flag.holds(clusters) for flag in _FLAGS}
    # Galaxies of a cluster without a redshift are not known: nothing that is said of them would be true.
    seen = problems != "no_redshift"
    of_table = {*UNUSABLE, "centre_found"}
    known = {
        name: holds if name in of_table else holds & seen
        for name, holds in found.items()
        if holds is not None
    }
    columns = np.stack(list(known.values()), axis=1)
    return np.array(
        [",".join(name for name, holds in zip(known, row, strict=True) if holds) for row in columns],
        dtype=np.str_,
    )


def usable_clusters(catalog: ClusterCatalog) -> npt.NDArray[np.str_]:
    """Why each cluster has no kernel density (a key of `UNUSABLE`), or an empty string (n,)."""
    n = np.asarray(catalog.n_galaxies, dtype=np.int64)
    owner = np.repeat(np.arange(len(n)), n)
    points = [np.asarray(values, dtype=np.float64) for values in (catalog.r_proj, catalog.galaxies("v_los"))]

    def mean(values: FloatArray) -> FloatArray:
        return np.bincount(owner, weights=values, minlength=len(n)) / np.maximum(n, 1)

    r, v = (values - mean(values)[owner] for values in points)
    rr, rv, vv = mean(r * r), mean(r * v), mean(v * v)
    scale = mean(points[0] ** 2), mean(points[1] ** 2)
    flat = (rr <= 1e-12 * scale[0]) | (vv <= 1e-12 * scale[1]) | (rv * rv >= (1.0 - 1e-9) * rr * vv)
    result = np.full(len(n), "", dtype="U32")
    result[flat] = "no_density"
    result[n < MINIMUM_GALAXIES] = "too_few_galaxies"
    result[np.isnan(np.asarray(catalog.column("redshift"), dtype=np.float64))] = "no_redshift"
    return result


def require_usable(catalog: ClusterCatalog, purpose: str, remedy: str) -> None:
    """Refuse a catalogue without clusters, or with one that has no kernel density.

    Args:
        catalog: the clusters.
        purpose: a verb, for what they were needed.
        remedy: what follows "remove it, ".

    Raises:
        CatalogError: naming the cluster.
    """
    if len(catalog) == 0:
        raise CatalogError(f"The catalogue has no clusters, so there is nothing to {purpose}.")
    problems = usable_clusters(catalog)
    if problems.any():
        row = int(np.flatnonzero(problems != "")[0])
        raise CatalogError(
            f"Cluster {catalog.column('cluster_id')[row]} {UNUSABLE[str(problems[row])]}; remove it, {remedy}."
        )


def pressed_against_edge(posterior: MassPosterior, info: TrainingInfo) -> BoolArray:
    """The density at an edge exceeds exp(-2) of the peak, or 2.5 % of the probability leaks beyond it."""
    limits = info.log10_mass_range if posterior.recalibration is None else posterior.prior.log10_mass_range
    edges = np.array(limits)[:, None]
    peak = posterior.pdf(posterior.map)
    pressed = (posterior.pdf(edges) > EDGE_DENSITY * peak).any(axis=0)
    low, high = posterior.cdf(edges)
    return np.asarray(pressed | (low > EDGE_LEAK) | (1.0 - high > EDGE_LEAK))
