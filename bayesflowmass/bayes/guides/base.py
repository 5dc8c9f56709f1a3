"""What all guides share: q(w), a distribution over the random weights of a module."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints, register_kl

from bayesflowmass.bayes.choice import Choice, choose, exactly
from bayesflowmass.bayes.guides.noise import standard_normal
from bayesflowmass.bayes.layout import WeightLayout
from bayesflowmass.bayes.module import BayesianModule, site_name
from bayesflowmass.bayes.parameter_store import register_parameters
from bayesflowmass.bayes.priors import NormalPrior, Prior, WeightPrior, as_prior

# A weight counts as at its prior if its standard deviation is within 5 % of the prior's and its mean within
# a tenth of it: data moved it by at most about 0.01 nat.
AT_PRIOR_SCALE = 0.05
AT_PRIOR_MEAN = 0.1
LOG_SQRT_TWO_PI = 0.5 * math.log(2 * math.pi)
GUIDES: dict[str, type[WeightGuide]] = {}


class WeightGuide(nn.Module, ABC):
    """q(w) over P random weights of a module, seen as one flat vector in the order of ``names``.

    Its parameters exist from the start: a state_dict can be loaded before the first call. It is also a
    guide of Pyro for the model of :class:`~bayesflowmass.bayes.module.BayesianModule`. All parameters but
    matrices of a covariance are vectors, which weight decay spares.

    Args:
        module: the module; the means begin at its present weights. A `BayesianModule` says the prior, the choice of
            weights and the name too.
        prior: p(w), see :func:`~bayesflowmass.bayes.priors.as_prior`; None: the normal prior.
        which: the random parameters, see :func:`~bayesflowmass.bayes.choice.choose`; None: all.
        init_scale: standard deviations at the start, in units of those of the prior.
        name: of the `BayesianModule` that the guide is for, where that has one.

    Raises:
        ValueError: ``init_scale`` is not positive, or something is said twice.
    """

    kind: ClassVar[str]
    loc: Tensor
    flat_prior_scale: Tensor

    def __init__(
        self,
        module: nn.Module,
        prior: Prior | None = None,
        which: Choice | None = None,
        *,
        init_scale: float = 0.1,
        name: str | None = None,
    ) -> None:
        super().__init__()
        if not 0 < init_scale < float("inf"):
            raise ValueError(
                f"init_scale is {init_scale}; expected a positive number, in units of the prior."
            )
        if isinstance(module, BayesianModule):
            if not (prior is None and which is None and name is None):
                raise ValueError(
                    "The BayesianModule says prior, choice of weights and name; give the guide nothing but it."
                )
            prior, name, which = module.prior, module.name, exactly(module.layout.names)
            module = module.module
        self.prior = as_prior(prior)
        self.name = name
        self.init_scale = init_scale
        self.layout = WeightLayout(module, choose(module, "all" if which is None else which))
        self.prior_scales = [self.prior.scale_of(name, shape) for name, shape in self.layout.shapes.items()]
        weights = dict(module.named_parameters())
        self._start({name: weights[name].detach() for name in self.names})
        scales = self.prior.scales(self.layout.shapes, next(self.parameters()))
        self.register_buffer("flat_prior_scale", scales, persistent=False)

    def _start(self, weights: Mapping[str, Tensor]) -> None:
        """Put the means at these weights; a guide whose means are not one vector overrides this."""
        self.loc = nn.Parameter(self.layout.flatten(weights))

    def __init_subclass__(cls) -> None:
        if hasattr(cls, "kind"):
            GUIDES[cls.kind] = cls

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the random parameters."""
        return self.layout.names

    @property
    def mean(self) -> dict[str, Tensor]:
        """Mean of each weight, name -> (*shape,)."""
        return self.layout.split(self.loc.detach())

    @property
    def standard_deviation(self) -> dict[str, Tensor]:
        """Marginal standard deviation of each weight, name -> (*shape,)."""
        return self.layout.split(self.flat_variance().detach().sqrt())

    def prior_scale(self) -> Tensor:
        """Scale of the prior of each weight, (P,)."""
        return self.flat_prior_scale

    @property
    def n_noise(self) -> int:
        """K: how many standard normal numbers a draw is made of."""
        return self.layout.n_weights

    @abstractmethod
    def transform(self, noise: Tensor) -> Tensor:
        """The differentiable draws (D, P) that standard normal numbers (D, K) give; mean + linear function of them."""

    def rsample(self, n_draws: int, generator: torch.Generator | None = None) -> Tensor:
        """Differentiable draws (n_draws, P)."""
        return self.transform(standard_normal((n_draws, self.n_noise), next(self.parameters()), generator))

    @abstractmethod
    def flat_log_prob(self, flat: Tensor) -> Tensor:
        """log q, (*D,), at flat weights (*D, P)."""

    @abstractmethod
    def flat_variance(self) -> Tensor:
        """Marginal variances, (P,)."""

    @abstractmethod
    def relative_entropy(self) -> Tensor:
        """Entropy of q [nats] less that of N(0, diag(s^2)), s the scales of the prior."""

    def distribution(self) -> WeightDistribution:
        """q as a Pyro distribution over flat weights, event shape (P,).

        Pyro's ``kl_divergence`` between it and `prior_distribution` is `kl`.
        """
        return WeightDistribution(self)

    def prior_distribution(self) -> PriorDistribution:
        """p as a Pyro distribution over flat weights, event shape (P,)."""
        return PriorDistribution(self.prior, self.layout, next(self.parameters()))

    def options(self) -> dict[str, Any]:
        """Further arguments of the constructor, for ``describe``."""
        return {}

    def draw(self, n_draws: int, seed: int | None = None) -> dict[str, Tensor]:
        """Draws without gradient, name -> (n_draws, *shape); without a seed from the global generator."""
        generator = None
        if seed is not None:
            generator = torch.Generator(next(self.parameters()).device).manual_seed(seed)
        with torch.no_grad():
            return self.layout.split(self.rsample(n_draws, generator))

    def log_prob(self, draws: Mapping[str, Tensor]) -> Tensor:
        """log q(w), (*D,), of weights name -> (*D, *shape)."""
        return self.flat_log_prob(self.layout.flatten(draws))

    def kl(self, draws: Tensor | None = None) -> Tensor:
        """KL(q || p) [nats], summed over all weights; differentiable.

        In closed form if the prior is normal, whatever its means. Otherwise the entropy is exact and E_q[log p] the
        mean over ``draws`` (D, P), or over 32 draws from the global generator.
        """
        if isinstance(self.prior, NormalPrior):
            scale = self.prior_scale()
            square = ((self.loc / scale) ** 2 + self.flat_variance() / scale**2 - 1.0).sum()
            return 0.5 * square - self.relative_entropy()
        scale = self.prior_scale().double()
        entropy = self.relative_entropy() + (scale.log() + LOG_SQRT_TWO_PI + 0.5).sum()
        # In double precision: both are sums over all weights, and their difference is small.
        moments = [self.layout.split(flat.double()) for flat in (self.loc, self.flat_variance())]
        expected = self.prior.expected_log_prob(*moments)
        if expected is None:
            flat = self.rsample(32) if draws is None else draws
            expected = self.prior.log_prob(self.layout.split(flat.double()), self.layout.shapes).mean()
        return (-entropy - expected).to(self.loc)

    def sample_with_kl(
        self, names: Collection[str] | None = None, noise: Tensor | None = None, sign: float = 1.0
    ) -> tuple[dict[str, Tensor], Tensor]:
        """One differentiable draw, name -> (*shape,), and KL(q || p).

        Args:
            names: of the weights that are wanted. Where the guide can tell them apart it draws no others, and the
                divergence is theirs; else it is that of all weights.
            noise: (K,), standard normal; None: from the global generator.
            sign: of the noise; -1: the mirror image about the mean of the draw that the noise gives.
        """
        if noise is None:
            noise = standard_normal((self.n_noise,), next(self.parameters()))
        flat = self.transform(sign * noise.unsqueeze(0))
        drawn = self.layout.split(flat[0])
        return {name: drawn[name] for name in self.names if names is None or name in names}, self.kl(flat)

    def local_linear(self, layer: str, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """For local reparameterisation: what a layer's random weights make of its inputs (B, I).

        Returns:
            Mean and variance of the outputs (B, O), independent of each other under q, and the KL divergence
            of these weights, or None if only the divergence of all weights is at hand.

        Raises:
            ValueError: if the guide has no such form.
        """
        raise ValueError(
            f"The guide {self.kind!r} has no local reparameterisation: outputs of a layer are correlated;"
            " use a shared draw or the mean-field guide."
        )

    @torch.no_grad()
    def share_at_prior(self) -> float:
        """Share of the weights whose marginal is that of the prior: nothing was learned about them.

        At the prior means: standard deviation within 5 % of the prior's, mean within a tenth of it.
        """
        scale = self.prior_scale()
        wide = (self.flat_variance().sqrt() / scale - 1.0).abs() < AT_PRIOR_SCALE
        return float((wide & (self.loc.abs() < AT_PRIOR_MEAN * scale)).double().mean())

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """As a Pyro guide: samples the sites of a BayesianModule; the arguments are those of the model."""
        register_parameters(self.store_prefix, self)
        return self._sample_sites()

    def _sample_sites(self) -> dict[str, Tensor]:
        flat = pyro.sample(f"{self.store_prefix}.flat", self.distribution(), infer={"is_auxiliary": True})
        return {
            self.site(name): pyro.sample(
                self.site(name), dist.Delta(value, event_dim=len(self.layout.shapes[name]))
            )
            for name, value in self.layout.split(flat).items()
        }

    def site(self, name: str) -> str:
        """The name of the site of a parameter."""
        return site_name(self.name, name)

    @property
    def store_prefix(self) -> str:
        """Before the names of the guide's parameters in Pyro's store."""
        return site_name(self.name, "weight_guide")

    def describe(self) -> dict[str, Any]:
        """The guide as JSON, without its numbers, which are in ``state_dict()``."""
        return {
            "kind": self.kind,
            "prior": self.prior.describe(),
            "names": list(self.names),
            "init_scale": self.init_scale,
            **({} if self.name is None else {"name": self.name}),
            **self.options(),
        }

    @staticmethod
    def from_description(module: nn.Module, description: Mapping[str, Any]) -> WeightGuide:
        """The guide that ``describe()`` described, over the weights of ``module``; load its state next.

        Raises:
            ValueError: if its kind is unknown or the module lacks the weights.
        """
        options = dict(description)
        kind, names = options.pop("kind", None), options.pop("names")
        if kind not in GUIDES:
            gone = " ('low_rank' was removed in version 0.2; train again)" if kind == "low_rank" else ""
            raise ValueError(f"Unknown kind of guide {kind!r}; expected one of {', '.join(GUIDES)}{gone}.")
        prior = WeightPrior.from_description(options.pop("prior"))
        return GUIDES[kind](module, prior, exactly(names), **options)


class _FlatWeights(dist.TorchDistribution):
    """A distribution over P weights, event shape (P,), whose batch is of independent copies."""

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, n_weights: int, batch_shape: torch.Size) -> None:
        super().__init__(batch_shape, torch.Size([n_weights]))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Differentiable draws (*sample_shape, *batch_shape, P)."""
        shape = torch.Size(sample_shape) + self.batch_shape
        return self._rows(math.prod(shape)).reshape(*shape, -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """(*D,) of weights (*D, P)."""
        found = self._log_prob(value)
        return found.expand(torch.broadcast_shapes(found.shape, self.batch_shape))

    def _rows(self, n: int) -> Tensor:
        raise NotImplementedError

    def _log_prob(self, value: Tensor) -> Tensor:
        raise NotImplementedError


class WeightDistribution(_FlatWeights):
    """q over the flat weights of a guide.

    Args:
        guide: q; its parameters are those of the distribution.
        batch_shape: of independent copies.
    """

    def __init__(self, guide: WeightGuide, batch_shape: Sequence[int] = ()) -> None:
        self.guide = guide
        super().__init__(guide.layout.n_weights, torch.Size(batch_shape))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> WeightDistribution:
        """Independent copies."""
        return WeightDistribution(self.guide, batch_shape)

    @property
    def mean(self) -> Tensor:
        """(*batch_shape, P)."""
        return self.guide.loc.expand(*self.batch_shape, -1)

    @property
    def variance(self) -> Tensor:
        """(*batch_shape, P)."""
        return self.guide.flat_variance().expand(*self.batch_shape, -1)

    @property
    def covariance_matrix(self) -> Tensor:
        """(P, P)."""
        like = self.guide.loc
        root = (
            self.guide.transform(torch.eye(self.guide.n_noise, dtype=like.dtype, device=like.device)) - like
        )
        return root.mT @ root

    def _rows(self, n: int) -> Tensor:
        return self.guide.rsample(n)

    def _log_prob(self, value: Tensor) -> Tensor:
        return self.guide.flat_log_prob(value)


class PriorDistribution(_FlatWeights):
    """p over the flat weights of a module.

    Args:
        prior: p.
        layout: names and shapes of the weights.
        like: of their type and device.
        batch_shape: of independent copies.
    """

    def __init__(
        self, prior: WeightPrior, layout: WeightLayout, like: Tensor, batch_shape: Sequence[int] = ()
    ) -> None:
        self.prior, self.layout, self.like = prior, layout, like.detach()
        super().__init__(layout.n_weights, torch.Size(batch_shape))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> PriorDistribution:
        """Independent copies."""
        return PriorDistribution(self.prior, self.layout, self.like, batch_shape)

    def _rows(self, n: int) -> Tensor:
        drawn = {
            name: self.prior.distribution(name, shape, self.like).rsample(torch.Size([n]))
            for name, shape in self.layout.shapes.items()
        }
        return self.layout.flatten(drawn)

    def _log_prob(self, value: Tensor) -> Tensor:
        return self.prior.log_prob(self.layout.split(value), self.layout.shapes)


@register_kl(WeightDistribution, PriorDistribution)  # type: ignore[untyped-decorator]
def _kl_weights(q: WeightDistribution, p: PriorDistribution) -> Tensor:
    if p.prior is not q.guide.prior and p.prior.describe() != q.guide.prior.describe():
        raise NotImplementedError("A guide knows its divergence from its own prior alone.")
    batch = torch.broadcast_shapes(q.batch_shape, p.batch_shape)
    return q.guide.kl().expand(batch)
