"""A network over the galaxies of a cluster: permutations of them change nothing, and there is no padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bayesflowmass.encoders.galaxy_set import GalaxySet
from bayesflowmass.networks.dense import DenseNetwork, initialise

_Listener = Callable[[GalaxySet, Tensor], None]

# What a flow asks of the network is numbers of clusters; log odds are made on the way, and a second pass costs as much.
_LISTENER: ContextVar[_Listener | None] = ContextVar("listener", default=None)

_RADII = (0.0, 1.6)
_SPEEDS = (0.0, 2.5)
_BASIS = 8
# What a block adds is small at first, so that sums over several blocks and many galaxies start in order.
_BRANCH = 0.3
# Kernel densities of a log, widths of a root: kept from zero by this.
_SMALL = 1e-6


@contextmanager
def odds_told_to(listener: _Listener) -> Iterator[None]:
    """Within the block, whenever a `SetNetwork` has read galaxies, these and their log odds are told to a function."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


class SetNetwork(nn.Module):
    """Galaxies of each cluster to numbers of it (n, output_dim), and to the log odds that each of them is a member.

    Blocks pass between the numbers h of the galaxies and the numbers g of their cluster, mean over its galaxies:

        m = gelu(W_1 h + W_g g),  h <- h + W_2 m,  g <- g + MLP(g, mean m, ln(1 + sum sigma(W_c m))),

    the last entry only where galaxies may be counted. Then each galaxy gets the log odds l of being a member,
    p = sigma(l), and ln sum p (where they may be counted), the dispersion and the mean radius of the members,

        sigma_p^2 = sum p v^2 / sum p,   R_p = sum p R / sum p,

    are appended to g. `SetTrunk` puts dense layers above it.

    The first three numbers of a galaxy are R [Mpc/h], v [1000 km/s] and v over the deviation of its cluster
    (`SetEncoder`); ln R, absolute values and Gaussian bumps in R and |v| are appended to what the first layer reads.

    Args:
        galaxy_dim: numbers of a galaxy.
        cluster_dim: numbers of a cluster.
        counted: whether the number of galaxies may be used.
        width: of h and g.
        blocks: how many.
        counters: soft counts in each block, where galaxies may be counted.
        membership_weight: of the memberships' log-likelihood, averaged over the galaxies of a cluster, beside that of
            its mass, where training tells who is a member.

    Raises:
        ValueError: a number is not positive, or the weight is negative.
    """

    def __init__(
        self,
        galaxy_dim: int,
        cluster_dim: int,
        *,
        counted: bool = True,
        width: int = 64,
        blocks: int = 3,
        counters: int = 8,
        membership_weight: float = 0.5,
    ) -> None:
        super().__init__()
        for name, number in (("width", width), ("blocks", blocks), ("counters", counters)):
            if number < 1:
                raise ValueError(f"galaxies: {name} is {number}; it must be at least 1")
        if galaxy_dim < 3:
            raise ValueError(
                f"galaxies: a galaxy has {galaxy_dim} numbers; R, v and v over the deviation come first"
            )
        if not membership_weight >= 0.0:
            raise ValueError(f"galaxies: membership_weight is {membership_weight}; it must not be negative")
        self.galaxy_dim, self.cluster_dim = galaxy_dim, cluster_dim
        self.counted, self.membership_weight = counted, float(membership_weight)
        self.output_dim = width + 2 + counted
        self.register_buffer("radii", torch.linspace(*_RADII, _BASIS), persistent=False)
        # What makes an error of the expected number of members (`bayesflowmass.estimator.memberships`), once known.
        self.register_buffer("count_error", torch.full((2,), -1.0))
        self.register_buffer("speeds", torch.linspace(*_SPEEDS, _BASIS), persistent=False)
        self.first = nn.Linear(galaxy_dim + 3 + 2 * _BASIS, width)
        self.first_cluster = nn.Linear(cluster_dim, width)
        self.blocks = nn.ModuleList(_Block(width, counters if counted else 0) for _ in range(blocks))
        self.member_galaxy = nn.Linear(width, width)
        self.member_cluster = nn.Linear(width, width, bias=False)
        self.member = nn.Linear(width, 1)
        initialise(self)
        with torch.no_grad():
            for block in self.blocks:
                assert isinstance(block, _Block)
                block.shrink(_BRANCH)

    def forward(self, context: GalaxySet) -> Tensor:
        """Numbers of the clusters (n, output_dim)."""
        return self.read(context)[0]

    def read(self, context: GalaxySet) -> tuple[Tensor, Tensor]:
        """Numbers (n, output_dim) of the clusters, and the log odds (n_galaxies,) that each galaxy is a member."""
        numbers, n = context.numbers, len(context)
        count = context.counts.clamp_min(1).to(context.dtype)[:, None]

        def total(values: Tensor) -> Tensor:
            return values.new_zeros(n, values.shape[1]).index_add(0, numbers, values)

        h = self.first(self._inputs(context.galaxies))
        g = self.first_cluster(context.clusters)
        for block in self.blocks:
            h, g = block(h, g, numbers, count)
        hidden = F.gelu(self.member_galaxy(h) + self.member_cluster(g).index_select(0, numbers))
        logit = self.member(hidden)
        p = torch.sigmoid(logit)
        radius, velocity = context.galaxies[:, :1], context.galaxies[:, 1:2]
        members, radii, squares = total(torch.cat([p, p * radius, p * velocity.square()], 1)).split(1, 1)
        least = members.clamp_min(_SMALL)
        pooled = [0.5 * (squares / least + _SMALL).log(), (radii / least + _SMALL).log()]
        if self.counted:
            pooled.append(members.log1p())
        listener = _LISTENER.get()
        if listener is not None:
            listener(context, logit[:, 0].detach())
        return torch.cat([g, *pooled], 1), logit[:, 0]

    def _inputs(self, galaxies: Tensor) -> Tensor:
        radius, speed = galaxies[:, :1], galaxies[:, 1:2].abs()
        bumps = [
            torch.exp(-0.5 * ((values - centres) / (centres[1] - centres[0])).square())
            for values, centres in ((radius, self.get_buffer("radii")), (speed, self.get_buffer("speeds")))
        ]
        return torch.cat([galaxies, (radius + 0.02).log(), speed, galaxies[:, 2:3].abs(), *bumps], 1)

    def extra_repr(self) -> str:
        return f"galaxy_dim={self.galaxy_dim}, cluster_dim={self.cluster_dim}, counted={self.counted}"


class SetTrunk(nn.Sequential):
    """A network over galaxies, then dense layers: what comes before the blocks of a flow.

    Args:
        network: over the galaxies.
        hidden_dims: widths of the dense layers.
        activation: a key of ``ACTIVATIONS``.
        dropout: probability of dropping a unit of the dense layers while training.
    """

    def __init__(
        self,
        network: SetNetwork,
        hidden_dims: Sequence[int],
        *,
        activation: str = "gelu",
        dropout: float = 0.0,
    ) -> None:
        dense = DenseNetwork(network.output_dim, hidden_dims, None, activation=activation, dropout=dropout)
        super().__init__(network, *dense)
        self.output_dim = dense.output_dim

    @property
    def network(self) -> SetNetwork:
        """The network over the galaxies."""
        first = self[0]
        assert isinstance(first, SetNetwork)
        return first

    def read(self, context: GalaxySet) -> tuple[Tensor, Tensor]:
        """Features (n, output_dim), and the log odds (n_galaxies,) that each galaxy is a member."""
        features, logit = self.network.read(context)
        for layer in list(self)[1:]:
            features = layer(features)
        return features, logit


class _Block(nn.Module):
    """One exchange between galaxies and cluster."""

    def __init__(self, width: int, counters: int) -> None:
        super().__init__()
        self.galaxy = nn.Linear(width, width)
        self.cluster = nn.Linear(width, width, bias=False)
        self.back = nn.Linear(width, width)
        self.counters = nn.Linear(width, counters) if counters else None
        self.update = nn.Sequential(
            nn.Linear(2 * width + counters, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def shrink(self, factor: float) -> None:
        """Multiply the weights of what is added to h and g."""
        last = self.update[-1]
        assert isinstance(last, nn.Linear)
        for layer in (self.back, last):
            layer.weight *= factor

    def forward(self, h: Tensor, g: Tensor, numbers: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        message = F.gelu(self.galaxy(h) + self.cluster(g).index_select(0, numbers))
        zeros = message.new_zeros(len(g), message.shape[1])
        seen = [g, zeros.index_add(0, numbers, message) / count]
        if self.counters is not None:
            soft = torch.sigmoid(self.counters(message))
            seen.append(soft.new_zeros(len(g), soft.shape[1]).index_add(0, numbers, soft).log1p())
        return h + self.back(message), g + self.update(torch.cat(seen, 1))


def membership_log_likelihood(logit: Tensor, context: GalaxySet) -> Tensor:
    """Mean over the galaxies of each cluster (n,) of ln p(member or not), what the truth says.

    Args:
        logit: (n_galaxies,) log odds.
        context: with the truth.

    Raises:
        ValueError: the context does not tell it.
    """
    if context.members is None:
        raise ValueError("the context does not tell who is a member; encode the catalogue with truth=True")
    each = -F.binary_cross_entropy_with_logits(logit, context.members.to(logit), reduction="none")
    total = each.new_zeros(len(context)).index_add(0, context.numbers, each)
    return total / context.counts.clamp_min(1)
