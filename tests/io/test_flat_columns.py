"""Cells and columns of flat tables: what each kind of use takes them for, and which of two names they have."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table
from flat_tables import EACH, frame_tables, notes, same, sky_tables

from bayesflowmass.catalog import CatalogError
from bayesflowmass.cosmology import MDPL2, transverse_mpc_h_per_radian
from bayesflowmass.io import load_catalog, read_flat
from bayesflowmass.io.flat.galaxies import settle_redshift
from bayesflowmass.io.table import FlatTable

EXACT = 2.0**53


def flat(what="galaxies", **columns):
    return FlatTable(Table(columns), what)


def masked(values, *gaps):
    return MaskedColumn(values, mask=np.isin(np.arange(len(values)), gaps))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2], [1, 2]),
        ([1.0, -2.0], [1, -2]),
        ([EXACT - 1, 0.0], [2**53 - 1, 0]),
        ([EXACT, 0.0], "is 9007199254740992.0, of float64; expected ids"),
        ([-EXACT, 0.0], "does not survive as a float"),
        ([1.5, 2.0], "does not survive as a float"),
        ([" a ", "b"], ["a", "b"]),
        (["a", "  "], "t: cluster_id in row 2 is empty"),
        ([1.0, np.nan], "in row 2 is empty"),
        (masked([1, 2], 0), "in row 1 is empty"),
        ([True, False], "holds bool; expected ids"),
        ([[1, 2], [3, 4]], "holds int64; expected ids"),
    ],
)
def test_ids_are_whole_and_exact_and_there(values, expected):
    table = FlatTable(Table({"cluster_id": values}), "clusters", name="t")
    if isinstance(expected, str):
        with pytest.raises(CatalogError, match=expected.replace(".", r"\.")):
            table.ids("cluster_id")
    else:
        assert table.ids("cluster_id").tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2], [1.0, 2.0]),
        ([True, False], [1.0, 0.0]),
        (["1.5", ""], [1.5, np.nan]),
        (masked([1, 2], 1), [1.0, np.nan]),
        (masked(["1", "x"], 1), [1.0, np.nan]),
        (["1", "x"], "v in row 2 is 'x'; expected a number"),
        ([1.0, -np.inf], "v in row 2 is -inf; expected a finite number"),
        ([[1.0], [2.0]], "column v holds float64; expected numbers"),
        (np.array(["2024-01-01", "NaT"], dtype="M8[D]"), "v in row 1 is '2024-01-01'"),
        (np.array([1, None], dtype=object), [1.0, np.nan]),
        (np.array([b"1", b"2"]), [1.0, 2.0]),
        (np.array([1, 2], dtype=">f4"), [1.0, 2.0]),
    ],
)
def test_measured_numbers_may_be_missing_and_are_nothing_else(values, expected):
    table = flat(v=values)
    if isinstance(expected, str):
        with pytest.raises(CatalogError, match=expected):
            table.measured("v")
        return
    np.testing.assert_array_equal(table.measured("v"), expected)
    if np.isnan(expected).any():
        with pytest.raises(CatalogError, match="v in row 2 is empty or nan"):
            table.numbers("v")
    else:
        np.testing.assert_array_equal(table.numbers("v"), expected)


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("halo_id", [1.0, 2.0], [1, 2]),
        ("halo_id", [1.0, np.nan], ["1", ""]),
        ("halo_id", [EXACT - 1, 1.0], [2**53 - 1, 1]),
        ("halo_id", [EXACT, 1.0], ["9007199254740992.0", "1.0"]),
        ("halo_id", [1.5, 2.0], ["1.5", "2.0"]),
        ("halo_id", [1.5, np.nan], ["1.5", ""]),
        ("halo_id", masked([1, 2], 0), ["", "2"]),
        ("halo", [1.5, np.nan], [1.5, np.nan]),
        ("halo", masked([1, 2], 0), [np.nan, 2.0]),
        ("halo", masked([2**53 - 1, 2], 1), [EXACT - 1, np.nan]),
        ("halo", masked([2**53 + 1, 2], 1), ["9007199254740993", ""]),
        ("halo", masked([2**53, 2], 1), ["9007199254740992", ""]),
        ("halo", masked([1.5, 2.5], 1), [1.5, np.nan]),
        ("halo", masked([True, False], 1), ["True", ""]),
        ("halo", masked(["a", "b"], 1), ["a", ""]),
    ],
)
def test_columns_that_travel_keep_their_values_and_show_their_gaps(name, values, expected):
    found = flat(**{name: values}).carried(name)
    assert found.dtype.kind == np.array(expected).dtype.kind
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("header", "name", "unit"),
    [
        ("ra [deg]", "ra", "deg"),
        ("ra (deg)", "ra", "deg"),
        ("ra[deg]", "ra", "deg"),
        ("ra (J2000)", "ra", None),
        ("z (helio)", "z", None),
        ("[deg]", "[deg]", None),
        ("\ufeffra", "ra", None),
        (" RA ", "ra", None),
    ],
)
def test_what_stands_in_brackets_is_a_unit_or_a_frame(header, name, unit):
    table = flat(**{header: [1.0]})
    assert list(table.columns) == [name]
    assert table.units[name] == unit
    assert table.has_in_file(header)
    assert not table.has_in_file("other")


def test_two_columns_that_would_have_one_name_keep_both():
    table = flat(**{"Redshift": [3.0], "Redshift (z)": [0.1]})
    assert list(table.columns) == ["redshift", "Redshift (z)"] or set(table.columns) == {
        "Redshift",
        "Redshift (z)",
    }
    both = flat(**{"d [kpc]": [3.0], "d [Mpc]": [0.1], "d": [7.0]})
    assert {name: both.columns[name][0] for name in both.columns} == {
        "d [kpc]": 3.0,
        "d [Mpc]": 0.1,
        "d": 7.0,
    }
    both = flat(**{"d [kpc]": [3.0], "d [Mpc]": [0.1]})
    assert {name: both.columns[name][0] for name in both.columns} == {"d": 3.0, "d [Mpc]": 0.1}
    assert both.units == {"d": "kpc", "d [Mpc]": None}
    with pytest.raises(CatalogError, match=r"ra .B1950. is in the frame of 1950; expected J2000"):
        flat(**{"ra [B1950]": [1.0]})
    declared = Table({"ra [rad]": [1.0]})
    declared["ra [rad]"].unit = "deg"
    assert FlatTable(declared, "galaxies").units == {"ra": "deg"}


@pytest.mark.parametrize(
    ("columns", "needed", "near"),
    [
        (["redshft"], "redshift", "the nearest is redshft: if that is it, use --column redshift=redshft"),
        (["colour"], "redshift", "say which of its columns it is with --column redshift=THEIRS"),
        (["v pec"], "v_los", "use --column v_los='v pec'"),
        (["v_err"], "v_los", "say which of its columns"),
    ],
)
def test_a_column_that_is_missing_is_proposed_where_one_is_near(columns, needed, near):
    table = flat("clusters" if needed == "redshift" else "galaxies", **{name: [1.0] for name in columns})
    with pytest.raises(CatalogError, match=near):
        table.require(needed)


def test_a_name_in_two_cases_is_left_alone():
    table = flat(X=[1.0], x=[2.0], Y=[3.0], Colour=[4.0])
    assert set(table.columns) == {"X", "x", "y", "Colour"}


@pytest.mark.parametrize(("far", "refused"), [(18, False), (19, True)])
def test_redshifts_of_which_most_cannot_be_are_none(far, refused):
    galaxies, clusters, _ = sky_tables()
    galaxies["z"][:far] = 4.0
    if refused:
        with pytest.raises(CatalogError, match=r"z in row 1 is 4.*expected a redshift in"):
            load_catalog(galaxies, clusters, few_galaxies="keep")
    else:
        catalog = load_catalog(galaxies, clusters, few_galaxies="keep")
        assert catalog.metadata.extra["galaxies_left_out"] == far


def redshift_table(**columns):
    rows = {"ra": np.full(4, 10.0), "dec": np.full(4, 1.0)} | columns
    return FlatTable(Table(rows), "galaxies")


@pytest.mark.parametrize(
    ("columns", "of_galaxies"),
    [
        ({"redshift": [0.1, 0.2, 0.3, 0.4]}, True),
        ({"redshift": [0.1, 0.1, 0.2, 0.2], "cluster_id": [1, 1, 2, 2]}, False),
        ({"redshift": [0.1, 0.1 + 9e-7, 0.2, 0.2], "cluster_id": [1, 1, 2, 2]}, False),
        ({"redshift": [0.1, 0.1 + 2e-6, 0.2, 0.2], "cluster_id": [1, 1, 2, 2]}, True),
        # Another cluster in each row: a redshift of each galaxy too.
        ({"redshift": [0.1, 0.1, 0.2, 0.2], "cluster_id": [1, 2, 3, 4]}, True),
        ({"redshift": [0.1] * 4, "cluster_id": [1, 2, 3, 3]}, False),
        ({"redshift": [0.1] * 4, "cz": [3e4] * 4}, False),
        ({"redshift": [0.1] * 4, "z": [0.1] * 4}, False),
        ({"redshift": [0.1] * 4, "z": [3.0] * 4}, False),
        ({"redshift": [0.1] * 4, "z": [3.1] * 4}, True),
        ({"redshift": [3.1] * 4, "z": [17.0] * 4}, False),
    ],
)
def test_a_redshift_is_of_each_galaxy_or_of_its_cluster(columns, of_galaxies):
    table = redshift_table(**columns)
    settle_redshift(table)
    assert ("redshift" not in table) == of_galaxies
    if of_galaxies:
        assert table.measured("z").tolist() == columns["redshift"]
        assert ("z_in_file" in table) == ("z" in columns)


def test_what_the_user_named_is_not_settled_anew():
    rows = Table({"ra": [10.0], "dec": [1.0], "a": [0.1], "b": [17.0]})
    for names in ({"redshift": "a", "z": "b"}, {"redshift": "a"}):
        table = FlatTable(rows, "galaxies", names)
        settle_redshift(table)
        assert "redshift" in table


@pytest.mark.parametrize(("n", "said"), [(1, False), (2, True)])
def test_several_rows_of_other_clusters_look_like_a_table_of_clusters(n, said):
    _, clusters, _ = sky_tables(n=n)
    with pytest.raises(CatalogError) as caught:
        load_catalog(clusters)
    assert ("looks like that table, with another cluster in each row" in str(caught.value)) == said


def test_galaxies_of_one_cluster_need_no_id():
    galaxies, clusters = frame_tables()
    galaxies.remove_column("cluster_id")
    catalog = read_flat(galaxies, clusters[:1])
    assert catalog.n_galaxies.tolist() == [3 * EACH]
    with pytest.raises(CatalogError, match="column cluster_id is missing"):
        read_flat(galaxies, clusters)
    assert read_flat(galaxies, clusters[:1], cluster_id=10).n_galaxies.tolist() == [3 * EACH]


@pytest.mark.parametrize("unit", ["Mpc/h", "arcmin", None, "comoving Mpc"])
def test_whose_lengths_are_taken_is_said_where_it_matters(unit):
    galaxies, clusters = frame_tables()
    if unit is not None:
        galaxies["x"].unit = galaxies["y"].unit = unit
    said = "are taken to be those of H0" in notes(read_flat(galaxies, clusters))
    assert said == (unit == "comoving Mpc")
    told = notes(read_flat(galaxies, clusters, table_cosmology=MDPL2))
    assert "are taken to be those of H0" not in told


def test_radii_and_velocities_of_known_galaxies_alone_are_compared():
    galaxies, clusters, truth = sky_tables()
    expected = load_catalog(galaxies, clusters)
    galaxies["r_proj"], galaxies["v_los"] = -truth["r"], truth["v"]
    catalog = load_catalog(galaxies, clusters)
    same(catalog, expected)
    assert "not used" not in notes(catalog)
    galaxies["x"], galaxies["y"] = truth["east"] * 1000.0, truth["north"] * 1000.0
    galaxies.remove_column("r_proj")
    assert "x and y are comoving kpc/h, as ra, dec and z tell, and not used" in notes(
        load_catalog(galaxies, clusters)
    )


def test_positions_that_repeat_in_another_cluster_are_no_repeats():
    galaxies, clusters, _ = sky_tables(n=1)
    galaxies.remove_column("cluster_id")
    near = clusters.copy()
    near["cluster_id"] = ["B"]
    near["dec"] += np.degrees(0.1 / transverse_mpc_h_per_radian(clusters["z"][0]))
    both = Table({name: np.concatenate([clusters[name], near[name]]) for name in clusters.colnames})
    catalog = read_flat(galaxies, both)
    assert catalog.metadata.extra["repeated_positions"] == 0
    assert catalog.column("n_shared").min() > 0


@pytest.mark.parametrize(("value", "refused"), [(1e-6, False), (1.1e-6, True)])
def test_the_redshift_of_a_cluster_is_one_value_to_a_millionth(value, refused):
    galaxies, _ = frame_tables()
    galaxies["redshift"] = 0.1
    galaxies["redshift"][5] = np.nan
    galaxies["redshift"][7] = 0.1 + value * 0.999999
    if refused:
        with pytest.raises(CatalogError, match=r"redshift is 0.1.* in row .* and 0.1.* elsewhere in cluster"):
            read_flat(galaxies)
    else:
        assert read_flat(galaxies).column("redshift") == pytest.approx(0.1, abs=2e-6)
        assert read_flat(galaxies).column("cluster_id").tolist() == list(
            dict.fromkeys(galaxies["cluster_id"])
        )
