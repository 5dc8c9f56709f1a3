"""Real clusters: masses beside references and the literature, and whether mock and sky agree about the method.

    python -m benchmarks.real_sky --model sky --data ../shared/data --out docs/results/real_sky [--online ned sdss]

Parts: ``samples`` (`sky_samples`: beside other masses, under the prior of each sample), ``masses`` (the paper's
clusters, Coma by several ways, difficult data), ``method`` (`sky_method`: virial minus ours on SDSS clusters and on
mocks; trends) and ``field`` (`sky_field`: the pedestal of interlopers). Each is kept in ``--work``, so that an
interrupted run goes on and ``--part`` can redo one. Also written: OUT.json, OUT_masses.ecsv (a row per cluster and
source) and figure 8 beside them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.estimator.shipped import model_folder
from bayesflowmass.infer import infer
from bayesflowmass.io.archives import ArchiveError
from bayesflowmass.plots.paper.real_clusters import Masses, plot_real_clusters
from bayesflowmass.plots.style import save_figure
from benchmarks.provenance import header, provenance
from benchmarks.real_sky import data as data_of
from benchmarks.real_sky import field as sky_field
from benchmarks.real_sky import method as sky_method
from benchmarks.real_sky import samples as sky_samples
from benchmarks.real_sky.page import page

OFFLINE = "not available offline"
COMA_RANGE = 14.75, 15.05
THINNED, THINNED_DRAWS = 0.1, 20


def row_of(source: str, catalog: ClusterCatalog, table: Table, k: int = 0) -> dict[str, Any]:
    """One mass, JSON-able."""
    row = table[k]
    flags = [flag for flag in str(row["flags"]).split(",") if flag]
    if "shared" in flags:
        partner = catalog.column("shares_with")[k] if catalog.has("shares_with") else "another"
        flags.append(f"[shares {catalog.column('n_shared')[k]} galaxies with {partner}]")
    return {
        "cluster": str(row["cluster_id"]),
        "source": source,
        "n_galaxies": int(row["n_galaxies"]),
        "redshift": float(row["redshift"]),
        **{name: float(row[name]) for name in ("log10_mass", "q16", "q84", "sigma")},
        "flags": ", ".join(flags),
    }


def attempt(
    source: str, cluster: str, estimator: MassEstimator, read: Callable[[], ClusterCatalog]
) -> list[dict[str, Any]]:
    """Masses of what a reader gives, or the sentence that says why there are none."""
    try:
        catalog = read()
        table = infer(estimator, catalog)
    except data_of.NotAvailable as error:
        return [{"cluster": cluster, "source": source, "missing": f"{OFFLINE}: {error}"}]
    except ArchiveError as error:
        return [
            {
                "cluster": cluster,
                "source": source,
                "missing": f"not available: {' '.join(str(error).split())}",
            }
        ]
    except CatalogError as error:
        return [{"cluster": cluster, "source": source, "refused": " ".join(str(error).split())}]
    return [row_of(source, catalog, table, k) for k in range(len(table))]


def masses(estimator: MassEstimator, data: Path, online: list[str]) -> dict[str, Any]:
    """The paper's clusters from each source, Coma by several ways, and difficult data."""
    rows = []
    for place in data_of.clusters("table"):
        name, where = (
            str(place["cluster"]),
            (float(place["ra"]), float(place["dec"]), float(place["redshift"])),
        )
        rows += _named(
            name, attempt("SDSS", name, estimator, lambda w=where: data_of.from_sdss(estimator, data, *w))
        )
        if name == "Coma":
            rows += attempt("DESI, cleaned", name, estimator, lambda: data_of.coma_desi(estimator, data))
        for source in online:
            full = str(place["name"])
            read = lambda f=full, s=source, w=where: data_of.from_archive(estimator, f, s, *w)  # noqa: E731
            rows += _named(name, attempt(source, name, estimator, read))
        if not online:
            rows.append(
                {"cluster": name, "source": "archives", "missing": f"{OFFLINE}: --online ned sdss asks them"}
            )
    undeclared = attempt(
        "DESI, not declared", "Coma", estimator, lambda: data_of.coma_desi(estimator, data, cleaned=False)
    )
    sparse = thinned(estimator, data)
    hard = []
    for source, cluster, read in (
        ("shapley", "five clusters", data_of.shapley),
        ("bullet", "1E0657-56", data_of.bullet),
        ("a2255_sdss", "A2255", data_of.a2255),
        ("coma_gmp_dirty", "Coma", data_of.coma_gmp),
    ):
        hard += attempt(source, cluster, estimator, lambda r=read: r(estimator, data))
    return {"table": rows, "coma_undeclared": undeclared, "coma_sparse": sparse, "hard": hard}


def _named(name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row | {"cluster": name} for row in rows]


def thinned(estimator: MassEstimator, data: Path) -> dict[str, Any]:
    """Coma of DESI with a tenth of its galaxies, as sparse as SDSS: median and scatter over draws."""
    try:
        found = [
            infer(estimator, data_of.coma_desi(estimator, data, kept=THINNED, seed=seed))[0]
            for seed in range(THINNED_DRAWS)
        ]
    except data_of.NotAvailable as error:
        return {"missing": f"{OFFLINE}: {error}"}
    mass = np.array([float(row["log10_mass"]) for row in found])
    return {
        "draws": THINNED_DRAWS,
        "share": THINNED,
        "n_galaxies": int(np.median([row["n_galaxies"] for row in found])),
        "log10_mass": float(np.median(mass)),
        "scatter": float(mass.std(ddof=1)),
        "sigma": float(np.median([row["sigma"] for row in found])),
        "lowest": float(mass.min()),
        "highest": float(mass.max()),
    }


def coma_verdict(found: dict[str, Any]) -> dict[str, Any]:
    """Whether the ways to Coma agree within one combined sigma, and lie where they should."""
    ways = {row["source"]: row for row in found["table"] if row["cluster"] == "Coma" and "log10_mass" in row}
    names = list(ways)
    pairs = []
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            gap = abs(ways[one]["log10_mass"] - ways[other]["log10_mass"])
            combined = float(np.hypot(ways[one]["sigma"], ways[other]["sigma"]))
            pairs.append({"pair": f"{one} and {other}", "difference": gap, "combined_sigma": combined})
    low, high = COMA_RANGE
    return {
        "pairs": pairs,
        "agree": all(p["difference"] < p["combined_sigma"] for p in pairs) if pairs else None,
        "in_range": {name: low <= row["log10_mass"] <= high for name, row in ways.items()},
        "missing": [row["source"] for row in found["table"] if row["cluster"] == "Coma" and "missing" in row],
    }


def method(estimator: MassEstimator, data: Path, n_mocks: int, seed: int) -> dict[str, Any]:
    """Virial minus ours on the sky and on the mocks, and trends."""
    galaxies, clusters = data_of.galwcat(data)
    result: dict[str, Any] = {}
    skies = {
        again: sky_method.sky_clusters(estimator, galaxies, clusters, again=again) for again in (False, True)
    }
    survey = sky_method.mock_survey(estimator, n_mocks, skies[False].column("redshift"), seed)
    for name, again in (("given", False), ("found_again", True)):
        sky = skies[again]
        mock = sky_method.mock_clusters(survey, estimator, sky.column("redshift"), seed, again=again)
        here, there = (sky_method.measured(estimator, catalog) for catalog in (sky, mock))
        result[name] = {
            "n_sky": len(sky),
            "n_mock": len(mock),
            "mock_mass_quantiles": np.quantile(mock.column("log10_mass"), [0.0, 0.05, 0.5, 0.95]).tolist(),
            "agreement": sky_method.agreement(here, there, seed),
        }
        if again:
            result[name]["looks"] = sky_method.looks(here, there, seed)
    sky = skies[False]
    here = sky_method.measured(estimator, sky)
    published = np.asarray(sky.column("logM200_Msunh"), dtype=np.float64)
    against = {
        "redshift": np.asarray(sky.column("redshift"), dtype=np.float64),
        "log10 N": np.log10(sky.n_galaxies),
        "shared fraction": sky.column("n_shared") / sky.n_galaxies,
    }
    result["trends"] = {
        "ours - GalWCat19": sky_method.trends(here["ours"] - published, against, seed),
        "virial - ours": sky_method.trends(here["virial"] - here["ours"], against, seed),
    }
    return result


def field(data: Path, n_mocks: int, seed: int) -> dict[str, Any]:
    """The pedestal of interlopers in GAMA, around SDSS clusters and in the mocks."""
    path = data_of.found(data / "gama_g09" / "g09_galaxies.dat")
    here = sky_field.gama(path, seed)
    there = sky_field.mock_interlopers(n_mocks, seed)
    found = {"rows": sky_field.compared(here, there)}
    try:
        found["around_clusters"] = sky_field.around_clusters(*data_of.galwcat(data), n_mocks, seed)
    except data_of.NotAvailable as error:
        found["around_clusters"] = str(error)
    return found


def kept(work: Path, name: str, again: bool, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A part from the work folder, or made and put there."""
    path = work / f"{name}.json"
    if path.is_file() and not again:
        return json.loads(path.read_text(encoding="utf-8"))
    try:
        result = make()
    except data_of.NotAvailable as error:
        result = {"missing": f"{OFFLINE}: {error}"}
    work.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


def figure_8(found: dict[str, Any], out: Path) -> list[Path]:
    """Masses against the literature of the paper's table; clusters that are not here have no mark of ours."""
    known = data_of.literature()
    names = [str(name) for name in data_of.clusters("table")["cluster"]]
    nothing = np.full(len(names), np.nan)

    def of(kind: str) -> Masses:
        rows = {str(row["cluster"]): row for row in known[known["kind"] == kind]}
        values = [[float(rows[n][c]) if n in rows else np.nan for n in names] for c in
                  ("log10_m200c", "err_low", "err_high")]  # fmt: skip
        return Masses(*values)

    estimates = {"flow, Kodi Ramanah et al. 2020": of("flow")}
    ours: dict[str, np.ndarray] = {}
    for row in found["table"]:
        if "log10_mass" not in row:
            continue
        values = ours.setdefault(f"this model, {row['source']}", np.stack([nothing] * 3))
        k = names.index(row["cluster"])
        mass = row["log10_mass"]
        values[:, k] = mass, mass - row["q16"], row["q84"] - mass
    estimates |= {label: Masses(*values) for label, values in list(ours.items())[:3]}
    figure = plot_real_clusters(names, of("table"), estimates, highlight="Coma")
    return save_figure(figure, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="sky", help="model folder, or the name of a shipped model")
    parser.add_argument("--data", type=Path, required=True, help="folder of real catalogues")
    parser.add_argument(
        "--online", nargs="*", default=[], metavar="SOURCE", help="ask archives too: ned, sdss, vizier:..."
    )
    parser.add_argument(
        "--mocks", type=int, default=10000, help="mocks simulated for the comparison of methods"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--work", type=Path, default=Path("runs/real_sky"), help="where finished parts are kept"
    )
    parser.add_argument(
        "--part",
        nargs="*",
        default=[],
        choices=["samples", "masses", "method", "field"],
        help="make these anew",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="writes OUT.md, OUT.json, OUT_masses.ecsv, figure 8"
    )
    arguments = parser.parse_args()
    estimator = MassEstimator.load(model_folder(arguments.model))
    parts = {
        "masses": lambda: masses(estimator, arguments.data, arguments.online),
        "method": lambda: method(estimator, arguments.data, arguments.mocks, arguments.seed),
        "samples": lambda: {
            "rows": sky_samples.judge(estimator, arguments.data, arguments.seed),
        },
        "field": lambda: field(arguments.data, max(arguments.mocks // 5, 100), arguments.seed),
    }
    found = {name: kept(arguments.work, name, name in arguments.part, make) for name, make in parts.items()}
    found["coma"] = coma_verdict(found["masses"])
    source = provenance(arguments.seed)
    text = header("Real clusters: masses, method, interlopers", source) + page(found, data_of.literature())
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.with_suffix(".md").write_text(text, encoding="utf-8")
    arguments.out.with_suffix(".json").write_text(json.dumps(source | found, indent=1), encoding="utf-8")
    rows = [row for group in ("table", "hard") for row in found["masses"][group] if "log10_mass" in row]
    Table(rows=rows).write(
        arguments.out.with_name(f"{arguments.out.name}_masses.ecsv"), format="ascii.ecsv", overwrite=True
    )
    figure_8(found["masses"], arguments.out.with_name(f"{arguments.out.name}_figure_8"))
    print(text)


if __name__ == "__main__":
    main()
