"""Threads for work that torch does on one core."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache


@cache
def pool(n_threads: int) -> ThreadPoolExecutor:
    """Threads that live on: new ones would ask the system for their memory at every call.

    What runs in them must not wait for other work of the same pool.
    """
    return ThreadPoolExecutor(n_threads, "bayesflowmass")


# Threads do not survive a fork.
os.register_at_fork(after_in_child=pool.cache_clear)
