"""Clusters like those that a model was trained on: what calibration is tested and baselines are fitted with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bayesflowmass.catalog import CatalogMetadata, ClusterCatalog
from bayesflowmass.estimator import TrainingInfo
from bayesflowmass.mocks import MockParameters, simulate_catalog
from bayesflowmass.selection.cuts import R_MAX, V_MAX
from bayesflowmass.training.augmentation import Augmentation
from bayesflowmass.training.preparation import DEEPEST

BASELINE_CLUSTERS = 5000


def like_training(
    info: TrainingInfo,
    n_clusters: int,
    seed: int,
    *,
    simulate: Mapping[str, Any] | None = None,
    augmentation: Mapping[str, Any] | None = None,
    exact: bool = False,
    progress: bool = False,
) -> ClusterCatalog:
    """Clusters simulated and observed as those of training, with another seed, or with some settings changed.

    Each halo is seen along one line of sight, so that clusters are independent. Where the model was
    trained on a catalogue that was given, population, kind, interlopers, cylinder and redshifts are those of it, and
    the rest is that of mocks by default.

    Args:
        info: of the model; its ``config`` says how it was trained.
        n_clusters: simulated; those that keep the least number of galaxies are in the result.
        seed: of mocks and observation; other than that of the training.
        simulate: changed arguments of `bayesflowmass.mocks.simulate_catalog`.
        augmentation: changed arguments of `Augmentation`.
        exact: refuse a model whose mocks nobody can make again.
        progress: show a bar.

    Raises:
        ValueError: ``exact``, and the model was trained on a catalogue that was given.
    """
    made = info.config.get("simulate")
    if made is None and exact:
        raise ValueError(
            "The model was trained on a catalogue that was given, not on mocks made for it; give a test catalogue."
        )
    arguments = (_facts(info) if made is None else dict(made)) | {"n_projections": 1} | dict(simulate or {})
    if isinstance(arguments.get("parameters"), Mapping):
        arguments["parameters"] = MockParameters.from_dict(arguments["parameters"])
    observed = Augmentation(**(dict(info.config.get("augmentation") or {}) | dict(augmentation or {})))
    final = {"r_max": float(arguments.get("r_max", R_MAX)), "v_max": float(arguments.get("v_max", V_MAX))}
    wide_r, wide_v = observed.margins()
    arguments |= {"n_clusters": n_clusters, "seed": seed, "cosmology": info.cosmology}
    arguments |= {"r_max": final["r_max"] + wide_r, "v_max": min(final["v_max"] + wide_v, DEEPEST)}
    if observed.magnitude_limit is not None:
        arguments["magnitudes"] = True
    catalog = simulate_catalog(**arguments, progress=progress)
    if not observed:
        return catalog
    # Members only have no cylinder, in training either.
    cut: dict[str, Any] = {} if arguments.get("kind") == "pure" else final
    return observed.apply(catalog, np.random.default_rng([seed, 1]), **cut)


def baseline_set(info: TrainingInfo, like: CatalogMetadata, seed: int) -> ClusterCatalog:
    """Clusters to fit baselines on: as those of training were observed, flat in log mass, all of them told apart.

    Args:
        info: of the model that the baselines stand beside.
        like: metadata of the test clusters; their mock parameters hold where the model was trained on a catalogue that
            was given.
        seed: of the mocks and their observation.
    """
    simulate: dict[str, Any] = {"masses": "flat", "log10_mass_range": info.log10_mass_range}
    parameters = like.extra.get("mock_parameters")
    if info.config.get("simulate") is None and parameters:
        simulate["parameters"] = parameters
    # Baselines are told nothing about a cluster, so what stays unknown need not be drawn.
    return like_training(info, BASELINE_CLUSTERS, seed, simulate=simulate, augmentation={"known": {}})


def drawn_like(catalog: ClusterCatalog) -> dict[str, Any]:
    """Arguments of `bayesflowmass.mocks.simulate_catalog` for clusters with the masses and redshifts of a catalogue."""
    truth = np.asarray(catalog.column("log10_mass"), dtype=np.float64)
    redshift = np.asarray(catalog.column("redshift"), dtype=np.float64)
    masses, z = catalog.metadata.masses or {}, (float(redshift.min()), float(redshift.max()))
    return {
        "masses": masses.get("distribution", "hmf"),
        "log10_mass_range": (
            float(masses.get("log10_mass_min", truth.min())),
            float(masses.get("log10_mass_max", truth.max())),
        ),
        "redshift": z[0] if z[0] == z[1] else z,
        "parameters": MockParameters.from_dict(catalog.metadata.extra.get("mock_parameters") or {}),
    }


def _facts(info: TrainingInfo) -> dict[str, Any]:
    """What is known of the mocks of a training catalogue that was given."""
    low, high = info.redshift_range
    named = ("r_max", "v_max", "min_galaxies")
    return {
        "masses": info.masses,
        "log10_mass_range": info.log10_mass_range,
        "kind": info.kind or "contaminated",
        "mode": info.mode or "paper",
        "redshift": low if low == high else (low, high),
        **{name: info.selection[name] for name in named if info.selection.get(name)},
    }
