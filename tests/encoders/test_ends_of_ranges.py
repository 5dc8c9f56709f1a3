"""Numbers at the very ends of what encoders take: the last that is taken, and the first that is not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bayesflowmass.encoders import ContextEncoder, KDEEncoder
from bayesflowmass.encoders.columns import ExtraColumns
from bayesflowmass.encoders.galaxy_set import GalaxySet, concatenate
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


def test_a_kernel_that_reaches_no_bin_centre_has_no_image():
    points = torch.tensor([[0.5, 10.0], [0.6, 100.0], [0.9, -300.0]])
    encoder = KDEEncoder((4, 4), bandwidth=1e-9, narrow="keep")
    with pytest.raises(KDEError, match="cluster 0: its density underflows at every bin centre"):
        encoder(points, torch.tensor([0, 3]))
    # As a density it is nothing, and that is right.
    assert float(encoder(points, torch.tensor([0, 3]), normalisation="density").max()) == 0.0


def test_galaxies_count_by_their_weights_in_a_context():
    catalog = toy_catalog(3)
    weight = np.linspace(0.5, 1.5, catalog.n_galaxies_total)
    weighted = ContextEncoder(KDEEncoder((6, 6)), galaxy_weight="gal_weight")
    assert "gal_weight" in weighted.catalog_columns
    assert "gal_weight" not in ContextEncoder(KDEEncoder((6, 6))).catalog_columns
    found = weighted.encode(catalog.with_galaxies(gal_weight=weight))
    columns = np.stack([catalog.r_proj, catalog.galaxies("v_los")], axis=1)
    expected = weighted(
        torch.from_numpy(columns), torch.tensor(catalog.offsets), weight=torch.from_numpy(weight)
    )
    torch.testing.assert_close(found, expected.float())
    assert not torch.equal(found, ContextEncoder(KDEEncoder((6, 6))).encode(catalog))


@pytest.mark.parametrize("lower", [-2200.0, -2199.0])
def test_velocities_are_mirrored_on_a_grid_that_is_symmetric_exactly(lower):
    encoder = ContextEncoder(KDEEncoder((3, 4), (0.0, lower), (1.6, 2200.0)), extras=("redshift",))
    context = torch.arange(26.0).reshape(2, 13)
    if lower != -2200.0:
        with pytest.raises(ValueError, match="it is not symmetric about zero"):
            encoder.flip_velocity(context)
    else:
        mirrored = encoder.flip_velocity(context)
        assert mirrored[0, :4].tolist() == [3.0, 2.0, 1.0, 0.0]
        assert mirrored[:, 12].tolist() == [12.0, 25.0]
        assert torch.equal(encoder.flip_velocity(mirrored), context)
        assert torch.equal(encoder.outline(context), context[:, :12])


def test_galaxies_keep_their_offsets_whole_in_another_precision():
    found = GalaxySet(torch.ones(3, 2), torch.tensor([0, 1, 3]), torch.ones(2, 1), torch.ones(3))
    double = found.double()
    kinds = {name: part.dtype for name, part in double.tensors().items()}
    assert kinds == {
        **dict.fromkeys(("galaxies", "clusters", "members"), torch.float64),
        "offsets": torch.int64,
    }
    assert found.to("cpu").galaxies.dtype == torch.float32
    assert found.to("cpu", non_blocking=True).offsets.tolist() == [0, 1, 3]
    copy = found.clone()
    copy.galaxies[0] = 5.0
    assert float(found.galaxies[0, 0]) == 1.0
    assert found.shape == (2, 2, 1)
    assert found.nbytes == 4 * 6 + 8 * 3 + 4 * 2 + 4 * 3
    assert found.without_truth().members is None
    with pytest.raises(IndexError, match="dimension 0, not 1"):
        found.index_select(1, torch.tensor([0]))


@pytest.mark.parametrize(
    "rows", [slice(None), slice(1, 0), slice(0, 3, 2), slice(None, None, -1), slice(-1, None)]
)
def test_clusters_are_sliced_as_lists_are(rows):
    found = GalaxySet(torch.arange(6.0)[:, None], torch.tensor([0, 1, 3, 6]), torch.arange(3.0)[:, None])
    if rows.step == -1:
        rows = slice(2, None, -2)
    part = found[rows]
    expected = [list(range(3))[rows], [[0], [1, 2], [3, 4, 5]][rows]]
    assert part.clusters[:, 0].tolist() == expected[0]
    assert [one.galaxies[:, 0].tolist() for one in part.split(1)][: len(part)] == expected[1]
    assert part.offsets[0] == 0


@pytest.mark.parametrize(
    ("part", "value"), [("galaxies", math.inf), ("clusters", math.nan), ("galaxies", math.nan)]
)
def test_a_cluster_is_finite_where_all_of_it_is(part, value):
    found = GalaxySet(torch.ones(6, 1), torch.tensor([0, 1, 3, 6]), torch.ones(3, 1))
    assert found.finite().tolist() == [True] * 3
    getattr(found, part)[2, 0] = value
    assert found.finite().tolist() == ([True, False, True] if part == "galaxies" else [True, True, False])


def test_contexts_of_one_kind_become_one():
    one = GalaxySet(torch.ones(2, 1), torch.tensor([0, 2]), torch.ones(1, 1))
    told = GalaxySet(torch.ones(2, 1), torch.tensor([0, 2]), torch.ones(1, 1), torch.tensor([1.0, 0.0]))
    both = concatenate([told, told])
    assert (both.offsets.tolist(), both.members.tolist()) == ([0, 2, 4], [1.0, 0.0, 1.0, 0.0])
    assert concatenate([one, one]).members is None
    assert concatenate([torch.ones(1, 2), torch.zeros(2, 2)]).shape == (3, 2)
    for parts, message in (
        ([], "0 contexts, of which 0 are galaxies"),
        ([one, torch.ones(1, 2)], "2 contexts, of which 1 are galaxies"),
        ([one, told], "who is a member is known of some of the contexts only"),
    ):
        with pytest.raises(ValueError, match=message):
            concatenate(parts)
