"""What a run says about the posterior of the weights that it fitted."""

from __future__ import annotations

from collections.abc import Mapping

from bayesflowmass.bayes.protocol import WeightPosterior
from bayesflowmass.bayes.variational import VariationalPosterior
from bayesflowmass.training.convergence import CONVERGED_BELOW, last_fifth
from bayesflowmass.training.fit import FitResult

__all__ = ["describe_weights", "note_convergence"]


def note_convergence(posterior: WeightPosterior, results: Mapping[str, FitResult]) -> None:
    """Add to what a variational posterior tells about its fit.

    ``nll`` [nats per training cluster], ``gain`` of the last fifth of the updates with ``gain_se``, ``converged``.
    """
    if not isinstance(posterior, VariationalPosterior) or "variational" not in results:
        return
    found = last_fifth(results["variational"].history)
    if found is not None:
        posterior.found |= {
            "nll": found.loss - posterior.found["tempering"] * posterior.found["kl_per_cluster"],
            "gain": found.gain,
            "gain_se": found.standard_error,
            "converged": found.converged,
        }


def describe_weights(posterior: WeightPosterior, results: Mapping[str, FitResult]) -> str:
    """The method, over which weights, how long it took; for a variational one each term of its bound."""
    described = posterior.describe()
    seconds = sum(result.seconds for result in results.values())
    lines = [
        f"Weights: {posterior.method} posterior of {_named(posterior.names)}, fitted in {seconds:.0f} s."
    ]
    if isinstance(posterior, VariationalPosterior):
        n_data, guide = described["n_data"], described["guide"]["kind"]
        lines.append(
            f"  {guide} guide, {posterior.guide.layout.n_weights} random weights, N = {n_data} halos:"
            f" KL/N {described['kl_per_cluster']:.4f} nats,"
            f" {100 * described['share_at_prior']:.0f} % of the weights at their prior."
        )
    if "gain" in described:
        verdict = "converged" if described["converged"] else "NOT converged: train for longer (weights.fit)"
        lines.append(
            f"  Negative log likelihood {described['nll']:.3f} nats per training cluster; the last fifth of the"
            f" updates gained {described['gain']:.4f} +- {described['gain_se']:.4f} nats ({verdict};"
            f" the limit is {CONVERGED_BELOW})."
        )
    return "\n".join(lines)


def _named(names: tuple[str, ...]) -> str:
    if not names:
        return "the weights"
    return f"{len(names)} tensors ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
