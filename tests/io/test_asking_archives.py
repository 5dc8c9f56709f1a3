"""How archives are asked: when again, after what pause, and what is kept of their answers."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from archive_answers import Clock
from astropy.table import Table

pytest.importorskip("astroquery")
import requests

from bayesflowmass.cosmology import MDPL2, transverse_mpc_h_per_radian
from bayesflowmass.io.archives import AnswerCache, ArchiveError, Caller, ClusterPosition
from bayesflowmass.io.archives.cluster import _scale_and_angle
from bayesflowmass.io.archives.services import _cones, _plain, _sdss_query
from bayesflowmass.io.archives.ucd import galaxies_by_ucd, redshift_columns


def caller_and_clock(**options):
    clock = Clock()
    return Caller(sleep=clock.sleep, clock=lambda: clock.now, **options), clock


def failing(error):
    def question():
        raise error

    return question


def status(code, **headers):
    response = requests.Response()
    response.status_code = code
    response.headers.update(headers)
    return requests.exceptions.HTTPError(response=response)


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_a_busy_archive_is_asked_again(code):
    caller, clock = caller_and_clock(attempts=3, pause=0.5)
    with pytest.raises(ArchiveError, match=rf"asked 3 times \(it answers HTTP {code}\)"):
        caller.ask("NED", failing(status(code)))
    assert clock.pauses == [0.5, 1.0]


@pytest.mark.parametrize("code", [400, 401, 403, 404, 430, 501, 505])
def test_an_archive_that_refuses_is_not_asked_again(code):
    caller, clock = caller_and_clock()
    with pytest.raises(ArchiveError, match=rf"NED refuses the request \(HTTP {code}\)"):
        caller.ask("NED", failing(status(code)))
    assert clock.pauses == []


def test_four_attempts_with_longer_and_longer_pauses_are_made():
    caller, clock = caller_and_clock()
    with pytest.raises(ArchiveError, match="asked 4 times"):
        caller.ask("NED", failing(status(503)))
    assert clock.pauses == [2.0, 4.0, 8.0]


@pytest.mark.parametrize(
    ("after", "pause"), [("7", 7.0), ("0.25", 0.5), ("soon", 0.5), ("120", 120.0), ("500", 120.0)]
)
def test_a_pause_is_as_long_as_the_archive_says_up_to_two_minutes(after, pause):
    caller, clock = caller_and_clock(attempts=2, pause=0.5)
    with pytest.raises(ArchiveError, match="asked 2 times"):
        caller.ask("NED", failing(status(503, **{"Retry-After": after})))
    assert clock.pauses == [pause]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (requests.exceptions.ReadTimeout("x"), "it does not answer in time"),
        (TimeoutError("the read timed out"), "it does not answer in time"),
        (requests.exceptions.ChunkedEncodingError("x"), "the connection broke off"),
        (requests.exceptions.ConnectionError("x"), "there is no connection to it"),
        (requests.exceptions.RequestException("ab " * 100), ("ab " * 40)),
        (requests.exceptions.RequestException(), "RequestException"),
    ],
)
def test_why_there_is_no_answer_is_said_in_short(error, reason):
    caller, _ = caller_and_clock(attempts=1)
    with pytest.raises(ArchiveError, match=rf"asked once \({reason}\); what came"):
        caller.ask("NED", failing(error))


def test_requests_are_a_second_apart_and_no_more():
    caller, clock = caller_and_clock()
    caller.wait()
    caller.wait()
    clock.now += 0.25
    caller.wait()
    assert clock.pauses == [1.0, 0.75]
    clock.now += 1.0
    caller.wait()
    assert clock.pauses == [1.0, 0.75]
    assert caller.requests_made == 4


def test_equal_questions_have_one_answer_in_whatever_order_they_are_put(tmp_path):
    cache = AnswerCache(tmp_path / "of" / "archives")
    for value in (1, 2):
        cache.get({"a": value, "b": 3}, lambda value=value: Table({"x": [value]}))
    assert (cache.hits, cache.unwritten) == (0, 0)
    for value in (1, 2):
        table, day = cache.get({"b": 3, "a": value}, failing(AssertionError))
        assert table["x"].tolist() == [value]
        assert len(day) == 10
    assert (cache.hits, cache.unwritten) == (2, 0)
    for note in (tmp_path / "of" / "archives" / "questions").iterdir():
        kept = json.loads(note.read_text(encoding="utf-8"))
        assert (kept["question"]["b"], kept["rows"], len(kept["answer"])) == (3, 1, 64)


def test_an_answer_that_cannot_be_kept_is_given_and_counted(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    cache = AnswerCache(tmp_path / "file")
    assert cache.get({"a": 1}, lambda: Table({"x": [5]}))[0]["x"].tolist() == [5]
    assert cache.unwritten == 1


@pytest.mark.parametrize(
    ("radius", "v_max", "redshift", "message"),
    [
        (0.0, 4000.0, 0.1, "both must be positive"),
        (0.01, 4000.0, 0.1, None),
        (np.inf, 4000.0, 0.1, "both must be positive"),
        (2.0, 0.0, 0.1, "both must be positive"),
        (2.0, 0.5, 0.1, None),
        (2.0, 299792.458, 0.1, "both must be positive"),
        (0.5, 4000.0, 0.002, None),
        (0.5, 4000.0, 0.0019, "distances need one between 0.002 and 2"),
        (2.0, 4000.0, 1.999, None),
        (2.0, 4000.0, 2.0, "distances need one between 0.002 and 2"),
        (2.0, 4000.0, 2.5, "distances need one between 0.002 and 2"),
    ],
)
def test_a_cylinder_has_a_size_and_a_place(radius, v_max, redshift, message):
    position = ClusterPosition("A1", 10.0, 20.0, redshift)
    if message is not None:
        with pytest.raises(ArchiveError, match=message):
            _scale_and_angle(position, radius, v_max, MDPL2)
        return
    scale, angle = _scale_and_angle(position, radius, v_max, MDPL2)
    assert scale == transverse_mpc_h_per_radian(redshift, MDPL2)
    assert np.radians(angle) * scale == pytest.approx(radius, rel=1e-12)


def test_archives_are_asked_for_fifteen_degrees_at_most():
    scale = float(transverse_mpc_h_per_radian(0.003, MDPL2))
    position = ClusterPosition("A1", 10.0, 20.0, 0.003)
    assert _scale_and_angle(position, scale * np.radians(14.99), 4000.0, MDPL2)[1] == pytest.approx(14.99)
    with pytest.raises(ArchiveError, match=r"is 15\.2 deg; archives are asked for at most 15 deg"):
        _scale_and_angle(position, scale * np.radians(15.2), 4000.0, MDPL2)


def test_cones_are_half_a_degree_at_most_and_written_to_six_digits():
    assert _cones(10.12345678, -20.12345678, 0.12345678) == [(10.123457, -20.123457, 0.123457)]
    assert _cones(10.0, 0.0, 0.5) == [(10.0, 0.0, 0.5)]
    several = _cones(10.0, 60.0, 0.51)
    assert len(several) > 1
    for cone in several:
        assert cone[2] == 0.5
        assert [round(value, 6) for value in cone] == list(cone)


@pytest.mark.parametrize("dec", [-89.8, 89.8])
def test_sdss_is_asked_up_to_the_poles_and_not_beyond(dec):
    sql = _sdss_query(120.0, dec, 0.5, (0.01, 0.02))
    expected = "-90.000000 AND -89.300000" if dec < 0 else "89.300000 AND 90.000000"
    assert f"s.dec BETWEEN {expected}" in sql
    assert "WHERE 1 = 1 AND" in sql


@pytest.mark.parametrize(
    ("ra", "dec", "angle"),
    [
        (120.0, 40.0, 0.5),
        (0.2, -30.0, 1.0),
        (359.9, 60.0, 0.5),
        (200.0, 85.0, 2.0),
        (0.6, 0.0, 0.5),
        (359.4, 0.0, 0.5),
    ],
)
def test_sdss_is_asked_for_a_rectangle_that_holds_the_disc_and_little_more(ra, dec, angle):
    sql = _sdss_query(ra, dec, angle, (0.01, 0.02))
    numbers = [float(word) for word in re.findall(r"s.ra (?:BETWEEN |> |< )([\d.]+)", sql)]
    numbers += [float(word) for word in re.findall(r"s.ra BETWEEN [\d.]+ AND ([\d.]+)", sql)]
    half = np.degrees(np.arcsin(np.sin(np.radians(angle)) / np.cos(np.radians(dec))))
    more = np.degrees(np.arcsin(np.sin(np.radians(angle)) / np.cos(np.radians(abs(dec) + angle))))
    assert (" OR " in sql) == (ra < half or ra > 360.0 - half)
    west, east = sorted((number - ra + 180.0) % 360.0 - 180.0 for number in numbers)
    assert -more - 1e-5 < west < -half
    assert half < east < more + 1e-5


def test_of_what_archives_say_of_a_table_its_names_are_kept():
    table = Table({"x": [1.0]}, meta={"table": "a", "other_tables": "b, c", "description": "long"})
    assert _plain(table).meta == {"table": "a", "other_tables": "b, c"}


def of_ucd(**columns):
    table = Table({"_RAJ2000": [10.0, 10.1, 10.2], "_DEJ2000": [1.0, 1.1, 1.2]})
    for name, (ucd, values) in columns.items():
        table[name] = values
        table[name].meta["ucd"] = ucd
    return table


@pytest.mark.parametrize(
    ("ucd", "taken"),
    [
        ("src.redshift", True),
        ("src.redshift;spect", True),
        ("SRC.REDSHIFT", True),
        ("src.redshift.phot", False),
        ("src.redshift;stat.error", False),
        ("stat.error;src.redshift", False),
        ("src.redshiftier", False),
        ("spect.dopplerVeloc", True),
        ("spect.dopplerVeloc.opt", True),
        ("phys.veloc;pos.heliocentric", True),
        ("phys.veloc.dispersion", False),
        ("phys.veloc;stat.stdev", False),
        ("phys.veloc;meta.number", False),
        ("phot.mag", False),
    ],
)
def test_redshifts_are_told_by_their_ucd(ucd, taken):
    assert redshift_columns(of_ucd(a=(ucd, [0.1, 0.2, 0.3]))) == ["a"] * taken


def test_a_row_of_vizier_needs_a_redshift_above_minus_a_tenth_that_is_not_zero():
    for z, kept in ((0.0, 2), (-0.1, 2), (-0.0999, 3), (0.0001, 3), (np.nan, 2)):
        reading = galaxies_by_ucd(of_ucd(a=("src.redshift", [z, 0.2, 0.3])), "t")
        assert (len(reading.galaxies), reading.counts["no_redshift"]) == (kept, 3 - kept)


def test_an_error_of_zero_is_not_known():
    table = of_ucd(a=("src.redshift", [0.1, 0.2, 0.3]), e_a=("stat.error", [0.0, 0.5, -1.0]))
    np.testing.assert_array_equal(galaxies_by_ucd(table, "t").galaxies["z_err"], [np.nan, 0.5, np.nan])
    other = of_ucd(a=("src.redshift", [0.1, 0.2, 0.3]), b=("stat.error;src.redshift", [0.01, 0.5, 1.0]))
    assert galaxies_by_ucd(other, "t").galaxies["z_err"].tolist() == [0.01, 0.5, 1.0]
    assert "z_err" not in galaxies_by_ucd(of_ucd(a=("src.redshift", [0.1, 0.2, 0.3])), "t").galaxies.colnames
