"""A process that runs the command ``train`` in several processes, as torchrun starts them: forks, which import nothing.

Reads requests from standard input, one JSON object a line, and answers each with what became of every process.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from bayesflowmass import train
from bayesflowmass.common import processes
from bayesflowmass.training.optimizer import ScheduledAdam

for late in (
    "torch._dynamo",
    *(f"bayesflowmass.{name}" for name in ("estimator", "training.run", "plots.checks.loss")),
):
    importlib.import_module(late)


def arrange(number: int, update: int) -> None:
    """Send this process a signal after so many updates."""
    plain = ScheduledAdam.end

    def end(self: ScheduledAdam) -> None:
        plain(self)
        if self.update == update:
            os.kill(os.getpid(), number)

    ScheduledAdam.end = end  # type: ignore[method-assign]


def serve(request: dict[str, Any], rank: int, port: int, said: Path) -> int:
    """One process: its exit code."""
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 1)
    os.dup2(1, 2)
    here = {"RANK": rank, "WORLD_SIZE": request["count"], "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    here = (here if request["count"] > 1 else {}) | request["environment"]
    os.environ |= {key: str(value) for key, value in here.items() if value is not None}
    if str(rank) in request["signals"]:
        arrange(*request["signals"][str(rank)])
    try:
        return train.main(request["argv"])
    except SystemExit as left:
        return int(left.code or 0)


def answer(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Exit code (negative for a signal) and words of each process."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        children = {}
        for rank in range(request["count"]):
            said = Path(folder, str(rank))
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    code = serve(request, rank, port, said)
                finally:
                    sys.stdout.flush()
                    os._exit(code)
            children[pid] = said
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        return [
            {"code": code, "said": said.read_text(encoding="utf-8")}
            for code, said in zip(codes, children.values(), strict=True)
        ]


def main() -> None:
    """Serve."""
    torch.set_num_threads(1)
    # The default lock of tqdm is a semaphore of the system, which a killed process leaves behind.
    tqdm.set_lock(threading.RLock())
    processes.RENDEZVOUS /= 40
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in iter(sys.stdin.readline, ""):
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
