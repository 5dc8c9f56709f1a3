"""Validation: each thing that can be wrong, and its message."""

from __future__ import annotations

import numpy as np
import pytest

from bayesflowmass.catalog import CatalogError, CatalogMetadata, ClusterCatalog


def make(clusters=None, galaxies=None, counts=(4, 4), metadata=None):
    total = sum(counts)
    rng = np.random.default_rng(0)
    rows = {
        "cluster_id": np.array([6, 10]),
        "redshift": np.array([0.08, 0.1]),
        "log10_mass": np.array([14.5, 14.0]),
    }
    flats = {"x": rng.normal(size=total), "y": rng.normal(size=total), "v_los": rng.normal(0, 800, total)}
    return ClusterCatalog.from_arrays(
        {**rows, **(clusters or {})}, {**flats, **(galaxies or {})}, counts, metadata
    )


def spoiled(column, galaxy, value):
    values = np.array(make().galaxies(column))
    values[galaxy] = value
    return make(galaxies={column: values})


def test_a_good_catalogue_is_returned_itself():
    catalog = make()
    assert catalog.validate() is catalog


def test_the_least_richness_is_an_argument():
    poor = make(counts=(4, 2))
    with pytest.raises(CatalogError, match=r"cluster 10 \(row 1\) has only 2 galaxies; expected at least 3"):
        poor.validate()
    poor.validate(min_galaxies=2)
    make(counts=(4, 0)).validate(min_galaxies=0)


@pytest.mark.parametrize(
    ("catalog", "message"),
    [
        (lambda: make().without("redshift"), "the cluster column 'redshift' is missing"),
        (lambda: make().without("y"), "the galaxy column 'y' is missing"),
        (lambda: make({"cluster_id": [6, 6]}), "cluster_id 6 stands in rows 0 and 1; ids must be unique"),
        (lambda: make({"cluster_id": np.array([True, False])}), "cluster_id holds bool"),
        (lambda: make({"redshift": [0.1, np.nan]}), r"cluster 10 \(row 1\): redshift is nan"),
        (
            lambda: make({"redshift": [-0.1, 0.1]}),
            r"cluster 6 \(row 0\): redshift is -0.1; expected the cosmo",
        ),
        (lambda: make({"redshift": [0.1, 29979.0]}), "redshift is 29979.*not cz"),
        (lambda: make({"redshift": ["a", "b"]}), "column redshift holds <U1; expected numbers"),
        (lambda: make({"log10_mass": [14.0, 1e14]}), r"log10_mass is 1e\+14; expected log10 of M200c"),
        (lambda: make({"dec": [0.0, 120.0]}), "dec is 120"),
        (
            lambda: spoiled("x", 5, np.inf),
            r"cluster 10 \(row 1\), galaxy 1: x is inf; expected a finite number",
        ),
        (lambda: spoiled("y", 0, 700.0), r"cluster 6 \(row 0\), galaxy 0: y is 700.*not kpc"),
        (lambda: spoiled("v_los", 7, 8e5), r"cluster 10 \(row 1\), galaxy 3: v_los is 800000.*not m/s or cz"),
        (
            lambda: make(galaxies={"gal_v_err": np.full(8, -1.0)}),
            "galaxy 0: gal_v_err is -1; expected an error",
        ),
        (
            lambda: make({"completeness": [0.5, 80.0]}),
            r"cluster 10 \(row 1\): completeness is 80; .* not per cent",
        ),
        (lambda: make({"abs_mag_limit": [-20.0, -99.0]}), "abs_mag_limit is -99; expected the faintest"),
        (lambda: make(counts=(0, 8)), r"cluster 6 \(row 0\) has no galaxies"),
        (lambda: make(counts=(7, 1)), "has only 1 galaxy;"),
        (
            lambda: make(galaxies={"v_los": np.r_[np.arange(4.0), np.full(4, 5.0)]}),
            r"cluster 10 \(row 1\): v_los is 5.0 for all of its 4 galaxies",
        ),
        (
            lambda: make(metadata=CatalogMetadata(units={"x": "kpc"})),
            "column x is in 'kpc' according to the metadata",
        ),
    ],
)
def test_each_fault_has_its_message(catalog, message):
    with pytest.raises(CatalogError, match=message):
        catalog().validate()


def test_what_was_not_measured_may_be_missing():
    rows = {"completeness": [0.5, np.nan], "sigma_v_err": [np.nan, 30.0], "redshift_err": [np.nan, np.nan]}
    make(rows, {"gal_v_err": np.r_[np.nan, np.full(7, 30.0)]}).validate()


def test_a_cluster_without_redshift_stays_only_as_a_row_without_galaxies():
    make({"redshift": [0.1, np.nan]}, counts=(8, 0)).validate(0)
    with pytest.raises(CatalogError, match="redshift is nan"):
        make({"redshift": [0.1, np.nan]}).validate(0)


def test_whoever_keeps_poor_clusters_keeps_those_of_one_velocity():
    make(galaxies={"v_los": np.r_[np.arange(4.0), np.full(4, 5.0)]}).validate(0)
