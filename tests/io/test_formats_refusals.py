"""Broken tables of surveys, archives and mocks: each is refused in one sentence."""

from __future__ import annotations

import numpy as np
import pytest
from survey_tables import (
    CENTRE,
    Z,
    caustic,
    erass,
    halo_cnn,
    mamposst,
    ned,
    one_cluster,
    redmapper_clusters,
    redmapper_members,
    sag,
    skyserver,
    words,
)

from bayesflowmass.catalog import CatalogError
from bayesflowmass.io import load_catalog


def changed(table, name, row, value):
    table = table.copy()
    if isinstance(value, str):
        table[name] = np.asarray(table[name]).astype("U30")
    table[name][row] = value
    return table


def every(table, name, value):
    table = table.copy()
    table[name] = value
    return table


def line(path, number, text):
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[number - 1] = text
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def with_cluster(table):
    return lambda _: load_catalog(table, one_cluster())


BAD = {
    "ned: nothing left": (
        with_cluster(every(ned(), "Type", "GClstr")),
        "none of the 30 objects is a galaxy with a redshift .*no single galaxy 30",
    ),
    "ned: a word for a redshift": (
        with_cluster(changed(ned(), "Redshift", 4, "fast")),
        "Redshift in row 5 is 'fast'; expected a number",
    ),
    "ned: no position": (with_cluster(every(ned(), "RA", np.nan)), "no position 30"),
    "ned: as clusters": (lambda _: load_catalog(ned(), ned()), "which holds galaxies; expected clusters"),
    "skyserver: ids as floats": (
        with_cluster(every(skyserver(), "objid", np.arange(30) * 1e17)),
        "ids of surveys have up to 19 digits and floats keep 16",
    ),
    "skyserver: no spectra": (
        with_cluster(every(skyserver(), "specz", 0.0)),
        "none of the 30 rows is a galaxy with a redshift .no redshift 30",
    ),
    "redmapper: no redshift": (
        lambda _: load_catalog(ned(), every(redmapper_clusters()[1:], "Z_LAMBDA", -1.0)),
        "none of the 2 clusters has a redshift",
    ),
    "redmapper: ids as floats": (
        lambda _: load_catalog(ned(), every(redmapper_clusters(), "MEM_MATCH_ID", [1.0, 2.0, 3.0])),
        "MEM_MATCH_ID is stored as float64",
    ),
    "redmapper: members without spectra": (
        with_cluster(every(redmapper_members(), "ZSPEC", -1.0)),
        "none of the 30 members has a spectroscopic redshift .*use a redshift survey",
    ),
    "redmapper: members without that column": (
        with_cluster(redmapper_members()[words("MEM_MATCH_ID ID RA DEC R P PFREE")]),
        "column zspec is missing",
    ),
    "redmapper: clusters as galaxies": (
        with_cluster(redmapper_clusters()),
        "this is redMaPPer clusters, which holds clusters; expected galaxies",
    ),
    "erass: mass in Msun": (
        lambda _: load_catalog(ned(), every(erass(), "M500", 3e14)),
        "M500 is 3e.14 typically; expected units of 1e13 Msun",
    ),
    "erass: no redshift": (
        lambda _: load_catalog(ned(), every(erass(), "BEST_Z", -1.0)),
        "none of the 3 clusters has a redshift BEST_Z",
    ),
    "caustic: half a file": (
        lambda t: load_catalog(caustic(t / "a.txt", announced=50)),
        "announces 50 galaxies and 30 follow",
    ),
    "caustic: a broken row": (
        lambda t: load_catalog(broken(caustic, t)),
        "VEL in line 301 is 'x'; expected a number",
    ),
    "caustic: redshifts for velocities": (
        lambda t: load_catalog(line(slow(t / "a.txt"), 1, f"30 {CENTRE[0]} {CENTRE[1]} {Z}")),
        "look like redshifts; expected cz in km/s",
    ),
    "mamposst: Mpc": (
        lambda t: load_catalog(mamposst(t / "a.dat", scale=1e-3), redshift=0.02),
        "as in Mpc; expected kpc",
    ),
    "mamposst: a broken row": (
        lambda t: load_catalog(broken(mamposst, t), redshift=0.02),
        "expected a number|has 3 values|is 'x'",
    ),
    "sag: width": (
        lambda t: load_catalog(sag(t)[0], line(sag(t)[1], 1, "1 14.5")),
        "rows have 2 values; expected 10",
    ),
    "sag: a short row": (
        lambda t: load_catalog(sag(t)[0], line(sag(t)[1], 3, "3 14.5")),
        "line 3 has 2 values; expected 10",
    ),
    "sag: mass": (
        lambda t: load_catalog(sag(t)[0], line(sag(t)[1], 2, "2 3e14 1 1 1 1 1 0 0 0.9")),
        "the mass in row 2 is 3e.14; expected log10",
    ),
    "sag: scale factor": (
        lambda t: load_catalog(sag(t)[0], line(sag(t)[1], 2, "2 14.5 1 1 1 1 1 0 0 1.9")),
        "the scale factor in row 2 is 1.9",
    ),
    "sag: id twice": (
        lambda t: load_catalog(sag(t)[0], line(sag(t)[1], 2, "1 14.5 1 1 1 1 1 0 0 0.9")),
        "cluster 1 stands in two rows",
    ),
    "sag: id": (
        lambda t: load_catalog(line(sag(t)[0], 2, "1.5 0 0 0"), t / SAG_CLUSTERS),
        "the cluster id in row 2 is 1.5",
    ),
    "sag: a galaxy of no cluster": (
        lambda t: load_catalog(line(sag(t)[0], 48, "9 0 0 0"), t / SAG_CLUSTERS),
        "belongs to cluster 9, which is not one of the 4",
    ),
    "halo_cnn: redshift": (
        lambda t: load_catalog(halo_cnn(t / "a.npy")[0]),
        "does not say its redshift; give it",
    ),
    "halo_cnn: clusters": (
        lambda t: load_catalog(halo_cnn(t / "a.npy")[0], one_cluster(), redshift=0.1),
        "for which clusters says nothing",
    ),
    "halo_cnn: Ngal": (
        lambda t: load_catalog(halo_cnn(t / "a.npy", Ngal=lambda n: n + 10)[0], redshift=0.1),
        "Ngal in row 1 is 30; expected a whole number up to 20",
    ),
    "halo_cnn: mass": (
        lambda t: load_catalog(halo_cnn(t / "a.npy", M200c=np.log10)[0], redshift=0.1),
        "M200c in row 1 is 1.*; expected a mass in Msun/h",
    ),
    "halo_cnn: radius": (
        lambda t: load_catalog(halo_cnn(t / "a.npy", gal_Rproj=lambda r: r * 2)[0], redshift=0.1),
        "gal_Rproj in row 1 is not the distance",
    ),
    "halo_cnn: nan": (
        lambda t: load_catalog(halo_cnn(t / "a.npy", gal_vlos=lambda v: v * np.nan)[0], redshift=0.1),
        "gal_vlos in row 1 is not finite",
    ),
}

SAG_CLUSTERS = "clusters_M200c_SAG_v3.0_4Mpch"


def broken(write, folder):
    """A text file with a broken row beyond the lines by which a format is recognised."""
    path = write(folder / "long.txt")
    head, *rows = path.read_text(encoding="utf-8").splitlines()
    if write is caustic:
        head = head.replace("30 ", "300 ", 1)
    rows = [*rows[: len(rows) - 30], *(rows[-30:] * 10)]
    rows[299 if write is caustic else 280] = " ".join([*rows[-1].split()[:2], "x"])
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return path


def slow(path):
    """A caustic file with redshifts in place of velocities."""
    lines = caustic(path).read_text(encoding="utf-8").splitlines()
    lines[1:] = [" ".join([*row.split()[:2], "0.08"]) for row in lines[1:]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", BAD)
def test_a_broken_table_is_refused_with_a_sentence(tmp_path, name):
    call, message = BAD[name]
    with pytest.raises(CatalogError, match=message) as caught:
        call(tmp_path)
    assert "\n" not in str(caught.value)
