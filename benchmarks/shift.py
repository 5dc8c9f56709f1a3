"""What happens when the sky is not the mixture that a model was trained on.

    python -m benchmarks.shift [--model sky] [--n-clusters 8000] [--only POPULATION ...] [--out docs/results/shift]

Fresh mocks, flat in mass, observed as those of training, but with one thing fixed: the interloper mode, the velocity
bias, a completeness of 10 %, the depth, a field of 0.6 Mpc/h, centres off by 300 km/s, and so on. Each is judged under
the flat prior, with the model told the thing (where it can be) and not told. Bias is the mean of posterior median minus
true log10 M200c; standard errors over clusters. Flagged: the share with the flag small_field.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.cosmology import transverse_mpc_h_per_radian
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.estimator.cylinder import in_cylinder
from bayesflowmass.estimator.flags import cluster_flags
from bayesflowmass.estimator.observed_field import in_footprint
from bayesflowmass.estimator.training_info import TrainingInfo
from bayesflowmass.evaluation import like_training, posterior_columns
from bayesflowmass.io.sky import sky_offsets, unit_vectors
from bayesflowmass.selection import richness_limits
from benchmarks.provenance import header, provenance

BIAS, COVERAGE = 0.05, 0.03
SMALL_FIELD = "small_field"


def measure(estimator: MassEstimator, catalog: ClusterCatalog, draws: int) -> dict[str, Any]:
    """Bias, scatter, widths and coverage of one population."""
    columns = {
        "median": lambda posterior, _: posterior.median,
        "sigma": lambda posterior, _: posterior.sigma,
        "pit": lambda posterior, part: posterior.cdf(part.column("log10_mass")),
    }
    found = posterior_columns(estimator, catalog, columns, n_draws=draws)
    usable = np.isfinite(found["median"])
    found = {name: values[usable] for name, values in found.items()}
    residual = found["median"] - np.asarray(catalog.column("log10_mass"), dtype=np.float64)[usable]
    n = len(residual)
    flags = cluster_flags(in_cylinder(catalog, estimator.training_info.selection), estimator.training_info)
    result: dict[str, Any] = {
        "n": n,
        "median": float(np.median(residual)),
        "flagged": float(np.mean([SMALL_FIELD in one.split(",") for one in flags])),
        "bias": float(residual.mean()),
        "bias_error": float(residual.std(ddof=1) / np.sqrt(n)),
        "scatter": float(residual.std(ddof=1)),
        "sigma": float(found["sigma"].mean()),
    }
    for level in (0.68, 0.95):
        share = float((np.abs(found["pit"] - 0.5) < 0.5 * level).mean())
        result[f"coverage_{round(100 * level)}"] = share
        result[f"coverage_{round(100 * level)}_error"] = float(np.sqrt(level * (1 - level) / n))
    return result


def told(estimator: MassEstimator, catalog: ClusterCatalog, **known: Any) -> ClusterCatalog:
    """The clusters with only these columns told to the model."""
    n = len(catalog)
    columns = {
        name: np.full(n, "mixed" if name == "mode" else np.nan) for name in estimator.encoder.optional.names
    }
    for name, value in known.items():
        columns[name] = np.full(n, value) if np.ndim(value) == 0 else np.asarray(value)
    return catalog.with_columns(**columns)


def cases(
    estimator: MassEstimator, n: int, seed: int, draws: int, only: list[str] | None
) -> list[dict[str, Any]]:
    """All rows of the table, or those of some populations."""
    info = estimator.training_info
    rows: list[dict[str, Any]] = []
    everything = {"mode": 1.0, "sigma_v_err": 1.0, "completeness": 1.0, "abs_mag_limit": 1.0, "aperture": 1.0}

    def add(name: str, catalog: ClusterCatalog, **known: Any) -> None:
        row = {"population": name, "told": ", ".join(known) or "nothing"}
        rows.append(row | measure(estimator, told(estimator, catalog, **known), draws))
        print(rows[-1], flush=True)

    def mocks(**changes: Any) -> ClusterCatalog:
        changes["augmentation"] = {"known": everything} | changes.get("augmentation", {})
        return like_training(info, n, seed, exact=True, **changes)

    def wanted(name: str) -> bool:
        return only is None or name in only

    if wanted("mixture"):
        mixture = mocks()
        mode = np.asarray(mixture.column("mode"))
        add("mixture", mixture)
        add("mixture", mixture, mode=mode)
        add("mixture", mixture, mode=mode, known_velocity_bias=mixture.column("velocity_bias"))
        for name in ("paper", "survey"):
            add(f"mode {name}", mixture.filter(mode == name), mode=name)
            add(f"mode {name}", mixture.filter(mode == name))
    randomise = dict((info.config.get("simulate") or {}).get("randomise") or {})
    for parameter, value in [(key, end) for key, ends in randomise.items() for end in ends]:
        name = f"{parameter.replace('_', ' ')} {value:g}"
        if f"known_{parameter}" not in estimator.encoder.optional.names or not wanted(name):
            continue
        one = mocks(simulate={"randomise": randomise | {parameter: (value, value)}})
        add(name, one, **{f"known_{parameter}": value})
        add(name, one)
    if wanted(name := "as SDSS, M_r < -20.09, 93 %"):
        one = mocks(augmentation={"magnitude_limit": (-20.09, -20.09), "completeness": (0.93, 0.93)})
        for several in ({}, {"abs_mag_limit": -20.09}, {"abs_mag_limit": -20.09, "completeness": 0.93}):
            if set(several) <= set(estimator.encoder.optional.names):
                add(name, one, **several)
    for name, changes in {
        "completeness 10 %": {"completeness": (0.1, 0.1)},
        "completeness 100 %": {"completeness": (1.0, 1.0)},
        "centre off by 300 km/s": {"miscentre_v": (300.0, 300.0)},
        "velocity errors 150 km/s": {"velocity_error": (150.0, 150.0)},
        "interlopers removed": {"cleaning": 1.0},
        "interlopers kept": {"cleaning": 0.0},
        **{f"depth M_r < {m:g}": {"magnitude_limit": (m, m)} for m in (-18.0, -19.5, -21.0)},
        **{f"field R < {r:g} Mpc/h": {"aperture": (r, r)} for r in (1.6, 1.2, 1.0, 0.8, 0.6)},
    }.items():
        if not wanted(name):
            continue
        one = mocks(augmentation=changes)
        add(name, one)
        known = {
            "completeness": ("completeness", one.column("completeness")),
            "interlopers": ("cleaned", float(name == "interlopers removed")),
            "depth": ("abs_mag_limit", one.column("abs_mag_limit")),
            "field": ("aperture", one.column("aperture")),
        }
        column, value = known.get(name.split()[0], ("", 0.0))
        if column in estimator.encoder.optional.names:
            add(name, one, **{column: value})
    complete_samples(add, mocks, wanted, estimator.encoder.optional.names)
    for name, shape in FOOTPRINTS.items():
        if wanted(name):
            whole = mocks(augmentation={"aperture": (1.6, 1.6)})
            seen = observed_in(shape, whole, info)
            share = np.asarray(seen.column("completeness"))
            add(name, seen)
            if {"completeness", "aperture"} <= set(estimator.encoder.optional.names):
                add(name, seen, completeness=share / seen.column("footprint_fraction"))
                add(name, seen, aperture=seen.column("aperture"), completeness=share)
    for number in (20, 50):
        if wanted(name := f"N >= {number}"):
            rich = told(estimator, richness_limits(mocks(), number))
            rows.append({"population": name, "told": "nothing"} | measure(estimator, rich, draws))
    for low, high in ((0.01, 0.1), (0.5, 0.6), (1.1, 1.2)):
        if wanted(f"redshift {low:g}-{high:g}"):
            add(f"redshift {low:g}-{high:g}", mocks(simulate={"redshift": (low, high)}))
    return rows


def complete_samples(
    add: Callable[..., None],
    mocks: Callable[..., ClusterCatalog],
    wanted: Callable[[str], bool],
    tellable: Sequence[str],
) -> None:
    """Rows of whole fields in which all galaxies to a limit are seen, by depth and by kind of interloper."""
    whole = {"completeness": (1.0, 1.0), "aperture": (1.6, 1.6)}
    for limit in (-18.0, -19.5, -21.0):
        if wanted(name := f"all to M_r < {limit:g}, whole fields"):
            one = mocks(augmentation=whole | {"magnitude_limit": (limit, limit)})
            add(name, one)
            several = {"abs_mag_limit": limit, "completeness": 1.0}
            add(name, one, **{column: value for column, value in several.items() if column in tellable})
    for mode in ("paper", "survey"):
        if wanted(name := f"all to M_r < -18, whole fields, mode {mode}"):
            one = mocks(simulate={"mode": mode}, augmentation=whole | {"magnitude_limit": (-18.0, -18.0)})
            add(name, one, mode=mode)


class Shapes:
    """Fields of one shape [Mpc/h] around clusters that are far from one another on the sky."""

    says_completeness = False

    def __init__(self, shape: Callable[[Any, Any], Any], catalog: ClusterCatalog) -> None:
        self.notes: list[str] = []
        self.shape = shape
        self.centre = [np.asarray(catalog.column(name)) for name in ("ra", "dec")]
        self.scale = transverse_mpc_h_per_radian(catalog.column("redshift"), catalog.metadata.cosmology)
        self.tree = cKDTree(unit_vectors(*self.centre))

    def share(self, ra: Any, dec: Any) -> Any:
        _, at = self.tree.query(unit_vectors(ra.ravel(), dec.ravel()))
        offsets = sky_offsets(ra.ravel(), dec.ravel(), self.centre[0][at], self.centre[1][at])
        return np.asarray(self.shape(*(offsets * self.scale[at])), dtype=float).reshape(ra.shape)


FOOTPRINTS: dict[str, Callable[[Any, Any], Any]] = {
    "square of 1.6 Mpc/h": lambda x, y: np.maximum(abs(x), abs(y)) < 0.8,
    "four chips of 0.7 Mpc/h, gaps of 0.2": lambda x, y: (
        (np.minimum(abs(x), abs(y)) > 0.1) & (np.maximum(abs(x), abs(y)) < 0.8)
    ),
    "strips of 0.1 Mpc/h, every 0.2": lambda x, y: ((y / 0.2) % 1.0 < 0.5) & (abs(x) < 5.0),
    "edge of a survey 0.3 Mpc/h from the centre": lambda x, y: x < 0.3,
}
"""Offsets east and north -> whether it was observed."""


def observed_in(
    shape: Callable[[Any, Any], Any], catalog: ClusterCatalog, info: TrainingInfo
) -> ClusterCatalog:
    """Clusters of known completeness as a footprint shows them, those that keep enough galaxies."""
    n = len(catalog)
    height = np.degrees(np.arcsin(np.linspace(-0.99, 0.99, n)))
    placed = catalog.with_columns(ra=(np.arange(n) * 137.50776) % 360.0, dec=height)
    least, r_max = info.selection["min_galaxies"], info.selection["r_max"]
    seen = in_footprint(placed, Shapes(shape, placed), r_max)
    return richness_limits(in_cylinder(seen, info.selection), least)


def verdict(row: dict[str, Any]) -> str:
    """Which of the two limits a row keeps."""
    missed = []
    if abs(row["bias"]) > BIAS:
        missed.append("bias")
    if abs(row["coverage_68"] - 0.68) > COVERAGE or abs(row["coverage_95"] - 0.95) > COVERAGE:
        missed.append("coverage")
    return "both" if not missed else f"not {' or '.join(missed)}"


def markdown(rows: list[dict[str, Any]], source: dict[str, Any], estimator: MassEstimator) -> str:
    """The table."""
    earlier = sorted({row["command"] for row in rows} - {source["command"]})
    lines = [
        header("Shift test", source),
        *(f"Other rows: `{command}`\n" for command in earlier),
        f"Limits: bias below {BIAS} dex, 68 and 95 % intervals within {100 * COVERAGE:.0f} points. Model trained on"
        f" {estimator.training_info.n_train} clusters. Flat prior; errors are standard errors.",
        "",
        "| population | model is told | clusters | bias [dex] | median | scatter | mean sigma | 68 % | 95 % | flagged"
        " | within limits |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row["population"], row["told"].replace("known_", ""), str(row["n"])]
        cells += [
            f"{row['bias']:+.3f} ± {row['bias_error']:.3f}",
            f"{row['median']:+.3f}",
            f"{row['scatter']:.3f}",
            f"{row['sigma']:.3f}",
        ]
        cells += [
            f"{100 * row[f'coverage_{k}']:.1f} ± {100 * row[f'coverage_{k}_error']:.1f}" for k in (68, 95)
        ]
        cells += [f"{100 * row['flagged']:.0f} %", verdict(row)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="sky")
    parser.add_argument("--n-clusters", type=int, default=8000, help="simulated for each population")
    parser.add_argument("--seed", type=int, default=27182)
    parser.add_argument("--draws", type=int, default=8, help="draws of the weights")
    parser.add_argument("--only", nargs="+", help="populations to measure; other rows of --out stay")
    parser.add_argument("--out", type=Path, default=Path("docs/results/shift"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    source = provenance(options.seed)
    estimator = MassEstimator.load(options.model, "cpu")
    rows = cases(estimator, options.n_clusters, options.seed, options.draws, options.only)
    rows = [row | {"command": source["command"]} for row in rows]
    record = options.out.with_suffix(".json")
    if options.only and record.is_file():
        measured = {row["population"] for row in rows}
        rows = [
            row
            for row in json.loads(record.read_text(encoding="utf-8"))["rows"]
            if row["population"] not in measured
        ] + rows
    text = markdown(rows, source, estimator)
    text += f"\nProcessor time of the last call {time.process_time() - began:.0f} s.\n"
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    record.write_text(json.dumps(source | {"rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
