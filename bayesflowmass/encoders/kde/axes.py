"""Nodes of one axis of a grid, cut into blocks within which exponentials are products.

With x = y + z, y the middle of a block of nodes and z the place within it, the same for all blocks, the
exponential of a square is a product of one for each block, one for each place and one that knows the grid alone:

    -(x - c)^2 / 2  =  -(y - c)^2 / 2  +  z c  -  (x^2 - y^2) / 2

50 bins in blocks of five need 15 exponentials of a galaxy's centre c instead of 50.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from bayesflowmass.encoders.kde.grid import Grid


@dataclass(frozen=True)
class ScaledAxis:
    """One axis in units of the widths of B kernels.

    Attributes:
        nodes: (B, n) x.
        coarse: (B, n_blocks) y; the nodes themselves without blocks.
        fine: (B, n_places) z, or None without blocks.
        from_blocks: (B, n) -(x^2 - y^2) / 2, or None without blocks.
    """

    nodes: Tensor
    coarse: Tensor
    fine: Tensor | None
    from_blocks: Tensor | None

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return self.nodes.shape[1]

    def __getitem__(self, kernels: slice) -> ScaledAxis:
        fine, from_blocks = (x if x is None else x[kernels] for x in (self.fine, self.from_blocks))
        return ScaledAxis(self.nodes[kernels], self.coarse[kernels], fine, from_blocks)


class AxisNodes:
    """Nodes of an axis in its own units, relative to the middle of the grid or of a tile of it.

    Args:
        nodes: (n,) float64, increasing; with blocks, every block alike (the last may be cut short).
        in_block: nodes of a block; 1 for no blocks.
    """

    def __init__(self, nodes: Tensor, in_block: int) -> None:
        self.nodes = nodes
        self.half = float(nodes.abs().max())
        self.in_block = in_block
        self._parts: tuple[Tensor, ...] = (nodes,)
        self._from_blocks = nodes
        if in_block != 1:
            first = nodes[:in_block]
            middle = first.mean()
            coarse = nodes[::in_block] + (middle - first[0])
            self._parts = (nodes, coarse, first - middle)
            self._from_blocks = 0.5 * (coarse.repeat_interleave(in_block)[: len(nodes)] ** 2 - nodes**2)
        self._joined = torch.cat(self._parts)

    def __len__(self) -> int:
        return len(self.nodes)

    def split(self, size: int) -> list[AxisNodes]:
        """Parts of that many nodes, a multiple of those of a block."""
        return [AxisNodes(part, self.in_block) for part in self.nodes.split(size)]

    def scaled(self, width: Tensor, dtype: torch.dtype) -> ScaledAxis:
        """The axis divided by the widths (B,) float64 of B kernels."""
        per_width = 1.0 / width[:, None]
        joined = (self._joined * per_width).to(dtype)
        if self.in_block == 1:
            return ScaledAxis(joined, joined, None, None)
        nodes, coarse, fine = joined.split([len(part) for part in self._parts], 1)
        return ScaledAxis(nodes, coarse, fine, (self._from_blocks * per_width**2).to(dtype))


@lru_cache(maxsize=256)
def grid_axes(
    grid: Grid, orders: tuple[int, ...], blocks: tuple[int, ...], device: torch.device
) -> tuple[AxisNodes, ...]:
    """Axes of a grid relative to its middle, with that many nodes a bin and nodes a block."""
    # Outside inference mode, because they are kept for calls that may need gradients.
    with torch.inference_mode(False):
        return tuple(
            AxisNodes((grid.nodes(d, order) - grid.middle[d]).to(device), in_block)
            for d, (order, in_block) in enumerate(zip(orders, blocks, strict=True))
        )
