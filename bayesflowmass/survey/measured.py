"""What the clusters of a survey say about how they were observed: limits for mocks like them, and from what.

What the tables tell is taken. The rest is found beside mocks that are observed with the same redshifts, fields, depth
and velocity errors, and with every completeness and mis-centring:

* completeness f from the dispersion at given number of galaxies. In mocks E[ln sigma | N, f, z, R_out] is a quadratic;
  f is where the median residual of the survey is zero. Given N, a cut in N changes nothing, and neither do the
  masses of the sample, but for the scatter of N at fixed mass.
* mis-centring s from how far the centre moves when it is found again (`bayesflowmass.selection.recentre`): in mocks
  E[moved^2] = a + b s^2 + (c + d sigma^2) / N + e sigma.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesflowmass.baselines.dispersion import clipped_deviation
from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.catalog.arrays import segment_max
from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.estimator.cylinder import in_cylinder
from bayesflowmass.estimator.told import known_of
from bayesflowmass.evaluation.test_sets import like_training
from bayesflowmass.selection import recentre

FEWEST = 5
"""Galaxies of the poorest cluster that counts."""
CLUSTERS = 10
"""Clusters that a survey has at least."""

_MOCKS = 4000
_RICHNESS_ERROR = 0.3
"""Error of ln f from the mocks: galaxies of a halo are known to a fifth and velocity bias to 0.05 (mocks.PRIORS); flat
masses in place of the mass function change ln f by as much."""
_EVERY_R, _EVERY_V, _EVERY_F = (0.0, 0.2), (0.0, 400.0), (0.03, 1.0)
_FAR_R, _FAR_V = 0.5, 800.0
"""A centre that moves further ran to a neighbour [comoving Mpc/h, km/s]."""
_TILT = -1.0
"""Slope of the number of mocks with log10 mass; the mass function has -1.5 to -3 there, flat masses 0."""
_ROUNDS, _NEAR = 6, 0.5
_SQRT_3 = math.sqrt(3.0)
"""Half width of a uniform distribution over its standard deviation."""


@dataclass(frozen=True)
class Fact:
    """What was found about one setting of mocks.

    Attributes:
        limits: that mocks draw between.
        source: from what, in a few words.
        value: of a typical cluster.
        error: standard error of it; 0 where it was told.
        told: share of the clusters of which a model is told it.
    """

    limits: tuple[float, float]
    source: str
    value: float = math.nan
    error: float = 0.0
    told: float = 0.0


def measure(catalog: ClusterCatalog, estimator: MassEstimator, seed: int = 0) -> dict[str, Fact]:
    """Settings of mocks like a survey (`MockSettings`, `AugmentationSettings`) by name; those not there are not known.

    Args:
        catalog: clusters of the survey, told what is known of them (`bayesflowmass.estimator.observations`).
        estimator: whose mocks they are compared with, and whose cylinder they are cut to.
        seed: of the mocks.

    Raises:
        CatalogError: fewer than `CLUSTERS` clusters have `FEWEST` galaxies.
    """
    info = estimator.training_info
    survey = in_cylinder(catalog, info.selection)
    survey = survey.filter((survey.n_galaxies >= FEWEST) & np.isfinite(survey.column("redshift")))
    if len(survey) < CLUSTERS:
        raise CatalogError(
            f"{len(survey)} of {len(catalog)} clusters have a redshift and {FEWEST} galaxies in the cylinder of the"
            f" model; at least {CLUSTERS} are needed to say how they were observed: take the model as it is."
        )
    facts = _told(survey, estimator)
    if "aperture" not in facts and info.selection.get("r_max"):
        facts["aperture"] = _field(survey, float(info.selection["r_max"]))
    simulate, observed = settings_of(facts)
    every = {"completeness": _EVERY_F, "completeness_log": True} if "completeness" not in facts else {}
    every |= {"miscentre_r": _EVERY_R, "miscentre_v": _EVERY_V, "known": {}}
    if "magnitude_limit" not in facts:
        every["magnitude_limit"] = None
    least = {"min_galaxies": FEWEST}
    mocks = like_training(info, _MOCKS, seed, simulate=simulate | least, augmentation=observed | every)
    low, high = np.quantile(survey.n_galaxies, [0.02, 0.98])
    alike = mocks.filter((mocks.n_galaxies >= 0.9 * low) & (mocks.n_galaxies <= 1.1 * high))
    if "completeness" not in facts:
        facts["completeness"] = _completeness(survey, alike)
    if not catalog.metadata.radial:
        facts |= _centring(survey, alike)
    return facts


def settings_of(facts: dict[str, Fact]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of `simulate_catalog` and of `Augmentation` that facts stand for."""
    values: dict[str, Any] = {name: fact.limits for name, fact in facts.items()}
    simulate: dict[str, Any] = {"redshift": values.pop("redshift_range")}
    simulate["min_galaxies"] = int(values.pop("min_galaxies")[0])
    if "mode" in values:
        simulate["mode"] = "survey" if values.pop("mode")[0] else "paper"
    values["cleaning"] = values["cleaning"][0]
    return simulate, values


def _told(survey: ClusterCatalog, estimator: MassEstimator) -> dict[str, Fact]:
    """What tables, flags and metadata say."""
    z, n = np.asarray(survey.column("redshift"), dtype=np.float64), survey.n_galaxies
    low, high = max(0.01, math.floor(100.0 * z.min()) / 100.0), math.ceil(100.0 * z.max()) / 100.0
    facts = {
        "redshift_range": Fact((low, high), f"redshifts of {len(survey)} clusters", float(np.median(z))),
        "min_galaxies": Fact(
            (float(n.min()),) * 2, f"{n.min()} to {n.max()} galaxies, after all losses", float(np.median(n))
        ),
    }
    known = known_of(survey, estimator)
    mode = known.pop("mode", np.full(len(survey), np.nan))
    if np.unique(mode).size == 1 and np.isfinite(mode[0]):
        facts["mode"] = Fact((float(mode[0]),) * 2, "--mode, or the tables", told=1.0)
    for name, ours in (
        ("abs_mag_limit", "magnitude_limit"),
        ("sigma_v_err", "velocity_error"),
        ("completeness", "completeness"),
        ("aperture", "aperture"),
    ):
        values = known.get(name, z * np.nan)
        share = float(np.isfinite(values).mean())
        if share:
            values = values[np.isfinite(values)]
            limits = tuple(float(v) for v in np.quantile(values, [0.02, 0.98]))
            facts[ours] = Fact(
                (limits[0], limits[1]),
                f"told of {share:.0%} of the clusters",
                float(np.median(values)),
                told=share,
            )
    reference = estimator.training_info.reference
    cleaned = bool(survey.metadata.selection.get("cleaned"))
    empty = reference is not None and reference.together_empty(reference.measure(survey))
    source = "--cleaned" if cleaned else "empty outer velocities" if empty else "interlopers are there"
    facts["cleaning"] = Fact((float(cleaned or empty),) * 2, source, told=float(cleaned))
    return facts


def _field(survey: ClusterCatalog, r_max: float) -> Fact:
    """Radius of the fields from the two outermost galaxies: N(< R) ~ R^g, so that ln R_field - ln R_1 is 1 / (g N)."""
    outermost = segment_max(survey.r_proj, survey.offsets)
    inner = survey.r_proj < np.repeat(outermost, survey.n_galaxies)
    second = segment_max(np.where(inner, survey.r_proj, 0.0), survey.offsets)
    n = survey.n_galaxies
    good = second > 0.0
    inverse_g = float(np.mean(((n - 1) * np.log(outermost / np.where(good, second, outermost)))[good]))
    field = outermost * np.exp(inverse_g / n)
    value, error = _median(field)
    low, high = np.minimum(np.quantile(field, [0.1, 0.9]), r_max)
    if value + error > r_max:
        # Of the whole cylinder the estimate is its edge give or take.
        low = high = value = r_max
    return Fact((float(low), float(high)), "the outermost galaxies", min(value, r_max), error)


def _completeness(survey: ClusterCatalog, mocks: ClusterCatalog) -> Fact:
    """Share of galaxies that are seen, from the dispersion at given N; see above."""
    ln_f = np.log(np.asarray(mocks.column("completeness"), dtype=np.float64))

    def others(catalog: ClusterCatalog) -> FloatArray:
        n = np.log(catalog.n_galaxies)
        z = np.asarray(catalog.column("redshift"), dtype=np.float64)
        return np.stack([np.ones(n.size), n, n * n, z, segment_max(catalog.r_proj, catalog.offsets)], axis=-1)

    rows, there, ours = np.column_stack([ln_f, others(mocks)]), _log_sigma(mocks), _log_sigma(survey)
    found = float(np.median(ln_f))
    for _ in range(_ROUNDS):
        # Linear in ln f near the value that is found.
        near = np.exp(-0.5 * ((ln_f - found) / _NEAR) ** 2)
        slope, *rest = _fit(rows, there, mocks, near)
        each = (ours - others(survey) @ np.array(rest)) / slope
        found = float(np.clip(np.mean(each), math.log(_EVERY_F[0]), 0.0))
    error = math.hypot(_median(each)[1], _RICHNESS_ERROR)
    usual = float(np.average(((there - rows @ np.array([slope, *rest])) / slope) ** 2, weights=near))
    # That clusters differ shows as more scatter than mocks of one f have.
    more = float(np.var(each)) - usual * (1.0 + 2.0 * math.sqrt(2.0 / len(survey)))
    half = _SQRT_3 * math.hypot(error, math.sqrt(max(more, 0.0)))
    value = math.exp(found)
    limits = max(0.01, value * math.exp(-half)), min(1.0, value * math.exp(half))
    return Fact(limits, "dispersion at given number of galaxies, beside mocks", value, value * error)


def _centring(survey: ClusterCatalog, mocks: ClusterCatalog) -> dict[str, Fact]:
    """How far centres are off, in position along each axis and in velocity; see above."""
    facts = {}
    moved = {name: _moved(catalog) for name, catalog in (("survey", survey), ("mocks", mocks))}
    true = [np.asarray(mocks.column(f"offset_{axis}"), dtype=np.float64) ** 2 for axis in "xyv"]
    squares = 0.5 * (true[0] + true[1]), true[2]

    def others(catalog: ClusterCatalog) -> FloatArray:
        sigma, n = np.exp(_log_sigma(catalog)) / 1000.0, catalog.n_galaxies
        return np.stack([np.ones(n.size), 1.0 / n, sigma**2 / n, sigma], axis=-1)

    for k, (name, far, every) in enumerate(
        (("miscentre_r", _FAR_R, _EVERY_R[1]), ("miscentre_v", _FAR_V, _EVERY_V[1]))
    ):
        near: BoolArray = moved["mocks"][k] < far**2
        rows = np.column_stack([squares[k], others(mocks)])[near]
        slope, *rest = _fit(rows, moved["mocks"][k][near], mocks.filter(near))
        near = moved["survey"][k] < far**2
        ours = (moved["survey"][k] - others(survey) @ np.array(rest))[near] / slope
        error = float(ours.std() / math.sqrt(max(len(ours), 1)))
        value = math.sqrt(max(float(ours.mean()), 0.0))
        low, high = (math.sqrt(max(value**2 + sign * 2.0 * error, 0.0)) for sign in (-1.0, 1.0))
        digits = 3 if every < 1.0 else 0
        facts[name] = Fact(
            (round(min(low, every), digits), round(min(high, every), digits)),
            "how far centres move when found again, beside mocks",
            value,
            error / (2.0 * max(value, math.sqrt(error))),
        )
    return facts


def _moved(catalog: ClusterCatalog) -> tuple[FloatArray, FloatArray]:
    """Squares of how far the centre moves: half of that on the sky [(Mpc/h)^2], and in velocity [(km/s)^2] (n,)."""
    clean = catalog.with_columns(**{f"offset_{axis}": np.zeros(len(catalog)) for axis in "xyv"})
    found = recentre(clean)
    x, y, v = (np.asarray(found.column(f"offset_{axis}"), dtype=np.float64) for axis in "xyv")
    return 0.5 * (x * x + y * y), v * v


def _log_sigma(catalog: ClusterCatalog) -> FloatArray:
    """ln of the clipped dispersion [km/s] (n,)."""
    return np.log(np.maximum(clipped_deviation(catalog.galaxies("v_los"), catalog.n_galaxies), 50.0))


def _fit(
    rows: FloatArray, values: FloatArray, mocks: ClusterCatalog, near: FloatArray | float = 1.0
) -> FloatArray:
    """Coefficients (k,) of values (n,) on rows (n, k), for masses between flat ones and the mass function."""
    tilt = 10.0 ** (_TILT * (np.asarray(mocks.column("log10_mass"), dtype=np.float64) - 14.0))
    weight = np.sqrt(tilt * near)
    return np.asarray(np.linalg.lstsq(rows * weight[:, None], values * weight, rcond=None)[0])


def _median(values: FloatArray) -> tuple[float, float]:
    """Median and its standard error."""
    middle = float(np.median(values))
    return middle, 1.253 * 1.4826 * float(np.median(np.abs(values - middle))) / math.sqrt(values.size)
