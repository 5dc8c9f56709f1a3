"""The settings of a training on mocks of one survey, as a file to be read and edited."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from typing import Any

import yaml

from bayesflowmass.mocks import PRIORS
from bayesflowmass.survey.measured import Fact

_FIT = {"learning_rate": 5e-4, "warmup_updates": 100, "max_updates": 1500, "validate_every": 250}
"""A training that begins with a model of the same kind needs fewer steps."""
_COLUMNS = {
    "abs_mag_limit": "magnitude_limit",
    "sigma_v_err": "velocity_error",
    "completeness": "completeness",
    "aperture": "aperture",
    "cleaned": "cleaning",
}
"""What a model can be told, and the setting of `AugmentationSettings` that it comes of."""
_UNKNOWN = {
    "mode": "whether central galaxies are among those seen (--mode)",
    "magnitude_limit": "depth: none is drawn, so that completeness is that of all galaxies of the mocks (column"
    " abs_mag_limit, or --assume galaxy_density=N)",
    "velocity_error": "velocity errors (column v_err of the galaxies, sigma_v_err of the clusters)",
    "miscentre_r": "errors of centres, which need directions",
}


def configuration(base: Mapping[str, Any], facts: Mapping[str, Fact], n_clusters: int) -> dict[str, Any]:
    """Settings of `bayesflowmass train` for a survey, from those of the model that training begins with.

    Args:
        base: `TrainSettings` of that model, as its file has them.
        facts: of `measure`.
        n_clusters: mocks to simulate.
    """
    values = copy.deepcopy(dict(base))
    limits = {name: [float(f"{v:.4g}") for v in fact.limits] for name, fact in facts.items()}
    simulate, observed = values["simulate"], values["augmentation"]
    simulate |= {"n_clusters": n_clusters, "redshift_range": limits.pop("redshift_range")}
    simulate["min_galaxies"] = int(limits.pop("min_galaxies")[0])
    if (mode := limits.pop("mode", None)) is not None:
        simulate["mode"] = "survey" if mode[0] else "paper"
    observed |= {"magnitude_limit": None, "completeness_log": True} | limits
    observed["cleaning"] = limits["cleaning"][0]
    observed["known"] = known_shares(observed.get("known") or {}, facts)
    values["fit"] = dict(values.get("fit") or {}) | _FIT
    if isinstance(weights := values.get("weights"), dict):
        values["weights"] = weights | {
            "fit": {"max_updates": _FIT["max_updates"]} | dict(weights.get("fit") or {})
        }
    return values


def known_shares(base: Mapping[str, float], facts: Mapping[str, Fact]) -> dict[str, float]:
    """`augmentation.known` of a survey: a model is told of as many mocks what it is told of its clusters."""
    shares = {}
    for name, share in base.items():
        fact = facts.get(_COLUMNS.get(name, name))
        if name in PRIORS:
            shares[name] = share
        elif name == "mode":
            # Of mocks of one mode there is no column: it is always told.
            shares |= {} if fact else {name: share}
        elif name == "cleaned":
            shares |= {name: fact.told} if fact is not None and fact.limits[0] else {}
        elif fact is not None:
            shares[name] = round(fact.told, 3)
        elif name == "sigma_v_err":
            shares[name] = share
    return shares


def written(values: Mapping[str, Any], facts: Mapping[str, Fact], base: str, command: str) -> str:
    """The settings as YAML, with a comment at each that was measured, and what was not."""
    unknown = [text for name, text in _UNKNOWN.items() if name not in facts]
    lines = [
        f"# A model for one survey, which begins with '{base}'. Written by",
        f"#     {command}",
        "# Settings with a comment are those of its clusters, the typical value first; all others are those of the",
        "# start. Edit what you know better, and give the command again without --stop-at-configuration: it trains",
        "# with this file as it is (remove it to measure again).",
        *(["# Not known, and left open: " + "; ".join(unknown) + "."] if unknown else []),
    ]
    text = yaml.safe_dump(dict(values), sort_keys=False, default_flow_style=None, width=1000)
    for line in text.splitlines():
        found = re.match(r"  (\w+):", line)
        fact = facts.get(found.group(1)) if found else None
        lines.append(line if fact is None else f"{line}  # {_comment(fact)}")
    return "\n".join(lines) + "\n"


def _comment(fact: Fact) -> str:
    error = f" +- {fact.error:.2g}" if fact.error else ""
    return fact.source if math.isnan(fact.value) else f"{fact.value:.3g}{error}: {fact.source}"
