"""What each run of the flagship comparison trains: settings, sets, seeds and controls, fixed beforehand."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["STUDIES", "Study"]


@dataclass(frozen=True)
class Study:
    """One network architecture and what it is tried with; `benchmarks/flagship_plan.md` says why."""

    title: str
    config: str
    sets: tuple[str, ...]
    """In the order in which they run."""
    seeds: range
    weight_decays: tuple[float, ...]
    """Tried beside that of the configuration."""
    members: int
    """Initialisations of the ensemble and of the best of them; 1: neither."""
    long: bool
    """Whether a network is trained for all updates, without patience."""


STUDIES = {
    "image": Study(
        title="Deterministic against Bayesian on massive clusters",
        config="configs/flagship.yaml",
        sets=("flat500", "few_haloes", "thinned", "flat2000"),
        seeds=range(100, 108),
        weight_decays=(0.1, 0.3, 1.0),
        members=10,
        long=True,
    ),
    "galaxies": Study(
        title="Deterministic against Bayesian on massive clusters: a network over galaxies",
        config="configs/flagship_galaxies.yaml",
        sets=("flat500", "few_haloes"),
        seeds=range(100, 105),
        weight_decays=(0.3,),
        members=1,
        long=False,
    ),
}
