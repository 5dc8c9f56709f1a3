"""The processes of one training, as ``torchrun`` starts them: which one this is, and what all of them agree on."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

RENDEZVOUS = timedelta(seconds=120)
# Members of an ensemble end at different times; who dies closes its connection, which needs no clock.
WAIT = timedelta(days=30)


class ProcessLostError(ValueError):
    """Another process of this training is gone; the message says how to go on."""


@dataclass(frozen=True)
class Processes:
    """This process among ``count`` that train together, numbered from 0; alone it need not ask anybody.

    All call the methods in the same order.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def rows(self, n: int) -> range:
        """This process's share of n rows; shares of any n differ by one row at most."""
        return range(self.rank, n, self.count)

    def add(self, tensors: Iterable[Tensor], scale: float = 1.0) -> None:
        """Each becomes, in place, the sum over processes of ``scale`` times it: the same bits in all of them."""
        if self.count == 1:
            return
        import torch.distributed as dist

        with _together():
            # One after the other they would wait for each other's first byte.
            for work in [dist.all_reduce(tensor.mul_(scale), async_op=True) for tensor in tensors]:
                work.wait()

    def copy(self, tensors: Iterable[Tensor], source: int = 0) -> None:
        """Each becomes, in place, what it is in the process ``source``."""
        if self.count == 1:
            return
        import torch.distributed as dist

        with _together():
            for tensor in tensors:
                dist.broadcast(tensor.detach(), source)

    def any(self, flag: bool) -> bool:
        """Whether it is true in any process."""
        if self.count == 1:
            return flag
        import torch

        # On the host: no device is waited for.
        votes = torch.tensor([float(flag)])
        self.add([votes])
        return bool(votes > 0)

    def gather(self, value: Any) -> list[Any]:
        """What each process has, for values that can be pickled."""
        if self.count == 1:
            return [value]
        import torch.distributed as dist

        found: list[Any] = [None] * self.count
        with _together():
            dist.all_gather_object(found, value)
        return found

    def check_same(self, values: Mapping[str, Any]) -> None:
        """Refuse processes that do not work on the same.

        Raises:
            ValueError: naming the first value that differs.
        """
        found = self.gather(dict(values))
        for rank, other in enumerate(found):
            for key in found[0].keys() | other.keys():
                if found[0].get(key) != other.get(key):
                    raise ValueError(
                        f"Process {rank} has another '{key}' than process 0 ({other.get(key)}, not"
                        f" {found[0].get(key)}); all need the same files, settings and versions."
                    )

    def first_does(self, work: Callable[[], object]) -> None:
        """The first process does the work and the others wait; where it fails they leave without a word."""
        error = None
        if self.is_first:
            try:
                work()
            except BaseException as caught:
                error = caught
        failed = self.any(error is not None)
        if error is not None:
            raise error
        if failed:
            raise SystemExit(2)


_present = Processes()


def present() -> Processes:
    """The processes that train together now; one where nobody joined others."""
    return _present


def launched() -> Processes:
    """The processes that a launcher started with this one, by its variables RANK and WORLD_SIZE."""
    rank, count = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    if not (rank.isdigit() and count.isdigit() and int(rank) < int(count)):
        return Processes()
    return Processes(int(rank), int(count))


def own_device(device: str) -> str:
    """Of ``auto`` or ``cuda`` the card of this process, where others were started beside it."""
    import torch

    if launched().count == 1 or not (device == "cuda" or (device == "auto" and torch.cuda.is_available())):
        return device
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Within the block the processes that a launcher started train together: NCCL between GPUs, gloo between CPUs.

    Args:
        device: of this process (`own_device`).

    Raises:
        ValueError: the others cannot be found.
    """
    processes = launched()
    if processes.count == 1:
        yield processes
        return
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise ValueError(
            f"RANK and WORLD_SIZE say that this is process {processes.rank} of {processes.count}, but"
            f" {' and '.join(missing)} do not say where the others are; start with torchrun"
            f" --nproc-per-node={processes.count} -m bayesflowmass.train, or unset WORLD_SIZE to train with one."
        )
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(device)
    try:
        store, rank, count = next(rendezvous("env://", timeout=RENDEZVOUS))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo", store=store, rank=rank, world_size=count, timeout=WAIT
        )
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ValueError(
            f"Process {processes.rank} of {processes.count} found no others at {where} ({_first_line(error)}); start"
            " all of them, with torchrun."
        ) from error
    with _as_present(processes), warnings.catch_warnings():
        if not processes.is_first:
            warnings.simplefilter("ignore")
        # After an error the others may be gone, and leaving in order would wait for them.
        yield processes
        dist.destroy_process_group()


def alone() -> Any:
    """A block in which this process trains something by itself."""
    return _as_present(Processes())


@contextmanager
def _as_present(processes: Processes) -> Iterator[None]:
    global _present
    before, _present = _present, processes
    try:
        yield
    finally:
        _present = before


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise ProcessLostError(
            f"Another process of this training is gone ({_first_line(error)}); the same command with --resume goes on"
            " from the last checkpoint."
        ) from error


def _first_line(error: Exception) -> str:
    # gloo begins with the file and the line of its source.
    return re.sub(r"^\[/\S+\] ", "", str(error).strip().partition("\n")[0]).partition(". ")[0][:120]
