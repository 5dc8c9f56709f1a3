"""Masses of samples beside other masses, each under the prior that says how the sample was chosen.

What each model is told, and each prior, follows from how the sample was made, by its own description:

* GalWCat19 clusters in SDSS: a volume-limited sample of 4.9e-3 galaxies per (Mpc/h)^3 that covers the cylinder, errors
  of 30 km/s; chosen here by N >= 20: `richness:20`. The reference are virial masses from the same galaxies;
* those of them in MCXC (X-rays, fluxes above about 3e-12 erg/s/cm^2 in the northern surveys that it collects), N >= 10:
  `xray:3e-12`;
* those of them in Planck's PSZ2, whose clusters at z < 0.1 weigh more than about M500c = 2e14 Msun: `sz:14.3,0.2`;
* SPT clusters with GMOS spectra, in a field of 5.5 x 5.5 arcmin, whose area is that of a circle of 3.1 arcmin; the
  survey is limited at about M500c = 3e14 Msun with hardly any dependence on redshift: `sz:14.5,0.1`.

Nothing here was chosen by looking at residuals.

    python -m benchmarks.real_sky.samples --data ../shared/data
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import suppress
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
from bayesflowmass.selection import richness_limits
from benchmarks.provenance import header, provenance
from benchmarks.real_sky import data as data_of
from benchmarks.real_sky.page import samples_page

DENSITY, VELOCITY_ERROR = 4.9e-3, 30.0
GMOS_FIELD = "3.1 arcmin"
SPT_H = 0.7
RESAMPLES = 200
MOCKS = 4000


class Sample(NamedTuple):
    """Clusters, log10 M200c [Msun/h] of a reference, and the prior that the sample has."""

    name: str
    catalog: ClusterCatalog
    reference: np.ndarray
    prior: str


def samples(estimator: MassEstimator, data: Path) -> Iterator[Sample]:
    """All that are here."""
    with suppress(data_of.NotAvailable):
        yield from sdss(estimator, data)
    with suppress(data_of.NotAvailable):
        yield spt(estimator, data)


def sdss(estimator: MassEstimator, data: Path) -> Iterator[Sample]:
    """GalWCat19 clusters with their virial masses, and those that X-rays and Planck know."""
    known = estimator.encoder.optional.names
    assume = {"galaxy_density": DENSITY, "sigma_v_err": VELOCITY_ERROR}
    told = {name: value for name, value in assume.items() if name in known or name == "galaxy_density"}
    if "abs_mag_limit" not in known:
        told.pop("galaxy_density")
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
    )
    folder = data / "independent_masses"
    path = next((folder / name for name in ("sdss.csv", "sdss_dev.csv") if (folder / name).exists()), None)
    if path is None:
        return
    masses = Table.read(path, format="ascii.csv")
    enough = richness_limits(catalog, 10)
    names = enough.column("cluster_id").tolist()
    for label, column, prior in (
        ("SDSS, X-rays (MCXC), N >= 10", "log10_m200c_mcxc", "xray:3e-12"),
        ("SDSS, SZ (Planck), N >= 10", "log10_m200c_psz2", "sz:14.3,0.2"),
    ):
        values = dict(
            zip(masses["ClID"].tolist(), np.ma.filled(masses[column].astype(float), np.nan), strict=True)
        )
        reference = np.array([values.get(name, np.nan) for name in names])
        yield Sample(label, enough.filter(np.isfinite(reference)), reference[np.isfinite(reference)], prior)


def spt(estimator: MassEstimator, data: Path) -> Sample:
    """SPT and ACT clusters with GMOS spectra and SZ masses."""
    folder = data_of.found(data / "spt_gmos")
    pair = next(
        (folder / f"galaxies{end}.csv", folder / f"clusters{end}.csv")
        for end in ("", "_dev")
        if (folder / f"clusters{end}.csv").exists()
    )
    names = {"cluster_id": "CName", "galaxies.ra": "RAdeg", "galaxies.dec": "DEdeg", "galaxies.z": "zspec"}
    names |= {
        "galaxies.z_err": "e_zspec",
        "clusters.ra": "RA",
        "clusters.dec": "DEC",
        "clusters.redshift": "z",
    }
    galaxies = Table.read(pair[0], format="ascii.csv")["CName", "RAdeg", "DEdeg", "zspec", "e_zspec"]
    clusters = Table.read(pair[1], format="ascii.csv")["CName", "RA", "DEC", "z", "M500_Msun"]
    catalog = read_observations(
        estimator, galaxies, clusters, column=names, mode="survey", aperture=GMOS_FIELD
    )
    m500 = np.asarray(catalog.column("M500_Msun"), dtype=np.float64)
    reference = convert_mass(np.log10(m500 * SPT_H), catalog.column("redshift"), "500c", "200c")
    usable = np.isfinite(reference) & (catalog.n_galaxies >= 10)
    return Sample("SPT and ACT, SZ, N >= 10", catalog.filter(usable), reference[usable], "sz:14.5,0.1")


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

    The simple methods are fitted on mocks observed as those of training, flat in mass, at the sample's redshifts and
    in fields of its size.
    """
    rows = []
    for name, catalog, reference, prior in samples(estimator, data):
        estimates = {}
        for text in dict.fromkeys((prior, "flat", "hmf")):
            columns = {"mass": lambda p, _: p.median, "sigma": lambda p, _: p.sigma}
            found = posterior_columns(estimator, catalog, columns, text)
            estimates[f"this model, {text}"] = found["mass"], found["sigma"]
        z = np.asarray(catalog.column("redshift"))
        field = np.clip(np.quantile(catalog.column("aperture"), [0.16, 0.84]), 0.01, 1.6)
        changes = {"aperture": tuple(field)} if estimator.training_info.selection.get("aperture") else {}
        mocks = like_training(
            estimator.training_info,
            MOCKS,
            seed,
            simulate={"redshift": (float(z.min()), float(z.max())), "masses": "flat"},
            augmentation=changes | {"known": {}},
        )
        for label, simple in predict_baselines(fit_baselines(mocks), catalog).items():
            if label.startswith(("msigma", "richness")):
                estimates[label] = simple.log10_mass, np.full(len(catalog), simple.sigma)
        good = np.isfinite([values[0] for values in estimates.values()]).all(axis=0)
        estimates = {key: (mass[good], sigma[good]) for key, (mass, sigma) in estimates.items()}
        result = compare(estimates, reference[good], seed)
        simple_ones = [key for key in result if not key.startswith("this model")]
        kept = [key for key in result if key.startswith("this model") or key == "richness"]
        kept += sorted(set(simple_ones) - {"richness"}, key=lambda k: -result[k]["value"]["rank"])[:3]
        rows.append(
            {"sample": name, "prior": prior, "n": int(good.sum()), "rows": {k: result[k] for k in kept}}
        )
    return rows


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
