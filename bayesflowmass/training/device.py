"""Where the network and its data live."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["batches", "fits_on_device", "resolve_device"]

# Of the free memory of a GPU, what the data may take: the rest is for weights, optimiser state and
# activations.
DATA_SHARE = 0.6


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The device named: ``auto`` is the first CUDA device where there is one, else the CPU.

    Raises:
        ValueError: if the device is unknown or absent.
    """
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device is '{device}'; expected auto, cpu, cuda or cuda:0, cuda:1, ...") from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device is '{device}', but torch finds {torch.cuda.device_count()} CUDA devices here; use"
            " --device auto or cpu."
        )
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"device is '{device}'; expected auto, cpu or cuda.")
    return found


def fits_on_device(data: tuple[Tensor, ...], device: torch.device) -> bool:
    """Whether the tensors fit into the free memory of the device with room to train."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return sum(part.numel() * part.element_size() for part in data) < DATA_SHARE * free


def batches(
    context: Tensor, target: Tensor, order: Tensor, batch_size: int, device: torch.device, first: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of rows of ``context`` (N, C) and ``target`` (N,) in the given order, on the device.

    The last, incomplete batch is left out (each epoch leaves out other clusters) unless it is the only one.
    Data that live on the host of a GPU are gathered into pinned memory and copied while the previous batch
    computes.

    Arguments:
        order: (N,) permutation, on the CPU.
        first: number of batches to pass over, for a run that resumes within an epoch.
    """
    size = min(batch_size, len(order))
    pieces = [order[start : start + size] for start in range(first * size, len(order) - size + 1, size)]
    if context.device == device:
        for piece in pieces:
            rows = piece.to(device, non_blocking=True)
            yield context.index_select(0, rows), target.index_select(0, rows)
        return
    yield from _streamed(context, target, pieces, device)


def _streamed(
    context: Tensor, target: Tensor, pieces: list[Tensor], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    copies = torch.cuda.Stream(device)

    def fetch(piece: Tensor) -> tuple[Tensor, Tensor, torch.cuda.Event]:
        rows, values = context.index_select(0, piece).pin_memory(), target.index_select(0, piece).pin_memory()
        with torch.cuda.stream(copies):
            on_device = rows.to(device, non_blocking=True), values.to(device, non_blocking=True)
            done = torch.cuda.Event()
            done.record(copies)
        return *on_device, done

    ahead = fetch(pieces[0]) if pieces else None
    for following in [*pieces[1:], None]:
        assert ahead is not None
        rows, values, done = ahead
        ahead = fetch(following) if following is not None else None
        current = torch.cuda.current_stream(device)
        current.wait_event(done)
        # The allocator must not hand this memory to the copy stream while the training stream still reads it.
        rows.record_stream(current)
        values.record_stream(current)
        yield rows, values
