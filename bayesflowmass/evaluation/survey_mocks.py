"""Mocks of a survey over what nobody knows of the sky, and the likelihood of a model's summaries that they teach."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.common.tensors import hash_tensors
from bayesflowmass.common.terminal import say
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.estimator.cylinder import in_cylinder
from bayesflowmass.estimator.description import DESCRIPTION
from bayesflowmass.estimator.model_folder import read_model_folder, write_model_folder
from bayesflowmass.estimator.told import known_of
from bayesflowmass.evaluation.road import posterior_columns
from bayesflowmass.evaluation.test_sets import like_training
from bayesflowmass.hierarchical import SummaryLikelihood
from bayesflowmass.hierarchical.summary_likelihood import N_UPDATES
from bayesflowmass.mocks import PRIORS, Component

CENTRALS = "centrals_seen"
"""Share of central galaxies that are seen, the cluster's own included: 0 is the mode ``paper``, 1 ``survey``."""

_KIND = "survey-likelihood"
_ALWAYS = ("velocity_bias", "infall_region_amplitude", "richness_at_1e14")
_RANGES = {CENTRALS: (0.0, 1.0), "completeness": (0.2, 1.0)}
# A column that the model may be told, and what draws it in `Augmentation`.
_OBSERVED = {
    "sigma_v_err": "velocity_error",
    "completeness": "completeness",
    "abs_mag_limit": "magnitude_limit",
    "aperture": "aperture",
}


def _known(estimator: MassEstimator, catalog: ClusterCatalog) -> dict[str, tuple[float, float]]:
    """Limits of what the catalogue tells of all its clusters."""
    columns = known_of(catalog, estimator).items()
    return {name: (float(x.min()), float(x.max())) for name, x in columns if np.isfinite(x).all()}


def unknown_of(
    estimator: MassEstimator, catalog: ClusterCatalog, chosen: Mapping[str, tuple[float, float]] | None = None
) -> dict[str, tuple[float, float]]:
    """theta with the limits of its uniform priors.

    By default the velocity bias of galaxies, the clustering of interlopers about a cluster, the mean number of galaxies
    at 10^14 Msun/h; `CENTRALS` where the mode of the catalogue is not known; and the completeness where the model was
    trained over it and it is not known. Limits are those that the model was trained over, else of `PRIORS`.

    Args:
        chosen: these instead; names of `PRIORS`, `CENTRALS` or ``completeness``.

    Raises:
        ValueError: an unknown name, or limits that do not increase.
    """
    if chosen is not None:
        for name, (low, high) in chosen.items():
            if name not in PRIORS and name not in _RANGES:
                raise ValueError(
                    f"'{name}' cannot be inferred from a survey; choose from {', '.join([*PRIORS, *_RANGES])}."
                )
            if not low < high:
                raise ValueError(
                    f"the prior of {name} is {low:g} to {high:g}; two increasing numbers are expected."
                )
        return dict(chosen)
    known, config = _known(estimator, catalog), estimator.training_info.config
    trained = (config.get("simulate") or {}).get("randomise") or {}
    theta = {
        name: tuple(trained.get(name, PRIORS[name][:2])) for name in _ALWAYS if f"known_{name}" not in known
    }
    if "mode" not in known and catalog.metadata.mode not in ("paper", "survey"):
        theta[CENTRALS] = _RANGES[CENTRALS]
    if "completeness" not in known and (config.get("augmentation") or {}).get("completeness"):
        theta["completeness"] = _RANGES["completeness"]
    return theta


def _conditions(
    estimator: MassEstimator, catalog: ClusterCatalog, theta: Mapping[str, tuple[float, float]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What of the mocks of training and of their observation is changed to be as in the survey."""
    info, known = estimator.training_info, _known(estimator, catalog)
    trained = (info.config.get("simulate") or {}).get("randomise") or {}
    z = np.asarray(catalog.column("redshift"), dtype=np.float64)
    mode = {0.0: "paper", 1.0: "survey"}.get(known.get("mode", (-1.0,))[0], catalog.metadata.mode)
    simulate: dict[str, Any] = {
        "masses": "flat",
        "log10_mass_range": info.log10_mass_range,
        "redshift": (max(float(z.min()), 0.01), max(float(z.max()), 0.01)),
        "min_galaxies": 1,
        "randomise": {**trained, **{name: limits for name, limits in theta.items() if name in PRIORS}},
    }
    if CENTRALS in theta or mode in ("paper", "survey"):
        simulate["mode"] = "survey" if CENTRALS in theta else mode
    observe: dict[str, Any] = {
        "known": {},
        "cleaning": 1.0 if catalog.metadata.selection.get("cleaned") else 0.0,
        **{field: known[name] for name, field in _OBSERVED.items() if name in known},
    }
    if "completeness" in theta:
        observe |= {"completeness": theta["completeness"], "completeness_log": False}
    return simulate, observe


def survey_mocks(
    estimator: MassEstimator,
    catalog: ClusterCatalog,
    theta: Mapping[str, tuple[float, float]],
    n_clusters: int,
    seed: int,
    *,
    simulate: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> tuple[ClusterCatalog, FloatArray]:
    """Mocks observed and told as the clusters of a survey, and the theta of each, (n, P).

    What is uncertain in the training of the model and not in theta is drawn anew for each cluster, as there.

    Args:
        estimator, catalog: the model and the survey.
        theta: limits of uniform priors, from which each mock draws.
        n_clusters: simulated; a few lose all their galaxies.
        seed: of mocks and observation.
        simulate: changed arguments of `bayesflowmass.mocks.simulate_catalog`.
        progress: show a bar.
    """
    changes, observe = _conditions(estimator, catalog, theta)
    mocks = like_training(
        estimator.training_info,
        n_clusters,
        seed,
        simulate=changes | dict(simulate or {}),
        augmentation=observe,
        progress=progress,
    )
    if CENTRALS in theta:
        rng = np.random.default_rng([seed, 2])
        share = rng.uniform(*theta[CENTRALS], len(mocks))
        central = np.isin(mocks.galaxies("gal_component"), (Component.CENTRAL, Component.NEIGHBOUR_CENTRAL))
        lost = central & (rng.random(len(central)) >= np.repeat(share, mocks.n_galaxies))
        mocks = mocks.filter_galaxies(~lost).with_columns(**{CENTRALS: share})
        kept = mocks.n_galaxies > 0
        mocks = mocks.filter(kept)
    values = np.stack([np.asarray(mocks.column(name), dtype=np.float64) for name in theta], axis=1)
    known = _known(estimator, catalog)
    hidden = {
        name: np.full(len(mocks), "mixed" if name == "mode" else np.nan)
        for name in estimator.encoder.optional.names
        if name not in known
    }
    return mocks.with_columns(**hidden), values


def summaries(
    estimator: MassEstimator,
    catalog: ClusterCatalog,
    least: int,
    *,
    progress: bool = False,
    label: str = "masses",
) -> FloatArray:
    """t (n, 3): ln N, the median log10 mass under the flat prior, and ln sigma; the last two NaN where N < least.

    The weights of the network are at their centre: t is any function of the galaxies, and its noise would only cost.
    """
    info = estimator.training_info
    count = in_cylinder(catalog, info.selection).n_galaxies
    enough = count >= least
    if not enough.any():
        raise CatalogError(
            f"None of the {len(catalog)} clusters has {least} galaxies in the cylinder of the model."
        )
    point = MassEstimator(estimator.encoder, estimator.flow, info, estimator.device)
    columns = {"t": lambda p, _: np.stack([p.median, np.log(p.sigma)], axis=1)}
    found = posterior_columns(point, catalog.filter(enough), columns, progress=progress, label=label)
    result = np.full((len(catalog), 3), np.nan)
    result[:, 0] = np.log(np.maximum(count, 1))
    result[enough, 1:] = found["t"]
    return result


def learn_likelihood(
    estimator: MassEstimator,
    catalog: ClusterCatalog,
    theta: Mapping[str, tuple[float, float]],
    *,
    least: int = 10,
    n_mocks: int = 96000,
    seed: int = 0,
    progress: bool = False,
) -> SummaryLikelihood:
    """The likelihood of the summaries of a survey's clusters, learnt from mocks.

    Args:
        estimator, catalog, theta: see `survey_mocks`.
        least: fewest galaxies of a cluster in the survey.
        n_mocks: flat in log10 mass and theta.
        seed: of the mocks and the weights.
        progress: show bars.
    """
    mocks, values = survey_mocks(estimator, catalog, theta, n_mocks, seed, progress=progress)
    t = summaries(estimator, mocks, least, progress=progress, label="summaries of mocks")
    redshift, mass = (np.asarray(mocks.column(name), dtype=np.float64) for name in ("redshift", "log10_mass"))
    return SummaryLikelihood.fit(
        torch.from_numpy(t),
        torch.tensor(redshift),
        torch.tensor(mass),
        torch.from_numpy(values),
        priors=theta,
        least=least,
        log10_mass_range=estimator.training_info.log10_mass_range,
        seed=seed,
        progress=progress,
    )


def learn_or_read(
    folder: Path,
    estimator: MassEstimator,
    catalog: ClusterCatalog,
    theta: Mapping[str, tuple[float, float]],
    *,
    report: Callable[[str], None] = say,
    **options: Any,
) -> SummaryLikelihood:
    """The likelihood of a folder, if it was made for such a survey; else a new one, which is put there.

    Args:
        folder: sealed as that of a model is.
        estimator, catalog, theta, options: see `learn_likelihood`.
        report: told where the likelihood comes from.

    Raises:
        ModelError: what is in the folder is damaged.
    """
    simulate, observe = _conditions(estimator, catalog, theta)
    made_for = {
        "model": hash_tensors(estimator.flow.state_dict()),
        "simulate": simulate,
        "observe": observe,
        "theta": dict(theta),
        "n_updates": N_UPDATES,
        **{name: value for name, value in options.items() if name != "progress"},
    }
    made_for = json.loads(json.dumps(made_for))
    if (folder / DESCRIPTION).is_file():
        tensors, description = read_model_folder(folder)
        if description.get("kind") == _KIND and description.get("made_for") == made_for:
            report(f"Likelihood: {folder}, made before for such a survey.")
            result = SummaryLikelihood(**description["likelihood"])
            result.load_state_dict(tensors)
            return result.eval()
    result = learn_likelihood(estimator, catalog, theta, **options)
    described = {"kind": _KIND, "likelihood": result.describe(), "made_for": made_for}
    write_model_folder(folder, dict(result.state_dict()), described)
    return result
