"""Reasons to distrust a mass, one name for each (docs/flags.md)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.estimator.statistics import MINIMUM_GALAXIES
from bayesflowmass.estimator.training_info import TrainingInfo
from bayesflowmass.novelty import ALARM
from bayesflowmass.posterior import MassPosterior

__all__ = ["FLAGS", "UNUSABLE", "cluster_flags", "pressed_against_edge", "require_usable", "usable_clusters"]


UNUSABLE = {
    "too_few_galaxies": f"has fewer than {MINIMUM_GALAXIES} galaxies, too few for a kernel density",
    "no_density": "has galaxies without spread in R or v, on one line or outside the grid, so no density",
}

FLAGS = UNUSABLE | {
    "few_galaxies": "fewer than ten galaxies: poorer than any training cluster",
    "edge": "the PDF is pressed against an edge of the training range of masses",
    "redshift": "outside the redshifts of the training clusters",
    "mode": "interlopers of another kind (paper, survey) than in training",
    "kind": "members only, for a model of contaminated clusters, or the reverse",
    "selection": "cylinder, completeness, magnitude limit or velocity errors outside those of training",
    "richness": "number of galaxies outside training, or used by the model where the sample is incomplete",
    "velocity_offset": "the mean or median velocity is far from the given redshift",
    "position_offset": "the mean or median position is far from the given centre",
    "cleaned": "interlopers were removed, by declaration or to judge by the empty outer velocities",
    "shared": "more than a tenth of the galaxies are in the cylinder of another cluster of the catalogue too",
    "unlike_training": "galaxies arranged as in fewer than one training cluster in a hundred of that richness",
}

FEW = 10
# Redshift may leave the training range by this much: over it E(z) changes by less than 0.5 %.
REDSHIFT_MARGIN = 0.01
# exp(-2): an edge two standard deviations from the peak of a Gaussian.
EDGE_DENSITY = float(np.exp(-2.0))
EDGE_LEAK = 0.025
# Relative difference between cylinders that is taken for rounding.
APERTURE_MARGIN = 0.02
COMPLETENESS_MARGIN = 0.02
MAGNITUDE_MARGIN = 0.5
# A tenth of the galaxies moves a dispersion by 5 % at most, less than its own scatter.
SHARED_SHARE = 0.1
# Velocity errors [km/s] below this change no mass: they add in quadrature to dispersions above 250 km/s.
VELOCITY_ERROR = 100.0


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


def cluster_flags(
    catalog: ClusterCatalog,
    info: TrainingInfo,
    edge: BoolArray | None = None,
    unusable: npt.NDArray[np.str_] | None = None,
    p_novelty: FloatArray | None = None,
) -> npt.NDArray[np.str_]:
    """Flags of each cluster (n,): names of `FLAGS` joined by commas, in their order there.

    Args:
        catalog: clusters.
        info: what the model was trained on.
        edge: clusters whose PDF is `pressed_against_edge` (n,); default: not known, not flagged.
        unusable: keys of `UNUSABLE`, or empty (n,); default: what `usable_clusters` says.
        p_novelty: p-value of each cluster (n,), NaN where there is none; default: not known, not flagged.
    """
    unusable = usable_clusters(catalog) if unusable is None else unusable
    found: dict[str, BoolArray] = {name: unusable == name for name in UNUSABLE}
    n = np.asarray(catalog.n_galaxies)
    found["few_galaxies"] = (n < FEW) & (n >= MINIMUM_GALAXIES)
    if edge is not None:
        found["edge"] = edge
    redshift = np.asarray(catalog.column("redshift"), dtype=np.float64)
    low, high = info.redshift_range
    found["redshift"] = (redshift < low - REDSHIFT_MARGIN) | (redshift > high + REDSHIFT_MARGIN)
    found["mode"] = _mode(catalog, info)
    found["kind"] = np.full(
        len(n), (catalog.metadata.kind or "contaminated") != (info.kind or "contaminated")
    )
    found["selection"] = _selection(catalog, info)
    found["richness"] = (n < info.richness_range[0]) | (n > info.richness_range[1])
    if info.uses_richness:
        found["richness"] = found["richness"] | _incomplete(catalog, info)
    found["cleaned"] = np.full(len(n), bool(catalog.metadata.selection.get("cleaned")))
    if info.selection.get("cleaned"):
        found["cleaned"] = ~found["cleaned"]
    if info.reference is not None:
        measured = info.reference.measure(catalog)
        found["velocity_offset"] = info.reference.velocity_centre_off(measured)
        found["position_offset"] = info.reference.position_centre_off(measured)
        found["cleaned"] = found["cleaned"] | info.reference.looks_cleaned(measured)
        if info.uses_richness:
            found["richness"] = found["richness"] | info.reference.implausible_richness(measured)
    if catalog.has("n_shared"):
        found["shared"] = np.asarray(catalog.column("n_shared")) > SHARED_SHARE * n
    if p_novelty is not None:
        found["unlike_training"] = p_novelty <= ALARM
    if info.selection.get("cleaned_share"):
        # Trained on clusters with and without interlopers: neither is strange.
        del found["cleaned"]
    names = [name for name in FLAGS if name in found]
    columns = np.stack([found[name] for name in names], axis=1)
    return np.array(
        [",".join(name for name, set_ in zip(names, row, strict=True) if set_) for row in columns],
        dtype=np.str_,
    )


def pressed_against_edge(posterior: MassPosterior, info: TrainingInfo) -> BoolArray:
    """The density at an edge exceeds exp(-2) of the peak, or 2.5 % of the probability leaks beyond it."""
    limits = info.log10_mass_range if posterior.recalibration is None else posterior.prior.log10_mass_range
    edges = np.array(limits)[:, None]
    peak = posterior.pdf(posterior.map)
    pressed = (posterior.pdf(edges) > EDGE_DENSITY * peak).any(axis=0)
    low, high = posterior.cdf(edges)
    return np.asarray(pressed | (low > EDGE_LEAK) | (1.0 - high > EDGE_LEAK))


def _mode(catalog: ClusterCatalog, info: TrainingInfo) -> BoolArray:
    """Data without a stated mode are observations, which see central galaxies too: mode ``survey``."""
    if info.mode in ("mixed", None) or catalog.metadata.kind == "pure":
        return np.zeros(len(catalog), dtype=bool)
    if catalog.has("mode"):
        return np.asarray(catalog.column("mode").astype(str) != info.mode)
    return np.full(len(catalog), (catalog.metadata.mode or "survey") != info.mode)


def _selection(catalog: ClusterCatalog, info: TrainingInfo) -> BoolArray:
    ours, theirs = catalog.metadata.selection, info.selection
    wrong = np.zeros(len(catalog), dtype=bool)
    for key in ("r_max", "v_max"):
        if ours.get(key) and theirs.get(key):
            wrong |= abs(float(ours[key]) / float(theirs[key]) - 1.0) > APERTURE_MARGIN
    lowest, _ = _range(theirs.get("completeness"), 1.0)
    wrong |= _completeness(catalog) < lowest - COMPLETENESS_MARGIN
    wrong |= _column(catalog, "sigma_v_err", "velocity_error", 0.0) > max(
        VELOCITY_ERROR, _range(theirs.get("velocity_error"), 0.0)[1]
    )
    return wrong | _other_magnitudes(catalog, info)


def _other_magnitudes(catalog: ClusterCatalog, info: TrainingInfo) -> bool:
    """A limit on absolute magnitude on one side only, or limits that differ."""
    ours, theirs = catalog.metadata.selection.get("magnitude_limit"), info.selection.get("magnitude_limit")
    if ours is None and theirs is None:
        return False
    if ours is None or theirs is None:
        return catalog.has("gal_abs_mag") or ours is not None
    low, high = _range(theirs, 0.0)
    brightest, faintest = _range(ours, 0.0)
    return brightest < low - MAGNITUDE_MARGIN or faintest > high + MAGNITUDE_MARGIN


def _incomplete(catalog: ClusterCatalog, info: TrainingInfo) -> BoolArray:
    """A model that counts galaxies presumes the completeness of its training set."""
    low, high = _range(info.selection.get("completeness"), 1.0)
    complete = _completeness(catalog)
    outside = (complete < low - COMPLETENESS_MARGIN) | (complete > high + COMPLETENESS_MARGIN)
    return outside | _other_magnitudes(catalog, info)


def _completeness(catalog: ClusterCatalog) -> FloatArray:
    return _column(catalog, "completeness", "completeness", 1.0)


def _column(catalog: ClusterCatalog, column: str, entry: str, default: float) -> FloatArray:
    """A property of each cluster: its column, else the selection of the catalogue, else a default."""
    if catalog.has(column):
        return np.asarray(catalog.column(column), dtype=np.float64)
    return np.full(len(catalog), _range(catalog.metadata.selection.get(entry), default)[0])


def _range(value: object, default: float) -> tuple[float, float]:
    """Smallest and largest of a number or a list of numbers."""
    if isinstance(value, int | float):
        return float(value), float(value)
    if isinstance(value, list | tuple) and value:
        return float(min(value)), float(max(value))
    return default, default
