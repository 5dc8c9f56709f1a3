"""What a model is made of, read from the modules themselves: layers, widths, parameters, random weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from bayesflowmass.estimator import MassEstimator
from bayesflowmass.flows import (
    ConditionalAffine,
    ConditionalGaussianMixture,
    ConditionalMonotoneSpline,
    Standardisation,
)


@dataclass(frozen=True)
class Layer:
    """One layer with weights, and what follows it without any.

    Attributes:
        what: such as ``"dense"`` or ``"conv 5 x 5 / 2"``.
        width: units or feature maps that it gives.
        after: activation, dropout and the like, in order.
        n_parameters: of weights and biases.
        random: "all" of them have a posterior, "some" or "none".
    """

    what: str
    width: int
    after: tuple[str, ...]
    n_parameters: int
    random: str


@dataclass(frozen=True)
class Block:
    """One step from log10 M to the base distribution.

    Attributes:
        name: of the transform, or of the base distribution.
        formula: what it does to its input u, in mathtext; empty where a picture would be needed.
        detail: numbers that fix its shape.
        network: layers of its own, from the features of the trunk to its parameters; empty where it has none.
    """

    name: str
    formula: str
    detail: str
    network: tuple[Layer, ...]


@dataclass(frozen=True)
class ModelLayout:
    """A model from the galaxies to p(log10 M).

    Attributes:
        inputs: what the encoder reads of each galaxy or cluster, in mathtext.
        encoders: one line for each image, or for each stage of an encoder with weights.
        encoder_layers: weights of the encoder.
        context: what joins the images to the context, with its length.
        trunk: layers that all blocks share.
        blocks: from log10 M to the base, in the direction of the density; the base is the last.
        n_parameters: of encoder and flow.
        n_random: of them, those with a posterior.
        method: of the posterior of the weights; None for a point model.
    """

    inputs: str
    encoders: tuple[str, ...]
    encoder_layers: tuple[Layer, ...]
    context: str
    trunk: tuple[Layer, ...]
    blocks: tuple[Block, ...]
    n_parameters: int
    n_random: int
    method: str | None


_SYMBOLS = {"r_proj": r"R_\mathrm{proj}", "v_los": r"v_\mathrm{los}", "x": "x", "y": "y"}


def model_layout(estimator: MassEstimator) -> ModelLayout:
    """The layout of a model, from its modules; nothing is assumed from its configuration."""
    encoder, flow, weights = estimator.encoder, estimator.flow, estimator.weights
    names: frozenset[str] = frozenset(weights.names) if weights is not None else frozenset()
    # From log10 M down to the base: the last transform acts first.
    paths = [f"transforms.{i}" for i in reversed(range(len(flow.transforms)))] + ["base_dist"]
    blocks = [
        _block(
            flow.get_submodule(path), tuple(_layers(flow.get_submodule(f"{path}.nn"), f"{path}.nn", names))
        )
        for path in paths
    ]
    inputs, encoders, context = _encoder(encoder)
    total = sum(p.numel() for module in (encoder, flow) for p in module.parameters())
    return ModelLayout(
        inputs=inputs,
        encoders=encoders,
        encoder_layers=tuple(_layers(encoder, "", frozenset())),
        context=context,
        trunk=tuple(_layers(flow.trunk, "trunk", names)),
        blocks=tuple(blocks),
        n_parameters=total,
        n_random=sum(p.numel() for name, p in flow.named_parameters() if name in names),
        method=None if weights is None else weights.method,
    )


def _layers(module: nn.Module, prefix: str, random: Collection[str]) -> Iterator[Layer]:
    """Layers with weights in the order of registration, which is the order in which they act."""
    held: Layer | None = None
    for name, part in module.named_modules():
        own = dict(part.named_parameters(recurse=False))
        if own:
            if held is not None:
                yield held
            path = ".".join(p for p in (prefix, name) if p)
            what, width = _named(part, own)
            chosen = sum(f"{path}.{key}" in random if path else key in random for key in own)
            held = Layer(
                what,
                width,
                (),
                sum(p.numel() for p in own.values()),
                "none" if chosen == 0 else "all" if chosen == len(own) else "some",
            )
        elif held is not None and not any(True for _ in part.children()):
            text = _without_weights(part)
            held = replace(held, after=(*held.after, text) if text else held.after)
    if held is not None:
        yield held


def _named(part: nn.Module, own: dict[str, Tensor]) -> tuple[str, int]:
    if isinstance(part, nn.Linear):
        return "dense", part.out_features
    if isinstance(part, nn.Conv2d | nn.Conv3d):
        size = r"$\times$".join(str(k) for k in part.kernel_size)
        stride = part.stride[0] if isinstance(part.stride, tuple) else part.stride
        return f"conv {size}" + (f", stride {stride}" if stride != 1 else ""), part.out_channels
    first = next(iter(own.values()))
    return type(part).__name__, int(first.shape[0]) if first.ndim else 1


def _without_weights(part: nn.Module) -> str:
    if isinstance(part, nn.Dropout):
        return f"drop {part.p:g}"
    name = type(part).__name__
    return {"Identity": "", "NoParameters": "", "Tanh": "tanh", "Flatten": "flatten"}.get(name, name)


def _block(block: nn.Module, network: tuple[Layer, ...]) -> Block:
    if isinstance(block, ConditionalAffine):
        return Block("affine", r"$u \to (u - \mu)\,/\,\sigma$", "", network)
    if isinstance(block, ConditionalMonotoneSpline):
        detail = f"{block.count_bins} pieces in $|u| < {block.bound:g}$"
        return Block("spline", r"$u \to g(u)$, increasing", detail, network)
    if isinstance(block, Standardisation):
        scale = block.transform
        return Block("standardise", rf"$u = (\log_{{10}} M - {scale.loc:.2f})\,/\,{scale.scale:.2f}$", "", ())
    if isinstance(block, ConditionalGaussianMixture):
        return Block("base: mixture", r"$u \sim \Sigma_k w_k N(\mu_k, \sigma_k^2)$",
                     f"{block.components} Gaussians", network)  # fmt: skip
    return Block("base: normal", r"$u \sim N(0, 1)$", "", network)


def _encoder(encoder: Any) -> tuple[str, tuple[str, ...], str]:
    """Inputs, lines for the images, and the line for the context."""
    columns = getattr(encoder, "galaxy_columns", ())
    inputs = ", ".join(_SYMBOLS.get(c, rf"\mathrm{{{c}}}".replace("_", r"\_")) for c in columns)
    inputs = f"galaxies $({inputs})$" if inputs else "galaxies"
    length = f"context: {encoder.context_dim} numbers"
    # Encoders of other kinds are drawn by their name and their layers.
    kdes = getattr(encoder, "kdes", None)
    if kdes is None:
        return inputs, (type(encoder).__name__,), length
    lines = []
    for kde in kdes:
        size = r"$\times$".join(str(n) for n in kde.grid.shape)
        power = r"h_0\Sigma" if kde.convention == "covariance" else r"h_0^2\Sigma"
        lines.append(f"KDE {size}\n$H = {power}$\n$h_0 = {kde.h0:.3g}$")
    scaling = {
        "mean": rf"${encoder.constant:g}\,p$",
        "sqrt": rf"$\sqrt{{{encoder.constant:g}\,p}}$",
        "log1p_richness": rf"$\ln(1 + {encoder.constant:g}\,N p)$",
    }.get(str(encoder.scaling), str(encoder.scaling))
    extras = f", with {', '.join(encoder.extras)}" if encoder.extras else ""
    return inputs, tuple(lines), f"{length}: pixels {scaling}{extras}"
