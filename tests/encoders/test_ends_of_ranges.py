"""Numbers at the very ends of what encoders take: the last that is taken, and the first that is not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bayesflowmass.encoders import ContextEncoder, KDEEncoder
from bayesflowmass.encoders.columns import ExtraColumns
from bayesflowmass.encoders.kde.covariance import KDEError
from bayesflowmass.encoders.kde.grid import Grid
from bayesflowmass.encoders.local import LocalDensities
from bayesflowmass.encoders.ragged import check_offsets, chunks_by_richness
from tests.support.small_model import toy_catalog

NO_POSITIVE_NUMBER = (0.0, -1.0, math.inf, math.nan)


@pytest.mark.parametrize("number", NO_POSITIVE_NUMBER)
def test_bandwidths_widths_floors_and_constants_are_positive(number):
    for make, words in (
        (lambda: KDEEncoder(bandwidth=number), "bandwidth must be a positive number"),
        (lambda: ContextEncoder(KDEEncoder(), constant=number), "constant of the scaling must be positive"),
        (lambda: LocalDensities(((number, 200.0),)), "widths of kernels .* are positive"),
        (lambda: LocalDensities(((0.1, number),)), "widths of kernels .* are positive"),
        (lambda: LocalDensities(floor=number), "the floor of a density are positive"),
    ):
        with pytest.raises(ValueError, match=words):
            make()


def test_a_local_density_needs_a_kernel():
    with pytest.raises(ValueError, match="at least one kernel width"):
        LocalDensities(())


@pytest.mark.parametrize(
    ("shape", "lower", "upper", "message"),
    [
        ((), (), (), "one entry per axis"),
        ((3,), (0.0, 0.0), (1.0,), "one entry per axis"),
        ((3,), (0.0,), (1.0, 1.0), "one entry per axis"),
        ((0,), (0.0,), (1.0,), "axis 0 of the grid has 0 bins"),
        ((3, 3), (0.0, 1.0), (1.0, 1.0), "axis 1 of the grid runs from 1.0 to 1.0"),
        ((3,), (-math.inf,), (1.0,), "runs from -inf"),
        ((3,), (0.0,), (math.inf,), "to inf"),
    ],
)
def test_a_grid_has_bins_of_some_width_on_every_axis(shape, lower, upper, message):
    with pytest.raises(ValueError, match=message):
        Grid(shape, lower, upper)
    assert Grid((1,), (0.0,), (1.0,)).nodes(0).tolist() == [0.5]


def test_edges_are_inside_a_grid():
    grid = Grid((2, 2), (0.0, -1.0), (1.0, 1.0))
    points = torch.tensor([[0.0, -1.0], [1.0, 1.0], [-1e-9, 0.0], [0.5, 1.0 + 1e-9]], dtype=torch.float64)
    assert grid.contains(points).tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("offsets", "words"),
    [
        ([0, 2, 1, 3], "and decrease"),
        ([1, 3], "from 1 to 3"),
        ([0, 2], "from 0 to 2"),
        ([0.0, 3.0], "a vector of integers"),
        ([], "a vector of integers"),
        ([[0, 3]], "a vector of integers"),
    ],
)
def test_offsets_rise_from_0_to_the_number_of_points(offsets, words):
    kind = torch.int64 if offsets == [] else None
    with pytest.raises(ValueError, match=words):
        check_offsets(torch.zeros(3, 2), torch.tensor(offsets, dtype=kind))
    assert check_offsets(torch.zeros(3, 2), torch.tensor([0, 0, 3])).tolist() == [0, 0, 3]
    with pytest.raises(ValueError, match="points must have shape"):
        check_offsets(torch.zeros(3), torch.tensor([0, 3]))


@pytest.mark.parametrize(
    ("counts", "budget", "most", "free", "runs"),
    [
        # Padded points may fill the budget, and no more.
        ([2, 2, 2], 6, 9, 0, [(0, 3)]),
        ([2, 2, 2], 5, 9, 0, [(0, 2), (2, 3)]),
        ([2, 2, 2], 99, 2, 0, [(0, 2), (2, 3)]),
        ([9], 5, 9, 0, [(0, 1)]),
        # One in eight of them may be padding, or as many as are free.
        ([6, 8], 99, 9, 2, [(0, 2)]),
        ([5, 8], 99, 9, 2, [(0, 1), (1, 2)]),
        ([7, 8], 99, 9, 0, [(0, 2)]),
        ([13, 16], 99, 9, 3, [(0, 2)]),
        ([12, 16], 99, 9, 3, [(0, 2)]),
        ([11, 16], 99, 9, 3, [(0, 1), (1, 2)]),
        ([], 9, 9, 0, []),
    ],
)
def test_runs_of_clusters_hold_no_more_than_their_budget_and_little_padding(counts, budget, most, free, runs):
    assert list(chunks_by_richness(counts, budget, most, free)) == runs


def test_a_column_that_hardly_varies_keeps_the_scale_1():
    catalog = toy_catalog(4)
    for spread, scale in ((0.0, 1.0), (1e-13, 1.0), (1e-10, 1e-10)):
        columns = ExtraColumns(("a",))
        columns.fit(catalog.with_columns(a=spread * np.array([-1.0, 1.0, -1.0, 1.0])))
        assert columns.constants[0][1] == pytest.approx(scale, rel=1e-6)
        # Beside a large mean, what is left of a spread is rounding.
        columns.fit(catalog.with_columns(a=1e6 + 1e-7 * np.array([-1.0, 1.0, -1.0, 1.0])))
        assert columns.constants[0][1] == 1.0


def test_names_stand_once_and_have_constants_each():
    with pytest.raises(ValueError, match="holds a name twice"):
        ExtraColumns(("a", "a"))
    with pytest.raises(ValueError, match="there are 2 names but constants for 1"):
        ExtraColumns(("a", "b"), [(0.0, 1.0)])
    with pytest.raises(ValueError, match="constants of the columns a, b are not set"):
        _ = ExtraColumns(("a", "b")).constants
    assert ExtraColumns().constants == ()
    assert len(ExtraColumns(("a", "b"), [(0.0, 1.0), (2.0, 3.0)])) == 2


@pytest.mark.parametrize("weight", [math.nan, math.inf, -1e-9])
def test_weights_of_galaxies_are_finite_and_not_negative(weight):
    points = torch.tensor([[0.5, 0.0], [0.6, 100.0], [0.9, -300.0]])
    offsets = torch.tensor([0, 3])
    with pytest.raises(ValueError, match="finite and not negative"):
        KDEEncoder((4, 4))(points, offsets, weight=torch.tensor([1.0, 1.0, weight]))
    kept = KDEEncoder((4, 4))(points, offsets, weight=torch.tensor([1.0, 1.0, 0.5]))
    assert float(kept.sum()) == pytest.approx(1.0, rel=1e-5)
    with pytest.raises(ValueError, match="one entry per galaxy, 3"):
        KDEEncoder((4, 4))(points, offsets, weight=torch.ones(2))


def test_a_cluster_whose_galaxies_are_all_beyond_the_grid_has_no_image():
    points = torch.tensor([[0.5, 0.0], [0.6, 100.0], [0.9, -300.0]])
    beyond = points + torch.tensor([3.0, 0.0])
    both, offsets = torch.cat([points, beyond]), torch.tensor([0, 3, 6])
    with pytest.raises(KDEError, match="cluster 1: none of its 3 galaxies lies inside the grid"):
        KDEEncoder((4, 4))(both, offsets)
    with pytest.raises(KDEError, match="cluster 0: it has a galaxy with a NaN"):
        KDEEncoder((4, 4))(torch.where(both == 0.6, torch.nan, both), offsets)
