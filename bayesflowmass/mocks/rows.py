"""Arrays that describe the same things, chosen from and joined together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


class Rows:
    """Base of dataclasses of arrays whose last axis counts the same things: (3, n) vectors, (n,) numbers."""

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {item.name: getattr(self, item.name) for item in fields(self)}  # type: ignore[arg-type]

    def __len__(self) -> int:
        return int(next(iter(self._arrays().values())).shape[-1])

    def take(self, chosen: NDArray[Any]) -> Self:
        """Those that a mask or indices choose."""
        return type(self)(**{name: values[..., chosen] for name, values in self._arrays().items()})

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """All of several sets, one after another."""
        arrays = [part._arrays() for part in parts]
        return cls(**{name: np.concatenate([a[name] for a in arrays], axis=-1) for name in arrays[0]})
