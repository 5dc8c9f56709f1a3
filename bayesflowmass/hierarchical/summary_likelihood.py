"""The likelihood of what a model makes of a cluster, p(t | log10 mass, theta), theta what nobody knows of the sky."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from bayesflowmass.flows import ConditionalFlow, build_flow

_HIDDEN = (32, 32)
_BATCH = 512
_LEARNING_RATE = 5e-3
# The weights that are kept are the best of every so many updates for a tenth of the mocks: what a network knows by
# heart, a survey of a hundred clusters takes for a measurement a hundred times.
_LOOK, _HELD_OUT = 50, 10
# A quarter of them leaves 0.04 nats a cluster behind (docs/results/calibrate.md).
N_UPDATES = 12000


class SummaryLikelihood(nn.Module):
    r"""ln p(t | m, theta, z) of summaries t of a cluster of log10 mass m at redshift z.

    A product of flows of one number each, three Gaussians whose parameters a network gives:

        p(t | m, theta, z) = p(t_1 | m, theta, z) p(t_2 | t_1, m, theta, z) ...

    t_1 is ln N, N the number of galaxies, so that a cut in N is an integral of the first factor. That factor is learnt
    from all mocks, the others from those with at least ``least`` galaxies: given N the cut says nothing more.

    References:
        Alsing, Wandelt & Feeney 2018, arXiv:1801.01497 (likelihoods of learned summaries).

    Args:
        priors: ``{parameter: (low, high)}`` of theta: the range that the mocks fill, beyond which nothing was learnt.
        least: fewest galaxies of a cluster.
        log10_mass_range: of the mocks.
        inputs: (mean, scale) of m, theta, ln(1 + z) and t, by which networks see them.
        seed: of the initial weights.
    """

    def __init__(
        self,
        priors: Mapping[str, Sequence[float]],
        least: int,
        log10_mass_range: Sequence[float],
        inputs: Sequence[Sequence[float]],
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.priors = {name: (float(low), float(high)) for name, (low, high) in priors.items()}
        self.least = least
        self.log10_mass_range = (float(log10_mass_range[0]), float(log10_mass_range[1]))
        self._inputs = [[float(mean), float(scale)] for mean, scale in inputs]
        self._seed = seed
        first = 2 + len(self.priors)
        self.flows = nn.ModuleList(
            build_flow("mixture", first + k, *self._inputs[first + k], shared=True, hidden=_HIDDEN,
                       activation="silu", seed=seed + k)
            for k in range(len(self._inputs) - first)
        )  # fmt: skip

    def describe(self) -> dict[str, Any]:
        """The arguments that make this again; JSON-able."""
        return {
            "priors": {name: list(limits) for name, limits in self.priors.items()},
            "least": self.least,
            "log10_mass_range": list(self.log10_mass_range),
            "inputs": self._inputs,
            "seed": self._seed,
        }

    def forward(
        self, t: Tensor, redshift: Tensor, log10_mass: Tensor, theta: Tensor, least: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """ln p(t | m, theta, z) and ln P(N >= least | m, theta, z).

        Args:
            t: (*B, K).
            redshift, log10_mass: (*B,), or what broadcasts to it.
            theta: (*B, P), or what broadcasts to it.
            least: fewest galaxies of a cluster, not below that of the mocks, which is the default.
        """
        shape = torch.broadcast_shapes(t.shape[:-1], redshift.shape, log10_mass.shape, theta.shape[:-1])
        parts = (log10_mass[..., None], theta, redshift.log1p()[..., None], t)
        rows = torch.cat([part.expand(*shape, part.shape[-1]) for part in parts], -1)
        mean, scale = torch.tensor(self._inputs, dtype=rows.dtype).T
        context = ((rows - mean) / scale).float()
        first = rows.shape[-1] - t.shape[-1]
        total = passed = rows.new_zeros(())
        for k, flow in enumerate(self._flows):
            density = flow.condition(context[..., : first + k], rows.dtype)
            total = total + density.log_prob(rows[..., first + k])
            if k == 0:
                passed = density.log_sf(rows.new_tensor(math.log((least or self.least) - 0.5)))
        return total, passed

    @property
    def _flows(self) -> list[ConditionalFlow]:
        return [flow for flow in self.flows if isinstance(flow, ConditionalFlow)]

    @classmethod
    def fit(
        cls,
        t: Tensor,
        redshift: Tensor,
        log10_mass: Tensor,
        theta: Tensor,
        *,
        priors: Mapping[str, Sequence[float]],
        least: int,
        log10_mass_range: Sequence[float],
        n_updates: int = N_UPDATES,
        seed: int = 0,
        progress: bool = False,
    ) -> SummaryLikelihood:
        """Learn it from mocks.

        Args:
            t: summaries (n, K), NaN but for ln N where a mock has fewer than ``least`` galaxies.
            redshift, log10_mass: (n,).
            theta: (n, P), in the order of ``priors``.
            priors, least, log10_mass_range: see the class.
            n_updates: of the weights, 512 mocks each.
            seed: of weights and batches.
            progress: show a bar on standard error.

        Raises:
            ValueError: too few mocks have ``least`` galaxies.
        """
        enough = t.isfinite().all(1)
        if int(enough.sum()) < _BATCH:
            raise ValueError(
                f"{int(enough.sum())} of {len(t)} mocks have {least} galaxies or more; a likelihood is learnt from"
                f" {_BATCH} at least: take more mocks, or a lower limit."
            )
        count = t[:, 0].exp()
        t = torch.where(
            enough[:, None], t, torch.cat([t[:, :1], t[enough, 1:].mean(0).expand(len(t), -1)], 1)
        )
        known = torch.cat([log10_mass[:, None], theta, redshift.log1p()[:, None], t], 1)
        inputs = [(float(x.mean()), max(float(x.std()), 1e-3)) for x in known.T]
        model = cls(priors, least, log10_mass_range, inputs, seed)
        mean, scale = torch.tensor(inputs, dtype=known.dtype).T
        generator = torch.Generator().manual_seed(seed)
        # Whole numbers become a density.
        first = known.shape[1] - t.shape[1]
        held_out = torch.arange(len(t)) % _HELD_OUT == 0

        def loss_of(rows: Tensor) -> Tensor:
            batch = known[rows].clone()
            smooth = torch.rand(len(batch), generator=generator, dtype=batch.dtype) - 0.5
            batch[:, first] = (count[rows] + smooth).log()
            context, loss = ((batch - mean) / scale).float(), torch.zeros(())
            for k, flow in enumerate(model._flows):
                log_p = flow.log_prob(batch[:, first + k].float(), context[:, : first + k])
                loss = loss - (log_p if k == 0 else log_p * enough[rows]).mean()
            return loss

        optimizer = torch.optim.AdamW(model.parameters(), _LEARNING_RATE, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, n_updates)
        judged, learnt = held_out.nonzero()[:, 0], (~held_out).nonzero()[:, 0]
        best, kept = math.inf, model.state_dict()
        bar = tqdm(
            range(1, n_updates + 1), disable=not progress, desc="likelihood", file=sys.stderr, leave=False
        )
        for update in bar:
            optimizer.zero_grad()
            loss_of(learnt[torch.randint(len(learnt), (_BATCH,), generator=generator)]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            if update % _LOOK == 0:
                with torch.no_grad():
                    value = float(loss_of(judged))
                if value < best:
                    best, kept = value, {name: x.clone() for name, x in model.state_dict().items()}
                bar.set_postfix_str(f"held out {value:.4f}, best {best:.4f}")
        model.load_state_dict(kept)
        return model.eval()
