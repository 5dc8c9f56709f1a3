"""The tables that compare mocks with published numbers, and that list their parameters.

``python -m benchmarks.mock_targets --out docs/mock_targets.md --parameters-out docs/mock_parameters.md``
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from bayesflowmass.mocks.parameters import PRESETS, ParameterInfo, parameter_table
from benchmarks.mock_targets.comparison import TARGETS, compare, put_back

__all__ = ["main", "parameters_markdown", "targets_markdown"]

_REPORTED: dict[str, str] = {
    "share_13.6": "interloper share of the cylinder at log M = 13.6 (first prototype 0.52)",
    "share_14.0": "the same at 14.0 (0.40)",
    "share_14.5": "the same at 14.5 (0.23)",
    "share_15.0": "the same at 15.0 (0.12)",
    "before_cut_survey": "interlopers inside the projected R_vir with central galaxies, before a cut",
    "after_cut_survey": "the same after a 2.7 sigma cut",
    "flat_share": "flat part of the interloper velocities, within 4 V200c",
    "space_axis_ratio_scatter": "scatter of the axis ratio of the galaxies (published 0.07)",
    "dispersion_angle": "correlation of log sigma_v with cos^2(major axis, line of sight)",
    "richness_angle": "correlation of ln(galaxy count) with the same",
    "interlopers_angle": "correlation of ln(1 + interloper count) with the same",
    "dispersion_interlopers": "correlation of log sigma_v with ln(1 + interloper count) at fixed mass",
    "dispersion_richness": "correlation of log sigma_v with ln(galaxy count) at fixed mass",
}


def targets_markdown(
    values: dict[str, float], variants: dict[str, dict[str, float]], n_clusters: int, seed: int
) -> str:
    """Tables of targets, of further measurements and of `put_back`, in Markdown."""
    missed = [target for target in TARGETS if not target.met(values[target.key])]
    lines = [
        "# Mock clusters against published numbers",
        "",
        f"Written by `python -m benchmarks.mock_targets --n-clusters {n_clusters} --seed {seed} "
        f"--out docs/mock_targets.md`, version {version('bayesflowmass')}, {datetime.date.today()}. Paper "
        f"mode, z = 0.117, samples of {n_clusters} clusters. {len(TARGETS) - len(missed)} of {len(TARGETS)} "
        "targets met" + (f"; missed: {', '.join(target.text for target in missed)}." if missed else "."),
        "",
        "| quantity | published | tolerance | mock | met | source |",
        "|---|---|---|---|---|---|",
    ]
    for target in TARGETS:
        published = f"{target.low:g}" if target.low == target.high else f"{target.low:g} to {target.high:g}"
        value = values[target.key]
        met = "yes" if target.met(value) else "**no**"
        lines.append(
            f"| {target.text} | {published} | {target.tolerance:g} | {value:.3f} | {met} | {target.source} |"
        )
    lines += ["", "Reported without a published tolerance:", "", "| quantity | mock |", "|---|---|"]
    lines += [f"| {text} | {values[key]:.3f} |" for key, text in _REPORTED.items()]
    lines += ["", *_variants_lines(variants)]
    return "\n".join([*lines, "", _NOTES, ""])


def _variants_lines(variants: dict[str, dict[str, float]]) -> list[str]:
    columns = {
        "pure_slope": "pure slope",
        "pure_mass_scatter": "pure mass scatter",
        "contaminated_slope": "contaminated slope",
        "contaminated_value": "value",
        "contaminated_scatter": "scatter",
        "contaminated_scatter_sigma": "scatter 14-15",
        "contaminated_mass_scatter": "mass scatter 14-15",
        "contaminated_mean": "mean error",
        "share_14.0": "interlopers at 10^14",
    }
    published = {target.key: 0.5 * (target.low + target.high) for target in TARGETS}
    lines = [
        "Tuned parameters put back to their starting values, one at a time:",
        "",
        f"| changed | {' | '.join(columns.values())} |",
        "|---|" + "---|" * len(columns),
        "| published | "
        + " | ".join(f"{published[k]:.3f}" if k in published else "" for k in columns)
        + " |",
    ]
    for name, values in variants.items():
        label = {"": "nothing", "all": "all of them"}.get(name, f"`{name}`")
        lines.append(f"| {label} | " + " | ".join(f"{values[key]:.3f}" for key in columns) + " |")
    return [*lines, ""]


_NOTES = """## Notes

- sigma_v is the standard deviation (ddof = 1) of all galaxies of a cluster: all members inside R_vir (pure),
  or everything in R < 1.6 Mpc/h, |v| < 2500 km/s (contaminated); at least ten galaxies.
- Mass errors are log10(predicted / true) of the flat-sample relation, inverted.
- Mamon et al. count dark-matter particles; the mock's paper mode counts satellites of other haloes.
  "Before a cut" means |v| < 3500 km/s here. Tolerances of these rows, of Saro et al. and of Evrard et al. are
  this project's.
- The space axis ratio is (b + c) / 2a of the density that galaxies are drawn from; the velocity ratio is that
  of the tensor of the members.
- What the starting values lacked: satellites of groups are slower than dark matter (Munari et al. 2013), which
  lowers the pure relation at low mass and lets interlopers widen it more; beyond R_vir a lone galaxy counts as a
  central, which public mocks drop, so that the infall region of paper mode is made of groups, and clumpy; the
  excess of such groups grows faster than their bias; hosts of less than 2e12 Msun/h have satellites too;
  velocities are as elongated as Wojtak and Saro et al. find. Superclusters, filaments and the scatter of the
  surroundings from halo to halo change these relations little.
- Which parameter was chosen from which target is in `mock_parameters.md`.
- All of this is the preset `paper`. The preset `sky`, held to orbits of galaxies and to surveys, is in
  [mock_targets_sky.md](mock_targets_sky.md)."""


def parameters_markdown() -> str:
    """Table of all mock parameters, in Markdown."""
    lines = [
        "# Parameters of the mock clusters",
        "",
        "Written by `python -m benchmarks.mock_targets --parameters-out docs/mock_parameters.md`. Tags: "
        "pub, published or read in public code; lead, plausible but unverified: a nuisance parameter to "
        "randomise; target, chosen to meet the published target named; numeric, a limit of the calculation.",
        "Nothing here was chosen by the accuracy of a mass network.",
        "",
        "| parameter | value | `sky` | unit | range | tag | meaning | source | chosen from (starting value) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, value, info in parameter_table():
        lines.append(
            f"| `{name}` | {value:g} | {_in_sky(name)} | {info.unit} | {info.low:g} to {info.high:g} | {info.tag} | "
            f"{info.text} | {info.source} | {_chosen(info)} |"
        )
    return "\n".join([*lines, ""])


def _in_sky(name: str) -> str:
    value = PRESETS["sky"].get(name)
    return "" if value is None else f"{value:g}"


def _chosen(info: ParameterInfo) -> str:
    start = "" if info.starting is None else f"(started at {info.starting:g})"
    return f"{info.target} {start}".strip()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write the tables; exit code 0 also where the table says that a target is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mock_targets", description="Compare the mocks with published numbers."
    )
    parser.add_argument("--n-clusters", type=int, default=20000, help="clusters a sample (default: 20000)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    parser.add_argument("--out", type=Path, help="Markdown file to write the comparison to")
    parser.add_argument("--parameters-out", type=Path, help="Markdown file to write all parameters to")
    arguments = parser.parse_args(argv)
    writers: list[tuple[Path | None, Callable[[], str]]] = [(arguments.parameters_out, parameters_markdown)]
    if arguments.out is not None or arguments.parameters_out is None:
        n, seed = arguments.n_clusters, arguments.seed
        text = targets_markdown(compare(n, seed), put_back(max(200, n // 3), seed), n, seed)
        print(text)
        writers.append((arguments.out, lambda: text))
    for path, write in writers:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(write(), encoding="utf-8")
            print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
