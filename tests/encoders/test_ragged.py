"""Ragged groups: each cut is as long as its bounds allow, and every point is gathered once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesflowmass.encoders.ragged import (
    check_offsets,
    chunks_by_richness,
    group_of,
    padded_index,
    segment_sum,
    spread,
)


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(0, 60), max_size=25).map(sorted),
    budget=st.integers(1, 300),
    most=st.integers(1, 8),
    free=st.integers(0, 40),
)
def test_runs_stay_within_their_bounds_and_could_not_be_longer(counts, budget, most, free):
    def allowed(first, last):
        """Whether groups may be one run: a group by itself always may."""
        padded = counts[last - 1] * (last - first)
        waste = padded - sum(counts[first:last])
        return last == first + 1 or (
            last - first <= most and padded <= budget and waste <= max(padded // 8, free)
        )

    runs = list(chunks_by_richness(counts, budget, most, free))
    assert [first for first, _ in runs] == [0, *(last for _, last in runs)][: len(runs)]
    assert (runs[-1][1] if runs else 0) == len(counts)
    for first, last in runs:
        assert allowed(first, last)
        assert last == len(counts) or not allowed(first, last + 1)


def test_a_run_may_waste_a_thousand_points():
    assert list(chunks_by_richness([0, 1000], 10**6, 9)) == [(0, 2)]
    assert list(chunks_by_richness([0, 1001], 10**6, 9)) == [(0, 1), (1, 2)]


def test_groups_are_padded_with_their_last_point():
    index, real = padded_index(torch.tensor([0, 3, 4]), torch.tensor([3, 1, 2]), 3)
    assert index.tolist() == [[0, 1, 2], [3, 3, 3], [4, 5, 5]]
    assert real.tolist() == [[True] * 3, [True, False, False], [True, True, False]]


def test_points_know_their_groups_and_groups_their_sums():
    offsets, values = torch.tensor([0, 2, 2, 5]), torch.arange(5.0)
    assert [group_of(offsets, point) for point in range(5)] == [0, 0, 2, 2, 2]
    assert segment_sum(values, offsets).tolist() == [1.0, 0.0, 9.0]
    assert spread(torch.tensor([7.0, 8.0, 9.0]), offsets, 5).tolist() == [7.0, 7.0, 9.0, 9.0, 9.0]


@pytest.mark.parametrize(
    ("points", "offsets", "message"),
    [
        (torch.zeros(4), [0, 4], r"shape \(n_points, D\), not \(4,\)"),
        (torch.zeros(4, 2), [], "one entry more than there are clusters"),
        (torch.zeros(4, 2), [[0, 4]], "one entry more than there are clusters"),
        (torch.zeros(4, 2), [0.0, 4.0], "vector of integers"),
        (torch.zeros(4, 2), [1, 4], "run from 1 to 4$"),
        (torch.zeros(4, 2), [0, 5], "run from 0 to 5$"),
        (torch.zeros(4, 2), [0, 3, 2, 4], "run from 0 to 4 and decrease"),
    ],
)
def test_offsets_that_do_not_cut_the_points_are_refused(points, offsets, message):
    with pytest.raises(ValueError, match=message):
        check_offsets(points, torch.tensor(offsets))


@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
def test_offsets_that_do_are_whole_numbers_of_64_bits(kind):
    found = check_offsets(torch.zeros(4, 2), torch.tensor([0, 0, 4, 4], dtype=kind))
    assert found.dtype == torch.int64
    assert found.tolist() == [0, 0, 4, 4]
    assert check_offsets(torch.zeros(0, 2), torch.tensor([0])).tolist() == [0]
