"""Joins docs/results/*.md, each written by its own command, into docs/results.md.

python -m benchmarks.assemble_results
"""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"

# Title, what a reader needs to know before the tables, and the tables.
SECTIONS = (
    ("(a) The mock against published numbers", "notes_targets", ()),
    ("(b) Pure and contaminated, beside the paper and the baselines", "notes_paper", ("contaminated", "pure")),
    ("(c) With and without the number of galaxies", "notes_richness",
     ("richness_scatter_010", "richness_scatter_018", "richness_scatter_025")),
    ("What limits the estimate", "notes_ablation", ("ablation", "cnn")),
    ("(d) Coverage", "notes_coverage", ("coverage", "recalibration")),
    ("Data unlike the training set",
     "Which wrong data are noticed, and how often right ones are accused: docs/novelty.md.", ("novelty",)),
    ("(e) Where the information comes from", "notes_budget", ("information_budget",)),
    ("Fewer galaxies, noisier velocities", "notes_robustness", ("robustness",)),
    ("What the masses rest on", "notes_interpretation", ("interpretation",)),
    ("The mass function from a thousand clusters", "notes_mass_function",
     ("mass_function", "mass_function_variational", "mass_function_pure")),
    ("Observed clusters", "notes_real", ("real_samples", "real_sky")),
    ("Weights that are not known exactly", "notes_weights",
     ("gold_standard", "variational_default", "flagship", "flagship_scarce", "flagship_galaxies",
      "weights_step", "weights_step_one_thread", "weight_draws")),
    ("Mass and concentration together",
     "One density of both, from Pyro's conditional transforms (`JointFlow`): docs/bayes.md.", ("joint_targets",)),
    ("Speed", "notes_speed", ("kde", "inference", "simulation", "nbody", "training_step", "flows")),
)  # fmt: skip


def text(name: str) -> str:
    """A fragment, or the words themselves where there is no such file."""
    path = DOCS / "results" / f"{name}.md"
    if not path.is_file():
        return name
    # Figures lie beside the fragments.
    return re.sub(r"\]\((\w+\.png)\)", r"](results/\1)", path.read_text(encoding="utf-8").strip())


def main() -> None:
    """Write docs/results.md."""
    parts = [
        "# Results\n\nJoined from `docs/results/` by `python -m benchmarks.assemble_results`; "
        "`benchmarks/results.sh` trains every model and writes every table. "
        "All masses are log10 M200c [Msun/h], residuals log10(M_true / M_pred) in dex."
    ]
    for title, notes, tables in SECTIONS:
        found = [table for table in tables if (DOCS / "results" / f"{table}.md").is_file()]
        if found or not tables:
            parts += [f"## {title}", text(notes), *map(text, found)]
    (DOCS / "results.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
