"""The verdict on a catalogue, and its sentence."""

from __future__ import annotations

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.novelty.catalogue import ALARM, CatalogueVerdict
from bayesflowmass.novelty.detector import Assessment, NoveltyDetector

NOTICEABLE = 0.2
"""Effect from which a difference is a reason not to trust masses [standard deviations of training clusters of the same
richness]: what Cohen (1988) calls small. Smaller ones are said, without the warning."""


def judge(
    detector: NoveltyDetector, catalog: ClusterCatalog, found: Assessment, *, seed: int
) -> CatalogueVerdict:
    """Test a catalogue, against the population that its masses have where it says so, as mocks do.

    Args:
        detector: of a model.
        catalog: the clusters that were assessed.
        found: of them, in their order.
        seed: of the permutations and of the choice among projections of a halo.
    """
    masses = catalog.metadata.masses or {}
    population = {"flat": "training", "hmf": "hmf"}.get(str(masses.get("distribution")), "either")
    limits = [masses[name] for name in ("log10_mass_min", "log10_mass_max") if name in masses]
    known = population != "either" and len(limits) == 2
    return detector.test(
        found,
        catalog.column("halo_id" if catalog.has("halo_id") else "cluster_id"),
        population=population,
        log10_mass_range=(float(limits[0]), float(limits[1])) if known else None,
        seed=seed,
    )


def verdict_sentence(verdict: CatalogueVerdict) -> str:
    """What the test of a catalogue says, and what differs most where it rejects."""
    n = f"{verdict.n_clusters} cluster{'s' * (verdict.n_clusters != 1)}"
    tail = f"(permutation test, p = {_p(verdict.p_value)}"
    if verdict.p_value > ALARM:
        return f"Novelty: the {n} as a whole look like training clusters of the same richness {tail})."
    tail += f", largest shift {verdict.effect:.2f} standard deviations)"
    if verdict.effect < NOTICEABLE:
        return f"Novelty: the {n} as a whole differ from training clusters of the same richness, but little {tail}."
    words = [_difference(d.name, d.kind, d.shift) for d in verdict.differences if d.p_value <= ALARM]
    what = "; most in " + ", ".join(dict.fromkeys(words)) if words else ""
    return (
        f"Novelty: the {n} as a whole do not look like training clusters of the same richness {tail}{what}. "
        "Do not trust these masses before you know why."
    )


def _difference(name: str, kind: str, shift: float) -> str:
    if kind == "spread":
        return f"{name} (scatters {'more' if shift > 0 else 'less'})"
    if name.startswith("image"):
        return f"the shape of the phase space ({name})"
    if name.startswith("a combination"):
        return name
    return f"{name} ({shift:+.1f} sigma)"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.0015 else "0.001 or less"
