"""The network that reads a context, by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bayesflowmass.networks.convolutional import ConvNetwork, Extent
from bayesflowmass.networks.dense import DenseNetwork
from bayesflowmass.networks.over_galaxies import SetNetwork, SetTrunk

TRUNKS = ("dense", "conv", "set")

WIDEST, MOST_LAYERS = 8192, 64
"""Most units of a layer and most layers of a network: the weights between two of the widest layers take 270 MB."""


def network_maker(
    trunk: str,
    context_dim: int,
    hidden: Sequence[int],
    image_shape: Sequence[int] | None,
    channels: Sequence[int],
    kernels: Sequence[Extent | Sequence[Extent]] | None,
    pooling: Sequence[int | Sequence[int]] | None,
    galaxies: Mapping[str, Any] | None,
    activation: str,
    dropout: float,
) -> Callable[[int | None], DenseNetwork | ConvNetwork | SetTrunk]:
    """A function that makes a network of so many outputs; None: one that ends at its last hidden layer.

    Args:
        trunk: one of `TRUNKS`.
        context_dim: numbers of a cluster.
        hidden, activation, dropout: of the dense layers.
        image_shape, channels, kernels, pooling: of a `ConvNetwork`.
        galaxies: of a `SetNetwork`.

    Raises:
        ValueError: widths that no network has.
    """
    _check_widths(hidden=hidden, channels=channels)

    def network(output_dim: int | None) -> DenseNetwork | ConvNetwork | SetTrunk:
        if galaxies is not None:
            over_galaxies = SetNetwork(cluster_dim=context_dim, **galaxies)
            return SetTrunk(over_galaxies, hidden, activation=activation, dropout=dropout)
        if trunk == "dense":
            return DenseNetwork(context_dim, hidden, output_dim, activation=activation, dropout=dropout)
        assert image_shape is not None
        return ConvNetwork(
            context_dim,
            image_shape,
            channels,
            hidden,
            output_dim,
            kernels=kernels,
            pooling=pooling,
            activation=activation,
            dropout=dropout,
        )

    return network


def _check_widths(**layers: Sequence[int]) -> None:
    for name, widths in layers.items():
        if len(widths) > MOST_LAYERS or any(
            not isinstance(width, int) or not 1 <= width <= WIDEST for width in widths
        ):
            raise ValueError(
                f"{name} is {list(widths)}; expected at most {MOST_LAYERS} whole numbers from 1 to {WIDEST}"
            )
