"""Standard normal numbers, made on all cores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from bayesflowmass.bayes.substitution import is_traced
from bayesflowmass.common.threads import pool

# Numbers per block of a long vector of noise. Each block has a generator of its own: torch fills a tensor
# with normal numbers on one core only.
BLOCK = 1 << 16


def standard_normal(shape: Sequence[int], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """N(0, 1) noise of this shape, in the type and on the device of ``like``.

    The numbers do not depend on the number of threads.
    """
    noise = torch.empty(tuple(shape), dtype=like.dtype, device=like.device)
    if is_traced():
        # The seeds of blocks would be constants of the graph.
        return torch.randn(tuple(shape), dtype=like.dtype, device=like.device)
    if noise.is_cuda or noise.numel() <= BLOCK:
        return noise.normal_(generator=generator)
    blocks = noise.view(-1).split(BLOCK)
    seeds = torch.randint(1 << 62, (len(blocks),), generator=generator).tolist()

    def fill(block: Tensor, seed: int) -> None:
        block.normal_(generator=torch.Generator().manual_seed(seed))

    on_all_cores(fill, blocks, seeds)
    return noise


def on_all_cores(work: Callable[..., None], *parts: Iterable[object]) -> None:
    """``work(*each)`` for each of the parts, without gradient, on as many threads as torch may use."""

    def one(*each: object) -> None:
        with torch.no_grad():
            work(*each)

    workers = torch.get_num_threads()
    # Alone, a thread of the pool would only cost time.
    over = map if workers == 1 else pool(workers).map
    list(over(one, *parts))
