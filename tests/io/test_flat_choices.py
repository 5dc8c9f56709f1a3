"""Which of several readings of a flat table is taken, where its columns allow more than one."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table
from flat_tables import frame_tables, notes, sky_tables

from bayesflowmass.catalog import CatalogError
from bayesflowmass.cosmology import MDPL2, Cosmology
from bayesflowmass.io import load_catalog, read_flat
from bayesflowmass.io.flat.galaxies import carried_galaxies, settle_redshift
from bayesflowmass.io.table import FlatTable
from bayesflowmass.io.units import length_to_comoving

EVERY = np.arange(4)


def flat(**columns):
    return FlatTable(Table({"ra": [1.0] * 4, "dec": [2.0] * 4} | columns), "galaxies", name="t")


@pytest.mark.parametrize(
    ("z", "redshift", "magnitude"),
    [(17.0, 0.1, True), (0.1, 0.1, False), (17.0, 50.0, False), (0.1, 50.0, False)],
)
def test_z_is_a_magnitude_where_it_is_too_large_and_redshift_is_one(z, redshift, magnitude):
    table = flat(z=[z] * 4, redshift=[redshift] * 4)
    settle_redshift(table)
    assert ("z_in_file" in table.columns) == magnitude
    assert table.columns["z"][0] == (redshift if magnitude else z)
    assert any("a magnitude" in note for note in table.notes) == magnitude


@pytest.mark.parametrize(
    ("ids", "redshift", "moved"),
    [
        ([1, 1, 2, 2], [0.1, 0.1, 0.2, 0.2], False),
        ([1, 1, 2, 2], [0.1, 0.1, 0.2, 0.21], True),
        ([1, 1, 2, 2], [0.1, 0.1 + 9e-7, 0.2, 0.2], False),
        ([1, 1, 2, 2], [0.1, 0.1 + 2e-6, 0.2, 0.2], True),
        ([1, 2, 3, 4], [0.1, 0.1, 0.2, 0.2], True),
        (None, [0.1, 0.1, 0.2, 0.2], True),
    ],
)
def test_a_redshift_is_of_clusters_where_it_is_one_value_in_each_of_several(ids, redshift, moved):
    table = flat(redshift=redshift, **({} if ids is None else {"cluster_id": ids}))
    settle_redshift(table)
    assert ("z" in table.columns, "redshift" in table.columns) == (moved, not moved)


@pytest.mark.parametrize(
    ("unit", "made_with", "said"),
    [
        ("comoving Mpc", None, 1),
        ("proper kpc", None, 1),
        ("comoving Mpc", Cosmology(h=0.7, Om0=0.3), 0),
        ("comoving Mpc/h", None, 0),
        (None, None, 0),
        ("arcmin", None, 0),
    ],
)
def test_it_is_said_once_whose_lengths_are_taken(unit, made_with, said):
    galaxies, clusters = frame_tables(n=2)
    units = {} if unit is None else {"x": unit, "y": unit}
    catalog = read_flat(
        galaxies, clusters, units=units, table_cosmology=made_with, r_max=None, few_galaxies="keep"
    )
    assert notes(catalog).count("are taken to be those of H0 = ") == said


@pytest.mark.parametrize(
    ("values", "whole"),
    [
        (np.array([1, 0, 1, 1]), True),
        (np.array([True, False, True, True]), True),
        (np.array([1, 0, 1, 1], dtype="u1"), True),
        (np.array([1.0, 0.0, 0.5, 1.0]), False),
        (np.array(["y", "n", "y", "y"]), False),
        (MaskedColumn([1, 0, 1, 1], mask=[True, False, False, False]), False),
    ],
)
def test_a_member_is_one_or_none_of_it_is_used(values, whole):
    table = flat(is_member=values)
    found = carried_galaxies(table, EVERY, {}, {})
    assert ("gal_is_member" in found, "is_member_in_file" in found) == (whole, not whole)
    assert (
        any("kept as they are, not used, since they are no numbers: is_member" in n for n in table.notes)
        != whole
    )


def test_weights_have_no_gaps_and_magnitudes_may():
    table = flat(weight=[1.0, np.nan, 1.0, 1.0], abs_mag=[-20.0, np.nan, -21.0, -19.0])
    found = carried_galaxies(table, EVERY, {}, {})
    assert {"gal_abs_mag", "weight_in_file"} <= set(found)
    assert "gal_weight" not in found


def test_columns_of_galaxies_that_mean_something_of_a_cluster_are_theirs():
    table = flat(halo_id=[1, 2, 3, 4], mag=[1.0] * 4, richness=[2.0] * 4, x=[0.0] * 4, made=[5.0] * 4)
    found = carried_galaxies(table, EVERY[:2], {"made": 1}, {"richness": 1})
    assert list(found) == ["gal_ra", "gal_dec", "gal_halo_id", "mag", "gal_richness"]
    assert found["gal_halo_id"].tolist() == [1, 2]


def both_frames():
    """Galaxies with places on the sky and in the frame of their cluster."""
    galaxies, clusters, truth = sky_tables(n=1)
    galaxies["x"], galaxies["y"], galaxies["v_los"] = truth["east"] + 0.01, truth["north"], truth["v"]
    galaxies["redshift"] = np.full(len(galaxies), clusters["z"][0])
    return galaxies, clusters, truth


def test_places_on_the_sky_beat_offsets_where_there_is_a_table_of_clusters():
    galaxies, clusters, truth = both_frames()
    np.testing.assert_allclose(read_flat(galaxies, clusters).galaxies("x"), truth["east"], atol=1e-6)
    np.testing.assert_allclose(read_flat(galaxies).galaxies("x"), truth["east"] + 0.01, atol=1e-6)


def test_offsets_without_a_redshift_or_an_id_of_their_cluster_are_refused():
    galaxies, _, _ = both_frames()
    galaxies.remove_columns(["redshift"])
    with pytest.raises(CatalogError, match="the redshifts of the clusters are missing"):
        read_flat(galaxies, cluster_id="A")
    galaxies.remove_columns(["cluster_id"])
    with pytest.raises(CatalogError, match="or give --cluster-id NAME if all galaxies are of one cluster"):
        read_flat(galaxies, redshift=0.1)
    assert read_flat(galaxies, cluster_id="A", redshift=0.1).column("cluster_id").tolist() == ["A"]


def test_an_id_that_no_cluster_has_is_refused_and_a_name_that_was_only_taken_for_one_is_not():
    galaxies, clusters, truth = sky_tables()
    renamed = galaxies.copy()
    renamed["cluster_id"] = renamed["cluster_id"].astype("U8")
    renamed["cluster_id"][0] = "nobody"
    with pytest.raises(CatalogError, match="nobody"):
        read_flat(renamed, clusters)
    named = galaxies.copy()
    named.rename_column("cluster_id", "cluster")
    named["cluster"] = np.char.add("field of ", named["cluster"].astype(str))
    found = load_catalog(named, clusters)
    assert "so galaxies are assigned to clusters by their positions" in notes(found)
    assert found.n_galaxies_total == len(truth["r"])


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["a.ra", "a.dec"], True),
        (["a.ra", "b.dec"], False),
        (["a.ra", "a"], False),
        (["a.ra", "a.dec", "b.ra", "b.dec"], False),
        (["a.ra", "a.dec", "ra"], False),
        (["a.ra", "a.dec", "dec"], False),
    ],
)
def test_a_pair_of_coordinates_is_taken_where_it_is_the_only_one(names, taken):
    table = FlatTable(Table({name: [1.0] for name in names}), "galaxies")
    assert list(table.columns) == (["ra", "dec"] if taken else names)


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        ((), True),
        (("v_los",), True),
        (("x", "y"), True),
        (("v_los", "x"), True),
        (("v_los", "x", "y"), False),
        (("v_los", "r_proj"), False),
    ],
)
def test_coordinates_under_other_names_are_left_alone_beside_offsets_and_velocities(names, taken):
    table = FlatTable(Table({name: [1.0] for name in ("RAJ2000", *names)}), "galaxies")
    assert ("ra" in table.columns) == taken


@pytest.mark.parametrize(
    ("unit", "degrees"), [(None, 150.0), ("hourangle", 150.0), ("deg", 10.0), ("d:m:s", 10.0)]
)
def test_right_ascensions_as_text_are_hours_unless_they_are_said_to_be_degrees(unit, degrees):
    given = Table({"ra": ["10:00:00"], "dec": ["10:00:00"]})
    if unit is not None:
        given.rename_column("ra", f"ra [{unit}]")
    table = FlatTable(given, "galaxies")
    assert (table.columns["ra"].tolist(), table.columns["dec"].tolist()) == ([degrees], [10.0])


@pytest.mark.parametrize("frame", ["proper", "comoving"])
def test_the_frame_of_a_length_stands_before_or_behind_its_unit(frame):
    values, z = np.array([100.0]), lambda: np.array([0.5])
    expected = 0.1 * MDPL2.h * (1.5 if frame == "proper" else 1.0)
    for unit in (f"{frame} kpc", f"kpc {frame}"):
        np.testing.assert_allclose(length_to_comoving(values, unit, "t", MDPL2, z), expected)
