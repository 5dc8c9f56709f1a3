"""What evaluations refuse, what of stored files they trust, and the values at which that changes."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from small_model import toy_catalog, toy_estimator

from bayesflowmass.catalog import CatalogError
from bayesflowmass.evaluation import novelty, read_predictions, write_predictions
from bayesflowmass.evaluation.files import COLUMNS, StoredPredictions, file_hash, stored, with_missing
from bayesflowmass.evaluation.novelty import novelty_metrics
from bayesflowmass.evaluation.paper import literature_masses, scatter_pair
from bayesflowmass.evaluation.road import posteriors
from bayesflowmass.evaluation.survey_mocks import summaries, unknown_of
from bayesflowmass.novelty import ALARM, Assessment


@pytest.fixture(scope="module")
def estimator():
    return toy_estimator()


def masses(**meta):
    table = {"cluster_id": ["a", "b"], "log10_mass": [14.0, 15.0], "q16": [13.9, 14.8], "q84": [14.2, 15.1]}
    return Table(table, masked=True, meta=meta)


def literature(*names):
    n = len(names)
    return Table({"cluster_id": names, "log10_mass": [14.5] * n, "lower": [0.1] * n, "upper": [0.2] * n})


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (masses(mdef="500c"), literature("a"), "the masses are M500c in Msun/h; infer them without --mdef"),
        (masses(units="Msun"), literature("a"), "the masses are M200c in Msun;"),
        (masses(), literature("c"), "No cluster of the literature is among the masses; they are a, b"),
        (masses()["cluster_id", "log10_mass", "q16"], literature("a"), "masses has no column q84; found"),
        (masses(), literature("a")["cluster_id", "log10_mass"], "literature has no column lower; found"),
    ],
)
def test_masses_of_the_literature_are_compared_with_those_of_the_same_clusters(ours, theirs, message):
    with pytest.raises(CatalogError, match=message):
        literature_masses(ours, theirs)
    for meta in ({}, {"mdef": "200c", "units": "Msun/h"}):
        assert literature_masses(masses(**meta), literature("x", "b"))[0] == ["b"]


def test_equation_8_needs_members_and_leaves_out_what_has_no_mass():
    catalog = toy_catalog(12)
    predicted = catalog.column("log10_mass") + np.linspace(-0.2, 0.2, 12)
    with pytest.raises(CatalogError, match="Equation 8 counts members, and the catalogue does not know them"):
        scatter_pair(catalog, predicted, 3, 0)
    known = catalog.with_columns(n_members=np.linspace(10, 90, 12).astype(int))
    fewer = np.where(np.arange(12) == 4, np.nan, predicted)
    found = scatter_pair(known, fewer, 5, 0)
    assert found == scatter_pair(known.filter(np.arange(12) != 4), np.delete(predicted, 4), 5, 0)
    assert found != scatter_pair(known, predicted, 5, 0)


def test_stored_predictions_are_those_of_exactly_these_settings(tmp_path):
    catalog, path = toy_catalog(3), tmp_path / "a" / "p.parquet"
    columns = {name: np.ones(3) for name in COLUMNS}
    note = {"prior": "flat", "made": [1, 2]}
    assert not stored(path, note)
    write_predictions(path, catalog, columns, note)
    assert stored(path, note)
    # What the columns mean is no setting.
    assert stored(path, {**note, "columns": {"other": "words"}})
    for other in ({**note, "prior": "hmf"}, {"prior": "flat"}, {**note, "more": 1}):
        assert not stored(path, other)
    pq.write_table(pa.table({"a": [1]}), path)
    assert not stored(path, note)
    path.write_bytes(b"PAR1 and no more")
    assert not stored(path, note)
    assert not stored(tmp_path, note)
    with pytest.raises(ValueError, match="is not a readable parquet file"):
        read_predictions(path)


def test_a_file_of_predictions_has_its_columns(tmp_path):
    columns = {name: np.ones(3) for name in COLUMNS if name != "log10_mass"}
    write_predictions(tmp_path / "p.parquet", toy_catalog(3), columns, {})
    with pytest.raises(ValueError, match=r"has no column log10_mass; expected the predictions\.parquet"):
        read_predictions(tmp_path / "p.parquet")
    columns["log10_mass"] = np.array([14.0, np.nan, 14.5])
    columns["pit"] = np.array([0.5, np.nan, 0.5])
    write_predictions(tmp_path / "p.parquet", toy_catalog(3), columns, {})
    found = read_predictions(tmp_path / "p.parquet")
    assert found.usable.tolist() == [True, False, True]
    assert (found.halo_id, found.seed, found.bayesian) == (None, "0", False)
    columns["pit"] = np.array([0.5, 0.5, np.nan])
    write_predictions(tmp_path / "p.parquet", toy_catalog(3), columns, {})
    with pytest.raises(ValueError, match="pit is not finite for 1 clusters, the first 2"):
        read_predictions(tmp_path / "p.parquet")


@pytest.mark.parametrize(
    ("epistemic", "bayesian"),
    [(None, False), ([0.0, 0.0], False), ([np.nan, 1e-9], True), ([np.nan, np.nan], False)],
)
def test_weights_are_uncertain_where_they_add_to_a_width(epistemic, bayesian):
    columns = {"log10_mass": np.ones(2)} | (
        {} if epistemic is None else {"sigma_epistemic": np.array(epistemic)}
    )
    assert StoredPredictions(columns, np.arange(2), None, {}, "f").bayesian == bayesian


def test_what_has_no_mass_is_nan_among_the_others():
    found = with_missing({"a": np.array([1.0, 2.0])}, np.array([True, False, True]))
    np.testing.assert_array_equal(found["a"], [1.0, np.nan, 2.0])


def test_a_hash_is_of_a_file_or_of_all_files_of_a_folder_in_their_order(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_bytes(b"2")
    (tmp_path / "a").write_bytes(b"1")
    assert file_hash(tmp_path) == hashlib.sha256(b"12").hexdigest()
    assert file_hash(tmp_path / "a") == hashlib.sha256(b"1").hexdigest()
    with pytest.raises(CatalogError, match=r"The file '.*none' does not exist"):
        file_hash(tmp_path / "none")


def test_the_share_of_strange_clusters_is_at_the_alarm_and_below(estimator, monkeypatch):
    p_value = np.array([ALARM, ALARM + 1e-9, 0.5, 0.001])
    strange = Assessment(p_value, p_value, p_value[:, None], np.zeros(4, dtype=np.int64))
    assert novelty_metrics(estimator, strange, toy_catalog(4), 0) is None
    assert novelty_metrics(SimpleNamespace(novelty="one"), None, toy_catalog(4), 0) is None
    monkeypatch.setattr(novelty, "judge", lambda *_, seed: seed)
    monkeypatch.setattr(novelty, "verdict_sentence", lambda verdict: f"seed {verdict}")
    monkeypatch.setattr(novelty, "asdict", lambda verdict: {"n": verdict})
    found = novelty_metrics(SimpleNamespace(novelty="one"), strange, toy_catalog(4), 7)
    assert found == {"threshold": 0.01, "share_unlike_training": 0.5, "verdict": "seed 7", "n": 7}


def test_a_batch_without_a_mass_has_no_posterior_under_any_prior(estimator):
    catalog = toy_catalog(4)
    alone = catalog.filter_galaxies(np.arange(catalog.n_galaxies_total) < 0)
    (batch,) = posteriors(estimator, alone, a_part=True)
    with pytest.raises(ValueError, match="No cluster of this batch has a mass"):
        batch.under("hmf")
    assert batch.sigma_systematic is None
    assert np.isnan(batch.p_novelty).all()
    assert not batch.usable.any()


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_summary_is_of_clusters_with_galaxies_enough(estimator, beyond):
    catalog = toy_catalog(4)
    most = int(catalog.n_galaxies.max())
    if beyond:
        with pytest.raises(CatalogError, match=f"None of the 4 clusters has {most + 1} galaxies"):
            summaries(estimator, catalog, most + 1)
    else:
        found = summaries(estimator, catalog, most)
        assert np.isfinite(found[:, 1]).tolist() == (catalog.n_galaxies == most).tolist()
        np.testing.assert_allclose(found[:, 0], np.log(catalog.n_galaxies))


def test_limits_of_theta_increase(estimator):
    catalog = toy_catalog(4)
    assert unknown_of(estimator, catalog, {"completeness": (0.5, 0.6)}) == {"completeness": (0.5, 0.6)}
    with pytest.raises(ValueError, match="two increasing numbers are expected"):
        unknown_of(estimator, catalog, {"completeness": (0.5, 0.5)})
    with pytest.raises(ValueError, match="'mass' cannot be inferred from a survey"):
        unknown_of(estimator, catalog, {"mass": (0.5, 0.6)})
