"""Numbers as a reader wants them."""

from __future__ import annotations

import math

UNKNOWN = "–"
"""Stands where a sample does not define a number."""


def number(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """``0.123``, with a true minus; `UNKNOWN` for None and what is not finite."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return text.replace("-", "−")


def with_error(value: float | None, error: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """``0.123 ± 0.004``; without the error where it is not known."""
    text = number(value, digits, sign=sign)
    if text == UNKNOWN or error is None or not math.isfinite(error):
        return text
    return f"{text} ± {number(error, digits)}"


def percent(share: float | None, error: float | None = None) -> str:
    """A share of one as ``68.3 %``, or ``68.3 ± 0.5 %``."""
    text = with_error(None if share is None else 100.0 * share, None if error is None else 100.0 * error, 1)
    return text if text == UNKNOWN else f"{text} %"


def interval(low: float, high: float, digits: int = 2) -> str:
    """``13.20–15.60``, or one number where both ends are the same."""
    ends = number(low, digits), number(high, digits)
    return ends[0] if ends[0] == ends[1] else "–".join(ends)
