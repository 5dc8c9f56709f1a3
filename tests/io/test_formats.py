"""Tables as the field writes them: surveys, archives, published mocks; each in its documented layout."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table
from survey_tables import (
    CENTRE,
    Z,
    caustic,
    erass,
    halo_cnn,
    mamposst,
    ned,
    ned_2026,
    one_cluster,
    redmapper_clusters,
    redmapper_members,
    sag,
    sky,
    skyserver,
)

from bayesflowmass.catalog import CatalogError
from bayesflowmass.cosmology import MDPL2, SPEED_OF_LIGHT, convert_mass
from bayesflowmass.io import formats, load_catalog
from bayesflowmass.io.duplicates import find_duplicates
from bayesflowmass.io.formats import FORMATS, FileHead, identify
from bayesflowmass.io.sources import open_table, read_known_table


@pytest.mark.parametrize("old", [False, True], ids=["new names", "old names"])
@pytest.mark.parametrize("suffix", ["csv", "ecsv", "fits", "vot"])
def test_ned_tables_lose_what_is_no_galaxy_with_a_spectrum(tmp_path, old, suffix):
    table = ned(old=old)
    table["Redshift Flag"][5:8] = ["PHOT", "::", "SPEC TENT"]
    table["Type"][8:10] = ["GClstr", "GPair"]
    table["Velocity"] = MaskedColumn(table["Velocity"], mask=np.arange(30) == 1)
    path = tmp_path / f"ned.{suffix}"
    with warnings.catch_warnings():
        # A VOTable makes ids of names with blanks, and says so.
        warnings.simplefilter("ignore")
        table.write(path, format={"vot": "votable", "csv": "ascii.csv"}.get(suffix))
    known, reading = read_known_table(path)
    assert known.name == "ned"
    counts = {
        "no_redshift": 1,
        "no_position": 0,
        "bad_redshift_flag": 3,
        "no_single_galaxy": 2,
        "repeated": 0,
    }
    assert reading.counts == counts
    catalog = load_catalog(path, one_cluster())
    assert catalog.n_galaxies.tolist() == [24]
    assert catalog.metadata.extra["bad_redshift_flag"] == 3
    assert "3 with a redshift flag" in catalog.metadata.extra["notes"][0]
    # The redshift of the first comes from its velocity.
    np.testing.assert_allclose(catalog.galaxies("gal_z")[0], sky()[2][0], rtol=1e-6)


@pytest.mark.parametrize("suffix", ["csv", "ecsv", "vot"])
def test_counts_of_redshifts_are_not_taken_for_redshifts(tmp_path, suffix):
    path = tmp_path / f"ned.{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ned_2026().write(path, format={"vot": "votable", "csv": "ascii.csv"}.get(suffix))
    old, new = (load_catalog(table, one_cluster()) for table in (ned(), path))
    np.testing.assert_allclose(new.galaxies("gal_z"), old.galaxies("gal_z"))
    np.testing.assert_allclose(new.galaxies("v_los"), old.galaxies("v_los"), atol=0.1)


def test_ned_tables_from_memory_are_known_too():
    catalog = load_catalog(ned(), one_cluster())
    assert catalog.metadata.extra["formats"] == {"galaxies": "ned"}
    assert catalog.galaxies("gal_galaxy_id")[3] == "WISEA J000003"


def test_a_skyserver_export_keeps_the_best_of_several_spectra(tmp_path):
    table = skyserver()
    again = table[[4, 4, 9]]
    again["speczerr"] = [1e-5, 9e-5, -1.0]
    again["specz"] = np.asarray(table["specz"])[[4, 4, 9]] + [1e-4, 2e-4, 0.01]
    both = Table(np.concatenate([again, table]))
    both.write(tmp_path / "a.csv")
    text = (tmp_path / "a.csv").read_text(encoding="utf-8")
    (tmp_path / "a.csv").write_text("#Table1\n" + text, encoding="utf-8")
    catalog = load_catalog(tmp_path / "a.csv", one_cluster())
    extra = catalog.metadata.extra
    assert (extra["repeated"], extra["discordant"]) == (3, 1)
    assert "1 galaxy with measurements that differ by more than 300 km/s" in extra["notes"][1]
    z = dict(zip(catalog.galaxies("gal_galaxy_id"), catalog.galaxies("gal_z"), strict=True))
    assert z[table["objid"][4]] == pytest.approx(table["specz"][4] + 1e-4)
    assert z[table["objid"][9]] == pytest.approx(table["specz"][9])
    error = catalog.galaxies("gal_v_err")
    np.testing.assert_allclose(np.unique(error), SPEED_OF_LIGHT * np.array([1e-5, 2e-5]) / (1 + Z), rtol=1e-9)
    assert catalog.has("rmag")


def test_stars_and_warnings_are_left_out_of_a_skyserver_export():
    table = skyserver()
    table.rename_columns(["objid", "specz", "speczerr"], ["specObjID", "z", "zErr"])
    table["class"] = ["STAR"] * 2 + ["GALAXY"] * 28
    table["zWarning"] = np.where(np.arange(30) == 5, 4, 0)
    table["z"][6] = 0.0
    catalog = load_catalog(table, one_cluster())
    assert catalog.n_galaxies.tolist() == [26]
    assert {
        name: catalog.metadata.extra[name] for name in ("no_galaxy", "redshift_warning", "no_redshift")
    } == {
        "no_galaxy": 2,
        "redshift_warning": 1,
        "no_redshift": 1,
    }


def test_redmapper_clusters_have_the_spectroscopic_redshift_where_there_is_one(tmp_path):
    redmapper_clusters().write(tmp_path / "c.fits")
    known, reading = read_known_table(tmp_path / "c.fits")
    assert known.gives == ("clusters",)
    clusters = reading.clusters
    np.testing.assert_array_equal(clusters["cluster_id"], [3, 7])
    np.testing.assert_allclose(clusters["redshift"], [0.2, 0.31])
    np.testing.assert_allclose(clusters["redshift_err"], [0.0, 0.007])
    assert reading.counts == {"photometric_redshifts": 1, "no_redshift": 1}
    assert "photometric" in reading.notes[1]


def test_redmapper_members_with_spectra_join_their_clusters(tmp_path):
    clusters = redmapper_clusters()[:1]
    clusters["RA"], clusters["DEC"], clusters["CG_SPEC_Z"] = CENTRE[0], CENTRE[1], Z
    redmapper_members().write(tmp_path / "m.fits")
    clusters.write(tmp_path / "c.fits")
    catalog = load_catalog(tmp_path / "m.fits", tmp_path / "c.fits")
    assert catalog.n_galaxies.tolist() == [20]
    assert catalog.galaxies("gal_galaxy_id").min() == 2**60 + 10
    assert catalog.metadata.extra["formats"] == {
        "galaxies": "redmapper-members",
        "clusters": "redmapper-clusters",
    }
    assert len(catalog.metadata.extra["notes"]) == 3
    assert catalog.metadata.selection["cleaned"] is True


def test_m500_of_erass_becomes_m200c(tmp_path):
    table = erass()
    table.write(tmp_path / "e.fits")
    clusters = read_known_table(tmp_path / "e.fits")[1].clusters
    m500 = np.log10(np.array([30.0, 10.0, 50.0]) * 1e13 * MDPL2.h)
    np.testing.assert_allclose(clusters["log10_mass"], convert_mass(m500, [0.1, 0.2, 0.3], "500c", "200c"))
    assert np.all((clusters["log10_mass"] - m500 > 0.1) & (clusters["log10_mass"] - m500 < 0.25))
    table["M500"][1], table["BEST_Z"][2] = np.nan, -1.0
    reading = read_known_table(table)[1]
    assert np.isnan(reading.clusters["log10_mass_published"]).tolist() == [False, True]
    assert reading.counts == {"no_redshift": 1, "no_mass": 1}


@pytest.mark.parametrize(("column", "value"), [("M500", 1e-150), ("M500", 1e9), ("BEST_Z", 500.0)])
def test_a_mass_of_erass_that_no_cluster_has_is_refused_with_its_row(column, value):
    table = erass()
    table[column][1] = value
    with pytest.raises(CatalogError, match=r"in row 2; expected 0\.001 to 10000"):
        read_known_table(table)


def test_a_causticsnupy_file_brings_its_cluster(tmp_path):
    catalog = load_catalog(caustic(tmp_path / "A2029.txt"))
    assert catalog.column("cluster_id").tolist() == ["A2029"]
    assert catalog.column("redshift")[0] == pytest.approx(Z, rel=1e-5)
    assert catalog.n_galaxies.tolist() == [30]
    np.testing.assert_allclose(np.sort(catalog.galaxies("gal_z")), np.sort(sky()[2]), atol=1e-6)


@pytest.mark.parametrize("weight", [False, True])
def test_radii_of_mamposst_become_comoving(tmp_path, weight):
    path = mamposst(tmp_path / "coma.dat", weight=weight)
    catalog = load_catalog(path, redshift=0.1, r_max=None, v_max=None)
    given = np.loadtxt(path)
    np.testing.assert_allclose(np.sort(catalog.r_proj), np.sort(given[:, 0]) / 1000 * MDPL2.h * 1.1)
    assert catalog.column("cluster_id").tolist() == ["coma"]
    np.testing.assert_array_equal(catalog.galaxies("gal_v_err"), 50.0)
    assert catalog.has("gal_weight") == weight
    with pytest.raises(CatalogError, match="the redshifts of the clusters are missing"):
        load_catalog(path)


def test_the_sag_catalogue_is_two_text_files(tmp_path):
    catalog = load_catalog(*sag(tmp_path), r_max=4.0)
    assert catalog.n_galaxies.tolist() == [12] * 4
    np.testing.assert_allclose(catalog.column("redshift"), 1 / 0.8951 - 1)
    # Two lines of sight to each of two haloes.
    np.testing.assert_array_equal(np.unique(catalog.column("halo_id"), return_counts=True)[1], [2, 2])
    assert catalog.column("log10_mass").min() > 14


def test_sdss_clusters_in_that_layout_need_a_redshift(tmp_path):
    paths = sag(tmp_path, sdss=True)
    with pytest.raises(CatalogError, match="column redshift is missing"):
        load_catalog(*paths)
    catalog = load_catalog(*paths, redshift=0.09)
    np.testing.assert_array_equal(catalog.column("redshift"), 0.09)
    assert catalog.has("log10_mass_err")


def test_the_names_of_sag_files_do_not_matter(tmp_path):
    galaxies, clusters = sag(tmp_path)
    assert identify(galaxies.rename(tmp_path / "g.txt")).name == "sag-galaxies"
    assert identify(clusters.rename(tmp_path / "c.txt")).name == "sag-clusters"


def test_columns_named_as_the_reader_takes_them_leave_it_its_work():
    table = skyserver()
    twice = Table(np.concatenate([table, table[:3]]))
    for named in ({"galaxies.z": "specz"}, {"z": "specz", "ra": "ra"}):
        assert load_catalog(twice, one_cluster(), named).n_galaxies.tolist() == [30]


def test_columns_named_otherwise_win_over_a_format():
    table = skyserver()
    table["photoz"] = np.asarray(table["specz"]) + 0.001
    carried = load_catalog(table, one_cluster(), {"galaxies.z": "photoz"})
    np.testing.assert_allclose(np.sort(carried.galaxies("gal_z")), np.sort(table["photoz"]))
    twice = Table(np.concatenate([table, table[:3]]))
    plain, _, report = open_table(twice, "galaxies", {"galaxies.z": "speczerr"})
    assert plain.n_rows == 33
    assert "speczerr named by the user, so the SDSS SkyServer export is read as a plain" in report["notes"][0]


def test_halo_cnn_mocks_are_whole_catalogues(tmp_path):
    path, rows = halo_cnn(tmp_path / "mock.npy")
    catalog = load_catalog(path, redshift=0.117, r_max=1.6, v_max=2200.0)
    assert (catalog.n_galaxies <= rows["Ngal"]).all()
    whole = load_catalog(path, redshift=0.117)
    np.testing.assert_array_equal(whole.n_galaxies, rows["Ngal"])
    np.testing.assert_allclose(whole.column("log10_mass"), np.log10(rows["M200c"]))
    np.testing.assert_array_equal(whole.column("halo_id"), [7, 7, 8, 9, 9])
    np.testing.assert_array_equal(whole[1].galaxies("x"), rows["gal_xproj"][1, :12])
    assert whole.metadata.kind == "contaminated"
    assert whole.galaxies("gal_is_member").dtype == bool
    assert {"gal_zproj", "gal_Macc", "sigv"} <= set(whole.column_names)


def test_halo_cnn_mocks_come_in_parts_too(tmp_path):
    path, _ = halo_cnn(tmp_path / "mock.npy")
    parts = list(identify(path).iterate(path, 2, 0.117, MDPL2))
    assert [len(part) for part in parts] == [2, 2, 1]
    assert parts[2].column("cluster_id").tolist() == [4]


def test_a_pickle_is_never_opened(tmp_path):
    path = tmp_path / "catalog.p"

    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was run",))

    for protocol in (2, 4, 5):
        path.write_bytes(pickle.dumps(Bomb(), protocol=protocol))
        with pytest.raises(CatalogError, match=r"this is a pickle, .*Catalog.save_npy"):
            load_catalog(path)
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(CatalogError, match=r"objects.npy"):
        load_catalog(tmp_path / "objects.npy")


def test_each_format_is_known_by_one_class_only(tmp_path):
    tables = {"ned": ned(), "skyserver": skyserver(), "erass1": erass()}
    tables |= {"redmapper-clusters": redmapper_clusters(), "redmapper-members": redmapper_members()}
    paths = {"causticsnupy": caustic(tmp_path / "a.txt"), "mg-mamposst": mamposst(tmp_path / "b.dat")}
    paths["sag-galaxies"], paths["sag-clusters"] = sag(tmp_path)
    paths["halo_cnn"] = halo_cnn(tmp_path / "c.npy")[0]
    for name, table in tables.items():
        paths[name] = tmp_path / f"{name}.csv"
        table.write(paths[name])
    for name, path in paths.items():
        assert [known.name for known in FORMATS if known.recognises(FileHead(path))] == [name]


def test_coordinates_below_two_comments_are_not_taken_for_radii(tmp_path):
    ra, dec, z = sky()
    for number, names in enumerate(("# ra dec z", "# galaxies of A1")):
        path = tmp_path / f"{number}.txt"
        np.savetxt(path, np.stack([ra, dec * 4, z], axis=-1), header=f"made by hand\n{names[2:]}")
        assert identify(path) is None
    assert load_catalog(tmp_path / "0.txt", one_cluster(dec=[4 * CENTRE[1]]), r_max=9.0).n_galaxies[0] > 5


def test_duplicates_are_joined_by_id_and_by_place():
    ra, dec = np.array([10.0, 10.0001, 50.0, 359.9999, 0.0001]), np.array([0.0, 0.0, 0.0, 60.0, 60.0])
    found = find_duplicates(ra, dec, np.array([0.1, 0.1, 0.2, 0.3, 0.3]), ids=np.array([1, 2, 2, 3, 4]))
    # 0.36 arcsec join the first two, the id joins the second and the third, 0.36 arcsec the last two.
    assert found.kept.tolist() == [True, False, False, True, False]
    assert (found.repeated, found.discordant) == (3, 1)
    apart = find_duplicates(ra, dec, np.zeros(5), radius=0.1)
    assert apart.repeated == 0
    assert find_duplicates(ra[:0], dec[:0], ra[:0]).repeated == 0


def test_a_file_in_the_folder_is_a_format_more(tmp_path, monkeypatch):
    (tmp_path / "of_a_thesis.py").write_text(
        "from bayesflowmass.io.formats.base import TableFormat\n"
        "class OfAThesis(TableFormat):\n"
        "    name = 'thesis'\n"
        "    title = 'a table of a thesis'\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(tmp_path)])
    known = [known.name for known in FORMATS]
    assert [known.name for known in formats.find_formats()] == [*known, "thesis"]
    monkeypatch.setattr(formats, "ORDER", ("thesis", *formats.ORDER))
    assert [known.name for known in formats.find_formats()] == ["thesis", *known]
    assert sorted(known) == sorted(formats.ORDER[1:])


@pytest.mark.shared_data
def test_a_real_skyserver_export_and_a_real_mamposst_file(shared_data):
    centre = Table({"cluster_id": ["A2255"], "ra": [258.18], "dec": [64.06], "z": [0.0806]})
    catalog = load_catalog(shared_data / "a2255_sdss" / "a2255_skyserver.csv", centre)
    assert catalog.metadata.extra["repeated"] == 47
    assert catalog.metadata.extra["galaxies_read"] == 92
    coma = load_catalog(shared_data / "coma_desi" / "data_DESI.dat", redshift=0.0231)
    assert 1300 < coma.n_galaxies[0] < 1400
