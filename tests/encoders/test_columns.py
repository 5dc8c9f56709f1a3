"""Cluster columns of a context: where values come from, how they are standardised, told and known; sets, scales."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bayesflowmass.catalog import CatalogError, CatalogMetadata, ClusterCatalog
from bayesflowmass.encoders import ContextEncoder, KDEEncoder, SetEncoder
from bayesflowmass.encoders.columns import ExtraColumns, OptionalColumns
from bayesflowmass.encoders.galaxy_set import GalaxySet, concatenate, in_parts
from bayesflowmass.encoders.kde.grid import Grid
from bayesflowmass.encoders.local import LocalDensities
from bayesflowmass.encoders.scaling import scale_images
from bayesflowmass.encoders.set_encoder import _median


def catalogue(counts=(3, 0, 2), **columns):
    n = sum(counts)
    rng = np.random.default_rng(0)
    clusters = {"cluster_id": np.arange(len(counts)), "redshift": np.full(len(counts), 0.1)}
    galaxies = {"x": rng.normal(size=n), "y": rng.normal(size=n), "v_los": rng.normal(0, 500, n)}
    galaxies |= {name: values for name, values in columns.items() if name.startswith("gal_")}
    clusters |= {name: values for name, values in columns.items() if not name.startswith("gal_")}
    return ClusterCatalog.from_arrays(clusters, galaxies, counts, CatalogMetadata())


def values_of(name, catalog):
    return OptionalColumns((name,)).values(catalog)[:, 0]


def test_velocity_errors_of_a_cluster_are_the_root_mean_square_of_those_that_are_known():
    catalog = catalogue(gal_v_err=np.array([30.0, np.nan, 40.0, np.nan, np.nan]))
    np.testing.assert_allclose(values_of("sigma_v_err", catalog), [np.sqrt(1250.0), np.nan, np.nan])
    # What a column says of the cluster wins.
    told = catalog.with_columns(sigma_v_err=[1.0, 2.0, np.inf])
    np.testing.assert_array_equal(values_of("sigma_v_err", told), [1.0, 2.0, np.nan])
    assert np.isnan(values_of("sigma_v_err", catalogue())).all()


def test_the_depth_of_a_cluster_is_that_of_its_faintest_galaxy():
    catalog = catalogue(gal_abs_mag=np.array([-21.0, -19.0, np.nan, np.nan, np.nan]))
    np.testing.assert_array_equal(values_of("abs_mag_limit", catalog), [-19.0, np.nan, np.nan])
    np.testing.assert_array_equal(
        values_of("abs_mag_limit", catalog.with_columns(abs_mag_limit=[-18.0] * 3)), -18.0
    )


def test_the_mode_and_the_cleaning_are_those_of_the_catalogue_where_no_column_says():
    catalog = catalogue()
    assert np.isnan(values_of("mode", catalog)).all()
    for mode, value in (("paper", 0.0), ("survey", 1.0)):
        assert values_of("mode", catalog.with_metadata(mode=mode)).tolist() == [value] * 3
    mixed = catalog.with_columns(mode=np.array(["survey", "mixed", "paper"])).with_metadata(mode="paper")
    np.testing.assert_array_equal(values_of("mode", mixed), [1.0, np.nan, 0.0])
    np.testing.assert_array_equal(
        values_of("mode", catalog.with_columns(mode=[1.0, 0.0, np.nan])), [1.0, 0.0, np.nan]
    )
    # That interlopers were not removed is never taken for granted.
    assert np.isnan(values_of("cleaned", catalog)).all()
    assert np.isnan(values_of("cleaned", catalog.with_metadata(selection={"cleaned": False}))).all()
    assert values_of("cleaned", catalog.with_metadata(selection={"cleaned": True})).tolist() == [1.0] * 3
    assert np.isnan(values_of("completeness", catalog)).all()
    with pytest.raises(CatalogError, match="column 'completeness' is not numeric"):
        values_of("completeness", catalog.with_columns(completeness=np.array(["a", "b", "c"])))


def test_how_far_a_field_reaches_is_measured():
    catalog = catalogue((3, 2))
    found = ExtraColumns(("redshift", "outermost")).values(catalog)
    np.testing.assert_array_equal(found[:, 0], 0.1)
    np.testing.assert_allclose(found[:, 1], [catalog.r_proj[:3].max(), catalog.r_proj[3:].max()])
    flags = catalog.with_columns(flag=np.array([True, False]))
    assert ExtraColumns(("flag",)).values(flags)[:, 0].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(("spread", "scale"), [(4e-12, 2e-12), (1e-12, 1.0), (0.0, 1.0)])
def test_a_column_that_does_not_vary_keeps_the_scale_one(spread, scale):
    columns = OptionalColumns(("a",))
    columns.fit(catalogue((1, 1, 1), a=[0.0, spread, np.nan]))
    assert columns.constants == ((0.5 * spread, scale),)
    large = OptionalColumns(("a",))
    large.fit(catalogue((1, 1), a=[1e6, 1e6 + 1.5e-6]))
    assert large.constants[0][1] == 1.0
    with pytest.raises(CatalogError, match="'a' is not known of any of 2 training clusters"):
        OptionalColumns(("a",)).fit(catalogue((1, 1), a=[np.nan, np.inf]))


def test_unknown_values_are_two_zeros_and_can_be_told():
    columns = OptionalColumns(("a", "b"), [(1.0, 2.0), (10.0, 5.0)])
    assert (columns.width, len(columns)) == (4, 2)
    entries = columns.encode(torch.tensor([[3.0, math.nan], [math.inf, 0.0]], dtype=torch.float64))
    assert entries.tolist() == [[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, -2.0, 1.0]]
    context = torch.cat([torch.full((2, 3), 7.0), entries.float()], 1)
    assert columns.known(context, "a").tolist() == [True, False]
    assert columns.known(context, "b").tolist() == [False, True]
    told = columns.replace(context, "b", 20.0)
    assert told[:, 5:].tolist() == [[2.0, 1.0]] * 2
    assert torch.equal(told[:, :5], context[:, :5])
    assert columns.replace(context, "a", math.nan)[:, 3:5].tolist() == [[0.0, 0.0]] * 2
    assert torch.equal(context[:, 5:], entries[:, 2:].float())
    with pytest.raises(ValueError, match="'c' is not among the optional columns a, b"):
        columns.replace(context, "c", 1.0)
    assert OptionalColumns().describe() == {}
    assert OptionalColumns.from_description(columns.describe()).constants == columns.constants


@pytest.mark.parametrize(
    ("names", "constants", "message"),
    [
        (("a", "a"), None, "holds a name twice"),
        (("a",), [], "there are 1 names but constants for 0"),
        (("a",), [(0, 1), (0, 1)], "there are 1 names but constants for 2"),
    ],
)
def test_names_and_constants_have_to_fit(names, constants, message):
    with pytest.raises(ValueError, match=message):
        ExtraColumns(names, constants)
    assert ExtraColumns(("a",), [(0, 1)]).constants == ((0.0, 1.0),)
    assert ExtraColumns().constants == ()


def test_columns_that_are_read_and_the_memory_of_contexts():
    catalog = catalogue((30, 12))
    image = ContextEncoder(
        KDEEncoder((10, 12)), extras=("redshift",), optional=("sigma_v_err",), galaxy_weight="w"
    )
    assert image.context_dim == 120 + 1 + 2
    assert image.memory(catalog) == 4 * 2 * 123
    assert image.catalog_columns == {"x", "y", "v_los", "redshift", "sigma_v_err", "gal_v_err", "w"}
    plain = ContextEncoder(KDEEncoder((10, 12)), optional=("mode",))
    assert plain.catalog_columns == {"x", "y", "v_los", "mode"}
    galaxies = SetEncoder([(0.1, 300.0)], extras=("redshift",), optional=("mode",))
    assert (galaxies.galaxy_dim, galaxies.context_dim) == (7, 4)
    assert galaxies.memory(catalog) == 4 * (42 * 8 + 2 * 6)
    assert bool(galaxies.sees(torch.zeros(4, 3)).all())
    assert galaxies.odd == (False, True, True, False, True, False, False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"galaxies": {"counted": True}}, "galaxies.counted is what the encoder says"),
        ({"galaxies": {"cluster_dim": 3}}, "galaxies.cluster_dim is what"),
        ({"trunk": "conv"}, "need the trunk 'set'"),
        ({"shared": False}, "shared by all blocks"),
    ],
)
def test_a_network_over_galaxies_has_what_its_encoder_says(given, message):
    encoder = SetEncoder([(0.1, 300.0)], counted=False)
    with pytest.raises(ValueError, match=message):
        encoder.flow_arguments(given)
    found = encoder.flow_arguments({"hidden": (3,), "galaxies": {"width": 8}, "trunk": "set", "shared": True})
    assert found["hidden"] == (3,)
    assert found["galaxies"] == {"width": 8, "galaxy_dim": 7, "counted": False}
    assert encoder.flow_arguments({})["hidden"] == (128,)
    assert encoder.uses_richness is False
    assert SetEncoder().uses_richness is True


def test_medians_are_those_of_numpy_and_deviations_have_a_least():
    rng = np.random.default_rng(0)
    counts = [5, 4, 0, 1, 2]
    values, offsets = torch.tensor(rng.normal(size=12)), torch.tensor([0, *np.cumsum(counts)])
    found = _median(values, offsets)
    expected = [
        np.median(part) if len(part) else 0.0 for part in np.split(values.numpy(), np.cumsum(counts)[:-1])
    ]
    np.testing.assert_allclose(found, expected)
    assert _median(values[:0], torch.tensor([0, 0])).tolist() == [0.0]
    encoder = SetEncoder([(0.1, 300.0)])
    still = torch.tensor([[0.0, 0.0, 100.0], [1.0, 0.0, 100.0], [0.0, 2.0, 140.0]], dtype=torch.float64)
    contexts = encoder(still, torch.tensor([0, 3, 3]))
    # Velocities that are nearly equal are told apart by 50 km/s, and so are those of no galaxy.
    np.testing.assert_allclose(contexts.clusters[:, 0], np.log(1.4826 * 0.05))
    np.testing.assert_allclose(contexts.galaxies[:, 2], still[:, 2] / (1.4826 * 50.0))
    np.testing.assert_allclose(contexts.galaxies[:, 0], [1e-6, 1.0, 2.0])


def galaxy_set(counts, members=True):
    n = sum(counts)
    offsets = torch.tensor([0, *np.cumsum(counts)])
    galaxies = torch.arange(2.0 * n).reshape(n, 2)
    return GalaxySet(
        galaxies,
        offsets,
        torch.arange(float(len(counts)))[:, None],
        torch.arange(float(n)) if members else None,
    )


@pytest.mark.parametrize(
    "rows",
    [
        slice(1, 3),
        slice(3, 1),
        slice(None, None, 2),
        slice(None, None, -1),
        torch.tensor([2, 0, 2]),
        torch.tensor([True, False, False, True]),
    ],
)
def test_rows_of_a_set_are_clusters_with_their_galaxies(rows):
    counts = [2, 0, 3, 1]
    whole = galaxy_set(counts)
    found = whole[rows]
    chosen = torch.arange(4)[rows].tolist() if not isinstance(rows, slice) else list(range(4))[rows]
    assert found.clusters[:, 0].tolist() == chosen
    assert found.counts.tolist() == [counts[k] for k in chosen]
    parts = [whole.galaxies[whole.offsets[k] : whole.offsets[k + 1]] for k in chosen]
    assert torch.equal(found.galaxies, torch.cat(parts) if parts else whole.galaxies[:0])
    assert found.members.tolist() == [row[0] / 2 for row in found.galaxies.tolist()]
    assert found.numbers.tolist() == [place for place, k in enumerate(chosen) for _ in range(counts[k])]


def test_sets_are_cut_and_put_together():
    whole = galaxy_set([2, 0, 3, 1])
    assert whole.shape == (4, 2, 1)
    assert whole.nbytes == 6 * 2 * 4 + 5 * 8 + 4 * 4 + 6 * 4
    parts = whole.split(3)
    assert [len(part) for part in parts] == [3, 1]
    assert [len(part) for part in whole.split(4)] == [4]
    assert len(whole[:0].split(2)) == 1
    again = concatenate(parts)
    for name, part in whole.tensors().items():
        assert torch.equal(part, again.tensors()[name])
    assert concatenate([torch.ones(1, 2), torch.zeros(2, 2)]).shape == (3, 2)
    assert [len(part) for part in in_parts(torch.zeros(5, 2), 2)] == [2, 2, 1]
    assert [len(part) for part in in_parts(whole, 3)] == [3, 1]
    for some, message in (
        ([], "0 contexts"),
        ([whole, torch.ones(1, 2)], "2 contexts, of which 1"),
        ([whole, whole.without_truth()], "some of the contexts only"),
    ):
        with pytest.raises(ValueError, match=message):
            concatenate(some)
    with pytest.raises(IndexError, match="dimension 0, not 1"):
        whole.index_select(1, torch.tensor([0]))
    broken = whole.clone()
    broken.galaxies[3, 1] = math.nan
    broken.clusters[3, 0] = math.inf
    assert broken.finite().tolist() == [True, True, False, False]
    assert whole.double().galaxies.dtype == torch.float64
    assert whole.double().offsets.dtype == torch.int64


def test_images_are_scaled_as_they_are_said_to_be():
    images, n = torch.tensor([[[0.0, 0.25], [0.25, 0.5]]]), torch.tensor([8])
    assert torch.equal(scale_images(images, "mean", 4.0, n), 4.0 * images)
    torch.testing.assert_close(scale_images(images, "sqrt", 4.0, n), (4.0 * images).sqrt())
    torch.testing.assert_close(scale_images(images, "log1p_richness", 0.5, n), torch.log1p(4.0 * images))
    some = images.clone().requires_grad_()
    scale_images(some, "sqrt", 4.0, n).sum().backward()
    assert bool(torch.isfinite(some.grad).all())


def test_a_grid_holds_its_edges_and_its_bins():
    grid = Grid((4, 2), (0.0, -1.0), (2.0, 1.0))
    assert (grid.ndim, grid.size, grid.spacing, grid.middle) == (2, 8, (0.5, 1.0), (1.0, 0.0))
    assert grid.nodes(0).tolist() == [0.25, 0.75, 1.25, 1.75]
    x, w = np.polynomial.legendre.leggauss(3)
    np.testing.assert_allclose(grid.nodes(1, 3), np.concatenate([-0.5 + 0.5 * x, 0.5 + 0.5 * x]))
    np.testing.assert_allclose(Grid.node_weights(3), w / 2)
    points = torch.tensor([[0.0, -1.0], [2.0, 1.0], [-1e-9, 0.0], [1.0, 1.0 + 1e-9]], dtype=torch.float64)
    assert grid.contains(points).tolist() == [True, True, False, False]
    for arguments in (
        ((), (), ()),
        ((2,), (0.0,), (1.0, 2.0)),
        ((0,), (0.0,), (1.0,)),
        ((2,), (1.0,), (1.0,)),
        ((2,), (0.0,), (math.inf,)),
    ):
        with pytest.raises(ValueError, match=r"axis|entry per axis"):
            Grid(*arguments)
    assert Grid((1,), (0.0,), (1.0,)).shape == (1,)


@pytest.mark.parametrize("width", [0.0, -1.0, math.inf, math.nan])
def test_widths_of_kernels_and_floors_are_positive(width):
    for arguments in (([(width, 1.0)],), ([(1.0, width)],), ([(1.0, 1.0)], True, width)):
        with pytest.raises(ValueError, match="are positive"):
            LocalDensities(*arguments)
    assert LocalDensities([(1.0, 2.0)] * 3).width == 12
    assert LocalDensities().describe() == {
        "widths": [[0.06, 200.0], [0.12, 300.0], [0.25, 450.0], [0.4, 700.0], [0.7, 1200.0]],
        "counted": True,
        "floor": 0.01,
    }
