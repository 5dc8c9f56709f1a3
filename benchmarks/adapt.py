"""A model for one survey at SDSS-like and SPT-like sampling: by how much it is narrower than the shipped one.

    python -m benchmarks.adapt --data ../shared/data [--sample spt sdss] --out docs/results/adapt

Each sample goes through `bayesflowmass adapt`, told what its own description says (`benchmarks.real_sky.samples`); an
interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from bayesflowmass.adapt import adapt
from bayesflowmass.cosmology import convert_mass
from benchmarks.provenance import header, provenance
from benchmarks.real_sky.data import found, galwcat
from benchmarks.real_sky.samples import DENSITY, GMOS_FIELD, SPT_H, VELOCITY_ERROR

KEYS = {"scatter": "scatter", "width": "mean sigma", "bias": "bias", "in_68": "in 68 %", "in_95": "in 95 %"}


def sdss(data: Path) -> dict[str, Any]:
    """GalWCat19 clusters in SDSS, with their virial masses."""
    galaxies, clusters = galwcat(data)
    assume = {"galaxy_density": DENSITY, "sigma_v_err": VELOCITY_ERROR}
    return {
        "galaxies": galaxies,
        "clusters": clusters,
        "column": {"cluster_id": "ClID"},
        "mode": "survey",
        "aperture": 1.6,
        "assume": assume,
        "reference": "logM200_Msunh",
        "prior": "richness:20",
    }


def spt(data: Path) -> dict[str, Any]:
    """SPT and ACT clusters with GMOS spectra, with SZ masses."""
    folder = found(data / "spt_gmos")
    end = "" if (folder / "clusters.csv").exists() else "_dev"
    galaxies = Table.read(folder / f"galaxies{end}.csv", format="ascii.csv")
    clusters = Table.read(folder / f"clusters{end}.csv", format="ascii.csv")
    m500 = np.log10(np.asarray(clusters["M500_Msun"], dtype=np.float64) * SPT_H)
    clusters["log10_m200c_sz"] = convert_mass(
        m500, np.asarray(clusters["z"], dtype=np.float64), "500c", "200c"
    )
    return {
        "galaxies": galaxies["CName", "RAdeg", "DEdeg", "zspec", "e_zspec"],
        "clusters": clusters["CName", "RA", "DEC", "z", "log10_m200c_sz"],
        "column": {"clusters.redshift": "z"},
        "mode": "survey",
        "aperture": GMOS_FIELD,
        "reference": "log10_m200c_sz",
        "prior": "sz:14.5,0.1",
    }


SAMPLES = {"spt": spt, "sdss": sdss}


def page(results: dict[str, Any]) -> str:
    """Tables of every sample."""
    text = ""
    for name, result in results.items():
        text += f"\n#### {str(SAMPLES[name].__doc__).rstrip('.')}\n\n{result['verdict']}\n"
        for where in ("mocks", "survey"):
            part = result[where]
            keys = [key for key in KEYS if key in part["models"]["this model"]]
            title = "Mocks of the survey" if where == "mocks" else "The survey itself, beside its reference"
            text += f"\n{title}: {part['n']} clusters, prior `{part['prior']}`.\n\n"
            text += "| model | " + " | ".join(KEYS[key] for key in keys) + " | scatter, this model - it |\n"
            text += "|" + "---|" * (len(keys) + 2) + "\n"
            for label, numbers in part["models"].items():
                cells = [f"{numbers[key][0]:.3f} ± {numbers[key][1]:.3f}" for key in keys]
                paired = numbers.get("minus", {}).get("scatter")
                cells.append("" if paired is None else f"{paired[0]:+.3f} ± {paired[1]:.3f}")
                text += f"| {label} | " + " | ".join(cells) + " |\n"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of real catalogues")
    parser.add_argument("--sample", nargs="*", default=list(SAMPLES), choices=list(SAMPLES))
    parser.add_argument("--runs", type=Path, default=Path("runs/adapt"), help="model folders")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/results/adapt"))
    options = parser.parse_args()
    for name in options.sample:
        adapt(
            **SAMPLES[name](options.data),
            out=options.runs / name,
            seed=options.seed,
            device="cpu",
            progress=False,
        )
    results = {
        name: json.loads((options.runs / name / "survey.json").read_text(encoding="utf-8"))
        for name in SAMPLES
        if (options.runs / name / "survey.json").exists()
    }
    source = provenance(options.seed)
    text = header("A model for one survey", source) + page(results)
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    options.out.with_suffix(".json").write_text(
        json.dumps(source | results, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
