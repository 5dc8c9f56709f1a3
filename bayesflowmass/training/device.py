"""Where the network and its data live."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from bayesflowmass.encoders import Contexts

ALL = slice(None)
# Of the free memory of a GPU, what the data may take: the rest is for weights, optimiser state and
# activations.
DATA_SHARE = 0.6


def memory_allows(n_bytes: int, device: torch.device) -> bool:
    """Whether data of so many bytes fit into the free memory of the device with room to train."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return n_bytes < DATA_SHARE * free


def place(data: tuple[Contexts, Tensor], device: torch.device) -> tuple[Contexts, Tensor]:
    """The tensors on the device, where they fit; else where they are."""
    if all(_is_on(part, device) for part in data):
        return data
    size = sum(part.nbytes for part in data)
    return (data[0].to(device), data[1].to(device)) if memory_allows(size, device) else data


def _is_on(tensor: Contexts, device: torch.device) -> bool:
    # A device without a number, "cuda", is not equal to the "cuda:0" of its tensors.
    return tensor.device.type == device.type and device.index in (None, tensor.device.index)


def batches(
    parts: Sequence[Contexts | None],
    order: Tensor,
    batch_size: int,
    device: torch.device,
    first: int = 0,
    own: slice = ALL,
) -> Iterator[list[Contexts | None]]:
    """Batches of rows of each part (N, ...) in the given order, on the device; a part that is None stays None.

    The last, incomplete batch is left out (each epoch leaves out other clusters) unless it is the only one.
    Data that live on the host of a GPU are gathered into pinned memory and copied while the previous batch
    computes.

    Args:
        order: (N,) permutation, on the CPU.
        first: number of batches to pass over, for a run that resumes within an epoch.
        own: of each batch.
    """
    size = min(batch_size, len(order))
    pieces = [order[start : start + size][own] for start in range(first * size, len(order) - size + 1, size)]
    if all(part is None or _is_on(part, device) for part in parts):
        for piece in pieces:
            rows = piece.to(device, non_blocking=True)
            yield [None if part is None else part.index_select(0, rows) for part in parts]
        return
    yield from _streamed(parts, pieces, device)


def _streamed(
    parts: Sequence[Contexts | None], pieces: list[Tensor], device: torch.device
) -> Iterator[list[Contexts | None]]:
    copies = torch.cuda.Stream(device)

    def fetch(piece: Tensor) -> tuple[list[Contexts | None], torch.cuda.Event]:
        pinned = [
            None if part is None else part.index_select(0, piece.to(part.device)).to("cpu").pin_memory()
            for part in parts
        ]
        with torch.cuda.stream(copies):
            there = [None if part is None else part.to(device, non_blocking=True) for part in pinned]
            done = torch.cuda.Event()
            done.record(copies)
        return there, done

    ahead = fetch(pieces[0]) if pieces else None
    for following in [*pieces[1:], None]:
        assert ahead is not None
        found, done = ahead
        ahead = fetch(following) if following is not None else None
        current = torch.cuda.current_stream(device)
        current.wait_event(done)
        # The allocator must not hand this memory to the copy stream while the training stream still reads it.
        for part in found:
            if part is not None:
                part.record_stream(current)
        yield found
