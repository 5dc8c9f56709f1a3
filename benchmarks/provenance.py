"""Where a table of results comes from: the line that stands above each of them."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from bayesflowmass.common.version import __version__


def provenance(seed: int | None) -> dict[str, Any]:
    """Command, seed, version, date and machine, JSON-able."""
    spec = sys.modules["__main__"].__spec__
    name = Path(sys.argv[0]).stem if spec is None else spec.name.removesuffix(".__main__")
    command = ["python", "-m", name, *sys.argv[1:]]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {
        "command": shlex.join(command),
        "seed": seed,
        "version": __version__,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"{device}, load average {os.getloadavg()[0]:.1f}",
    }


def header(title: str, source: dict[str, Any]) -> str:
    """Markdown heading of a table of results."""
    seed = "" if source["seed"] is None else f"seed {source['seed']}, "
    return (
        f"### {title}\n\n`{source['command']}`  \n"
        f"{seed}bayesflowmass {source['version']}, {source['date']}, {source['machine']}\n"
    )
