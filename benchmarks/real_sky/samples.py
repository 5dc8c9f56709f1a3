"""Masses of samples beside other masses, each under the prior that says how the sample was chosen.

What each model is told, and each prior, follows from how the sample was made, by its own description:

* GalWCat19 clusters in SDSS: the sample is limited in volume at M_r = -20.09 (Pan et al. 2012, arXiv:1103.4156) and
  has 4.9e-3 galaxies per (Mpc/h)^3, 93 % of what the luminosity function has to that limit (others had no fibre): the
  model is told both. It covers the cylinder, errors are 30 km/s; chosen here by N >= 20: `richness:20`. The reference
  are virial masses from the same galaxies;
* those of them in MCXC (X-rays), N >= 10. MCXC collects surveys of many depths, and a third of its clusters here are
  fainter than the 3e-12 erg/s/cm^2 that NORAS (Boehringer et al. 2000) and, nearly, eBCS (Ebeling et al. 2000) reach.
  Those above it are limited in flux: `xray:3e-12`;
* those of them in Planck's PSZ2, whose clusters at z < 0.1 weigh more than about M500c = 2e14 Msun: `sz:14.3,0.2`;
* SPT clusters with GMOS spectra, in a field of 5.5 x 5.5 arcmin, whose area is that of a circle of 3.1 arcmin; the
  catalogue is limited at about M500c = 3e14 Msun, hardly depending on redshift (Bleem et al. 2015, arXiv:1409.0850):
  `sz:14.5,0.1`.

MCXC and PSZ2 masses are tied to hydrostatic ones and not corrected for their bias; with 1 - b = 0.8 (Planck XXIV 2016)
they would be 0.10 dex heavier. Nothing here was chosen by looking at residuals.

    python -m benchmarks.real_sky.samples --data ../shared/data
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from astropy.table import Table
from scipy.stats import spearmanr

from bayesflowmass.baselines import fit_baselines, predict_baselines
from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.cosmology import convert_mass
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluation.road import posterior_columns
from bayesflowmass.evaluation.test_sets import like_training
from bayesflowmass.infer import read_observations
from bayesflowmass.mocks.luminosity import schechter_density
from bayesflowmass.selection import richness_limits
from bayesflowmass.selection.limited import LimitedSample
from benchmarks.provenance import header, provenance
from benchmarks.real_sky import data as data_of
from benchmarks.real_sky.page import samples_page

DENSITY, LIMIT, VELOCITY_ERROR = 4.9e-3, -20.09, 30.0
COMPLETENESS = DENSITY / float(schechter_density(np.array(LIMIT)))
X_RAY_FLUX, X_RAY_SCATTER = 3e-12, 0.10
GMOS_FIELD = "3.1 arcmin"
SPT_H = 0.7
RESAMPLES = 200
MOCKS = 4000
ANNULI, NEAR = (0.0, 0.5, 1.0, 1.6), 0.05


class Sample(NamedTuple):
    """Clusters, log10 M200c [Msun/h] of a reference, the prior that the sample has, and the reference's error [dex]."""

    name: str
    catalog: ClusterCatalog
    reference: np.ndarray
    prior: str
    error: np.ndarray | float | None = None
    error_of: str = ""


def samples(estimator: MassEstimator, data: Path) -> Iterator[Sample]:
    """All that are here."""
    with suppress(data_of.NotAvailable):
        yield from sdss(estimator, data)
    with suppress(data_of.NotAvailable):
        yield spt(estimator, data)


def sdss(estimator: MassEstimator, data: Path) -> Iterator[Sample]:
    """GalWCat19 clusters with their virial masses, and those that X-rays and Planck know."""
    known = estimator.encoder.optional.names
    assume = {"abs_mag_limit": LIMIT, "completeness": COMPLETENESS, "sigma_v_err": VELOCITY_ERROR}
    told = {name: value for name, value in assume.items() if name in known}
    catalog = read_observations(
        estimator,
        *data_of.galwcat(data),
        column={"cluster_id": "ClID"},
        mode="survey",
        aperture=estimator.training_info.selection["r_max"],
        assume=told,
    )
    enough = richness_limits(catalog, 20)
    yield Sample(
        "SDSS, virial masses, N >= 20",
        enough,
        np.asarray(enough.column("logM200_Msunh"), float),
        "richness:20",
        np.asarray(enough.column("elogM_low"), float),
        "their errors in the table",
    )
    masses = Table.read(data_of.either(data / "independent_masses", "sdss"), format="ascii.csv")
    enough = richness_limits(catalog, 10)
    names = enough.column("cluster_id").tolist()
    for label, column, prior in (
        ("SDSS, X-rays (MCXC), N >= 10", "log10_m200c_mcxc", f"xray:{X_RAY_FLUX:g}"),
        ("SDSS, SZ (Planck), N >= 10", "log10_m200c_psz2", "sz:14.3,0.2"),
    ):
        values = dict(
            zip(masses["ClID"].tolist(), np.ma.filled(masses[column].astype(float), np.nan), strict=True)
        )
        reference = np.array([values.get(name, np.nan) for name in names])
        if column.endswith("mcxc"):
            bright = bright_in_x_rays(data_of.either(data / "sdss_galwcat", "mcxc"))
            reference[[name not in bright for name in names]] = np.nan
        found = np.isfinite(reference)
        error = (X_RAY_SCATTER, "the scatter of L_X at fixed mass, Pratt et al. 2009")
        told = error if column.endswith("mcxc") else (None, "")
        yield Sample(label, enough.filter(found), reference[found], prior, *told)


def bright_in_x_rays(path: Path) -> set[int]:
    """ClID of MCXC clusters above `X_RAY_FLUX`, from L500 and redshift as `LimitedSample` does."""
    table = Table.read(path, format="ascii.csv")
    limit = LimitedSample(X_RAY_FLUX).luminosity(np.asarray(table["z"], float))
    return set(table["ClID"][np.asarray(table["L500_1e44"], float) >= limit].tolist())


def spt(estimator: MassEstimator, data: Path) -> Sample:
    """SPT and ACT clusters with GMOS spectra and SZ masses."""
    pair = [data_of.either(data / "spt_gmos", name) for name in ("galaxies", "clusters")]
    names = {"cluster_id": "CName", "galaxies.ra": "RAdeg", "galaxies.dec": "DEdeg", "galaxies.z": "zspec"}
    names |= {
        "galaxies.z_err": "e_zspec",
        "clusters.ra": "RA",
        "clusters.dec": "DEC",
        "clusters.redshift": "z",
    }
    galaxies = Table.read(pair[0], format="ascii.csv")["CName", "RAdeg", "DEdeg", "zspec", "e_zspec"]
    clusters = Table.read(pair[1], format="ascii.csv")["CName", "RA", "DEC", "z", "M500_Msun", "e_M500_Msun"]
    catalog = read_observations(
        estimator, galaxies, clusters, column=names, mode="survey", aperture=GMOS_FIELD
    )
    m500 = np.asarray(catalog.column("M500_Msun"), dtype=np.float64)
    reference = convert_mass(np.log10(m500 * SPT_H), catalog.column("redshift"), "500c", "200c")
    usable = np.isfinite(reference) & (catalog.n_galaxies >= 10)
    error = np.asarray(catalog.column("e_M500_Msun"), dtype=np.float64) / m500 / np.log(10.0)
    return Sample(
        "SPT and ACT, SZ, N >= 10",
        catalog.filter(usable),
        reference[usable],
        "sz:14.5,0.1",
        error[usable],
        "their errors in the table",
    )


def statistics(estimate: np.ndarray, sigma: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """How estimates compare with a reference: residual log10(M / M_ref), pull residual / sigma."""
    residual = estimate - reference
    pull = np.abs(residual / sigma)
    slope = float(np.cov(reference, estimate)[0, 1] / reference.var(ddof=1))
    scatter = float(residual.std(ddof=1))
    return {
        "median": float(np.median(residual)),
        "scatter": scatter,
        "slope": slope,
        "scatter_over_slope": scatter / slope,
        "rank": float(spearmanr(reference, estimate)[0]),
        "pull_sd": float((residual / sigma).std(ddof=1)),
        "in_68": float((pull < 0.9945).mean()),
        "in_95": float((pull < 1.96).mean()),
    }


def compare(
    estimates: dict[str, tuple[np.ndarray, np.ndarray]], reference: np.ndarray, seed: int
) -> dict[str, Any]:
    """Statistics with bootstrap errors, and on the same resampled clusters the scatter of the first minus others'."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(reference), (RESAMPLES, len(reference)))
    result: dict[str, Any] = {}
    scatter: dict[str, np.ndarray] = {}
    for name, (estimate, sigma) in estimates.items():
        draws = [statistics(estimate[p], sigma[p], reference[p]) for p in picks]
        value = statistics(estimate, sigma, reference)
        result[name] = {
            "value": value,
            "error": {key: float(np.nanstd([d[key] for d in draws])) for key in value},
        }
        scatter[name] = np.array([d["scatter"] for d in draws])
        first = next(iter(scatter))
        if name != first:
            result[name]["ours_minus_this"] = {
                "value": result[first]["value"]["scatter"] - value["scatter"],
                "error": float((scatter[first] - scatter[name]).std()),
            }
    return result


def judge(estimator: MassEstimator, data: Path, seed: int) -> list[dict[str, Any]]:
    """Every sample under its own prior, the flat one and the mass function, and beside M-sigma and the count.

    The simple methods are fitted on mocks observed as those of training, flat in mass, at the sample's redshifts, in
    fields of its size, and with the depth and completeness that the model is told.
    """

    def mocks_like(catalog: ClusterCatalog, changes: dict[str, Any]) -> ClusterCatalog:
        z = np.asarray(catalog.column("redshift"))
        simulate = {"redshift": (float(z.min()), float(z.max())), "masses": "flat"}
        return like_training(estimator.training_info, MOCKS, seed, simulate=simulate, augmentation=changes)

    rows = []
    for name, catalog, reference, prior, error, error_of in samples(estimator, data):
        estimates = {}
        for text in dict.fromkeys((prior, "flat", "hmf")):
            columns = {"mass": lambda p, _: p.median, "sigma": lambda p, _: p.sigma}
            found = posterior_columns(estimator, catalog, columns, text)
            estimates[f"this model, {text}"] = found["mass"], found["sigma"]
        changes = {"known": {}}
        if estimator.training_info.selection.get("aperture"):
            changes["aperture"] = np.clip(np.quantile(catalog.column("aperture"), [0.16, 0.84]), 0.01, 1.6)
        for step, column in (("magnitude_limit", "abs_mag_limit"), ("completeness", "completeness")):
            if column in estimator.encoder.optional.names and catalog.has(column):
                changes[step] = np.quantile(catalog.column(column), [0.0, 1.0])
        mocks = mocks_like(catalog, changes)
        for label, simple in predict_baselines(fit_baselines(mocks), catalog).items():
            if label.startswith(("msigma", "richness")):
                estimates[label] = simple.log10_mass, np.full(len(catalog), simple.sigma)
        good = np.isfinite([values[0] for values in estimates.values()]).all(axis=0)
        estimates = {key: (mass[good], sigma[good]) for key, (mass, sigma) in estimates.items()}
        result = compare(estimates, reference[good], seed)
        simple_ones = [key for key in result if not key.startswith("this model")]
        kept = [key for key in result if key.startswith("this model") or key == "richness"]
        kept += sorted(set(simple_ones) - {"richness"}, key=lambda k: -result[k]["value"]["rank"])[:3]
        row = {"sample": name, "prior": prior, "n": int(good.sum()), "rows": {k: result[k] for k in kept}}
        if error is not None:
            mass, sigma = estimates[f"this model, {prior}"]
            error = np.broadcast_to(error, good.shape)[good]
            whole = statistics(mass, np.hypot(sigma, error), reference[good])
            row["with_error"] = {"of": error_of, "dex": float(np.median(error)), **whole}
        if "magnitude_limit" in changes:
            undisturbed = {"central_losses": None, "cleaning": 0.0, "miscentre_r": 0.0, "miscentre_v": 0.0}
            mocks = mocks_like(catalog, {**changes, **undisturbed})
            row["counts"] = counts(catalog, reference, mocks)
        rows.append(row)
    return rows


def counts(catalog: ClusterCatalog, reference: np.ndarray, mocks: ClusterCatalog) -> dict[str, Any]:
    """Mean galaxies by annulus, and in mocks of the reference masses no poorer than the poorest cluster."""
    mocks = richness_limits(mocks.filter(mocks.column("mode") == "survey"), int(catalog.n_galaxies.min()))
    here, there = (
        np.stack(
            [
                np.bincount(one.galaxy_rows, (one.r_proj >= low) & (one.r_proj < high), len(one))
                for low, high in pairwise(ANNULI)
            ],
            axis=1,
        )
        for one in (catalog, mocks)
    )
    mass = np.asarray(mocks.column("log10_mass"))
    near = [there[np.abs(mass - one) < NEAR] for one in reference]
    found = np.array([len(one) > 0 for one in near])
    expected = np.array([one.mean(axis=0) for one in near if len(one)])
    return {
        "annuli": list(ANNULI),
        "sky": here[found].mean(axis=0).tolist(),
        "sky_error": (here[found].std(axis=0, ddof=1) / np.sqrt(found.sum())).tolist(),
        "mocks": expected.mean(axis=0).tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="sky")
    parser.add_argument("--data", type=Path, required=True, help="folder of real catalogues")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/results/real_samples"))
    options = parser.parse_args()
    source = provenance(options.seed)
    rows = {"rows": judge(MassEstimator.load(options.model, "cpu"), options.data, options.seed)}
    text = header("Real samples", source) + samples_page(rows)
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    options.out.with_suffix(".json").write_text(json.dumps(source | rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
