"""The verdict on a catalogue, in a sentence."""

from __future__ import annotations

from bayesflowmass.novelty.catalogue import ALARM, CatalogueVerdict

__all__ = ["NOTICEABLE", "verdict_sentence"]

NOTICEABLE = 0.2
"""Effect from which a difference is a reason not to trust masses [standard deviations of training clusters of the same
richness]: what Cohen (1988) calls small. Smaller ones are said, without the warning."""


def verdict_sentence(verdict: CatalogueVerdict) -> str:
    """What the test of a catalogue says, and what differs most where it rejects."""
    n = f"{verdict.n_clusters} cluster{'s' * (verdict.n_clusters != 1)}"
    tail = f"(permutation test, p = {_p(verdict.p_value)}"
    if verdict.p_value > ALARM:
        return f"Novelty: the {n} as a whole look like training clusters of the same richness {tail})."
    tail += f", largest shift {verdict.effect:.2f} standard deviations)"
    if verdict.effect < NOTICEABLE:
        return (
            f"Novelty: the {n} as a whole differ from training clusters of the same richness, but little {tail}."
        )
    words = [_difference(d.name, d.kind, d.shift) for d in verdict.differences if d.p_value <= ALARM]
    what = "; most in " + ", ".join(dict.fromkeys(words)) if words else ""
    return (
        f"Novelty: the {n} as a whole do not look like training clusters of the same richness {tail}{what}. "
        "Do not trust these masses before you know why."
    )


def _difference(name: str, kind: str, shift: float) -> str:
    if kind == "spread":
        return f"{name} (scatters {'more' if shift > 0 else 'less'})"
    if name.startswith(("a combination", "image")):
        return name
    return f"{name} ({shift:+.1f} sigma)"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.0015 else "0.001 or less"
