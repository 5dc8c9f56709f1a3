"""Numbers of a cluster that stand in every context, such as the redshift."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.catalog.arrays import segment_max
from bayesflowmass.common.arrays import FloatArray

__all__ = ["ExtraColumns"]

OUTERMOST = "outermost"
"""Stands for the distance of the outermost galaxy [comoving Mpc/h]: how far a field reaches, where nobody says."""


class ExtraColumns:
    """Entries (value - mean) / scale of a context for each column.

    Args:
        names: of numeric cluster columns; `OUTERMOST` is measured.
        constants: (mean, scale) of each; None until `fit`.

    Raises:
        ValueError: constants do not fit the names.
    """

    def __init__(self, names: Sequence[str] = (), constants: Sequence[Sequence[float]] | None = None) -> None:
        self.names = tuple(names)
        self.constants: tuple[tuple[float, float], ...] | None = None if self.names else ()
        if constants is not None:
            if len(constants) != len(self.names):
                raise ValueError(
                    f"description of an encoder has {len(self.names)} extras but constants for {len(constants)}"
                )
            self.constants = tuple((float(mean), float(scale)) for mean, scale in constants)

    def __len__(self) -> int:
        return len(self.names)

    def values(self, catalog: ClusterCatalog) -> FloatArray:
        """Values (n, len(names)).

        Raises:
            CatalogError: if a column is missing, not numeric or not finite.
        """
        values = np.empty((len(catalog), len(self.names)))
        for k, name in enumerate(self.names):
            if name == OUTERMOST:
                values[:, k] = segment_max(catalog.r_proj, catalog.offsets)
                continue
            if not catalog.has(name):
                raise CatalogError(
                    f"the catalogue has no column {name!r}, which the encoder needs beside the galaxies"
                )
            column = np.asarray(catalog.column(name))
            if column.dtype.kind not in "fiub":
                raise CatalogError(f"column {name!r} is not numeric, so it cannot be part of a context")
            values[:, k] = column
            if not np.isfinite(values[:, k]).all():
                row = int(np.flatnonzero(~np.isfinite(values[:, k]))[0])
                raise CatalogError(
                    f"cluster {catalog.column('cluster_id')[row]}: column {name!r} is {values[row, k]}, "
                    f"expected a finite number"
                )
        return values

    def fit(self, catalog: ClusterCatalog) -> None:
        """Take the mean and the standard deviation of each column from a training split.

        A column that does not vary keeps the scale 1.

        Raises:
            CatalogError: see `values`; or there is no cluster.
        """
        constants = []
        for name, values in zip(self.names, self.values(catalog).T, strict=True):
            mean, scale = float(values.mean()), float(values.std())
            if not math.isfinite(mean):
                raise CatalogError(f"column {name!r} has no finite mean over {len(catalog)} clusters")
            constants.append((mean, scale if scale > 1e-12 * max(1.0, abs(mean)) else 1.0))
        self.constants = tuple(constants)

    def encode(self, values: Tensor) -> Tensor:
        """Context entries (n, len(names)), float64, of values of that shape.

        Raises:
            ValueError: if constants are not set.
        """
        if self.constants is None:
            raise ValueError(
                f"constants of the columns {', '.join(self.names)} are not set; call "
                f"fit_extras(training split) first"
            )
        mean, scale = torch.tensor(self.constants, dtype=torch.float64, device=values.device).reshape(-1, 2).T
        standard: Tensor = (values.to(mean) - mean) / scale
        return standard

    def describe(self) -> dict[str, Any]:
        """JSON-able description."""
        constants = None if self.constants is None else [list(pair) for pair in self.constants]
        return {"extras": list(self.names), "extra_constants": constants}

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> ExtraColumns:
        """Inverse of `describe`."""
        return cls(description["extras"], description["extra_constants"])
