"""Flags say what the table can tell, at the value where they should: no false alarm, and none missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from small_model import toy_catalog, toy_estimator

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.estimator import FLAGS
from bayesflowmass.estimator.flags import UNUSABLE, cluster_flags
from bayesflowmass.io import read_flat

PAGE = Path(__file__).resolve().parents[2] / "docs" / "flags.md"


@pytest.fixture(scope="module")
def estimator():
    return toy_estimator()


def holds(name, catalog, estimator, **known):
    """Which clusters have a flag."""
    found = cluster_flags(catalog, estimator.training_info, **known)
    return [name in flags.split(",") for flags in found]


def of_sizes(*counts):
    """Clusters of some numbers of galaxies, otherwise like those of training."""
    rng = np.random.default_rng(4)
    n = sum(counts)
    return ClusterCatalog.from_arrays(
        {"cluster_id": np.arange(len(counts)), "redshift": np.full(len(counts), 0.117)},
        {"x": rng.normal(0, 0.4, n), "y": rng.normal(0, 0.4, n), "v_los": rng.normal(0, 500, n)},
        counts,
    )


def test_a_cluster_of_ten_galaxies_is_not_few_and_one_of_nine_is(estimator):
    clusters = of_sizes(2, 3, 9, 10, 11)
    assert holds("few_galaxies", clusters, estimator) == [False, True, True, False, False]
    assert holds("too_few_galaxies", clusters, estimator) == [True, False, False, False, False]


@pytest.mark.parametrize("error", [300.0, 400.0, 2000.0])
def test_velocity_errors_beyond_training_are_flagged_wherever_they_stand(estimator, error):
    clusters = toy_catalog(4, seed=1)
    assert not any(holds("selection", clusters, estimator))
    of_galaxies = clusters.with_galaxies(gal_v_err=np.full(clusters.n_galaxies_total, error))
    of_clusters = clusters.with_columns(sigma_v_err=[error, 20.0, np.nan, error])
    assert all(holds("selection", of_galaxies, estimator))
    assert holds("selection", of_clusters, estimator) == [True, False, False, True]


def test_velocity_errors_that_change_no_mass_are_not_flagged(estimator):
    clusters = toy_catalog(4, seed=1)
    small = clusters.with_galaxies(gal_v_err=np.full(clusters.n_galaxies_total, 50.0))
    assert not any(holds("selection", small, estimator))


def test_a_depth_beyond_training_is_flagged_cluster_by_cluster():
    seen = toy_catalog(300, seed=9)
    seen = seen.with_metadata(selection=seen.metadata.selection | {"magnitude_limit": [-21.0, -18.0]})
    told = toy_catalog(4, seed=2).with_columns(abs_mag_limit=[-20.0, -16.0, -23.0, np.nan])
    found = holds("selection", told, toy_estimator(catalog=seen))
    assert found == [False, True, True, False]
    magnitude = np.repeat([-20.0, -16.0, -23.0, np.nan], told.n_galaxies)
    measured = told.without("abs_mag_limit").with_galaxies(gal_abs_mag=magnitude)
    assert holds("selection", measured, toy_estimator(catalog=seen)) == found


def tables(catalog, radial):
    """The galaxies as a user has them: distances and directions, or distances alone."""
    rows = np.repeat(np.arange(len(catalog)), catalog.n_galaxies)
    places = {"x": catalog.galaxies("x"), "y": catalog.galaxies("y")}
    if radial:
        places = {"r_proj": np.hypot(*places.values())}
    names = np.asarray(catalog.column("cluster_id"))
    galaxies = Table({"cluster_id": names[rows], **places, "v_los": catalog.galaxies("v_los")})
    return galaxies, Table({"cluster_id": names, "redshift": catalog.column("redshift")})


def test_distances_without_directions_raise_the_flags_that_they_can_tell_and_no_other(estimator):
    clusters = toy_catalog(60, seed=5)
    # Some have a wrong redshift, some a wrong centre: directions alone would show the latter.
    clusters = clusters.with_galaxies(
        v_los=clusters.galaxies("v_los") + 400.0 * (clusters.galaxy_rows % 3 == 0),
        x=clusters.galaxies("x") + 0.5 * (clusters.galaxy_rows % 3 == 1),
    )
    full, radial = (
        cluster_flags(read_flat(*tables(clusters, radial), mode="paper"), estimator.training_info)
        for radial in (False, True)
    )
    without = [",".join(name for name in flags.split(",") if name != "position_offset") for flags in full]
    assert list(radial) == without
    assert sum("position_offset" in flags for flags in full) > 10
    assert sum("velocity_offset" in flags for flags in radial) > 10


def test_a_catalogue_of_distances_says_so_in_its_file(tmp_path):
    catalog = read_flat(*tables(toy_catalog(2), True))
    catalog.write(tmp_path / "c.parquet")
    assert ClusterCatalog.read(tmp_path / "c.parquet").metadata.radial
    assert not read_flat(*tables(toy_catalog(2), False)).metadata.radial


def test_every_flag_stands_on_the_page_of_flags_and_no_other():
    rows = [
        line.split("|")[1].strip(" `")
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line[:3] == "| `"
    ]
    assert rows == list(FLAGS)
    assert list(UNUSABLE) == rows[: len(UNUSABLE)]
