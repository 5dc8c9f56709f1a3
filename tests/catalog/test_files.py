"""Catalogue files: round trips, streaming, atomic writing, damaged files."""

from __future__ import annotations

import errno

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_model import toy_catalog

from bayesflowmass.catalog import CatalogError, CatalogMetadata, CatalogWriter, ClusterCatalog
from bayesflowmass.catalog.files import is_catalog_file


def make(counts, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    n, total = len(counts), int(np.sum(counts))
    return ClusterCatalog.from_arrays(
        {
            "cluster_id": np.arange(n) + 2**60,
            "redshift": rng.uniform(0.02, 0.3, n),
            "log10_mass": rng.uniform(13.5, 15.2, n),
            "axis": rng.normal(size=(n, 3)),
        },
        {
            "x": rng.normal(size=total).astype(dtype),
            "y": rng.normal(size=total).astype(dtype),
            "v_los": rng.normal(0, 800, total).astype(dtype),
            "gal_component": rng.choice(["one", "two"], total),
        },
        counts,
        CatalogMetadata(kind="pure", selection={"r_max": 1.6}, seed=seed),
    )


@given(st.lists(st.integers(0, 6), max_size=12), st.sampled_from([np.float32, np.float64]))
@settings(deadline=None, max_examples=15)
def test_arrays_survive_the_file(tmp_path_factory, counts, dtype):
    path = tmp_path_factory.mktemp("catalog") / "cat.parquet"
    catalog = make(counts, dtype=dtype)
    catalog.write(path)
    assert ClusterCatalog.read(path).equals(catalog)


def test_a_slice_is_written_without_its_parent(tmp_path):
    catalog = make([3, 2, 0, 4])[1:3]
    catalog.write(tmp_path / "cat.parquet")
    assert ClusterCatalog.read(tmp_path / "cat.parquet").equals(catalog)


def test_a_folder_of_files_is_one_catalogue(tmp_path):
    catalog = make([3, 2, 0, 4])
    catalog[:1].write(tmp_path / "a.parquet")
    catalog[1:].write(tmp_path / "b.parquet")
    assert ClusterCatalog.read(tmp_path).equals(catalog)
    assert [len(part) for part in ClusterCatalog.iterate(tmp_path, 3)] == [3, 1]


def test_chosen_columns_come_with_their_galaxies(tmp_path):
    catalog = make([3, 2])
    catalog.write(tmp_path / "cat.parquet")
    some = ClusterCatalog.read(tmp_path / "cat.parquet", columns=["redshift", "v_los"])
    assert some.column_names == ["redshift", "v_los"]
    no_list = ClusterCatalog.read(tmp_path / "cat.parquet", columns=["redshift"])
    np.testing.assert_array_equal(no_list.n_galaxies, [3, 2])


@pytest.mark.parametrize("batch_size", [1, 7, 40, 1000])
def test_iteration_gives_every_cluster_once_in_order(tmp_path, batch_size):
    catalog = make(np.random.default_rng(0).integers(0, 9, 100))
    with CatalogWriter(tmp_path / "cat.parquet") as writer:
        writer.write(catalog[:30])
        writer.write(catalog[30:])
    parts = list(ClusterCatalog.iterate(tmp_path / "cat.parquet", batch_size))
    assert all(len(part) == batch_size for part in parts[:-1])
    assert ClusterCatalog.concatenate(parts).equals(catalog)


def test_iteration_with_a_condition(tmp_path):
    catalog = make(np.random.default_rng(0).integers(0, 9, 100))
    catalog.write(tmp_path / "cat.parquet")
    where = (pc.field("log10_mass") > 14.5) & (pc.list_value_length(pc.field("x")) >= 3)
    parts = list(ClusterCatalog.iterate(tmp_path / "cat.parquet", 8, where=where))
    expected = catalog.filter((catalog.column("log10_mass") > 14.5) & (catalog.n_galaxies >= 3))
    assert ClusterCatalog.concatenate(parts).equals(expected)
    columns = ["cluster_id", "x"]
    narrow = list(ClusterCatalog.iterate(tmp_path / "cat.parquet", 8, columns, where))
    np.testing.assert_array_equal(ClusterCatalog.concatenate(narrow).galaxies("x"), expected.galaxies("x"))


def test_pandas_like_readers_see_plain_list_columns(tmp_path):
    make([3, 2]).write(tmp_path / "cat.parquet")
    schema = pq.read_schema(tmp_path / "cat.parquet")
    assert schema.field("x").type == pa.list_(pa.float32())
    assert schema.field("cluster_id").type == pa.int64()


class FullDisk(pq.ParquetWriter):
    def write_table(self, *_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "cat.parquet"
    old = make([1, 2])
    old.write(path)
    monkeypatch.setattr("bayesflowmass.catalog.files.pq.ParquetWriter", FullDisk)
    with pytest.raises(
        CatalogError, match=r"cat\.parquet cannot be written: the disk is full; free some space"
    ):
        make([5]).write(path)
    assert ClusterCatalog.read(path).equals(old)
    assert [file.name for file in tmp_path.iterdir()] == ["cat.parquet"]


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def interrupted():
        with CatalogWriter(tmp_path / "cat.parquet") as writer:
            writer.write(make([2]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_parts_of_one_file_must_fit_together(tmp_path):
    def misfit():
        with CatalogWriter(tmp_path / "cat.parquet") as writer:
            writer.write(make([2]))
            writer.write(make([2], dtype=np.float64))

    with pytest.raises(CatalogError, match="same columns, types and metadata"):
        misfit()
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(CatalogError, match="cannot be written"):
        make([2]).write(tmp_path / "file" / "cat.parquet")


@pytest.mark.parametrize("damage", ["truncated", "foreign", "empty"])
def test_a_damaged_file_is_one_sentence(tmp_path, damage):
    path = tmp_path / "cat.parquet"
    make([20, 30]).write(path)
    content = path.read_bytes()
    path.write_bytes(
        {"truncated": content[: len(content) // 2], "foreign": b"a,b\n1,2\n", "empty": b""}[damage]
    )
    for read in (ClusterCatalog.read, lambda place: list(ClusterCatalog.iterate(place, 3))):
        with pytest.raises(
            CatalogError, match=r"cat\.parquet: not a whole parquet file \(truncated, damaged"
        ):
            read(path)


def test_other_bad_input_is_one_sentence(tmp_path):
    make([2]).write(tmp_path / "a.parquet")
    make([2], dtype=np.float64).write(tmp_path / "b.parquet")
    (tmp_path / "none").mkdir()
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "none" / "flat.txt")
    for call, message in (
        (lambda: ClusterCatalog.read(tmp_path / "c.parquet"), "no such file or folder"),
        (lambda: ClusterCatalog.read(tmp_path / "none"), r"holds no \*\.parquet file"),
        (lambda: ClusterCatalog.read(tmp_path), "different columns or types"),
        (lambda: list(ClusterCatalog.iterate(tmp_path, 2)), "different columns or types"),
        (
            lambda: ClusterCatalog.read(tmp_path / "a.parquet", ["mass"]),
            "column 'mass' is missing; the file has",
        ),
        (
            lambda: ClusterCatalog.read(tmp_path / "none" / "flat.txt"),
            "flat.txt: the table has no list column",
        ),
        (lambda: list(ClusterCatalog.iterate(tmp_path / "a.parquet", 0)), "expected at least 1"),
        (
            lambda: list(ClusterCatalog.iterate(tmp_path / "a.parquet", 2, where=pc.field("q") > 1)),
            "No match.*q",
        ),
    ):
        with pytest.raises(CatalogError, match=message):
            call()


def test_a_catalogue_file_is_told_from_a_flat_table(tmp_path):
    make([2]).write(tmp_path / "cat.parquet")
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "flat.parquet")
    (tmp_path / "flat.csv").write_text("x\n1\n", encoding="utf-8")
    assert is_catalog_file(tmp_path / "cat.parquet")
    assert not is_catalog_file(tmp_path / "flat.parquet")
    assert not is_catalog_file(tmp_path / "flat.csv")


def test_nested_pandas_reads_what_we_write_and_we_read_what_it_writes(tmp_path):
    nested_pandas = pytest.importorskip("nested_pandas")
    catalog = toy_catalog(20, seed=1)
    catalog.write(tmp_path / "ours.parquet")
    frame = nested_pandas.read_parquet(tmp_path / "ours.parquet")
    nested = frame.nest_lists(["x", "y", "v_los"], "galaxies")
    assert (
        nested["galaxies"].nest.to_flat()["v_los"].to_numpy().tolist() == catalog.galaxies("v_los").tolist()
    )
    in_memory = ClusterCatalog.from_table(pa.Table.from_pandas(nested[3:], preserve_index=False))
    assert in_memory.galaxies("v_los").tolist() == catalog[3:].galaxies("v_los").tolist()
    nested.to_parquet(tmp_path / "nested.parquet")
    assert is_catalog_file(tmp_path / "nested.parquet")
    back = ClusterCatalog.read(tmp_path / "nested.parquet")
    assert back.column_names == catalog.column_names
    assert back.offsets.tolist() == catalog.offsets.tolist()
    assert back.galaxies("x").tolist() == catalog.galaxies("x").tolist()
