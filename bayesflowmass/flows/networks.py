"""The networks that turn a context into the parameters of a flow block."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

__all__ = ["ACTIVATIONS", "ConvNetwork", "DenseNetwork", "NoParameters"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


def _activation(name: str) -> nn.Module:
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}; choose one of {', '.join(sorted(ACTIVATIONS))}")
    return ACTIVATIONS[name]()


def _initialise(module: nn.Module) -> None:
    # Glorot's uniform weights and zero biases: what the tanh networks of the paper start from.
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class NoParameters(nn.Module):
    """(*B, C) -> (*B, 0): what a block without parameters reads of a context, its shape, type and device."""

    def forward(self, context: Tensor) -> Tensor:
        return context[..., :0]


class DenseNetwork(nn.Sequential):
    """
    A fully connected network (*B, C) -> (*B, P), linear at its end.

    :param int input_dim: C.
    :param hidden_dims: Widths of the hidden layers; may be empty.
    :param output_dim: P, or None to end after the last hidden layer's activation (a trunk).
    :param str activation: A key of ``ACTIVATIONS``.
    :param float dropout: Probability of dropping a hidden unit while training.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dims: Sequence[int],
        output_dim: int | None,
        *,
        activation: str = "tanh",
        dropout: float = 0.0,
    ) -> None:
        layers: list[nn.Module] = []
        width = input_dim
        for hidden in hidden_dims:
            layers += [nn.Linear(width, hidden), _activation(activation)]
            if dropout:
                layers.append(nn.Dropout(dropout))
            width = hidden
        if output_dim is not None:
            layers.append(nn.Linear(width, output_dim))
            width = output_dim
        super().__init__(*layers)
        self.output_dim = width
        _initialise(self)


class ConvNetwork(nn.Module):
    """
    A convolutional network over the image part of a context, (*B, C) -> (*B, P).

    The first ``channels * height * width`` numbers of the context are an image; what follows (redshift,
    richness) joins the flattened feature maps before the dense layers. Each convolution halves the image.

    :param int input_dim: C.
    :param image_shape: (height, width) or (channels, height, width).
    :param channels: Feature maps of each convolution (5 x 5 first, 3 x 3 after).
    :param hidden_dims: Widths of the dense layers that follow.
    :param output_dim: P, or None to end after the last hidden layer's activation (a trunk).
    :param str activation: A key of ``ACTIVATIONS``.
    :param float dropout: Probability of dropping a hidden unit of the dense layers while training.

    Raises:
        ValueError: if the image does not fit into the context.
    """

    def __init__(
        self,
        input_dim: int,
        image_shape: Sequence[int],
        channels: Sequence[int],
        hidden_dims: Sequence[int],
        output_dim: int | None,
        *,
        activation: str = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if len(image_shape) not in (2, 3):
            raise ValueError(
                f"image_shape is (height, width) or (channels, height, width), not {tuple(image_shape)}"
            )
        self.image_shape = tuple(image_shape) if len(image_shape) == 3 else (1, *image_shape)
        self.image_size = math.prod(self.image_shape)
        if self.image_size > input_dim:
            raise ValueError(
                f"an image of {self.image_size} pixels {self.image_shape} does not fit into a context of "
                f"{input_dim} numbers; give the image_shape of the encoder"
            )
        maps, height, width = self.image_shape
        layers: list[nn.Module] = []
        for i, count in enumerate(channels):
            kernel = 5 if i == 0 else 3
            layers += [nn.Conv2d(maps, count, kernel, stride=2, padding=kernel // 2), _activation(activation)]
            maps, height, width = count, (height + 1) // 2, (width + 1) // 2
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.head = DenseNetwork(
            maps * height * width + input_dim - self.image_size,
            hidden_dims,
            output_dim,
            activation=activation,
            dropout=dropout,
        )
        self.output_dim = self.head.output_dim
        _initialise(self.features)

    def forward(self, context: Tensor) -> Tensor:
        batch = context.shape[:-1]
        image = context[..., : self.image_size].reshape(-1, *self.image_shape)
        extras = context[..., self.image_size :].reshape(image.shape[0], -1)
        out: Tensor = self.head(torch.cat([self.features(image), extras], -1))
        return out.reshape(*batch, -1)
