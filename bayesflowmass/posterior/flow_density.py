"""The PDFs that flows give, averaged over draws of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.posterior.common_shape import CommonShape, look_at_shape
from bayesflowmass.posterior.density import Density
from bayesflowmass.posterior.draws import (
    Disagreement,
    DrawPosteriors,
    Look,
    draw_posteriors,
    gathered,
    mutual_information,
    tabulate_draws,
)
from bayesflowmass.posterior.tabulated import NODES, Tabulated, tabulate

# Values of a density evaluated at once: intermediates then stay in the cache of a core.
_AT_ONCE = 1 << 16
# Where a density is looked at first, in standard deviations of a normal one: beyond the outermost lies 1e-12.
_ABOVE = (0.5, 1.0, 1.5, 2.0, 2.6, 3.4, 4.3, 5.5, 7.03)
_LEVELS = (*(-level for level in reversed(_ABOVE)), 0.0, *_ABOVE)


class ConditionedDistribution(Protocol):
    """A distribution over log10 mass for each cluster: what a conditioned flow, or many draws of it, gives.

    `batch_shape` is (n,), or (draws, n) for an equally weighted mixture over draws of the weights of a
    network.
    """

    @property
    def batch_shape(self) -> torch.Size: ...

    def log_prob(self, value: Tensor) -> Tensor: ...

    def cdf(self, value: Tensor) -> Tensor: ...

    def icdf(self, value: Tensor) -> Tensor: ...


class _Some:
    """Some clusters of a conditioned distribution; the others are computed too, and thrown away."""

    def __init__(self, block: ConditionedDistribution, kept: Tensor) -> None:
        self.block, self.kept = block, kept
        self.batch_shape = torch.Size((*block.batch_shape[:-1], len(kept)))

    def log_prob(self, value: Tensor) -> Tensor:
        return self._of("log_prob", value)

    def cdf(self, value: Tensor) -> Tensor:
        return self._of("cdf", value)

    def icdf(self, value: Tensor) -> Tensor:
        return self._of("icdf", value)

    def log_prob_and_cdf(self, value: Tensor) -> tuple[Tensor, Tensor]:
        log_prob, cdf = _both(self.block, self._wide(value))
        return log_prob[..., self.kept], cdf[..., self.kept]

    def common_shape(self) -> tuple[ConditionedDistribution, Tensor, Tensor] | None:
        found = _common_shape(self.block)
        return found and (_Some(found[0], self.kept), found[1][:, self.kept], found[2][:, self.kept])

    def bends(self) -> Tensor | None:
        found = _bends(self.block)
        return None if found is None else found[..., self.kept]

    def _of(self, method: str, value: Tensor) -> Tensor:
        result: Tensor = getattr(self.block, method)(self._wide(value))[..., self.kept]
        return result

    def _wide(self, value: Tensor) -> Tensor:
        wide = value[..., [0]].repeat_interleave(self.block.batch_shape[-1], -1)
        wide[..., self.kept] = value
        return wide


class FlowDensity(Density):
    """The PDF that flows give: p(m) = 1/D sum_d p_d(m) over D draws of the weights (D = 1: a point model).

    Args:
        blocks: conditioned distributions of consecutive clusters, all (n_b,) or all (draws, n_b).
        n_nodes: of the table (`tabulate`).

    Raises:
        ValueError: the blocks are empty or their shapes disagree.
    """

    def __init__(self, blocks: Sequence[ConditionedDistribution], n_nodes: int = NODES) -> None:
        shapes = [tuple(block.batch_shape) for block in blocks]
        if not shapes or any(len(shape) not in (1, 2) for shape in shapes):
            raise ValueError(
                "A posterior needs distributions of batch shape (clusters,) or (draws, clusters); "
                f"found {shapes}."
            )
        if len({shape[:-1] for shape in shapes}) > 1:
            raise ValueError(f"All blocks of a posterior need the same number of draws; found {shapes}.")
        self.blocks = tuple(blocks)
        self.n_nodes = n_nodes
        self.sizes = [shape[-1] for shape in shapes]
        self._n_draws = shapes[0][0] if len(shapes[0]) == 2 else None

    @property
    def n_clusters(self) -> int:
        return sum(self.sizes)

    @property
    def n_draws(self) -> int | None:
        return self._n_draws

    def parts(self) -> Iterator[tuple[FlowDensity, slice]]:
        """The density of each block, and the clusters it holds."""
        start = 0
        for block, size in zip(self.blocks, self.sizes, strict=True):
            yield FlowDensity([block], self.n_nodes), slice(start, start + size)
            start += size

    def part(self, rows: Tensor) -> FlowDensity:
        """As `Density.part`; rows that go up and down between the blocks make many small blocks."""
        starts = torch.tensor([0, *self.sizes]).cumsum(0)
        owner = torch.searchsorted(starts, rows, right=True) - 1
        runs = torch.unique_consecutive(owner, return_counts=True)
        blocks = [
            _Some(self.blocks[block], kept - starts[block])
            for block, kept in zip(runs[0].tolist(), rows.split(runs[1].tolist()), strict=True)
        ]
        return FlowDensity(blocks, self.n_nodes)

    def log_pdf(self, x: Tensor) -> Tensor:
        return self._evaluate(x, "log_prob")

    def cdf(self, x: Tensor) -> Tensor:
        return self._evaluate(x, "cdf")

    def log_pdf_and_cdf(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_pdf, cdf = self._evaluate(x, "log_prob_and_cdf").unbind()
        return log_pdf, cdf

    def draw_log_pdf_and_cdf(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """ln of the density and the cdf of each draw, (k, n) -> (k, D, n); a point model has D = 1."""
        log_pdf, cdf = self._evaluate(x, "log_prob_and_cdf", average=False).unbind()
        return (log_pdf[:, None], cdf[:, None]) if self.n_draws is None else (log_pdf, cdf)

    @property
    def table(self) -> Tabulated:
        return self.look.table

    @property
    def moments(self) -> tuple[Tensor, Tensor]:
        return self.look.mean, self.look.variance

    @cached_property
    def look(self) -> Look:
        """Table and moments, from one look at each block."""
        return gathered(part._looked_at() for part, _ in self.parts())

    @torch.no_grad()
    def _looked_at(self) -> Look:
        """Of one block."""
        if self.n_draws is None:
            table = tabulate(self, n_nodes=self.n_nodes)
            return Look(table, *table.moments(), None)
        common = _common_shape(self.blocks[0])
        if common is None:
            return tabulate_draws(self, n_nodes=self.n_nodes)
        shape, *affine = common
        loc, scale = (part.to(device="cpu", dtype=torch.float64) for part in affine)
        return look_at_shape(CommonShape(FlowDensity([shape]), loc, scale), self.n_nodes)

    def quantile(self, p: Tensor) -> Tensor:
        """Single flows answer with their own exact inverse; that of a mixture is polished on its exact cdf."""
        if self.n_draws is None:
            return self._evaluate(p, "icdf")
        return self.polished(super().quantile(p), p)

    @property
    def disagreement(self) -> Disagreement | None:
        return self.look.disagreement

    @cached_property
    def mutual_information(self) -> FloatArray | None:
        return mutual_information(self, self.table)

    def of_draws(self, at: Tensor | None = None) -> DrawPosteriors:
        return draw_posteriors(self, self.table.x, at=at)

    def window(self) -> tuple[Tensor, Tensor]:
        x, _ = self.sketch()
        return x[0], x[-1]

    def sketch(self) -> tuple[Tensor, Tensor]:
        """Quantiles averaged over the draws; the outermost of all of them at the ends."""
        p = torch.special.ndtr(torch.tensor(_LEVELS, dtype=torch.float64))[:, None].expand(
            -1, self.n_clusters
        )
        x = self._evaluate(p, "icdf", average=False)
        if self.n_draws is not None:
            x = torch.cat([x[:1].amin(1), x[1:-1].mean(1), x[-1:].amax(1)])
        return x, p

    @torch.no_grad()
    def bends(self) -> Tensor | None:
        """Those of point models; over draws they are many, and small."""
        found = [_bends(block) for block in self.blocks if self.n_draws is None]
        known = [one.to(device="cpu", dtype=torch.float64) for one in found if one is not None]
        return torch.cat(known, -1) if known and len(known) == len(found) else None

    def _evaluate(self, x: Tensor, method: str, average: bool = True) -> Tensor:
        x = x.to(torch.float64).expand(-1, self.n_clusters)
        return torch.cat(
            [
                self._evaluate_block(block, part, method, average)
                for block, part in zip(self.blocks, x.split(self.sizes, dim=-1), strict=True)
            ],
            dim=-1,
        )

    @torch.no_grad()
    def _evaluate_block(
        self, block: ConditionedDistribution, x: Tensor, method: str, average: bool
    ) -> Tensor:
        values = x.unsqueeze(1).expand(-1, *block.batch_shape) if self.n_draws is not None else x
        rows = max(1, _AT_ONCE // max(1, block.batch_shape.numel()))
        mixed = self.n_draws is not None and average
        results = []
        for chunk in values.split(rows):
            if method == "log_prob_and_cdf":
                log_pdf, cdf = (part.to(device="cpu", dtype=torch.float64) for part in _both(block, chunk))
                if mixed:
                    log_pdf, cdf = _average(log_pdf, log=True), _average(cdf, log=False)
                results.append(torch.stack([log_pdf, cdf]))
                continue
            result = getattr(block, method)(chunk).to(device="cpu", dtype=torch.float64)
            results.append(_average(result, log=method == "log_prob") if mixed else result)
        return torch.cat(results, dim=1 if method == "log_prob_and_cdf" else 0)


def _both(block: ConditionedDistribution, x: Tensor) -> tuple[Tensor, Tensor]:
    """log_prob and cdf, in one pass where the distribution has one."""
    together: Callable[[Tensor], tuple[Tensor, Tensor]] | None = getattr(block, "log_prob_and_cdf", None)
    return (block.log_prob(x), block.cdf(x)) if together is None else together(x)


def _common_shape(block: ConditionedDistribution) -> tuple[ConditionedDistribution, Tensor, Tensor] | None:
    """`MassDistribution.common_shape`, where the distribution has that."""
    found: tuple[ConditionedDistribution, Tensor, Tensor] | None = getattr(
        block, "common_shape", lambda: None
    )()
    return found


def _bends(block: ConditionedDistribution) -> Tensor | None:
    """`MassDistribution.bends`, where the distribution has that."""
    found: Tensor | None = getattr(block, "bends", lambda: None)()
    return found


def _average(values: Tensor, log: bool) -> Tensor:
    """Mean over draws (dimension 1) of values, or of exp(values), as a logarithm."""
    if not log:
        return values.mean(1)
    return values.logsumexp(1) - torch.log(torch.tensor(float(values.shape[1]), dtype=values.dtype))
