"""What the figures of the `figures` command show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bayesflowmass.common.numbers import number

_CAPTIONS = {
    "figure_1_phase_space": "A cluster in phase space, and the kernel density that the network sees.",
    "figure_2_masses": "Masses of the training and the test clusters.",
    "figure_3_architecture": "The network, drawn from the model.",
    "figure_4_pdfs": "Mass PDFs of a light, an intermediate and a heavy cluster.",
    "figure_5_predicted_vs_true": "Predicted against true masses.",
    "figure_6_equation8": "The two parts of the scatter, of this model and of others; hollow: published.",
    "figure_7_robustness": "The same three clusters with fewer galaxies and with velocity errors.",
    "figure_8_real_clusters": "Observed clusters beside masses of the literature.",
    "figure_9_saliency": "Which parts of phase space carried the mass.",
    "epistemic_by_mass": "How much of the width is ignorance of the weights.",
}


def paper_figures(record: Mapping[str, Any] | None) -> dict[str, tuple[str, str]]:
    """File name -> caption, and the text for readers who cannot see it.

    Args:
        record: content of figures.json; None where there is none.
    """
    if record is None:
        return {}
    clusters = ", ".join(map(str, record.get("three_clusters", ())))
    added = {
        "figure_4_pdfs": f"Clusters {clusters}; {record.get('prior')} prior.",
        "figure_7_robustness": f"Clusters {clusters}: PDFs with all galaxies, with a third removed, and with errors"
        " of 100 km/s.",
        "figure_9_saliency": f"Change of the mass by phase-space position, for clusters {clusters}.",
        "figure_6_equation8": _pairs(record.get("equation_8") or {}),
    }
    return {
        name: (caption, f"{caption} {added[name]}".strip() if name in added else caption)
        for name, caption in _CAPTIONS.items()
    }


def _pairs(pairs: Mapping[str, Mapping[str, Any]]) -> str:
    found = (
        f"{name} {number(pair.get('sigma_N'))} and {number(pair.get('sigma_0'))}"
        for name, pair in pairs.items()
    )
    return f"sigma_N and sigma_0 in dex: {'; '.join(found)}."
