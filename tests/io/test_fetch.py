"""Archives through recorded answers: nothing here touches the network, but the tests so marked."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from archive_answers import (
    DEC,
    NAME,
    NED_ERROR,
    RA,
    Archives,
    Clock,
    Z,
    members,
    ned_cluster,
    ned_galaxies,
    ned_table,
    sdss_csv,
    usual,
    vizier_table,
)
from astropy.table import Table
from small_model import toy_estimator

pytest.importorskip("astroquery")
import requests

from bayesflowmass.cosmology import transverse_mpc_h_per_radian
from bayesflowmass.fetch import fetch, main
from bayesflowmass.infer import infer, read_observations
from bayesflowmass.inspect import inspect_file
from bayesflowmass.io.archives import AnswerCache, ArchiveError, Caller, resolve_name
from bayesflowmass.io.archives.services import _cones, _sdss_query
from bayesflowmass.io.sky import sky_offsets

PLACE = {"position": (RA, DEC), "redshift": Z}


@pytest.fixture
def serve(monkeypatch, tmp_path):
    def install(answer=usual):
        archives = Archives(answer)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
        monkeypatch.setattr(
            requests.adapters.HTTPAdapter, "send", lambda self, *a, **k: archives.send(self, *a, **k)
        )
        return archives

    return install


def _caller(**options):
    watch = Clock()
    return Caller(sleep=watch.sleep, clock=lambda: watch.now, **options), watch


def test_the_redshift_of_a_cluster_is_not_the_number_of_its_measurements(serve):
    """NED's services since 2026 have a column for each."""
    answer = ned_cluster().replace(b'name="Redshift"', b'name="Redshift (z)"')
    answer = answer.replace(b'name="Magnitude and Filter"', b'name="Redshift"').replace(b"17.1g", b"57")
    serve(lambda request, number: answer)
    assert resolve_name("Abell 2142", _caller()[0], AnswerCache(None))[2] == pytest.approx(Z)


def test_a_cluster_is_found_by_name_and_its_galaxies_lie_in_the_cylinder(serve):
    archives = serve()
    found = fetch(NAME, caller=_caller()[0])
    table = found.table
    assert archives.parameters(0)["objname"] == NAME
    assert len(table) == 40
    assert set(table["cluster_id"]) == {NAME}
    assert np.all(np.hypot(table["x"], table["y"]) < 2.0)
    expected = 299792.458 * (table["z"] - Z) / (1 + Z)
    np.testing.assert_allclose(table["v_los"], expected, atol=0.01)
    east = (table["ra"] - RA) * np.cos(np.radians(table["dec"])) * np.pi / 180
    np.testing.assert_allclose(table["x"], east * transverse_mpc_h_per_radian(Z), atol=2e-3)


def test_what_ned_has_and_no_galaxy_is_left_out_counted_and_said(serve):
    serve()
    found = fetch(NAME, caller=_caller()[0])
    assert found.counts["bad_redshift_flag"] == 2
    assert found.counts["no_single_galaxy"] == 1
    assert found.counts["no_redshift"] == 1
    assert found.counts["repeated"] == 1
    assert found.counts["outside_cylinder"] == 1
    assert "2 with a redshift flag" in " ".join(found.notes)
    assert not {"PHOT 1", "CLUSTER", "AGAIN"} & set(found.table["galaxy_id"])


def test_position_and_redshift_ask_nobody_for_the_name(serve):
    archives = serve()
    found = fetch(source="sdss", caller=_caller()[0], **PLACE)
    assert len(archives.requests) == 1
    assert found.table.meta["cluster"] == f"{RA:.4f}{DEC:+.4f}"
    assert found.table["galaxy_id"].dtype.kind == "u"
    assert found.table["galaxy_id"][0] >= 1299000000000000000
    np.testing.assert_allclose(found.table["v_err"], 299792.458 * 1.5e-5 / (1 + Z), rtol=1e-6)


def test_sdss_is_asked_for_all_rows_of_a_region_and_bad_spectra_are_left_out(serve):
    bad = (
        f"1,{RA},{DEC},0.0909,1e-5,4,GALAXY",
        f"2,{RA},{DEC + 0.01},0.0909,1e-5,0,STAR",
        f"3,{RA},{DEC + 0.5},0.0909,1e-5,0,GALAXY",
    )
    archives = serve(lambda request, number: sdss_csv(extra=bad))
    found = fetch(source="sdss", caller=_caller()[0], **PLACE)
    sql = archives.parameters()["cmd"]
    assert "TOP" not in sql.upper()
    assert "s.z BETWEEN 0.076345 AND 0.105455" in sql
    assert found.counts["redshift_warning"] == 1
    assert found.counts["no_galaxy"] == 1
    # The third lies in the rectangle and outside the disc.
    assert len(found.table) == 40


@pytest.mark.parametrize(
    ("ra", "dec", "expected"),
    [
        (0.1, 0.0, "(s.ra > 359.59"),
        (359.9, 0.0, "s.ra < 0.4"),
        (120.0, 89.9, "1 = 1"),
        (120.0, 0.0, "BETWEEN 119.49"),
    ],
    ids=["east of zero", "west of zero", "pole", "plain"],
)
def test_sdss_rectangles_wrap_around(ra, dec, expected):
    assert expected in _sdss_query(ra, dec, 0.5, (0.01, 0.02))


def test_vizier_gives_all_rows_by_ucd_and_not_the_first_fifty(serve):
    archives = serve()
    found = fetch(source="vizier:J/ApJ/000/1", caller=_caller()[0], **PLACE)
    assert "-out.max=unlimited" in archives.words()
    assert found.counts["no_redshift"] == 1
    assert len(found.table) == 79
    assert found.table["galaxy_id"][0] == "G0"
    assert "redshifts from zsp" in found.notes[0]
    np.testing.assert_allclose(found.table["v_err"], 299792.458 * 1e-4 / (1 + Z))


def test_vizier_velocities_are_cz_and_photometric_redshifts_are_never_taken(serve):
    serve(lambda request, number: vizier_table(velocity=True))
    found = fetch(source="vizier:J/ApJ/000/1", caller=_caller()[0], **PLACE)
    np.testing.assert_allclose(found.table["z"][:3], members(80)[:3, 2], atol=1e-6)
    np.testing.assert_allclose(found.table["v_err"], 30.0 / (1 + Z), rtol=1e-6)


def test_vizier_without_ucds_says_how_to_name_the_column_and_takes_the_name(serve):
    serve(lambda request, number: vizier_table(ucds=False))
    with pytest.raises(
        ArchiveError, match=r"no table there has a redshift; name the column with --redshift-column.*zsp"
    ):
        fetch(source="vizier:J/ApJ/000/1", caller=_caller()[0], **PLACE)
    found = fetch(source="vizier:J/ApJ/000/1", redshift_column="zsp", caller=_caller()[0], **PLACE)
    assert len(found.table) == 79


def test_the_file_goes_straight_into_infer_for_every_source(serve, tmp_path, capsys):
    serve()
    estimator = toy_estimator()
    for source in ("ned", "sdss", "vizier:J/ApJ/000/1"):
        out = tmp_path / f"{source[:4]}.ecsv"
        assert main([NAME, "--source", source, "--out", str(out), "--no-cache", "--no-progress"]) == 0
        assert "Next: bayesflowmass infer --galaxies" in capsys.readouterr().out
        masses = infer(estimator, read_observations(estimator, out))
        assert masses["cluster_id"][0] == NAME
        assert np.isfinite(masses["log10_mass"][0])
        assert inspect_file(out).usable


def test_output_keeps_where_it_came_from(serve, tmp_path):
    serve()
    out = tmp_path / "a2142.ecsv"
    main([NAME, "--out", str(out), "--no-cache", "--no-progress"])
    meta = Table.read(out, format="ascii.ecsv").meta
    assert meta["source"] == "ned"
    assert meta["radius"] == "2 comoving Mpc/h"
    assert "redshifts are heliocentric" in meta["notes"]


def test_answers_are_kept_by_content_and_asked_for_once(serve, tmp_path):
    archives = serve()
    command = [
        NAME,
        "--out",
        str(tmp_path / "a.ecsv"),
        "--cache-folder",
        str(tmp_path / "cache"),
        "--no-progress",
    ]
    assert main(command) == 0
    first = (tmp_path / "a.ecsv").read_bytes()
    asked = len(archives.requests)
    assert asked == 2
    assert main(command) == 0
    assert len(archives.requests) == asked
    assert (tmp_path / "a.ecsv").read_bytes() == first
    assert main([*command, "--no-cache"]) == 0
    assert len(archives.requests) == 2 * asked
    note = json.loads(next((tmp_path / "cache" / "questions").iterdir()).read_text(encoding="utf-8"))
    assert (tmp_path / "cache" / "answers" / f"{note['answer']}.ecsv").is_file()


def test_a_damaged_answer_on_disk_is_asked_for_again(serve, tmp_path):
    archives = serve()
    for _ in range(2):
        fetch(source="sdss", cache=AnswerCache(tmp_path), caller=_caller()[0], **PLACE)
    assert len(archives.requests) == 1
    kept = next((tmp_path / "answers").iterdir())
    kept.write_bytes(kept.read_bytes()[:-30])
    found = fetch(source="sdss", cache=AnswerCache(tmp_path), caller=_caller()[0], **PLACE)
    assert len(archives.requests) == 2
    assert len(found.table) == 40


def test_a_cache_that_cannot_be_written_loses_nothing_and_is_mentioned(serve, tmp_path, capsys):
    serve()
    (tmp_path / "cache").write_text("a file where a folder should be", encoding="utf-8")
    out = tmp_path / "a.ecsv"
    command = [NAME, "--out", str(out), "--cache-folder", str(tmp_path / "cache"), "--no-progress"]
    assert main(command) == 0
    assert "could not be kept" in capsys.readouterr().err
    assert len(Table.read(out, format="ascii.ecsv")) == 40


def test_requests_are_a_second_apart_have_a_time_limit_and_our_name(serve):
    archives = serve()
    caller, watch = _caller(timeout=17.0)
    fetch(NAME, caller=caller)
    assert watch.pauses == [1.0]
    assert archives.timeouts == [17.0, 17.0]
    for request in archives.requests:
        assert request.headers["User-Agent"].startswith("bayesflowmass/")
        assert "astroquery" in request.headers["User-Agent"]


def test_a_busy_archive_is_asked_again_after_growing_pauses_and_when_it_says(serve):
    def answer(request, number):
        return [(503, b"", {}), (429, b"", {"Retry-After": "30"}), sdss_csv()][number - 1]

    archives = serve(answer)
    caller, watch = _caller(interval=0.0)
    fetch(source="sdss", caller=caller, **PLACE)
    assert len(archives.requests) == 3
    assert watch.pauses == [2.0, 30.0]


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (requests.exceptions.ConnectionError("no route"), "there is no connection to it"),
        (requests.exceptions.ReadTimeout("slow"), "it does not answer in time"),
        (requests.exceptions.ChunkedEncodingError("broken"), "the connection broke off"),
        ((502, b"<html>", {}), "it answers HTTP 502"),
        (vizier_table()[:-400], "its answer is cut short"),
        (b"<html>maintenance</html>", "its answer is no table"),
    ],
    ids=["no connection", "timeout", "broken off", "bad gateway", "half an answer", "a web page"],
)
def test_a_connection_that_fails_for_good_is_one_sentence_and_the_old_file_stays(
    serve, failure, words, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    archives = serve(lambda request, number: failure)
    out = tmp_path / "a.ecsv"
    out.write_text("the old file", encoding="utf-8")
    place = ["--position", str(RA), str(DEC), "--redshift", str(Z), "--source", "vizier:J/ApJ/000/1"]
    code = main([*place, "--out", str(out), "--no-cache", "--attempts", "2", "--no-progress"])
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1
    assert words in error
    assert "run the same command again" in error
    assert len(archives.requests) == 2
    assert out.read_text(encoding="utf-8") == "the old file"


def test_cones_that_came_before_the_connection_dropped_are_not_asked_for_again(serve, tmp_path):
    down = [True]

    def answer(request, number):
        return requests.exceptions.ConnectionError("dropped") if down[0] and number > 3 else ned_galaxies()

    archives = serve(answer)
    wide = {"position": (RA, DEC), "redshift": 0.02, "v_max": 60000.0}
    with pytest.raises(ArchiveError, match="what came before is kept"):
        fetch("near", cache=AnswerCache(tmp_path), caller=_caller(attempts=1)[0], **wide)
    assert len(archives.requests) == 4
    down[0] = False
    found = fetch("near", cache=AnswerCache(tmp_path), caller=_caller()[0], **wide)
    cones = len(_cones(RA, DEC, np.degrees(2.0 / transverse_mpc_h_per_radian(0.02))))
    assert cones > 4
    assert len(archives.requests) == 4 + cones - 3
    # Every cone gave the same galaxies: they are there once.
    assert len(set(found.table["galaxy_id"])) == len(found.table)


@pytest.mark.parametrize(("dec", "angle"), [(0.0, 1.9), (60.0, 1.2), (-85.0, 2.5)])
def test_cones_cover_their_disc(dec, angle):
    cones = np.array(_cones(10.0, dec, angle))
    rng = np.random.default_rng(0)
    r, t = angle * np.sqrt(rng.uniform(size=4000)), rng.uniform(0, 2 * np.pi, 4000)
    from bayesflowmass.io.sky import sky_position

    ra, d = sky_position(
        np.full(4000, 10.0), np.full(4000, dec), np.radians(r * np.cos(t)), np.radians(r * np.sin(t))
    )
    distance = [np.hypot(*sky_offsets(ra, d, np.full(4000, c[0]), np.full(4000, c[1]))) for c in cones]
    assert np.degrees(np.min(distance, axis=0).max()) <= 0.5


@pytest.mark.parametrize(
    ("radius", "asked", "bar"), [(2.0, True, False), (6.0, True, True), (6.0, False, False)]
)
def test_a_bar_is_shown_where_several_cones_are_asked_for_and_it_is_wanted(serve, capsys, radius, asked, bar):
    serve()
    fetch(NAME, radius=radius, caller=_caller()[0], **({"progress": True} if asked else {}))
    assert ("NED:" in capsys.readouterr().err) == bar


def test_unknown_names_sources_and_empty_regions_are_one_sentence_with_a_remedy(serve):
    serve(lambda request, number: NED_ERROR % b"Object not found.")
    with pytest.raises(
        ArchiveError, match=r"NED knows no object 'Abel 2142'.*--position RA DEC and --redshift"
    ):
        fetch("Abel 2142", caller=_caller()[0])
    with pytest.raises(
        ArchiveError, match="source 'simbad' is unknown; it is one of ned, sdss, vizier:CATALOGUE"
    ):
        fetch(source="simbad", caller=_caller()[0], **PLACE)
    for source in ("vizier", "vizier:", "ned:J/ApJ/000/1", "sdss:DR17"):
        with pytest.raises(ArchiveError, match=f"source '{source}' is unknown"):
            fetch(source=source, caller=_caller()[0], **PLACE)
    serve(lambda request, number: NED_ERROR % b"There are no objects in that region.")
    with pytest.raises(ArchiveError, match="NED has no objects within"):
        fetch(caller=_caller()[0], **PLACE)
    serve(lambda request, number: b"#Table1\nspecObjID,ra,dec,z,zErr,zWarning,class\n")
    with pytest.raises(ArchiveError, match=r"SDSS has no spectra.*try --source ned"):
        fetch(source="sdss", caller=_caller()[0], **PLACE)
    serve(lambda request, number: (404, b"", {}))
    with pytest.raises(ArchiveError, match=r"VizieR refuses the request \(HTTP 404\)"):
        fetch(source="vizier:J/ApJ/000/1", caller=_caller()[0], **PLACE)


def test_a_cluster_without_a_redshift_in_ned_needs_one(serve):
    serve(lambda request, number: ned_table([("X", RA, DEC, "GClstr", None, "")]))
    with pytest.raises(ArchiveError, match="NED has no redshift of 'X'; give --redshift"):
        fetch("X", caller=_caller()[0])


def test_no_galaxy_in_the_cylinder_names_the_cylinder(serve):
    serve()
    with pytest.raises(
        ArchiveError, match=r"none of the 41 galaxies with a redshift is within 2 Mpc/h and 100 km/s"
    ):
        fetch("x", position=(RA, DEC), redshift=0.15, v_max=100.0, caller=_caller()[0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "neither a name nor --position"),
        (["--position", "10", "20"], "--position without a name needs --redshift"),
        (["--position", "10", "120", "--redshift", "0.1"], "expected degrees"),
        (["A1", "--radius", "-1"], "radius"),
        (["A1", "--out", "x.txt"], "must end in one of"),
    ],
    ids=["nothing", "no redshift", "declination", "radius", "ending"],
)
def test_bad_arguments_are_refused_before_anything_is_asked(serve, arguments, words, capsys):
    archives = serve()
    assert main(arguments) == 2
    assert words in capsys.readouterr().err
    assert not archives.requests


def test_without_astroquery_the_command_says_how_to_install_it(monkeypatch, capsys, tmp_path):
    for name in [name for name in sys.modules if name.split(".")[0] == "astroquery"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "astroquery", None)
    assert main([NAME, "--out", str(tmp_path / "a.ecsv"), "--no-cache"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pip install 'bayesflowmass[archives]'" in error


def test_ned_says_it_once_more_when_its_answer_is_cut(serve):
    archives = serve(lambda request, number: ned_cluster()[:-60] if number == 1 else usual(request, number))
    fetch(NAME, caller=_caller()[0])
    assert len(archives.requests) == 3


@pytest.mark.network
@pytest.mark.parametrize("source", ["ned", "sdss", "vizier:J/ApJ/741/122"])
def test_live_archives_know_abell_2142(source):
    found = fetch(NAME, source=source)
    assert len(found.table) > 50
    assert found.table.meta["redshift"] == pytest.approx(0.09, abs=0.003)
