"""Cluster columns as standardised numbers of a context: needed ones, and ones that a model does without."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.catalog.arrays import segment_max, segment_sum
from bayesflowmass.common.arrays import FloatArray

OUTERMOST = "outermost"
"""Stands for the distance of the outermost galaxy [comoving Mpc/h]: how far a field reaches, where nobody says."""

MODE_VALUES = {"paper": 0.0, "survey": 1.0}
"""The column ``mode`` as a number; any other mode is one of these, but not known which."""


class _Columns(ABC):
    """Columns whose entries are (value - mean) / scale.

    Args:
        names: of cluster columns.
        constants: (mean, scale) of each; None until `fit`.

    Raises:
        ValueError: a name stands twice, or constants do not fit the names.
    """

    key: ClassVar[str]
    """What they are called in a description, where ``constants_key`` has their constants."""
    constants_key: ClassVar[str]

    def __init__(self, names: Sequence[str] = (), constants: Sequence[Sequence[float]] | None = None) -> None:
        self.names = tuple(names)
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"{self.key} columns: {', '.join(self.names)} holds a name twice")
        if constants is not None and len(constants) != len(self.names):
            raise ValueError(
                f"{self.key} columns: there are {len(self.names)} names but constants for {len(constants)}"
            )
        self._known_constants: tuple[tuple[float, float], ...] | None = None if self.names else ()
        if constants is not None:
            self._known_constants = tuple((float(mean), float(scale)) for mean, scale in constants)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def constants(self) -> tuple[tuple[float, float], ...]:
        """(mean, scale) of each column.

        Raises:
            ValueError: they are not set.
        """
        if self._known_constants is None:
            raise ValueError(
                f"constants of the columns {', '.join(self.names)} are not set; call fit_extras(training split)"
                " first"
            )
        return self._known_constants

    @abstractmethod
    def values(self, catalog: ClusterCatalog) -> FloatArray:
        """Values (n, len(names)).

        Raises:
            CatalogError: naming the column that cannot be used.
        """

    def fit(self, catalog: ClusterCatalog) -> None:
        """Take mean and standard deviation of the known values of each column from a training split.

        A column that does not vary keeps the scale 1.

        Raises:
            CatalogError: see `values`; or nothing is known of a column.
        """
        constants = []
        for name, values in zip(self.names, self.values(catalog).T, strict=True):
            known = values[np.isfinite(values)]
            if known.size == 0:
                raise CatalogError(
                    f"the column {name!r} is not known of any of {len(catalog)} training clusters; leave it out of"
                    f" the {self.key} columns, or let augmentation.known give it to a share of them"
                )
            mean, scale = float(known.mean()), float(known.std())
            constants.append((mean, scale if scale > 1e-12 * max(1.0, abs(mean)) else 1.0))
        self._known_constants = tuple(constants)

    def standardised(self, values: Tensor) -> Tensor:
        """(value - mean) / scale, float64, of values (n, len(names))."""
        constants = torch.tensor(self.constants, dtype=torch.float64, device=values.device)
        mean, scale = constants.reshape(-1, 2).T
        standard: Tensor = (values.to(mean) - mean) / scale
        return standard

    def describe(self) -> dict[str, Any]:
        """JSON-able description."""
        known = self._known_constants
        return {
            self.key: list(self.names),
            self.constants_key: None if known is None else [list(pair) for pair in known],
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """Inverse of `describe`."""
        return cls(description.get(cls.key, ()), description.get(cls.constants_key))


def _numeric(name: str, column: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if column.dtype.kind not in "fiub":
        raise CatalogError(f"column {name!r} is not numeric, so it cannot be part of a context")
    return column


class ExtraColumns(_Columns):
    """One entry of a context for each column, (value - mean) / scale; every cluster has it, `OUTERMOST` is measured."""

    key = "extras"
    constants_key = "extra_constants"

    def values(self, catalog: ClusterCatalog) -> FloatArray:
        values = np.empty((len(catalog), len(self.names)))
        for k, name in enumerate(self.names):
            if name == OUTERMOST:
                values[:, k] = segment_max(catalog.r_proj, catalog.offsets)
                continue
            if not catalog.has(name):
                raise CatalogError(
                    f"the catalogue has no column {name!r}, which the encoder needs beside the galaxies"
                )
            values[:, k] = _numeric(name, np.asarray(catalog.column(name)))
            if not np.isfinite(values[:, k]).all():
                row = int(np.flatnonzero(~np.isfinite(values[:, k]))[0])
                raise CatalogError(
                    f"cluster {catalog.column('cluster_id')[row]}: column {name!r} is {values[row, k]}, "
                    f"expected a finite number"
                )
        return values


class OptionalColumns(_Columns):
    """Two entries of a context for each column: ((value - mean) / scale, 1) where known, (0, 0) where not.

    A value is unknown where the column is missing, or is not finite. The column ``mode`` may be text
    (`MODE_VALUES`); without it the mode of the catalogue's metadata counts for all clusters. Without a column
    ``sigma_v_err`` the root mean square of the galaxies' ``gal_v_err`` takes its place, of those that are known;
    without ``abs_mag_limit`` the magnitude ``gal_abs_mag`` of the faintest galaxy; without ``cleaned`` the metadata say
    whether interlopers were removed (that they were not is never taken for granted).
    """

    key = "optional"
    constants_key = "optional_constants"

    @property
    def width(self) -> int:
        """Entries of a context."""
        return 2 * len(self.names)

    def values(self, catalog: ClusterCatalog) -> FloatArray:
        """Values (n, len(names)), NaN where unknown."""
        result = np.full((len(catalog), len(self.names)), np.nan)
        for k, name in enumerate(self.names):
            if catalog.has(name):
                column = np.asarray(catalog.column(name))
            elif name == "mode":
                column = np.full(len(catalog), catalog.metadata.mode or "")
            elif name == "cleaned":
                column = np.full(len(catalog), 1.0 if catalog.metadata.selection.get("cleaned") else np.nan)
            elif name == "sigma_v_err" and catalog.has("gal_v_err"):
                squares = np.square(catalog.galaxies("gal_v_err"), dtype=np.float64)
                known = np.isfinite(squares)
                total = segment_sum(np.where(known, squares, 0.0), catalog.offsets)
                count = segment_sum(known.astype(np.float64), catalog.offsets)
                column = np.where(count > 0.0, np.sqrt(total / np.maximum(count, 1.0)), np.nan)
            elif name == "abs_mag_limit" and catalog.has("gal_abs_mag"):
                faint = np.asarray(catalog.galaxies("gal_abs_mag"), dtype=np.float64)
                faintest = segment_max(np.where(np.isfinite(faint), faint, -np.inf), catalog.offsets)
                column = np.where(catalog.n_galaxies > 0, faintest, np.nan)
            else:
                continue
            if name == "mode" and column.dtype.kind == "U":
                column = np.array([MODE_VALUES.get(str(value), np.nan) for value in column])
            result[:, k] = _numeric(name, column)
        result[~np.isfinite(result)] = np.nan
        return result

    def encode(self, values: Tensor) -> Tensor:
        """Context entries (n, width), float64, of values (n, len(names)).

        Raises:
            ValueError: if constants are not set.
        """
        known = torch.isfinite(values)
        standard = torch.where(known, self.standardised(values), 0.0)
        return torch.stack([standard, known.to(standard)], -1).flatten(1)

    def replace(self, context: Tensor, name: str, value: float) -> Tensor:
        """Contexts (*, C), whose last entries are those of `encode`, as if ``name`` were known to be ``value``.

        Not finite means unknown.

        Raises:
            ValueError: if there is no such column, or constants are not set.
        """
        if name not in self.names:
            raise ValueError(f"{name!r} is not among the optional columns {', '.join(self.names)}")
        k = self.names.index(name)
        mean, scale = self.constants[k]
        known = math.isfinite(value)
        start = context.shape[-1] - self.width + 2 * k
        changed = context.clone()
        changed[..., start] = (value - mean) / scale if known else 0.0
        changed[..., start + 1] = float(known)
        return changed

    def known(self, context: Tensor, name: str) -> Tensor:
        """Of which clusters a column is known (*,), from their contexts (*, C)."""
        return context[..., context.shape[-1] - self.width + 2 * self.names.index(name) + 1].bool()

    def describe(self) -> dict[str, Any]:
        """JSON-able description; empty where there are no columns."""
        return super().describe() if self.names else {}
