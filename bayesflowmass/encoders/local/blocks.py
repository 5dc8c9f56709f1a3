"""A large cluster cut into blocks of neighbours, and which blocks a kernel reaches from which."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Edges = list[tuple[int, int]]


def blocks_of(points: Tensor, widths: Sequence[tuple[float, float]], size: int) -> tuple[Tensor, Edges]:
    """Halve a cluster across its longest side until no block has more than ``size`` galaxies.

    Args:
        points: (n, 3) x, y [Mpc/h] and v [km/s].
        widths: of the kernels [Mpc/h, km/s]; sides are compared in units of the smallest.
        size: galaxies of a block at most.

    Returns:
        The order (n,) in which each block is contiguous, on the device of the points, and (first, last + 1) of each.
    """
    r, s = (min(width[axis] for width in widths) for axis in range(2))
    scaled = points.cpu().double() / torch.tensor([r, r, s], dtype=torch.float64)
    blocks: list[Tensor] = []

    def halve(index: Tensor) -> None:
        if len(index) <= size:
            blocks.append(index)
            return
        mine = scaled[index]
        longest = int((mine.amax(0) - mine.amin(0)).argmax())
        in_order = index[torch.argsort(mine[:, longest], stable=True)]
        for half in in_order.tensor_split(2):
            halve(half)

    halve(torch.arange(len(points)))
    stops = torch.tensor([len(block) for block in blocks]).cumsum(0).tolist()
    return torch.cat(blocks).to(points.device), list(zip([0, *stops[:-1]], stops, strict=True))


def near_blocks(points: Tensor, edges: Edges, widths: Sequence[tuple[float, float]]) -> Tensor:
    """Which pairs of blocks are near enough for a kernel to matter: (K, n_blocks, n_blocks), on the CPU.

    All kernels that are passed over at a galaxy, times the squared distance, add less than the rounding of 1 (in
    units of the kernel's width): at a distance T each is below T^2 exp(-T^2 / 2), and T^2 / 2 = ln(100 n / eps).

    Args:
        points: (n, 3), block after block.
        edges: of the blocks.
        widths: of the kernels.
    """
    reach = 2.0 * math.log(100.0 * len(points) / torch.finfo(points.dtype).eps)
    on_host = points.cpu().double()
    low = torch.stack([on_host[start:stop].amin(0) for start, stop in edges])
    high = torch.stack([on_host[start:stop].amax(0) for start, stop in edges])
    gap = (low[:, None] - high).clamp_min(0.0) + (low - high[:, None]).clamp_min(0.0)
    units = torch.tensor([[r, r, s] for r, s in widths], dtype=torch.float64)
    return (gap / units[:, None, None]).square().sum(-1) < reach
