"""Sets of galaxies as contexts: what loops over rows do with tensors, they do with them."""

from __future__ import annotations

import math

import pytest
import torch

from bayesflowmass.encoders import GalaxySet, concatenate, context_tensors, in_parts
from bayesflowmass.encoders import galaxy_set as module

COUNTS = (3, 1, 0, 4, 2)


def galaxy_set(truth=True):
    offsets = torch.tensor([0, *COUNTS]).cumsum(0)
    galaxies = torch.arange(10.0)[:, None] * torch.tensor([1.0, -1.0, 0.5])
    clusters = torch.arange(5.0)[:, None]
    return GalaxySet(galaxies, offsets, clusters, torch.arange(10.0) % 2 if truth else None)


def assert_equal(one, other):
    assert one.tensors().keys() == other.tensors().keys()
    for name, part in one.tensors().items():
        assert torch.equal(part, other.tensors()[name]), name


@pytest.mark.parametrize("truth", [True, False])
@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4], [4, 0, 0, 3], [2], []])
def test_rows_are_clusters_with_all_their_galaxies(rows, truth):
    whole = galaxy_set(truth)
    found = whole[torch.tensor(rows, dtype=torch.int64)]
    assert len(found) == len(rows)
    assert found.counts.tolist() == [COUNTS[k] for k in rows]
    starts = whole.offsets.tolist()
    expected = [i for k in rows for i in range(starts[k], starts[k + 1])]
    assert torch.equal(found.galaxies[:, 0], torch.tensor(expected, dtype=torch.float32))
    assert torch.equal(found.clusters[:, 0], torch.tensor(rows, dtype=torch.float32))
    if truth:
        assert torch.equal(found.members, torch.tensor(expected, dtype=torch.float32) % 2)
    assert torch.equal(found.numbers, torch.repeat_interleave(torch.arange(len(rows)), found.counts))


@pytest.mark.parametrize("rows", [slice(None), slice(1, 4), slice(3, 3), slice(-2, None), slice(0, 5, 2)])
def test_slices_and_masks_are_rows_too(rows):
    whole = galaxy_set()
    chosen = torch.arange(5)[rows]
    assert_equal(whole[rows], whole[chosen])
    mask = torch.zeros(5, dtype=torch.bool)
    mask[chosen] = True
    assert_equal(whole[mask], whole[chosen])


@pytest.mark.parametrize("size", [1, 2, 10])
def test_parts_in_order_are_the_whole(size):
    whole = galaxy_set()
    parts = whole.split(size)
    assert [len(part) for part in parts] == [len(part) for part in whole.clusters.split(size)]
    assert_equal(concatenate(parts), whole)


def test_parts_that_are_bounded_hold_few_galaxies(monkeypatch):
    monkeypatch.setattr(module, "_GALAXIES_AT_ONCE", 4)
    parts = list(in_parts(galaxy_set(), 10))
    assert [part.counts.tolist() for part in parts] == [[3, 1, 0], [4], [2]]
    monkeypatch.setattr(module, "_GALAXIES_AT_ONCE", 1)
    assert_equal(concatenate(list(in_parts(galaxy_set(), 10))), galaxy_set())


def test_precision_changes_numbers_and_not_places():
    double = galaxy_set().double()
    assert double.dtype == torch.float64
    assert double.clusters.dtype == double.members.dtype == torch.float64
    assert torch.equal(double.offsets, galaxy_set().offsets)


def test_clusters_with_a_number_that_is_not_finite_are_found():
    whole = galaxy_set()
    galaxies, clusters = whole.galaxies.clone(), whole.clusters.clone()
    galaxies[9, 1], clusters[1, 0] = math.nan, math.inf
    broken = GalaxySet(galaxies, whole.offsets, clusters)
    assert broken.finite().tolist() == [True, False, True, True, False]


def test_unlike_contexts_do_not_become_one():
    with pytest.raises(ValueError, match="2 contexts, of which 1 are galaxies"):
        concatenate([galaxy_set(), torch.zeros(1, 3)])
    with pytest.raises(ValueError, match="known of some of the contexts only"):
        concatenate([galaxy_set(), galaxy_set(truth=False)])
    with pytest.raises(ValueError, match="0 contexts"):
        concatenate([])


def test_tensors_are_contexts_too():
    images = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(concatenate([images[:1], images[1:]]), images)
    assert list(context_tensors(images)) == ["context"]
    assert set(context_tensors(galaxy_set(False))) == {
        "context.galaxies",
        "context.offsets",
        "context.clusters",
    }


def test_truth_can_be_withheld():
    assert galaxy_set().without_truth().members is None
    assert galaxy_set().nbytes == galaxy_set(False).nbytes + 40
