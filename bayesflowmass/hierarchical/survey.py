"""A survey says what nobody knows of the sky: one Pyro model over all its clusters."""

from __future__ import annotations

import sys

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoLaplaceApproximation, AutoMultivariateNormal
from pyro.infer.reparam import NeuTraReparam
from pyro.optim import ClippedAdam
from torch import Tensor
from tqdm import tqdm

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.hierarchical.mass_function import simpson_weights
from bayesflowmass.hierarchical.summary_likelihood import SummaryLikelihood
from bayesflowmass.posterior.priors import MassPrior
from bayesflowmass.posterior.tabulated import Tabulated

_NODES, _FINE_NODES = 41, 97
_NOBODY = -30.0  # ln of the share of the population at a node that is left out
_DEPTH = 6  # of NUTS: some thousand gradients for a hundred draws at most
_SVI_BATCH, _SVI_STEPS = 256, 1500
_MODE_STEPS = 120


class SurveyModel:
    r"""theta, common to the n clusters of a survey, and their masses.

    Each cluster is a draw from the population pi(m) (`MassPrior`, another survey's selection included) that was kept
    because it has N >= least galaxies, so that with its summaries t_i

        p(t_i | theta) = int p(t_i | m, theta, z_i) pi(m) dm / int P(N >= least | m, theta, z_i) pi(m) dm.

    Masses are integrated out on a grid and theta alone is sampled. Then p(m_i | all) is the average over draws of theta
    of p(m_i | t_i, theta), which is proportional to p(t_i | m_i, theta, z_i) pi(m_i). Numbers of clusters per volume
    are not used: shape and selection of the population are.

    Args:
        likelihood: p(t | m, theta, z).
        t: summaries (n, K).
        redshift: (n,).
        prior: pi, over the masses of the likelihood.
        least: fewest galaxies of a cluster of the survey; default: that of the mocks.

    Raises:
        ValueError: a cluster has fewer galaxies, or a summary is not finite; or the mocks did not have so few.
    """

    def __init__(
        self,
        likelihood: SummaryLikelihood,
        t: FloatArray,
        redshift: FloatArray,
        prior: MassPrior,
        least: int | None = None,
    ) -> None:
        self._least = likelihood.least if least is None else least
        if self._least < likelihood.least:
            raise ValueError(
                f"The survey has clusters of {self._least} galaxies; the likelihood was learnt from {likelihood.least}"
                " on: learn another."
            )
        if not np.isfinite(t).all() or np.exp(t[:, 0]).min(initial=np.inf) < self._least - 0.5:
            raise ValueError(
                f"A cluster of the survey has fewer than {self._least} galaxies, or no mass; leave it out."
            )
        self.likelihood = likelihood.requires_grad_(False)
        self._t = torch.tensor(t, dtype=torch.float64)
        self._z = torch.tensor(redshift, dtype=torch.float64)
        self._prior = prior.log_density(np.asarray(redshift, dtype=np.float64))
        nodes, log_prior = self._population(_NODES)
        populated = (log_prior - log_prior.amax(1, keepdim=True)).amax(0) > _NOBODY
        self._coarse = nodes[populated], log_prior[:, populated]

    def __len__(self) -> int:
        return len(self._t)

    def _population(self, n_nodes: int) -> tuple[Tensor, Tensor]:
        """Nodes of log10 mass (g,), and ln pi with the weight of each node (n, g)."""
        nodes = torch.linspace(*self.likelihood.log10_mass_range, n_nodes, dtype=torch.float64)
        log_prior = self._prior(nodes[:, None].expand(-1, len(self)))
        return nodes, log_prior.T + simpson_weights(nodes).log()

    def log_evidence(self, theta: Tensor, rows: Tensor | None = None) -> Tensor:
        """ln p(t_i | theta) (m,) of clusters in rows (m,), of all by default; theta (P,)."""
        rows = torch.arange(len(self)) if rows is None else rows
        nodes, log_prior = self._coarse
        log_p, passed = self.likelihood(self._t[rows, None], self._z[rows, None], nodes, theta, self._least)
        found: Tensor = (log_p + log_prior[rows]).logsumexp(-1) - (passed + log_prior[rows]).logsumexp(-1)
        return found

    def __call__(self, batch: int | None = None) -> None:
        """The Pyro model: a site for each parameter, a factor for each cluster, of a random ``batch`` or all."""
        theta = [
            pyro.sample(name, dist.Uniform(*self._t.new_tensor(limits)))
            for name, limits in self.likelihood.priors.items()
        ]
        with pyro.plate("clusters", len(self), subsample_size=batch) as rows:
            pyro.factor("galaxies", self.log_evidence(torch.stack(theta), rows))

    def sample(
        self,
        *,
        n_samples: int = 150,
        warmup: int = 100,
        chains: int = 2,
        seed: int = 0,
        progress: bool = False,
    ) -> Tensor:
        """Draws of theta by NUTS, (chains, n_samples, P), after ``warmup`` others; it moves where the mode is round.

        The chains run in the coordinates in which the Gaussian at the mode is round (Hoffman et al. 2019,
        arXiv:1903.03704, with Laplace's approximation as the map): fewer gradients, the same posterior.
        """
        found = []
        for chain in range(chains):
            with torch.random.fork_rng(devices=[]), pyro.get_param_store().scope():
                torch.manual_seed(seed + chain)
                neutra = NeuTraReparam(self._gaussian())
                mcmc = MCMC(
                    NUTS(neutra.reparam(self), max_tree_depth=_DEPTH),
                    num_samples=n_samples,
                    warmup_steps=warmup,
                    disable_progbar=not progress,
                )
                mcmc.run()
                (latent,) = mcmc.get_samples().values()
                drawn = neutra.transform_sample(latent)
            found.append(torch.stack([drawn[name] for name in self.likelihood.priors], -1))
        return torch.stack(found)

    def _gaussian(self) -> AutoMultivariateNormal:
        """Laplace's approximation at the mode, on the unbounded scale; a unit Gaussian where there is none."""
        guide = AutoLaplaceApproximation(self)
        svi = SVI(self, guide, ClippedAdam({"lr": 0.1, "lrd": 0.05 ** (1 / _MODE_STEPS)}), Trace_ELBO())
        for _ in range(_MODE_STEPS):
            svi.step()
        try:
            gaussian = guide.laplace_approximation()
        # Not a maximum: the chain only takes more steps then.
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            gaussian = AutoMultivariateNormal(self, init_scale=1.0)
        gaussian()  # Only a guide that was called has the plates that the reparametrisation asks for.
        return gaussian.requires_grad_(False)

    def sample_svi(self, *, n_samples: int = 300, seed: int = 0, progress: bool = False) -> Tensor:
        """Draws of theta of a fitted Gaussian (on the unbounded scale), clusters in batches: (1, n_samples, P)."""
        names = tuple(self.likelihood.priors)
        with torch.random.fork_rng(devices=[]), pyro.get_param_store().scope():
            torch.manual_seed(seed)
            guide = AutoMultivariateNormal(pyro.poutine.block(self, expose=names), init_scale=0.3)
            svi = SVI(self, guide, ClippedAdam({"lr": 0.02, "lrd": 0.05 ** (1 / _SVI_STEPS)}), Trace_ELBO())
            batch = min(_SVI_BATCH, len(self))
            for _ in tqdm(
                range(_SVI_STEPS), disable=not progress, desc="theta", file=sys.stderr, leave=False
            ):
                svi.step(batch)
            with torch.no_grad():
                draws = [guide(batch) for _ in range(n_samples)]
        return torch.stack([torch.stack([draw[name] for name in names]) for draw in draws])[None]

    @torch.no_grad()
    def masses(
        self, theta: Tensor, seed: int = 0, weights: Tensor | None = None
    ) -> tuple[Tabulated, FloatArray, FloatArray]:
        """p(m_i | all clusters), and for each draw of theta (S, P) the mean of m_i and a draw of it, (S, n) each.

        Args:
            theta: draws of its posterior.
            seed: of the draws of masses.
            weights: of each draw for each cluster (S, n), where they are not the same for all; their sum is 1.
        """
        weights = torch.full((len(theta), len(self)), 1.0 / len(theta)) if weights is None else weights
        nodes, log_prior = self._population(_FINE_NODES)
        generator = torch.Generator().manual_seed(seed)
        total, means, draws = torch.zeros(len(self), len(nodes), dtype=torch.float64), [], []
        for one, weight in zip(theta, weights.double(), strict=True):
            log_p, _ = self.likelihood(self._t[:, None], self._z[:, None], nodes, one)
            mass = (log_p + log_prior).softmax(-1)
            total += mass * weight[:, None]
            means.append(mass @ nodes)
            draws.append(nodes[torch.multinomial(mass, 1, generator=generator)[:, 0]])
        # Within half a step of its node each draw is anywhere.
        step = nodes[1] - nodes[0]
        spread = torch.stack(draws) + step * (torch.rand(len(theta), len(self), generator=generator) - 0.5)
        pdf = total / simpson_weights(nodes)
        return _tabulated(nodes, pdf), torch.stack(means).numpy(), spread.numpy()


def _tabulated(nodes: Tensor, pdf: Tensor) -> Tabulated:
    """A density (n, g) with its cdf: the integral of the cubic through values and slopes at the nodes."""
    step = nodes[1] - nodes[0]
    slope = torch.gradient(pdf, spacing=float(step), dim=-1)[0]
    panel = step * (pdf[:, 1:] + pdf[:, :-1]) / 2.0 - step**2 * slope.diff(dim=-1) / 12.0
    cdf = torch.cat([torch.zeros_like(panel[:, :1]), panel.clamp_min(0.0).cumsum(-1)], -1)
    norm = cdf[:, -1:].clone()
    return Tabulated(nodes.expand(len(pdf), -1).contiguous(), pdf / norm, cdf / norm)
