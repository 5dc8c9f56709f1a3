"""A convolutional network over the image that opens a context."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bayesflowmass.networks.dense import DenseNetwork, initialise, make_activation

ALL = "all"
"""Extent of a kernel that takes in a whole axis of the image and leaves one pixel of it."""

Extent = int | str
Pair = Extent | Sequence[Extent]


class ConvNetwork(nn.Module):
    """
    A convolutional network over the image part of a context, (*B, C) -> (*B, P).

    The first ``channels * height * width`` numbers of the context are an image; what follows (redshift,
    richness) joins the flattened feature maps before the dense layers. Convolutions keep the size of the image
    (zeros around it). By default each has a stride of two; with ``pooling`` the largest of so many neighbours is
    kept instead.

    For the images of our encoders height is R_proj and width v_los. A kernel ``("all", 5)`` slides along v_los
    only, with weights of its own for every R_proj.

    Args:
        input_dim: C.
        image_shape: (height, width) or (channels, height, width).
        channels: Feature maps of each convolution.
        hidden_dims: Widths of the dense layers that follow.
        output_dim: P, or None to end after the last hidden layer's activation (a trunk).
        kernels: Extent of each convolution: an odd number, or "all", or a pair of them, (height, width);
            5 for the first and 3 for all others by default.
        pooling: Neighbours to pool after each convolution: a number or a pair; None for strides of two.
        activation: A key of ``ACTIVATIONS``.
        dropout: Probability of dropping a hidden unit of the dense layers while training.

    Raises:
        ValueError: if the image does not fit into the context, or a layer does not fit the image.
    """

    def __init__(
        self,
        input_dim: int,
        image_shape: Sequence[int],
        channels: Sequence[int],
        hidden_dims: Sequence[int],
        output_dim: int | None,
        *,
        kernels: Sequence[Pair] | None = None,
        pooling: Sequence[int | Sequence[int]] | None = None,
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
        if kernels is None:
            kernels = [5, *[3] * (len(channels) - 1)]
        for name, given in (("kernels", kernels), ("pooling", pooling)):
            if given is not None and len(given) != len(channels):
                raise ValueError(
                    f"{name} has {len(given)} entries and channels {len(channels)}; give one for each convolution"
                )
        maps, *size = self.image_shape
        layers: list[nn.Module] = []
        for i, count in enumerate(channels):
            kernel = [_extent(e, s) for e, s in zip(_pair(kernels[i], "kernels"), size, strict=True)]
            # A kernel over all of an axis has nowhere to slide; any other keeps the size.
            whole = [e == ALL for e in _pair(kernels[i], "kernels")]
            padding = [0 if all_of_it else k // 2 for k, all_of_it in zip(kernel, whole, strict=True)]
            stride = 2 if pooling is None else 1
            layers += [
                nn.Conv2d(maps, count, (kernel[0], kernel[1]), stride, (padding[0], padding[1])),
                make_activation(activation),
            ]
            size = [(s + 2 * p - k) // stride + 1 for s, p, k in zip(size, padding, kernel, strict=True)]
            if pooling is not None:
                window = _window(pooling[i], size)
                if window != (1, 1):
                    layers.append(nn.MaxPool2d(window))
                size = [s // w for s, w in zip(size, window, strict=True)]
            maps = count
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.head = DenseNetwork(
            maps * size[0] * size[1] + input_dim - self.image_size,
            hidden_dims,
            output_dim,
            activation=activation,
            dropout=dropout,
        )
        self.output_dim = self.head.output_dim
        initialise(self.features)

    def forward(self, context: Tensor) -> Tensor:
        batch = context.shape[:-1]
        image = context[..., : self.image_size].reshape(-1, *self.image_shape)
        extras = context[..., self.image_size :].reshape(image.shape[0], -1)
        out: Tensor = self.head(torch.cat([self.features(image), extras], -1))
        return out.reshape(*batch, -1)


def _pair(given: Pair, name: str) -> tuple[Extent, Extent]:
    if isinstance(given, int | str):
        return given, given
    if len(given) != 2:
        raise ValueError(f"an entry of {name} is one extent or (height, width), not {tuple(given)}")
    return given[0], given[1]


def _extent(extent: Extent, size: int) -> int:
    """Pixels of a kernel along an axis of so many."""
    if extent == ALL:
        return size
    if not isinstance(extent, int) or extent < 1 or extent % 2 == 0:
        raise ValueError(f"an extent of a kernel is an odd number of pixels or '{ALL}', not {extent!r}")
    return extent


def _window(given: int | Sequence[int], size: Sequence[int]) -> tuple[int, int]:
    height, width = _pair(given, "pooling")
    for window, available in zip((height, width), size, strict=True):
        if not isinstance(window, int) or not 1 <= window <= available:
            raise ValueError(
                f"pooling over {window!r} pixels does not fit an image that has {available} left"
            )
    assert isinstance(height, int)
    assert isinstance(width, int)
    return height, width
