"""Hold the mocks' surroundings of clusters to a particle box.

``python -m benchmarks.nbody_judge --box box.npz --work FOLDER --out docs/results/nbody_judge.md``

`benchmarks/nbody_judge/box.py` makes a box, or says what one of your own must hold. Haloes are found in it, its
particles are thinned to the richness of a preset, and ``bayesflowmass simulate --hosts --galaxies`` cuts its
clusters; the mocks are made at the same masses, redshift and richness.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.cosmology import MDPL2, critical_density, radius_delta, velocity_dispersion_evrard
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.mocks import MockParameters
from benchmarks.nbody_judge.comparison import measure
from benchmarks.nbody_judge.haloes import Haloes, find_haloes
from benchmarks.nbody_judge.masses import judge_masses, mass_table
from benchmarks.nbody_judge.page import Results, disagreements, picture, tables
from benchmarks.nbody_judge.samples import Clusters, box_sample, mock_sample, write_tracers
from benchmarks.provenance import header, provenance

_PAIRS = (("paper", "paper"), ("sky", "survey"))
"""Preset and mode: what each preset is for."""
_MIN_PARTICLES = 20


def load(path: Path) -> dict[str, Any]:
    """A box: arrays ``position`` and ``velocity``, and what is said of it."""
    with np.load(path) as stored:
        box = {name: stored[name] if stored[name].ndim else stored[name].item() for name in stored.files}
    for name in ("Om0", "h", "sigma8", "ns", "Ob0"):
        ours = getattr(MDPL2, name)
        if abs(box[name] - ours) > 1e-4:
            raise SystemExit(
                f"{path}: {name} is {box[name]:g}; the judge's mocks have {ours:g}, so make a box of that."
            )
    return box


def inner_dispersion(box: dict[str, Any], haloes: Haloes, owner: IntArray, clusters: IntArray) -> float:
    """Median 1-D dispersion of the particles inside R200c of the clusters, over that of Evrard et al. (2008)."""
    near = np.flatnonzero((owner >= clusters[0]) & (owner <= clusters[-1]))
    apart = box["position"][near] - haloes.centre[owner[near]]
    apart -= box["size"] * np.round(apart / box["size"])
    inside = (apart**2).sum(axis=1) < radius_delta(haloes.log10_mass[owner[near]], box["redshift"]) ** 2
    mine, velocity = owner[near[inside]] - clusters[0], box["velocity"][near[inside]].astype(np.float64)
    number = np.bincount(mine, minlength=clusters.size)
    square = np.zeros(clusters.size)
    for one in velocity.T:
        mean = np.bincount(mine, one, clusters.size) / number
        square += np.bincount(mine, (one - mean[mine]) ** 2, clusters.size) / number
    expected = velocity_dispersion_evrard(haloes.log10_mass[clusters], box["redshift"])
    return float(np.median(np.sqrt(square / 3.0) / expected))


def write_page(
    box: dict[str, Any], facts: dict[str, Any], results: Results, masses: str, source: dict[str, Any]
) -> str:
    """The page: disagreements first."""
    said = disagreements(results)
    listed = "\n".join(f"- {one}" for one in said) if said else "Nowhere by more than the tolerances."
    return header("The mocks' surroundings beside a particle box", source) + _PAGE.format(
        listed=listed,
        tables=tables(results),
        masses=masses,
        label=box["label"],
        size=box["size"],
        z=box["redshift"],
        **facts,
    )


def resolution(box: dict[str, Any], haloes: Haloes, owner: IntArray, chosen: Clusters) -> dict[str, Any]:
    """What the box resolves, in numbers."""
    n = box["position"].shape[0]
    mass = MDPL2.Om0 * float(critical_density(0.0)) * box["size"] ** 3 / n
    low, high = chosen.masses
    clusters = np.flatnonzero((haloes.log10_mass >= low) & (haloes.log10_mass < high))
    deficit: FloatArray = haloes.log10_found[clusters] - haloes.log10_mass[clusters]
    return {
        "n": n,
        "particle": mass,
        "particles": 1e14 / mass,
        "cell": box["mesh_cell"],
        "r200": float(radius_delta(14.0, box["redshift"])),
        "unresolved": 2.0 * box["mesh_cell"],
        "n_haloes": haloes.n_friends.size,
        "lowest": haloes.log10_mass[-1],
        "n_clusters": clusters.size,
        "low": low,
        "high": high,
        "v_max": chosen.v_max,
        "deficit": float(np.nanmedian(deficit)),
        "deficit_scatter": float(np.nanstd(deficit)),
        "inner": inner_dispersion(box, haloes, owner, clusters),
    }


_PAGE = """
## Where they disagree

Mocks (by preset and mode) against the box thinned to the same richness; more than the tolerance and more than two
standard errors over clusters:

{listed}

## What the box is, and what it resolves

{label}.

{size:g} Mpc/h, z = {z:g}, the cosmology of MDPL2; {n} particles of {particle:.3g} Msun/h, {particles:.0f} in a
halo of 10^14 Msun/h. The mesh cell, which is the softening, is {cell:.2f} Mpc/h; R200c of 10^14 Msun/h is
{r200:.2f} Mpc/h. What lies within two cells ({unresolved:.2f} Mpc/h, grey in the picture where it shows) of a centre
is not resolved, and not judged. Clusters are the {n_clusters} haloes of 10^{low:g}-10^{high:g} Msun/h, each seen along
three axes, R < 1.6 Mpc/h and \\|v\\| < {v_max:g} km/s.

- Friends of friends (b = 0.2) find {n_haloes} haloes of 20 particles or more, down to 10^{lowest:.2f} Msun/h.
- Masses are matched by rank to Tinker et al. (2008). The sphere of 200 times the critical density about the same
  centres holds {deficit:+.2f} dex (scatter {deficit_scatter:.2f}) of that: a mesh makes haloes too fluffy.
- Inside R200c the particles' dispersion is {inner:.2f} of what simulations have (Evrard et al. 2008). Members'
  velocities are **not** judged, nor how many galaxies lie inside 0.4 Mpc/h. Shares beyond R200c by \\|v\\| suffer from
  the members in them; numbers beyond 2 R200c, over all members, do not.
- Satellites of other haloes are slowed in the same way: dispersions of all galaxies are lower limits. Those of centrals
  are not touched by it.
- Galaxies are particles: each halo has the preset's mean number inside R_vir, with its scatter, spread as the
  particles of its group. Haloes below the smallest found have no satellites; in survey mode their centrals, of 10^11
  Msun/h and more, are particles outside haloes, as many as the mass function has. There is no galaxy formation in
  it: no velocity bias, no loss of galaxies.
- It is one realisation, without waves longer than the box: the errors, over clusters, do not hold that.

## What this does to masses

Clusters of the box and mocks of the preset `sky`, mode `survey`, by the shipped model `{model}` under the flat prior,
told mode and completeness; all galaxies, and a quarter of them, about as many as SDSS sees. Bias and scatter are those
of the median, log10 M - log10 M_true, over all lines of sight; errors over clusters. The box's own members are too
slow, so that their masses are low for that reason alone. Its surroundings are judged by swaps: galaxies inside R_vir of
one cluster, beyond R_vir of another of the same mass. The model is not told the depth, and clusters are of a narrow
range of mass: rows tell by their differences, not by their bias.

{masses}

## All numbers

Radial velocities are without the Hubble flow (infall is negative). Counts are those of one line of sight at fixed
mass; their scatters are without Poisson noise (negative: less than Poisson) and so do not depend on the number.
Errors: clusters drawn anew. Bold: as above.

![Box and mocks](nbody_judge.png)

Points and lines: mocks are open. Last panel: all galaxies; beyond R200c and below 1000 km/s; beyond 2 R200c and
below 1000 km/s; beyond R200c and faster.

{tables}

Nothing in the mocks was chosen from this page, and no model was trained on the box.
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--box", type=Path, required=True, help="npz")
    parser.add_argument("--work", type=Path, required=True, help="folder for the files of the box")
    parser.add_argument(
        "--mocks", type=int, default=3000, help="mock clusters of each preset (default: 3000)"
    )
    parser.add_argument("--masses", type=float, nargs=2, default=[13.9, 14.4], help="log10 M200c (13.9 14.4)")
    parser.add_argument("--v-max", type=float, default=2500.0, help="cut in velocity [km/s] (default: 2500)")
    parser.add_argument("--model", default="sky", help="whose masses are judged (default: sky)")
    parser.add_argument("--seed", type=int, default=0, help="of thinning and mocks (default: 0)")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file; the picture stands beside it")
    arguments = parser.parse_args()
    box = load(arguments.box)
    size, z = float(box["size"]), float(box["redshift"])
    haloes, owner = find_haloes(box["position"], box["velocity"], size, z, _MIN_PARTICLES)
    clusters = Clusters(tuple(arguments.masses), arguments.v_max, z)
    facts = resolution(box, haloes, owner, clusters)
    print(facts, flush=True)
    results = []
    for preset, mode in _PAIRS:
        folder = arguments.work / preset
        folder.mkdir(parents=True, exist_ok=True)
        parameters = MockParameters.preset(preset)
        tracers = write_tracers(
            folder, box["position"], box["velocity"], size, z, haloes, owner, parameters, arguments.seed
        )
        out = folder / "clusters.parquet"
        seen = box_sample(f"box, {mode} mode", tracers, haloes, size, clusters, mode, out)
        made = mock_sample(f"mocks, {preset}", preset, mode, arguments.mocks, clusters, arguments.seed)
        results += [(sample.name, measure(sample)) for sample in (seen, made)]
        print(f"{preset}: {seen.line.size} and {made.line.size} galaxies in cylinders", flush=True)
    estimator = MassEstimator.load(arguments.model, "cpu")
    judged = judge_masses(
        estimator, arguments.work / "sky" / "clusters.parquet", clusters, arguments.mocks, arguments.seed
    )
    picture(results, facts["unresolved"], arguments.out.with_suffix(""))
    facts["model"] = arguments.model
    text = write_page(box, facts, results, mass_table(judged), provenance(arguments.seed))
    arguments.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
