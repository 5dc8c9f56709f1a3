"""The posterior of the weights of any network under any likelihood, in one call."""

from __future__ import annotations

import inspect
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from bayesflowmass.bayes.choice import Choice, choose, exactly
from bayesflowmass.bayes.density import NET, Density, Likelihood, has_sites
from bayesflowmass.bayes.examination import refuse_unreached
from bayesflowmass.bayes.latents import LatentPosterior, fit_with_latents
from bayesflowmass.bayes.loop import Loop
from bayesflowmass.bayes.posterior import Posterior
from bayesflowmass.bayes.priors import Prior, WeightPrior, as_prior
from bayesflowmass.bayes.protocol import WEIGHT_POSTERIORS, WeightPosterior, parse_weights

_GIVEN = ("module", "data", "maximise", "seed", "progress", "which", "prior", "train_prior")


def fit(
    net: nn.Module,
    data: tuple[Tensor, Tensor],
    *,
    likelihood: Likelihood | None = None,
    method: str = "variational",
    which: Choice | None = None,
    prior: Prior | None = None,
    seed: int = 0,
    steps: int = 2000,
    learning_rate: float = 1e-2,
    batch_size: int = 100,
    progress: bool = False,
    **options: Any,
) -> Posterior | LatentPosterior:
    """The posterior of the weights of a network, given data.

    Training ends with the network, which changes in place, at the mean of q, at the maximum of the posterior density
    for ``point``, ``laplace``, ``linearised`` and ``sghmc``, of the density of functions for ``function_space``, or at
    the first member of an ensemble; ``nuts`` leaves it as it is.

    >>> posterior = bayes.fit(net, (x, y), likelihood=lambda f: dist.Normal(f.squeeze(-1), 0.1))
    >>> y_new = posterior.predict(x_new, n_draws=100)

    Args:
        net: any module of torch, inputs (B, ...) -> outputs; without a likelihood a conditional density, with
            ``log_prob(y, x) -> (B,)``.
        data: x (N, ...) and y (N, ...).
        likelihood: outputs of the network -> distribution of y of the shape of y; a function or a module. With a
            second argument ``y=None`` it is a program of Pyro that samples y, with latent variables of its own
            (`LatentPosterior`; variational only).
        method: of `WEIGHT_POSTERIORS`, as ``METHOD`` or ``METHOD:VALUE`` (`parse_weights`).
        which: the random weights, by their names in ``net`` (`choose`); None: as the method has it.
        prior: of the weights, by their names in ``net`` (`as_prior`); of those that are not random, too, where they are
            trained.
        seed: of everything random.
        steps, learning_rate, batch_size, progress: of the training, see `Loop`.
        options: further arguments of the method's ``fit``, such as ``guide="mean_field"`` or ``members=10``.

    Raises:
        ValueError: in a sentence, before anything is trained.
    """
    name, parsed = parse_weights(method)
    kind = WEIGHT_POSTERIORS[name]
    x, y = _checked(data)
    _check_weights(net)
    believed = as_prior(prior)
    believed.check([weight for weight, _ in net.named_parameters()])
    if likelihood is not None and has_sites(likelihood):
        if name != "variational":
            raise ValueError(
                f"A likelihood with latent variables of its own needs the method 'variational', not '{name}'."
            )
        return _with_latents(net, (x, y), likelihood, parsed | options, which, believed, {
            "seed": seed, "steps": steps, "learning_rate": learning_rate, "progress": progress,
        })  # fmt: skip
    density = Density(net, likelihood)
    options = parsed | options
    if which is not None and "which" in parsed:
        raise ValueError(f"The method '{method}' says which weights are random, and so does which={which!r}.")
    options["which"] = options.get("which", which)
    device = next(net.parameters()).device
    x, y = x.to(device), y.to(device)
    chosen = _options(kind, net, options, believed.below(NET))
    event_dims = _event_dims(density, x[:2], y[:2])
    kind.check(deepcopy(density), (x[:2], y[:2]), chosen)
    if name != "point":
        drawn = chosen.get("which") or exactly([n for n, w in density.named_parameters() if w.requires_grad])
        refuse_unreached(density, choose(density, drawn), y[:2], x[:2])
    loop = Loop((x, y), steps, learning_rate, batch_size, progress)
    weights = kind.fit(density, (x, y), maximise=loop, seed=seed, progress=progress, **chosen)
    return Posterior(density, weights, believed.below(NET), len(y), event_dims, loop.losses)


def _with_latents(
    net: nn.Module,
    data: tuple[Tensor, Tensor],
    likelihood: Likelihood,
    options: dict[str, Any],
    which: Choice | None,
    prior: WeightPrior,
    training: dict[str, Any],
) -> LatentPosterior:
    known = inspect.signature(fit_with_latents).parameters
    free = [name for name in ("guide", "guide_options", "estimator") if name in known]
    chosen = options.pop("which", which)
    for name in options:
        if name not in free:
            raise ValueError(
                f"With latent variables there is no option '{name}'; there are {', '.join(free)}."
            )
    device = next(net.parameters()).device
    x, y = (part.to(device) for part in data)
    chosen = exactly(_random(net, "all" if chosen is None else chosen))
    return fit_with_latents(net, x, y, likelihood, prior=prior, which=chosen, **training, **options)


def _checked(data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    if not isinstance(data, tuple | list) or [isinstance(part, Tensor) for part in data] != [True, True]:
        kinds = (
            [type(part).__name__ for part in data] if isinstance(data, tuple | list) else type(data).__name__
        )
        raise ValueError(
            f"The data are {kinds}; expected two tensors, inputs x (N, ...) and targets y (N, ...), such as by"
            " torch.as_tensor."
        )
    x, y = data
    if len(x) != len(y) or len(y) == 0:
        raise ValueError(
            f"The data are {len(x)} inputs and {len(y)} targets; expected as many, at least one."
        )
    for name, part in (("x", x), ("y", y)):
        if part.is_floating_point() and not bool(part.isfinite().all()):
            raise ValueError(
                f"The data hold numbers in {name} that are not finite; mask or drop these examples."
            )
    return x, y


def _check_weights(net: nn.Module) -> None:
    """Refuse a network without weights that can be fitted, and weights that are not real numbers."""
    for name, part in net.named_modules():
        drawn = vars(part).get("_pyro_samples")
        if drawn:
            raise ValueError(
                f"The network draws '{'.'.join(filter(None, (name, next(iter(drawn)))))}' itself (PyroSample), of which"
                " no posterior would be found; give a network of parameters, and the prior by prior=..."
            )
    trainable = {name: value for name, value in net.named_parameters() if value.requires_grad}
    if not trainable:
        raise ValueError(
            f"No weight of {type(net).__name__} requires a gradient, so that there is nothing to fit; call"
            " requires_grad_(True) on what is to be fitted."
        )
    for name, value in trainable.items():
        if not value.is_floating_point():
            raise ValueError(
                f"The weight '{name}' holds {value.dtype}; posteriors are of real numbers: make it of two real weights,"
                " or freeze it by requires_grad_(False)."
            )


def _random(net: nn.Module, which: Choice) -> tuple[str, ...]:
    """The random weights; what the user has frozen is not one of them."""
    names = choose(net, which)
    for name in names:
        if not net.get_parameter(name).requires_grad:
            raise ValueError(
                f"The weight '{name}' is frozen (requires_grad is False), and which={which!r} makes it random; name the"
                " random weights by 'which', such as 'last' or patterns, or call requires_grad_(True) on it."
            )
    return names


def _options(kind: type[WeightPosterior], net: nn.Module, options: Any, prior: Any) -> dict[str, Any]:
    """The arguments of the method's ``fit``, names of weights as those of a `Density`."""
    known = inspect.signature(kind.fit).parameters
    free = [name for name in known if name not in _GIVEN]
    which, chosen = options["which"], {name: value for name, value in options.items() if name != "which"}
    for name in chosen:
        if name not in free:
            listed = f"it takes {', '.join(free)}" if free else "it takes none"
            raise ValueError(f"The method '{kind.method}' has no option '{name}'; {listed}.")
    if "which" in known:
        which = kind.defaults(net).get("which", known["which"].default) if which is None else which
        chosen["which"] = exactly([f"{NET}{name}" for name in _random(net, which)])
    elif which is not None:
        raise ValueError(
            f"The method '{kind.method}' does not choose among the weights; leave out which={which!r}."
        )
    return chosen | {name: prior for name in ("prior", "train_prior") if name in known}


def _event_dims(density: Density, x: Tensor, y: Tensor) -> int:
    """Dimensions of y that the likelihood holds as a batch beside the examples; fails where shapes do not fit."""
    training = density.training
    density.eval()
    with torch.no_grad():
        log_prob = density(y, x)
        found = 0
        if density.likelihood is not None:
            found = len(density.distribution(density(None, x)).batch_shape) - 1
    density.train(training)
    if log_prob.shape != y.shape[:1]:
        raise ValueError(
            f"log_prob has the shape {tuple(log_prob.shape)} for {len(y)} examples; expected one number for each."
        )
    return found
