"""How many draws of the weights a posterior needs, from the Monte Carlo error that one accepts."""

from __future__ import annotations

import math

__all__ = ["MONTE_CARLO_ERROR", "monte_carlo_error", "number_of_draws"]

MONTE_CARLO_ERROR = 0.13
"""Relative standard error of sigma_epistemic that the default number of draws, 31, leaves."""


def monte_carlo_error(n_draws: int) -> float:
    r"""Relative standard error of sigma_epistemic from a number of draws.

    The standard deviation s of D independent, normally distributed means obeys sd(s) / s = 1 / sqrt(2 (D - 1))
    to leading order. The total sigma, with sigma^2 = sigma_aleatoric^2 + s^2, has this error times
    s^2 / sigma^2, the epistemic share.

    Raises:
        ValueError: fewer than two draws.
    """
    if n_draws < 2:
        raise ValueError(f"{n_draws} draws have no spread; expected at least 2.")
    return 1.0 / math.sqrt(2.0 * (n_draws - 1))


def number_of_draws(relative_error: float = MONTE_CARLO_ERROR) -> int:
    """The fewest draws whose `monte_carlo_error` is at most this.

    Raises:
        ValueError: the error is not between 0 and 1.
    """
    if not 0.0 < relative_error < 1.0:
        raise ValueError(f"The relative error is {relative_error}; expected a number between 0 and 1.")
    return 1 + math.ceil(1.0 / (2.0 * relative_error**2) - 1e-9)
