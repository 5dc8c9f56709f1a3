"""What is known about one parameter of the mocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["ParameterInfo", "parameter"]


@dataclass(frozen=True)
class ParameterInfo:
    """What is known about one parameter.

    Attributes:
        text: what it is.
        unit: unit, or "" for a pure number.
        low, high: allowed range, ends included.
        tag: "pub" (published or read in public code), "lead" (plausible, unverified: a nuisance parameter),
            "target" (chosen so that a published target is met), "numeric" (a limit of the calculation).
        source: paper, or where the value comes from.
        target: the published quantity that chose the value, or "".
        starting: the value before tuning, when tuning changed it.
    """

    text: str
    unit: str
    low: float
    high: float
    tag: str
    source: str
    target: str = ""
    starting: float | None = None


def parameter(
    default: float,
    text: str,
    unit: str,
    low: float,
    high: float,
    tag: str,
    source: str,
    target: str = "",
    starting: float | None = None,
) -> Any:
    """A dataclass field with a default and its `ParameterInfo` as metadata."""
    info = ParameterInfo(text, unit, low, high, tag, source, target, starting)
    return field(default=default, metadata={"info": info})
