"""Conditional flows p(log10_mass | context), and how to build and describe them."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from pyro.distributions.conditional import ConditionalTransformedDistribution, ConditionalTransformModule
from torch import Tensor, nn
from torch.distributions import AffineTransform, Distribution, Transform

from bayesflowmass.encoders.galaxy_set import Contexts, GalaxySet
from bayesflowmass.flows.base import ConditionalStandardNormal
from bayesflowmass.flows.conditional_affine import ConditionalAffine
from bayesflowmass.flows.distribution import MassDistribution, choose, direction, pull_back
from bayesflowmass.flows.known_population import TrainingPopulation
from bayesflowmass.flows.mixture import ConditionalGaussianMixture
from bayesflowmass.flows.pyro_block import PyroBlock
from bayesflowmass.flows.spline import ConditionalMonotoneSpline
from bayesflowmass.networks.choice import TRUNKS, network_maker
from bayesflowmass.networks.convolutional import Extent
from bayesflowmass.networks.dense import DenseNetwork, NoParameters
from bayesflowmass.networks.over_galaxies import SetTrunk, membership_log_likelihood

_HEAD_OVER_GALAXIES = 0.1

FLOW_KINDS = (
    "affine",
    "spline",
    "mixture",
    "affine+spline",
    "affine+mixture",
    "spline+mixture",
    "affine+spline+mixture",
)


class Standardisation(ConditionalTransformModule):
    """
    The last transform of a flow, m = loc + scale y, whatever the context: log10 mass of a standardised
    target.

    The constants are Python numbers, not buffers: exact in every precision, and part of the description of a
    flow.
    """

    def __init__(self, loc: float, scale: float) -> None:
        super().__init__()
        self.nn = NoParameters()
        self.transform = AffineTransform(loc, scale)

    def condition(self, context: Tensor) -> AffineTransform:
        return self.transform

    def conditioned(self, raw: Tensor) -> AffineTransform:
        """The transform, of no parameters (*B, 0)."""
        return self.transform


class ConditionalFlow(ConditionalTransformedDistribution, nn.Module):
    """
    p(log10_mass | context) as a Pyro conditional transformed distribution that is also a module.

    A trunk (shared network, or identity) turns the context into features; the conditional base distribution
    and each conditional transform read them. ``flow(log10_mass, context)`` is ``log_prob``.

    While ``population`` is set, as training does where it knows what population its masses are of, ``log_prob`` is the
    likelihood of masses drawn from it; ``condition`` always gives p itself.

    Args:
        trunk: A network (*B, C) -> (*B, F).
        base_dist: A conditional base: ``nn`` from features to parameters, ``conditioned`` from them to a
            distribution.
        transforms: Conditional transforms of the same protocol, or of Pyro and of vectors of one element
            (`PyroBlock`), from the base to the standardised target.
        loc: Mean of log10_mass in the training split.
        scale: Its standard deviation, dex.
        description: The arguments of :func:`build_flow` that make this flow.
    """

    def __init__(
        self,
        trunk: nn.Module,
        base_dist: ConditionalStandardNormal | ConditionalGaussianMixture,
        transforms: Iterable[ConditionalTransformModule],
        *,
        context_dim: int,
        loc: float,
        scale: float,
        description: Mapping[str, Any],
    ) -> None:
        nn.Module.__init__(self)
        self.context_dim = context_dim
        self.loc = loc
        self.scale = scale
        self.trunk = trunk
        self.base_dist = base_dist
        blocks = [block if hasattr(block, "conditioned") else PyroBlock(block) for block in transforms]
        self.transforms = nn.ModuleList([*blocks, Standardisation(loc, scale)])
        self._description = dict(description)
        self.population: TrainingPopulation | None = None
        self.linear_draws = False
        """Whether draws of the weights are of a model that is linear in them (`WeightPosterior.linear`)."""

    @property
    def set_trunk(self) -> SetTrunk | None:
        """The trunk, where it reads galaxies; None where contexts are vectors."""
        return self.trunk if isinstance(self.trunk, SetTrunk) else None

    def check_context(self, context: Contexts) -> None:
        """Refuse contexts of another kind or length than the flow was made for.

        Raises:
            ValueError: saying what was found and expected.
        """
        trunk = self.set_trunk
        found: tuple[int, ...] = context.shape[-1:]
        wanted: tuple[int, ...] = (self.context_dim,)
        if isinstance(context, GalaxySet) != (trunk is not None):
            kinds = ("galaxies", "vectors") if trunk is None else ("vectors", "galaxies")
            raise ValueError(
                f"the contexts are {kinds[0]} and this flow reads {kinds[1]}; encode the clusters with the encoder"
                " of the flow"
            )
        if trunk is not None:
            found, wanted = context.shape[1:], (trunk.network.galaxy_dim, self.context_dim)
        if found != wanted:
            numbers = (
                "{} numbers per galaxy and {} per cluster" if len(wanted) == 2 else "{} numbers per cluster"
            )
            raise ValueError(
                f"the context has {numbers.format(*found)} and this flow was made for {numbers.format(*wanted)};"
                " encode the clusters with the encoder of the flow"
            )

    def blank_context(self, n: int) -> Contexts:
        """Contexts of n clusters of the kind that the flow reads, all zeros, of three galaxies each."""
        clusters = torch.zeros(n, self.context_dim)
        trunk = self.set_trunk
        if trunk is None:
            return clusters
        return GalaxySet(torch.zeros(3 * n, trunk.network.galaxy_dim), 3 * torch.arange(n + 1), clusters)

    def condition(self, context: Contexts, dtype: torch.dtype = torch.float64) -> MassDistribution:
        """
        The distribution of log10_mass given a context.

        Args:
            context: (*B, C), or the galaxies of B clusters, in the precision of the networks.
            dtype: Precision of what the networks give (a few numbers per cluster) from there on. Double by
                default, since a single-precision cdf has no digits in the tails.

        Raises:
            ValueError: see `check_context`.
        """
        self.check_context(context)
        return self.distribution_of(self.parameters_of(context), dtype)

    def parameters_of(self, context: Contexts) -> tuple[Tensor, ...]:
        """The numbers (*B, P) that the networks give to base and transforms."""
        return self._read(self.trunk(context))

    def distribution_of(
        self, parameters: Sequence[Tensor], dtype: torch.dtype = torch.float64
    ) -> MassDistribution:
        """The distribution of log10_mass that has these parameters; see `condition`."""
        return MassDistribution(*self._conditioned(parameters, dtype), validate_args=False)

    def log_prob_of(self, parameters: Sequence[Tensor], log10_mass: Tensor) -> Tensor:
        """`log_prob` of given parameters."""
        return self._log_prob(log10_mass, parameters)

    def _read(self, features: Tensor) -> tuple[Tensor, ...]:
        return tuple(block.nn(features) for block in (self.base_dist, *self.transforms))

    def _conditioned(
        self, parameters: Sequence[Tensor], dtype: torch.dtype
    ) -> tuple[Distribution, list[Transform]]:
        # In single precision or under autocast only the networks stay there: dtype starts where they end.
        blocks = zip((self.base_dist, *self.transforms), parameters, strict=True)
        base, *transforms = (block.conditioned(part.to(dtype)) for block, part in blocks)
        return base, transforms

    def log_prob(self, log10_mass: Tensor, context: Contexts) -> Tensor:
        """
        Log density per dex, (*B,), of log10_mass (*B,) given the context (*B, C), or the galaxies of B clusters.

        Where a context tells who is a member, as it does in training alone, this is log p(mass, members | galaxies):
        the mean over the galaxies of ln p(member or not), times ``membership_weight`` of the network, is added.

        The hot path of training: ``condition(context, log10_mass.dtype).log_prob(log10_mass)`` to the last
        bit, without the distribution object around it; single precision stays single. With a ``population``, see
        `TrainingPopulation`.
        """
        self.check_context(context)
        trunk = self.set_trunk
        if trunk is None or not isinstance(context, GalaxySet) or context.members is None:
            return self._log_prob(log10_mass, self.parameters_of(context))
        features, logit = trunk.read(context)
        members = membership_log_likelihood(logit, context).to(log10_mass.dtype)
        return self._log_prob(log10_mass, self._read(features)) + trunk.network.membership_weight * members

    def _log_prob(self, log10_mass: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        base: Any
        base, transforms = self._conditioned(parameters, log10_mass.dtype)
        population = self.population
        if population is None or not len(population.edges):
            value, log_det = pull_back(transforms, log10_mass)
            log_prob: Tensor = base.log_prob(value) + log_det
            return log_prob
        edges = population.edges.to(log10_mass).view(-1, *[1] * log10_mass.ndim)
        masses = torch.cat([log10_mass.unsqueeze(0), edges.expand(-1, *log10_mass.shape)])
        value, log_det = pull_back(transforms, masses)
        log_prob = base.log_prob(value[0]) + log_det.expand_as(value)[0]
        probabilities = choose(
            direction(transforms),
            lambda: base.probabilities(value[1:]),
            lambda: base.probabilities(value[1:].flip(0)).flip(0),
        )
        return population.log_likelihood(log10_mass, log_prob, probabilities)

    def forward(self, log10_mass: Tensor, context: Contexts) -> Tensor:
        return self.log_prob(log10_mass, context)

    @property
    def location_layers(self) -> tuple[str, ...]:
        """Patterns of the parameters of the last layers that give location and width: those of the affine blocks."""
        return tuple(
            f"transforms.{index}.nn.{list(block.nn._modules)[-1]}.*"
            for index, block in enumerate(self.transforms)
            if isinstance(block, ConditionalAffine) and isinstance(block.nn, nn.Sequential)
        )

    def describe(self) -> dict[str, Any]:
        """The arguments of :func:`build_flow`, ready for JSON; weights are in ``state_dict()``."""
        return dict(self._description)

    @staticmethod
    def from_description(description: Mapping[str, Any]) -> ConditionalFlow:
        """
        The flow that ``describe()`` described, with fresh weights.

        Raises:
            ValueError: on an unknown kind or option, naming the nearest valid one, or a missing one.
        """
        known = inspect.signature(build_flow).parameters
        for key in description:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
                raise ValueError(f"unknown option {key!r} in the description of a flow{hint}")
        for key in ("kind", "context_dim", "loc", "scale"):
            if key not in description:
                raise ValueError(f"the description of a flow lacks {key!r}")
        return build_flow(**description)

    def extra_repr(self) -> str:
        return (
            f"{self._description['kind']}, context_dim={self.context_dim}, loc={self.loc}, scale={self.scale}"
        )


def build_flow(
    kind: str = "affine",
    context_dim: int = 2500,
    loc: float = 0.0,
    scale: float = 1.0,
    *,
    affine_blocks: int | None = None,
    spline_blocks: int = 1,
    count_bins: int = 12,
    bound: float = 5.0,
    components: int = 3,
    trunk: str = "dense",
    shared: bool = False,
    hidden: Sequence[int] = (512, 64, 512),
    activation: str = "tanh",
    dropout: float = 0.0,
    image_shape: Sequence[int] | None = None,
    channels: Sequence[int] = (16, 32, 64),
    kernels: Sequence[Extent | Sequence[Extent]] | None = None,
    pooling: Sequence[int | Sequence[int]] | None = None,
    galaxies: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> ConditionalFlow:
    """
    A conditional flow p(log10_mass | context). The defaults are the three blocks of the paper.

    References:
        Kodi Ramanah et al. 2020, arXiv:2003.05951 (affine); Durkan et al. 2019, arXiv:1906.04032 (spline).

    Args:
        kind: Blocks from the data to the base, joined by +: ``affine``, ``spline``, then ``mixture``, a
            mixture of Gaussians in place of the standard normal base. Affine blocks alone give exactly one
            Gaussian.
        context_dim: C, numbers per cluster.
        loc: Mean of log10_mass in the training split.
        scale: Its standard deviation, dex.
        affine_blocks: Number of affine blocks; three for ``affine`` as in the paper, else one.
        spline_blocks: Number of spline blocks.
        count_bins: Rational quadratic pieces of a spline.
        bound: Half the side of a spline's box, in the coordinate that reaches it.
        components: Gaussians of the mixture.
        trunk: ``dense``, a fully connected network over the context, ``conv``, a convolutional one over
            its image, or ``set``, one over the galaxies, which is ``shared``.
        shared: One network for all blocks, each with a linear head; otherwise (the paper) one network per
            block.
        hidden: Widths of the dense layers.
        activation: ``tanh``, ``relu``, ``gelu`` or ``silu``.
        dropout: Probability of dropping a hidden unit while training.
        image_shape: (height, width) or (channels, height, width) of the image that opens the context
            (``conv``).
        channels: Feature maps of the convolutions (``conv``).
        kernels: Their extents, see :class:`~bayesflowmass.networks.ConvNetwork`; by default 5, then 3 (``conv``).
        pooling: Pixels to keep the largest of after each convolution; by default strides of two (``conv``).
        galaxies: Arguments of :class:`~bayesflowmass.networks.SetNetwork` but for ``cluster_dim``, which is
            ``context_dim``; ``galaxy_dim`` at least (``set``).
        seed: Of the initial weights.

    Raises:
        ValueError: on an unknown kind, trunk or activation, sizes that are not positive, or widths that no network has.
    """
    given = dict(locals())
    _check_choices(kind, trunk, image_shape, shared, galaxies)
    loc, scale = float(loc), float(scale)
    if affine_blocks is None:
        affine_blocks = 3 if kind == "affine" else 1
    _check_sizes(
        loc,
        scale,
        context_dim=context_dim,
        affine_blocks=affine_blocks,
        spline_blocks=spline_blocks,
        components=components,
    )
    network = network_maker(
        trunk, context_dim, hidden, image_shape, channels, kernels, pooling, galaxies, activation, dropout
    )
    # The global generator is the only one that initialisers take; its state is put back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        features = network(None) if shared else None
        head: Callable[[int | None], nn.Module] = network
        if features is not None:
            head = partial(DenseNetwork, features.output_dim, ())
        blocks = _make_blocks(kind, head, affine_blocks, spline_blocks, count_bins, bound)
        base = _make_base(kind, head, components)
    if galaxies is not None:
        # Numbers of galaxies are not scaled as images are: a density starts near that of the training masses.
        with torch.no_grad():
            for block in (*blocks, base):
                for parameter in block.nn.parameters():
                    parameter.mul_(_HEAD_OVER_GALAXIES)

    # Without galaxies where there are none, so that the descriptions of other flows stay readable by version 0.1.
    description = {
        name: _as_json(value) for name, value in given.items() if name != "galaxies" or value is not None
    }
    description |= {"loc": loc, "scale": scale, "affine_blocks": affine_blocks}
    return ConditionalFlow(
        features if features is not None else nn.Identity(),
        base,
        reversed(blocks),
        context_dim=context_dim,
        loc=loc,
        scale=scale,
        description=description,
    )


def _check_choices(
    kind: str, trunk: str, image_shape: Sequence[int] | None, shared: bool, galaxies: Mapping[str, Any] | None
) -> None:
    if kind not in FLOW_KINDS:
        raise ValueError(f"unknown flow kind {kind!r}; choose one of {', '.join(FLOW_KINDS)}")
    if trunk not in TRUNKS:
        raise ValueError(f"unknown trunk {trunk!r}; choose {', '.join(TRUNKS[:-1])} or {TRUNKS[-1]}")
    if (trunk == "set") != (galaxies is not None):
        raise ValueError(
            "a set trunk, and it alone, takes galaxies, the arguments of a network over galaxies"
        )
    if trunk == "set" and not shared:
        raise ValueError("a set trunk is shared by all blocks: give shared, or another trunk")
    if trunk == "conv" and image_shape is None:
        raise ValueError("a conv trunk needs image_shape, the (height, width) of the image in the context")


def _check_sizes(loc: float, scale: float, **counts: int) -> None:
    if not (scale > 0 and abs(loc) < float("inf") and scale < float("inf")):
        raise ValueError(f"loc {loc} and scale {scale} must be finite and the scale positive")
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}; it must be at least 1")


def _make_blocks(
    kind: str,
    head: Callable[[int | None], nn.Module],
    affine_blocks: int,
    spline_blocks: int,
    count_bins: int,
    bound: float,
) -> list[ConditionalAffine | ConditionalMonotoneSpline]:
    """The transforms of a kind, from the data to the base; ``head`` makes a network of so many outputs."""
    blocks: list[ConditionalAffine | ConditionalMonotoneSpline] = []
    if "affine" in kind.split("+"):
        blocks += [ConditionalAffine(head(2)) for _ in range(affine_blocks)]
    if "spline" in kind.split("+"):
        blocks += [
            ConditionalMonotoneSpline(head(3 * count_bins - 1), count_bins=count_bins, bound=bound)
            for _ in range(spline_blocks)
        ]
    return blocks


def _make_base(
    kind: str, head: Callable[[int | None], nn.Module], components: int
) -> ConditionalStandardNormal | ConditionalGaussianMixture:
    if "mixture" in kind.split("+"):
        return ConditionalGaussianMixture(head(3 * components), components=components)
    return ConditionalStandardNormal()


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return (
        value if isinstance(value, str) or not isinstance(value, Sequence) else [_as_json(v) for v in value]
    )
