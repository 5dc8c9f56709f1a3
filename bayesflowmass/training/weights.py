"""The posterior of the weights of a trained flow: every method through one door, with the training loop inside."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import Tensor, nn

from bayesflowmass.bayes.choice import choose
from bayesflowmass.bayes.priors import as_prior
from bayesflowmass.bayes.protocol import WEIGHT_POSTERIORS, WeightPosterior, parse_weights
from bayesflowmass.common.processes import present
from bayesflowmass.common.settings import build_settings
from bayesflowmass.encoders import Contexts, Encoder
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.flows import ConditionalFlow
from bayesflowmass.training.fit import FitResult, fit
from bayesflowmass.training.known_population import population_of_halos
from bayesflowmass.training.last_layers import MirroredSource, cut_before_random_layers
from bayesflowmass.training.options import FitOptions, with_default_options
from bayesflowmass.training.phases import run_phase
from bayesflowmass.training.random_state import derive_seed
from bayesflowmass.training.sources import EachHaloOnce, TrainingSource, one_view_of_each, weights_of_views
from bayesflowmass.training.update import Stochastic
from bayesflowmass.training.weight_report import note_convergence

_ANY_CLASS = ConfigDict(arbitrary_types_allowed=True)
_KEYS = ("method", "which", "guide", "prior", "options", "fit", "start")

LAST_LAYER_FIT: dict[str, Any] = {
    "learning_rate": 2e-3, "betas": (0.9, 0.99), "schedule": "cosine", "hold_fraction": 0.6, "final_fraction": 0.0,
    "warmup_updates": 0,
    "weight_decay": 0.0, "clip_norm": None, "average_decay": 0.0, "batch_size": 500, "max_updates": 4000,
    "validate_every": 50,
}  # fmt: skip
"""Arguments of `fit` where only last layers are random: steps are cheap, and it has to converge.

Draws of a q much wider than the posterior miss by so much that Adam, with its usual memory of a thousand steps, hardly
moves for the rest of the fit: from an initial scale of 1, the epistemic standard deviation ended three times too large.
"""


def weight_options(
    weights: Mapping[str, Any], flow: nn.Module
) -> tuple[type[WeightPosterior], dict[str, Any]]:
    """The class of a method and the arguments of its ``fit``.

    Args:
        weights: ``method`` (``METHOD`` or ``METHOD:VALUE``), ``which``, ``guide``, ``prior`` (a number,
            ``"fan_in"`` or a description), ``options``; what is absent or None is left to the method
            (`WeightPosterior.defaults`).
        flow: whose weights they are.

    Raises:
        ValueError: the method is unknown, takes no such argument, or it has a wrong type.
    """
    method, options = parse_weights(str(weights["method"]))
    known = inspect.signature(WEIGHT_POSTERIORS[method].fit).parameters
    given = {key: weights[key] for key in ("which", "guide", "prior") if weights.get(key) is not None}
    options = given | dict(weights.get("options") or {}) | options
    taken = [key for key in known if key not in ("module", "data", "maximise", "seed", "progress", "trained")]
    for key in options:
        if key not in taken:
            listed = f"it takes {', '.join(taken)}" if taken else "it takes none"
            raise ValueError(f"The weight posterior '{method}' has no option '{key}'; {listed}.")
    options = WEIGHT_POSTERIORS[method].defaults(flow) | options
    for key in ("prior", "train_prior"):
        if options.get(key) is not None:
            options[key] = as_prior(options[key])
    hints = get_type_hints(WEIGHT_POSTERIORS[method].fit)
    for key, value in options.items():
        try:
            TypeAdapter(hints[key], config=_ANY_CLASS).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise ValueError(
                f"weights: {key} of the posterior '{method}' is {value!r}: {reason[0].lower()}{reason[1:]}."
            ) from None
    return WEIGHT_POSTERIORS[method], options


def check_weights(weights: Mapping[str, Any], flow: ConditionalFlow, options: FitOptions) -> None:
    """Find before the training what would end the fit of the posterior: unknown names, values out of range.

    Args:
        weights: see `weight_options`.
        flow: of the architecture, to throw away.
        options: of maximum likelihood, which the phases of the posterior share where ``weights`` says nothing.

    Raises:
        ValueError: naming the setting.
    """
    unknown = [key for key in weights if key not in _KEYS]
    if unknown:
        raise ValueError(f"weights has no setting '{unknown[0]}'; it takes {', '.join(_KEYS)}.")
    method, chosen = weight_options(weights, flow)
    shared = options.model_dump() | dict(weights.get("fit") or {})
    build_settings(FitOptions, shared, "weights.fit")
    method.check(flow, (flow.blank_context(2), torch.zeros(2)), chosen)


def begin_with(folder: str | Path, encoder: Encoder, flow: ConditionalFlow) -> MassEstimator:
    """A trained model whose encoder and flow, constants and weights included, a training on other clusters begins with.

    Args:
        folder: of the model, or the name of a shipped one.
        encoder, flow: that are asked for, whatever their constants and weights.

    Raises:
        ValueError: the model has others.
        ModelError: there is no such model.
    """
    trained = MassEstimator.load(folder, "cpu")
    constants = {"extra_constants", "optional_constants", "loc", "scale"}
    for name, ours, theirs in (("encoder", encoder, trained.encoder), ("flow", flow, trained.flow)):
        wanted, there = ours.describe(), theirs.describe()
        odd = [
            k for k in wanted.keys() | there.keys() if wanted.get(k) != there.get(k) and k not in constants
        ]
        if odd:
            raise ValueError(
                f"The model '{folder}' cannot be the start: {min(odd)} of its {name} is {there.get(min(odd))!r}, not"
                f" {wanted.get(min(odd))!r}; give the same, or leave out start."
            )
    return trained


def start_from(flow: ConditionalFlow, folder: str | Path, settings: Mapping[str, Any]) -> None:
    """Give a flow the weights of a model that was trained with the same settings, so on the same clusters.

    Args:
        flow: fresh; changed in place.
        folder: of the trained model.
        settings: of this run; all but those of the weight posterior must be the model's.

    Raises:
        ValueError: the model was trained with other settings: what it was validated on might be trained on here.
        ModelError: there is no model in the folder.
    """
    trained = MassEstimator.load(folder, "cpu")
    ours, theirs = map(with_default_options, (settings, trained.training_info.config))
    names = (ours.keys() | theirs.keys()) - {"weights"}
    odd = sorted(key for key in names if ours.get(key) != theirs.get(key))
    if odd:
        raise ValueError(
            f"The model in '{folder}' cannot be the start of this one: it was trained with another"
            f" {' and '.join(odd)}; give the same settings, or leave out weights.start."
        )
    flow.load_state_dict(trained.flow.state_dict())


def fit_weights(
    flow: ConditionalFlow,
    weights: Mapping[str, Any],
    source: TrainingSource,
    validation: tuple[Contexts, Tensor],
    *,
    encoder: Encoder,
    flip_velocity: bool,
    fit_options: Mapping[str, Any],
    settings: dict[str, Any],
    folder: Path,
    resume: bool,
    seed: int,
    device: torch.device,
    progress: bool,
) -> tuple[WeightPosterior, dict[str, FitResult]]:
    """Fit the posterior of the weights of a flow that was trained by maximum likelihood.

    Where only last layers are random, all layers below keep their weights: what they give is computed once
    for all clusters (of the first draw, where every epoch redraws them), and the steps are cheap.

    N counts halos: views of one halo share its formation, so counting each would claim knowledge that is not
    there. Where a bound is maximised each view counts by its share of its halo, and where halos have different
    numbers of views the likelihood is told of the population that this makes, so that the density stays the one for
    the population of the views; what needs a sum over data (Laplace) takes one view of each halo.

    Args:
        flow: trained; its weights move to the centre of the posterior where the method says so.
        weights: see `weight_options`; ``fit`` holds arguments of :func:`~bayesflowmass.training.fit.fit` that
            differ in the phases of this posterior.
        source, validation, encoder, flip_velocity, fit_options, seed, device, progress: as the flow was
            trained.
        settings: that a resumed run must share.
        folder: for checkpoints and finished phases; the history of phase NAME becomes ``history_NAME.csv`` beside it.
        resume: go on in it.

    Returns:
        The posterior, and what came of each phase of training, by name.
    """
    method, options = weight_options(weights, flow)
    names = choose(flow, options["which"]) if "which" in options else ()
    cut = cut_before_random_layers(flow, names) if names else None
    module = flow
    first = source.epoch(0)
    data: tuple[Contexts, Tensor] = first.context, first.log10_mass
    halo = first.halo
    flip = encoder.flip_velocity if flip_velocity else None
    arguments = dict(fit_options)
    if cut is not None:
        module = cut.head
        orientations = [first.context] + ([flip(first.context.clone())] if flip is not None else [])
        features = torch.stack([cut.features(context) for context in orientations])
        source = MirroredSource(features, first.log10_mass.to(features.device), seed, halo)
        data = features[0], first.log10_mass.to(features.device)
        validation = cut.features(validation[0]), validation[1]
        arguments |= LAST_LAYER_FIT | {"batch_size": min(LAST_LAYER_FIT["batch_size"], len(data[1]))}
        flip = None
    arguments |= dict(weights.get("fit") or {})
    if halo is not None and len(halo.unique()) < len(halo):
        rows = one_view_of_each(halo, seed, 0).to(data[1].device)
        data = data[0][rows], data[1][rows]
    results: dict[str, FitResult] = {}
    population = of_halos = module.population
    if halo is not None:
        weight = weights_of_views(halo)
        if weight.max() > weight.min():
            device_of_flow = next(module.parameters()).device
            of_halos = population_of_halos(population, first.log10_mass, weight).to(device_of_flow)

    def maximise(objective: nn.Module, *, seed: int, name: str, **changes: Any) -> FitResult:
        chosen = arguments | changes
        counts_data = isinstance(objective, Stochastic)
        if counts_data:
            # A bound that is stopped early says how long it was trained, not what is known about the weights.
            chosen |= {"patience_updates": None, "keep": "last", "weight_decay": 0.0}
            module.population = of_halos
        results[name] = run_phase(
            folder,
            name,
            objective,
            settings,
            lambda: fit(
                objective,
                EachHaloOnce(source) if counts_data else source,
                validation,
                flip_velocity=flip,
                seed=seed,
                device=device,
                checkpoint_folder=folder / f"{name}-checkpoint",
                resume=resume,
                history_path=folder.parent / f"history_{name}.csv",
                configuration={key: value for key, value in settings.items() if key != "fit"},
                progress=progress,
                **chosen,
            ),
        )
        module.population = population
        return results[name]

    own_seed = derive_seed(seed, "weight posterior")
    posterior = method.fit(
        module, data, maximise=maximise, seed=own_seed, progress=progress, **_start(method), **options
    )
    for others in present().gather(results):
        results |= others
    note_convergence(posterior, results)
    return posterior, results


def _start(method: type[WeightPosterior]) -> dict[str, bool]:
    """The flow is trained already, for those who would train it."""
    return {"trained": True} if "trained" in inspect.signature(method.fit).parameters else {}
