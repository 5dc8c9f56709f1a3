"""ClusterCatalog: every operation against a plain list-of-arrays reference."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesflowmass.catalog import CatalogError, CatalogMetadata, ClusterCatalog
from bayesflowmass.catalog.arrays import match_ids, segment_median, segment_sum
from bayesflowmass.cosmology import Cosmology

counts_strategy = st.lists(st.integers(0, 6), min_size=1, max_size=12)
examples = settings(deadline=None, max_examples=30)


def make(counts, seed=0, dtype=np.float32, text_ids=False):
    rng = np.random.default_rng(seed)
    n, total = len(counts), int(np.sum(counts))
    ids = np.arange(n) * 7 + 2**60
    return ClusterCatalog.from_arrays(
        {
            "cluster_id": np.array([f"c{i}" for i in ids]) if text_ids else ids,
            "redshift": rng.uniform(0.02, 0.3, n),
            "log10_mass": rng.uniform(13.5, 15.2, n),
            "halo_id": np.arange(n) // 3,
            "axis": rng.normal(size=(n, 3)),
            "note": np.array([f"note {i}" for i in range(n)]),
        },
        {
            "x": rng.normal(size=total).astype(dtype),
            "y": rng.normal(size=total).astype(dtype),
            "v_los": rng.normal(0, 800, total).astype(dtype),
            "gal_is_member": rng.random(total) < 0.5,
            "gal_galaxy_id": rng.integers(2**60, 2**62, total),
            "gal_component": rng.choice(["one", "two"], total),
        },
        counts,
        CatalogMetadata(kind="contaminated", mode="paper", selection={"r_max": 1.6}, seed=seed),
    )


def pieces(catalog, name):
    return np.split(catalog.galaxies(name), catalog.offsets[1:-1])


def assert_rows(result, original, rows):
    """The result holds these rows of the original, in every column."""
    assert len(result) == len(rows)
    assert result.offsets[0] == 0
    assert result.column_names == original.column_names
    for name in original.cluster_columns:
        assert result.column(name).dtype.kind == original.column(name).dtype.kind
        np.testing.assert_array_equal(result.column(name), original.column(name)[rows])
    for name in original.galaxy_columns:
        before = pieces(original, name)
        expected = np.concatenate([before[row] for row in rows]) if len(rows) else before[0][:0]
        np.testing.assert_array_equal(result.galaxies(name), expected)
    assert result.metadata == original.metadata


@given(counts_strategy, st.data())
@examples
def test_indexing_takes_the_same_rows_as_numpy(counts, data):
    catalog = make(counts)
    n = len(counts)
    every = np.arange(n)
    part = data.draw(st.slices(n))
    assert_rows(catalog[part], catalog, every[part])
    index = np.array(data.draw(st.lists(st.integers(-n, n - 1), max_size=8)), dtype=int)
    assert_rows(catalog[index], catalog, every[index])
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    assert_rows(catalog[mask], catalog, every[mask])
    assert_rows(catalog.filter(mask), catalog, every[mask])
    row = data.draw(st.integers(-n, n - 1))
    assert_rows(catalog[row], catalog, every[[row]])


@given(counts_strategy, st.data())
@examples
def test_slices_of_slices_are_rebased(counts, data):
    catalog = make(counts)
    rows = np.arange(len(counts))
    first, second = data.draw(st.slices(len(rows))), data.draw(st.slices(len(rows)))
    once = catalog[first]
    assert_rows(once[second], catalog, rows[first][second])
    assert_rows(ClusterCatalog.from_table(once.table), catalog, rows[first])


@given(counts_strategy, st.integers(0, 3))
@examples
def test_filtering_galaxies_keeps_clusters_and_order(counts, seed):
    catalog = make(counts)
    mask = np.random.default_rng(seed).random(catalog.n_galaxies_total) < 0.5
    result = catalog.filter_galaxies(mask)
    masks = np.split(mask, catalog.offsets[1:-1])
    np.testing.assert_array_equal(result.n_galaxies, [m.sum() for m in masks])
    for name in catalog.galaxy_columns:
        np.testing.assert_array_equal(result.galaxies(name), catalog.galaxies(name)[mask])


@given(st.lists(counts_strategy, min_size=1, max_size=4))
@examples
def test_concatenating_parts_gives_back_the_whole(several):
    counts = [count for part in several for count in part]
    catalog = make(counts)
    bounds = np.cumsum([0, *map(len, several)])
    parts = [catalog[bounds[i] : bounds[i + 1]] for i in range(len(several))]
    assert ClusterCatalog.concatenate(parts).equals(catalog)


def test_concatenation_widens_floats_and_merges_metadata():
    one, two = make([2, 3]), make([1], dtype=np.float64).with_metadata(seed=5, mode="survey")
    both = ClusterCatalog.concatenate([one, two])
    assert both.galaxies("x").dtype == np.float64
    assert both.metadata.mode == "mixed"
    assert both.metadata.seed is None
    assert both.metadata.selection == {"r_max": 1.6}


@given(st.integers(6, 40), st.integers(0, 5))
@examples
def test_split_keeps_halos_whole_and_every_row_once(n, seed):
    catalog = make(np.full(n, 2))
    fractions = [0.5, 0.3, 0.2]
    try:
        parts = catalog.split(fractions, seed)
    except CatalogError:
        assert n < 25
        return
    halos = [set(part.column("halo_id")) for part in parts]
    assert sum(map(len, halos)) == len(set.union(*halos))
    together = np.sort(np.concatenate([part.column("cluster_id") for part in parts]))
    np.testing.assert_array_equal(together, catalog.column("cluster_id"))
    for part, fraction in zip(parts, fractions, strict=True):
        assert abs(len(part) - fraction * n) <= 3


def test_split_depends_on_the_ids_and_the_seed_only():
    catalog = make(np.full(60, 2))
    shuffled = catalog[np.random.default_rng(1).permutation(60)]
    one, two, other = (c.split([0.8, 0.2], s)[1] for c, s in ((catalog, 4), (shuffled, 4), (catalog, 5)))
    assert set(one.column("cluster_id")) == set(two.column("cluster_id"))
    assert set(one.column("cluster_id")) != set(other.column("cluster_id"))
    without_halo = catalog.without("halo_id").split([0.8, 0.2], 4)
    assert [len(part) for part in without_halo] == [48, 12]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_come_out_as_views_of_what_went_in(dtype):
    x = np.arange(5, dtype=dtype)
    catalog = ClusterCatalog.from_arrays({"cluster_id": [1, 2]}, {"x": x, "y": x * 2}, [2, 3])
    assert np.shares_memory(catalog.galaxies("x"), x)
    assert np.shares_memory(catalog[1].galaxies("x"), x)
    assert not catalog.galaxies("x").flags.writeable
    tensor = catalog[1].galaxy_tensor("x")
    assert tensor.data_ptr() == x[2:].ctypes.data
    assert tensor.shape == (3, 1)
    assert tensor.dtype == torch.from_numpy(x).dtype


def test_tensor_of_several_columns():
    catalog = make([2, 0, 4], dtype=np.float64)
    tensor = catalog.galaxy_tensor(["r_proj", "v_los", "gal_is_member"], torch.float32)
    assert tensor.dtype == torch.float32
    radius = np.hypot(catalog.galaxies("x"), catalog.galaxies("y"))
    np.testing.assert_allclose(tensor[:, 0], radius, rtol=1e-6)
    np.testing.assert_allclose(tensor[:, 1], catalog.galaxies("v_los"), rtol=1e-6)
    np.testing.assert_array_equal(tensor[:, 2].numpy() > 0, catalog.galaxies("gal_is_member"))
    np.testing.assert_array_equal(catalog.r_proj, radius)


def test_columns_can_be_added_replaced_and_dropped():
    catalog = make([2, 3])
    bigger = catalog.with_columns(completeness=0.5, redshift=[0.1, 0.2]).with_galaxies(
        gal_weight=np.arange(5.0)
    )
    np.testing.assert_array_equal(bigger.column("completeness"), [0.5, 0.5])
    np.testing.assert_array_equal(bigger.column("redshift"), [0.1, 0.2])
    np.testing.assert_array_equal(bigger.galaxies("gal_weight"), np.arange(5.0))
    assert bigger.has("gal_weight", "note")
    smaller = bigger.without("note", "gal_weight")
    assert not smaller.has("note")
    assert not catalog.has("completeness")
    assert "2 clusters, 5 galaxies, contaminated, paper" in repr(catalog)


def test_large_lists_chunks_dictionaries_and_offsets_are_read():
    catalog = make([2, 0, 3, 1], text_ids=True)
    table = catalog.table
    large = pa.table(
        {
            name: table[name].cast(pa.large_list(table.schema.field(name).type.value_type))
            if pa.types.is_list(table.schema.field(name).type)
            else table[name]
            for name in table.column_names
        },
        metadata=table.schema.metadata,
    )
    assert ClusterCatalog.from_table(large).equals(catalog)
    chunked = pa.concat_tables([large.slice(0, 1), large.slice(1, 2), large.slice(3)])
    assert ClusterCatalog.from_table(chunked).equals(catalog)
    index = table.column_names.index("note")
    coded = table.set_column(index, "note", table["note"].combine_chunks().dictionary_encode())
    assert ClusterCatalog.from_table(coded).equals(catalog)


def test_list_columns_share_one_array_of_offsets():
    table = make([2, 3])[1:].table
    addresses = {table[name].chunk(0).offsets.buffers()[1].address for name in ("x", "y", "v_los")}
    assert len(addresses) == 1


def test_astropy_tables_come_back_even_when_galaxies_are_shuffled():
    catalog = make([2, 0, 3, 1])
    clusters, galaxies = catalog.to_tables()
    assert str(galaxies["v_los"].unit) == "km / s"
    again = ClusterCatalog.from_astropy(clusters, galaxies, catalog.metadata)
    assert again.equals(catalog)
    order = np.random.default_rng(0).permutation(len(galaxies))
    shuffled = ClusterCatalog.from_astropy(clusters, galaxies[order])
    for row in range(4):
        np.testing.assert_array_equal(
            np.sort(shuffled[row].galaxies("x")), np.sort(catalog[row].galaxies("x"))
        )


def test_metadata_survives_json_and_keeps_unknown_keys():
    metadata = CatalogMetadata(
        kind="pure",
        cosmology=Cosmology(Om0=0.3, name="other"),
        selection={"completeness": np.float32(0.5), "range": (1, 2)},
        masses={"distribution": "flat", "log10_mass_min": 13.2, "log10_mass_max": 15.6},
        seed=np.int64(3),
    )
    assert CatalogMetadata.from_json(metadata.to_json()) == metadata
    assert metadata.selection == {"completeness": 0.5, "range": [1, 2]}
    newer = {**metadata.to_dict(), "telescope": "large"}
    assert CatalogMetadata.from_dict(newer).extra == {"telescope": "large"}


@given(counts_strategy)
@examples
def test_sums_and_medians_over_clusters(counts):
    catalog = make(counts, dtype=np.float64)
    values = pieces(catalog, "v_los")
    np.testing.assert_allclose(
        segment_sum(catalog.galaxies("v_los"), catalog.offsets), [v.sum() for v in values]
    )
    expected = [np.median(v) if v.size else np.nan for v in values]
    np.testing.assert_allclose(segment_median(catalog.galaxies("v_los"), catalog.offsets), expected)
    chosen = catalog.galaxies("gal_is_member")
    expected = [
        np.median(v[m]) if m.any() else np.nan
        for v, m in zip(values, pieces(catalog, "gal_is_member"), strict=True)
    ]
    np.testing.assert_allclose(segment_median(catalog.galaxies("v_los"), catalog.offsets, chosen), expected)


def test_ids_are_matched_exactly_above_two_to_the_53():
    known = np.array([2**60 + 1, 2**60, 5])
    np.testing.assert_array_equal(match_ids(np.array([5, 2**60, 2**60 + 2]), known), [2, 1, -1])


def flat(**changes):
    columns = {"x": np.zeros(2), "y": np.zeros(2), "v_los": np.arange(2.0)} | changes
    return ClusterCatalog.from_arrays({"cluster_id": [1]}, columns, [2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: flat(x=np.zeros(3)), "column x has 3 values for 2 galaxies"),
        (lambda: flat(cluster_id=np.zeros(2)), "'cluster_id' is given for clusters and for galaxies"),
        (lambda: flat(x=np.array([1j, 2])), "column x has dtype complex128"),
        (lambda: ClusterCatalog.from_arrays({"cluster_id": [1.0]}, {}, [0]), "does not survive as a float"),
        (lambda: ClusterCatalog.from_arrays({"cluster_id": [1]}, {}, [-1]), "0 or more"),
        (lambda: ClusterCatalog.from_table(pa.table({"x": [1.0]})), "no list column.*load_catalog"),
        (
            lambda: ClusterCatalog.from_table(
                pa.table({"cluster_id": [7, 8], "x": [[1.0], [2.0]], "y": [[1.0], []]})
            ),
            r"cluster 8 \(row 1\): column y has 0 galaxies where column x has 1",
        ),
        (lambda: ClusterCatalog.from_table(pa.table({"x": [[1.0], None]})), "no list in row 1"),
        (
            lambda: ClusterCatalog.from_table(pa.table({"n": [1, None], "x": [[1.0], []]})),
            "no value in row 1",
        ),
        (lambda: make([1]).column("mass"), "no cluster column 'mass'; it has cluster_id"),
        (lambda: make([1]).galaxies("redshift"), "no galaxy column 'redshift'"),
        (lambda: make([1]).filter([True, False]), "one for each of 1 clusters"),
        (lambda: make([1]).filter_galaxies([1]), "a mask of int64"),
        (lambda: make([1])["x"], "indexed by a number"),
        (lambda: make([1]).with_columns(x=[1.0]), "exists for galaxies"),
        (lambda: make([1]).with_galaxies(note=["a"]), "exists for clusters"),
        (lambda: make([1]).galaxy_tensor("gal_component"), "which no tensor can"),
        (lambda: ClusterCatalog.concatenate([]), "no catalogue to concatenate"),
        (lambda: ClusterCatalog.concatenate([make([1]), make([1]).without("note")]), "differ in column note"),
        (
            lambda: ClusterCatalog.concatenate([make([1]), make([1]).with_metadata(selection={})]),
            "differ in selection.*give the metadata",
        ),
        (lambda: ClusterCatalog.concatenate([make([1]), make([1], text_ids=True)]), "int64 and string"),
        (lambda: make([1, 1]).split([0.5, 0.4], 0), "add up to 1"),
        (lambda: make([1, 1]).split([0.5, 0.5], 0), "1 haloes are too few"),
        (lambda: CatalogMetadata(kind="clean"), "kind is 'clean'; expected one of pure"),
        (lambda: CatalogMetadata(extra={"f": print}), "extra cannot be written as JSON"),
        (lambda: CatalogMetadata.from_json(b"[]"), "metadata cannot be read"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(call, message):
    with pytest.raises(CatalogError, match=message):
        call()


def test_a_row_outside_the_catalogue_is_an_index_error():
    for row in (2, -3, np.array([0, 2])):
        with pytest.raises(IndexError, match="catalogue of 2 clusters"):
            make([1, 2])[row]
