"""What flat tables are refused for, in one sentence each, and what looks like it and is right."""

from __future__ import annotations

import numpy as np
import pytest
from flat_tables import EACH, frame_tables, sky_tables

from bayesflowmass.catalog import CatalogError
from bayesflowmass.cosmology import SPEED_OF_LIGHT
from bayesflowmass.io import load_catalog, read_flat


def change(tables, what, **columns):
    """Tables with columns replaced by functions of themselves (or dropped, for None)."""
    table = tables[0 if what == "galaxies" else 1]
    for name, function in columns.items():
        if function is None:
            table.remove_column(name)
        else:
            table[name] = function(np.array(table[name]) if name in table.colnames else None)
    return tables[0], tables[1]


def put(row, value):
    def changed(values):
        values = values.astype(object) if isinstance(value, str) else values
        values[row] = value
        return values.astype(str) if isinstance(value, str) else values

    return changed


def frame(what="galaxies", **columns):
    return lambda: read_flat(*change(frame_tables(), what, **columns))


def sky(what="galaxies", **columns):
    return lambda: read_flat(*change(sky_tables(), what, **columns))


def radians(tables):
    for table in tables[:2]:
        for name in ("ra", "dec"):
            table[name] = np.radians(table[name])
    return read_flat(*tables[:2])


def cut_around_radians():
    galaxies, clusters, _ = sky_tables()
    galaxies.remove_column("cluster_id")
    return radians((galaxies, clusters))


def declared(unit, **options):
    galaxies, clusters = frame_tables()
    for name, value in unit.items():
        galaxies[name].unit = value
    return read_flat(galaxies, clusters, **options)


def given_radius(factor):
    galaxies, clusters, truth = sky_tables()
    z = np.repeat(np.asarray(clusters["z"]), EACH)
    galaxies["r_proj"] = truth["r"] * factor(z)
    return read_flat(galaxies, clusters)


BAD = {
    "missing column": (
        frame(grp=lambda _: np.repeat([10, 11, 12], EACH), cluster_id=None),
        r"column cluster_id is missing; the nearest is grp: if that is it, use --column cluster_id=grp",
    ),
    "missing column without a near one": (frame(v_los=None), "column v_los is missing; .*--column v_los="),
    "missing y": (frame(y=None), "column y is missing"),
    "missing redshift": (frame("clusters", redshift=None), "column redshift is missing"),
    "mapped column missing": (
        lambda: read_flat(*frame_tables(), column_map={"x": "xpos"}),
        "--column x=xpos: there is no column xpos",
    ),
    "unknown unit": (
        lambda: declared({"v_los": "furlong/fortnight"}),
        "v_los has the unit .*unknown or unfit",
    ),
    "unit of another kind": (lambda: declared({"v_los": "kpc"}), "expected a velocity such as km/s"),
    "unknown length": (
        lambda: declared({}, units={"x": "cubits", "y": "cubits"}),
        "x has the unknown unit 'cubits'; expected",
    ),
    "kpc declared without saying which": (lambda: declared({"x": "kpc"}), "say which it is .*'proper kpc'"),
    "unit for no column": (lambda: declared({}, units={"r": "kpc"}), "a unit is given for r"),
    "no position at all": (frame(x=lambda x: x * np.nan), "none of the 36 galaxies has a position"),
    "infinity": (frame("clusters", redshift=put(1, np.inf)), "redshift in row 2 is inf"),
    "text in a number": (frame(v_los=put(2, "fast")), "v_los in row 3 is 'fast'; expected a number"),
    "empty id": (sky(cluster_id=put(3, " ")), "cluster_id in row 4 is empty"),
    "ids as floats": (frame(cluster_id=lambda v: v + 0.5), "does not survive as a float"),
    "ids of two sorts": (
        frame(cluster_id=lambda v: np.char.zfill(v.astype(str), 3)),
        "galaxy in row 1 belongs to cluster 01., which is not one of the 3",
    ),
    "duplicate ids": (frame("clusters", cluster_id=put(1, 10)), "cluster_id 10 stands in rows 1 and 2"),
    "unknown cluster": (frame(cluster_id=put(0, 99)), "galaxy in row 1 belongs to cluster 99"),
    "empty cluster": (frame(cluster_id=lambda v: np.where(v == 12, 11, v)), "cluster 12 has no galaxies"),
    "two galaxies": (
        frame(cluster_id=lambda v: np.where((v == 12) & (np.cumsum(v == 12) > 2), 11, v)),
        "cluster 12 has 2 galaxies",
    ),
    "one galaxy": (
        frame(cluster_id=lambda v: np.where((v == 12) & (np.cumsum(v == 12) > 1), 11, v)),
        "cluster 12 has one galaxy",
    ),
    "all velocities equal": (
        frame(v_los=lambda v: v * 0 + 100.0),
        "v_los is 100.0 for all of its 12 galaxies",
    ),
    "velocities in m/s": (frame(v_los=lambda v: v * 1000), "scatter by .*as those in m/s do"),
    "velocities as cz": (frame(v_los=lambda v: v + 30000), "the median velocity of cluster 10 is .*as cz is"),
    "velocities as redshifts": (frame(v_los=lambda v: v / SPEED_OF_LIGHT), "which no cluster does"),
    "galaxy redshifts as cz": (
        sky(z=lambda z: z * SPEED_OF_LIGHT),
        "looks like cz in km/s.*name such a column",
    ),
    "kpc for Mpc/h": (
        frame(x=lambda x: x * 1000, y=lambda y: y * 1000),
        "typical distance from the centre is .*as in kpc; expected comoving Mpc/h",
    ),
    "negative radius": (
        frame(r_proj=lambda _: np.full(36, -0.5), x=None, y=None),
        "r_proj in row .* is negative",
    ),
    "degrees given as radians": (lambda: radians(sky_tables()), "radians taken for degrees"),
    "radians without ids": (cut_around_radians, "every ra is within 2 pi .*as in radians"),
    "radians for clusters only": (
        sky("clusters", ra=np.radians, dec=np.radians),
        r"galaxies lie .* Mpc/h from the centres .*in degrees",
    ),
    "radians declared, degrees given": (
        lambda: read_flat(*sky_tables()[:2], units={"ra": "rad"}),
        "declared in rad but reaches .*as degrees do",
    ),
    "mass in Msun": (
        frame("clusters", log10_mass=lambda m: 10**m),
        r"a mass and not its log10; expected log10 of M200c in Msun/h \(here 14",
    ),
    "mass with a linear unit": (
        lambda: read_flat(*frame_tables(), units={"log10_mass": "solMass"}),
        "log10_mass has the unit 'solMass'; expected log10",
    ),
    "negative redshift": (
        frame("clusters", redshift=put(0, -0.1)),
        r"redshift in row 1 is -0.1; expected a redshift",
    ),
    "absurd redshift": (frame("clusters", redshift=put(2, 11.7)), "redshift in row 3 is 11.7"),
    "zero redshift on the sky": (sky("clusters", z=put(1, 0.0)), "redshift in row 2 is 0; angles need"),
    "nonsense radius": (lambda: given_radius(lambda z: 0.3 + 0 * z), "it fits no unit we know"),
    "velocities that are not the redshifts'": (
        sky(v_los=lambda _: np.full(36, 900.0)),
        "v_los differs from c",
    ),
    "no redshift at all": (
        lambda: read_flat(frame_tables()[0]),
        "the redshifts of the clusters are missing; give",
    ),
    "redshift that varies in a cluster": (
        lambda: read_flat(
            change(frame_tables(), "galaxies", redshift=lambda _: np.linspace(0.1, 0.2, 36))[0]
        ),
        "expected the redshift of the cluster, one value",
    ),
    "redshift twice": (lambda: read_flat(*frame_tables(), redshift=0.1), "which has its own; leave one out"),
    "clusters without positions": (sky("clusters", dec=None), "column dec is missing"),
    "no cylinder to cut": (
        lambda: read_flat(*change(sky_tables(), "galaxies", cluster_id=None), r_max=None),
        "which needs r_max and v_max",
    ),
    "unknown policy": (
        lambda: read_flat(*frame_tables(), few_galaxies="skip"),
        "expected one of error, drop, keep",
    ),
    "nothing left": (
        lambda: read_flat(*frame_tables(), min_galaxies=99, few_galaxies="drop"),
        "none of the 3",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_a_sentence(name):
    call, message = BAD[name]
    with pytest.raises(CatalogError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("", "the file is empty"),
        ("a,b\n", "no rows"),
        ("a,b\n1,2,3\n", "line 2 has 3 values; expected 2 .a, b."),
    ],
)
def test_a_file_that_is_no_table_is_one_sentence(tmp_path, content, message):
    path = tmp_path / "galaxies.csv"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(CatalogError, match=f"galaxies.csv: .*{message}"):
        load_catalog(path)


def test_a_correct_comoving_radius_beside_the_sky_is_accepted():
    assert given_radius(lambda z: 1.003 + 0 * z).n_galaxies_total == 3 * EACH


def test_ra_in_a_small_field_near_the_origin_is_not_taken_for_radians():
    galaxies, clusters, truth = sky_tables(n=1)
    for table in (galaxies, clusters):
        table["ra"] -= 98.0
    shift = float(clusters["dec"][0])
    clusters["dec"] -= shift
    galaxies["dec"] = np.asarray(galaxies["dec"]) - shift
    assert len(read_flat(galaxies, clusters, r_max=9.0)) == 1
    assert truth["r"].size == EACH
