"""Memory of the processor that a loop frees and asks for again."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Of malloc.h; the C library takes no larger threshold for mmap, and its own trim threshold is then twice as large.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = 32 << 20
_NEVER = 2**31 - 1


@contextmanager
def kept() -> Iterator[None]:
    """Within the block the C library (glibc) keeps the memory that is freed, and gives it back at the end.

    By default it hands large tensors back to the system, which clears each page again when it is next touched: for a
    step of mean-field inference that took as long as all its arithmetic with the weights.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    mallopt = getattr(library, "mallopt", None)
    if library is None or mallopt is None:
        yield
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGEST)
    mallopt(_M_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST)
        library.malloc_trim(0)
