"""Names of devices that work is done on; known without torch, so that a wrong one is said at once."""

from __future__ import annotations

import re


def check_device_name(name: str) -> str:
    """The name, if it is that of a kind of device that this package runs on.

    Raises:
        ValueError: it is not; whether there is such a device here, torch says.
    """
    if re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", name) is None:
        raise ValueError(
            f"Unknown device '{name}'; expected auto, cpu or cuda (cuda:1 for the second). Others, such as mps, have "
            "no double precision."
        )
    return name
