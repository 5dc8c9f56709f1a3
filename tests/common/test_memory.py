"""Memory that a loop frees stays with the process while the loop runs."""

from __future__ import annotations

import resource
import sys

import pytest
import torch

from bayesflowmass.common.memory import kept


def faults(rounds: int) -> int:
    """Pages that the system had to clear while eight tensors of 5 MB came and went."""
    for k in range(rounds + 2):
        if k == 2:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        _ = [torch.ones(5 << 18) for _ in range(8)]
        del _
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")
def test_a_loop_gets_the_same_pages_again():
    with kept():
        assert faults(8) < (40 << 20) // resource.getpagesize()
