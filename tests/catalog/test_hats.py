"""HATS folders, which LSDB writes: the same clusters come back, and all of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from small_model import toy_catalog

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.catalog.files import is_catalog_file, parts_of


def write_hats(catalog: ClusterCatalog, folder: Path, suffix: str = ".parquet") -> Path:
    """A collection of a table in two pixels, and of margins that repeat a cluster, laid out as LSDB 0.11 does."""
    table = folder / "clusters"
    halves = [catalog[:3], catalog[3:]]
    for order, half in enumerate(halves):
        place = table / "dataset" / f"Norder={order}" / "Dir=0" / f"Npix={4**order}{suffix}"
        place.parent.mkdir(parents=True)
        if suffix != ".parquet":
            place.mkdir()
            place = place / "part0.snappy.parquet"
        half.write(place)
    (table / "dataset" / "_metadata").write_bytes(b"PAR1")
    (table / "hats.properties").write_text(
        f"#HATS catalog\nobs_collection=clusters\nhats_nrows={len(catalog)}\n", encoding="utf-8"
    )
    margins = folder / "clusters_5arcs" / "dataset" / "Norder=0" / "Dir=0"
    margins.mkdir(parents=True)
    catalog[:1].write(margins / "Npix=3.parquet")
    (folder / "clusters_5arcs" / "properties").write_text("hats_nrows=1\n", encoding="utf-8")
    (folder / "collection.properties").write_text(
        "#HATS Collection\nhats_primary_table_url=clusters\n", encoding="utf-8"
    )
    return folder


@pytest.mark.parametrize("suffix", [".parquet", ""])
@pytest.mark.parametrize("inside", [".", "clusters"])
def test_each_cluster_of_a_collection_comes_once(tmp_path, suffix, inside):
    catalog = toy_catalog(8, seed=1)
    folder = write_hats(catalog, tmp_path / "hats", suffix) / inside
    back = ClusterCatalog.read(folder)
    assert back.column("cluster_id").tolist() == catalog.column("cluster_id").tolist()
    assert back.galaxies("v_los").tolist() == catalog.galaxies("v_los").tolist()
    assert is_catalog_file(folder)
    assert sum(part.read().num_rows for part in parts_of(folder)) == len(catalog)


def test_a_table_that_lost_a_file_is_refused(tmp_path):
    folder = write_hats(toy_catalog(8, seed=1), tmp_path / "hats")
    shutil.rmtree(folder / "clusters" / "dataset" / "Norder=1")
    with pytest.raises(CatalogError, match="have 3 rows, and its properties say 8"):
        ClusterCatalog.read(folder)
    shutil.rmtree(folder / "clusters" / "dataset" / "Norder=0")
    with pytest.raises(CatalogError, match="has no files dataset/Norder="):
        ClusterCatalog.read(folder)


def test_a_table_without_a_number_of_rows_is_read(tmp_path):
    folder = write_hats(toy_catalog(8, seed=1), tmp_path / "hats")
    (folder / "clusters" / "hats.properties").rename(folder / "clusters" / "properties")
    (folder / "clusters" / "properties").write_text("obs_collection=clusters\n", encoding="utf-8")
    assert len(ClusterCatalog.read(folder)) == 8


@pytest.mark.parametrize("name", ["../elsewhere/clusters", "https://example.org/clusters", "", "missing"])
def test_a_collection_leads_nowhere_else(tmp_path, name):
    folder = write_hats(toy_catalog(8, seed=1), tmp_path / "hats")
    shutil.copytree(folder, tmp_path / "elsewhere")
    (folder / "collection.properties").write_text(f"hats_primary_table_url={name}\n", encoding="utf-8")
    with pytest.raises(CatalogError, match="a folder beside this file"):
        ClusterCatalog.read(folder)


def test_properties_that_are_no_text_are_refused(tmp_path):
    folder = write_hats(toy_catalog(8, seed=1), tmp_path / "hats")
    (folder / "collection.properties").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CatalogError, match="cannot be read as text"):
        ClusterCatalog.read(folder)


def test_lsdb_writes_what_we_read(tmp_path):
    lsdb = pytest.importorskip("lsdb", reason="LSDB is not installed; pip install lsdb to run this test")
    nested_pandas = pytest.importorskip("nested_pandas")
    catalog = toy_catalog(40, seed=1)
    catalog.write(tmp_path / "ours.parquet")
    frame = nested_pandas.read_parquet(tmp_path / "ours.parquet")
    rng = np.random.default_rng(0)
    frame["ra"], frame["dec"] = rng.uniform(0.0, 360.0, 40), rng.uniform(-90.0, 90.0, 40)
    nested = frame.nest_lists(["x", "y", "v_los"], "galaxies")
    table = lsdb.from_dataframe(nested, ra_column="ra", dec_column="dec", catalog_name="clusters")
    table.write_catalog(tmp_path / "hats", as_collection=True)
    back = ClusterCatalog.read(tmp_path / "hats")
    places = {name: i for i, name in enumerate(back.column("cluster_id").tolist())}
    assert len(places) == len(back) == len(catalog)
    for i, name in enumerate(catalog.column("cluster_id").tolist()):
        one, other = places[name], i
        assert (
            back[one : one + 1].galaxies("v_los").tolist()
            == catalog[other : other + 1].galaxies("v_los").tolist()
        )
