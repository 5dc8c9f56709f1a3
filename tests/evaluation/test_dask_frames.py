"""Masses of a Dask collection are those of `infer`, partition by partition, and not before they are asked for."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from small_model import toy_catalog, toy_estimator

from bayesflowmass.catalog import CatalogError
from bayesflowmass.encoders import ContextEncoder, KDEEncoder
from bayesflowmass.encoders.columns import OUTERMOST
from bayesflowmass.estimator import MassEstimator, TrainingInfo
from bayesflowmass.evaluation.dask_frames import infer_dask
from bayesflowmass.flows import build_flow
from bayesflowmass.infer import infer

dd = pytest.importorskip("dask.dataframe")
SAID = {"selection": {"r_max": 1.6, "v_max": 2500.0}, "mode": "paper"}
FORMS = ("lists", "nested")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(toy_estimator().save(tmp_path_factory.mktemp("dask") / "model"))


@pytest.fixture(scope="module")
def catalog():
    """Twelve clusters, the last four of two galaxies each."""
    whole = toy_catalog(12, seed=4)
    place = np.arange(whole.n_galaxies_total) - np.repeat(whole.offsets[:-1], whole.n_galaxies)
    return whole.filter_galaxies((whole.galaxy_rows < 8) | (place < 2))


def frame_of(catalog, form, folder):
    catalog.write(folder / "catalog.parquet")
    if form == "lists":
        frame = pd.read_parquet(folder / "catalog.parquet", dtype_backend="pyarrow")
    else:
        nested = pytest.importorskip("nested_pandas")
        frame = nested.read_parquet(folder / "catalog.parquet").nest_lists(["x", "y", "v_los"], "galaxies")
    return frame.set_index(np.arange(100, 112))


@pytest.mark.parametrize("form", FORMS)
def test_masses_of_partitions_are_those_of_infer(form, model, catalog, tmp_path):
    frame = frame_of(catalog, form, tmp_path)
    found = dd.from_map(lambda start: frame[start : start + 4], [0, 4, 8], meta=frame[:0])
    masses = infer_dask(found, model, prior="hmf", metadata=SAID)
    assert list(masses.columns)[:4] == ["cluster_id", "n_galaxies", "redshift", "log10_mass"]
    table = masses.compute(scheduler="sync")
    expected = infer(toy_estimator(), catalog, prior="hmf")
    assert table.index.tolist() == frame.index.tolist()
    assert table.columns.tolist() == expected.colnames
    assert set(table["prior"]) == set(expected["prior"])
    assert table["cluster_id"].tolist() == expected["cluster_id"].tolist()
    assert all(flags.startswith("too_few_galaxies") for flags in table["flags"][8:])
    for name in ("log10_mass", "sigma", "q16", "r200c"):
        np.testing.assert_allclose(table[name], np.ma.filled(expected[name], np.nan), rtol=0, atol=1e-5)
    assert table["log10_mass"].isna().tolist() == [False] * 8 + [True] * 4
    assert all(
        table.dtypes[name] == masses.dtypes[name] for name in ("cluster_id", "log10_mass", "n_galaxies")
    )


def test_the_columns_that_a_model_needs_are_made_up_for_empty_partitions(catalog, tmp_path):
    catalog = catalog[:8].with_columns(area=np.arange(8.0))
    encoder = ContextEncoder(KDEEncoder((12, 12)), extras=("area", OUTERMOST)).fit_extras(catalog)
    flow = build_flow("affine", encoder.context_dim, 14.4, 0.15, hidden=(8,), seed=1)
    estimator = MassEstimator(encoder, flow, TrainingInfo.from_catalog(catalog, uses_richness=False), "cpu")
    folder = str(estimator.save(tmp_path / "model"))
    catalog.write(tmp_path / "catalog.parquet")
    frame = pd.read_parquet(tmp_path / "catalog.parquet", dtype_backend="pyarrow")
    found = dd.from_map(lambda start: frame[start : start + 8], [0, 8], meta=frame[:0])
    masses = infer_dask(found, folder, metadata=SAID).compute(scheduler="sync")
    np.testing.assert_allclose(masses["log10_mass"], infer(estimator, catalog)["log10_mass"], atol=1e-5)


def test_nothing_is_read_before_it_is_asked_for_and_partitions_may_be_empty(model, catalog, tmp_path):
    frame = frame_of(catalog, "lists", tmp_path)
    asked = []

    def read(start):
        asked.append(start)
        return frame[start : start + 4]

    masses = infer_dask(dd.from_map(read, [0, 12], meta=frame[:0]), model)
    assert not asked
    assert len(masses.compute(scheduler="sync")) == 4
    assert sorted(asked) == [0, 12]


def test_a_frame_without_redshifts_is_one_sentence(model, catalog, tmp_path):
    frame = frame_of(catalog, "lists", tmp_path).drop(columns="redshift")
    with pytest.raises(
        CatalogError, match="The dataframe has no column redshift; its columns are cluster_id"
    ):
        infer_dask(dd.from_pandas(frame, npartitions=2), model)
