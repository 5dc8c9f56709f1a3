"""The networks that turn a context into the parameters of a flow block."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


def make_activation(name: str) -> nn.Module:
    """
    The activation of that name.

    Raises:
        ValueError: if it is no key of ``ACTIVATIONS``.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}; choose one of {', '.join(sorted(ACTIVATIONS))}")
    return ACTIVATIONS[name]()


def initialise(module: nn.Module) -> None:
    """Glorot's uniform weights and zero biases: what the tanh networks of the paper start from."""
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

    Args:
        input_dim: C.
        hidden_dims: Widths of the hidden layers; may be empty.
        output_dim: P, or None to end after the last hidden layer's activation (a trunk).
        activation: A key of ``ACTIVATIONS``.
        dropout: Probability of dropping a hidden unit while training.
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
            layers += [nn.Linear(width, hidden), make_activation(activation)]
            if dropout:
                layers.append(nn.Dropout(dropout))
            width = hidden
        if output_dim is not None:
            layers.append(nn.Linear(width, output_dim))
            width = output_dim
        super().__init__(*layers)
        self.output_dim = width
        initialise(self)
