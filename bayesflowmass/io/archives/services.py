"""NED, SDSS and VizieR: what each is asked, and how its answer becomes galaxies."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable
from typing import Any
from xml.parsers.expat import ExpatError

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, Table, vstack
from numpy.typing import ArrayLike
from tqdm import tqdm

from bayesflowmass.io.archives.access import ArchiveError, Caller, NoAnswer, astroquery_class
from bayesflowmass.io.archives.cache import AnswerCache
from bayesflowmass.io.archives.ucd import galaxies_by_ucd, redshift_columns
from bayesflowmass.io.formats import Reading
from bayesflowmass.io.formats.ned import NED
from bayesflowmass.io.formats.skyserver import SkyServer
from bayesflowmass.io.sky import sky_offsets, sky_position

SOURCES = ("ned", "sdss", "vizier:CATALOGUE")
"""Names of archives; CATALOGUE such as J/ApJS/246/2, or one of its tables, J/ApJS/246/2/table1."""

_LARGEST_CONE = 0.5
"""Degrees: NED lists every object, and a larger cone is a hundred thousand of them."""
_NOTHING_THERE = re.compile(r"\bno\b.*\b(object|source)", re.IGNORECASE)
_SDSS_COLUMNS = "specObjID, ra, dec, z, zErr, zWarning, class"


def resolve_name(name: str, caller: Caller, cache: AnswerCache) -> tuple[float, float, float]:
    """Right ascension and declination [deg] and redshift (NaN if unknown) of a cluster, from NED.

    Raises:
        ArchiveError: NED knows no such object, or cannot be reached.
    """
    ned = _ned(caller)

    def ask() -> Table:
        return _plain(caller.ask("NED", lambda: _ned_answer(lambda: ned.query_object(name), name)))

    table, _ = cache.get({"archive": "ned", "object": name}, ask)
    if len(table) == 0:
        raise ArchiveError(
            f"NED knows no object '{name}'; check the name, or give --position RA DEC and --redshift."
        )
    row = table[0]

    def value(*names: str) -> float:
        by_name = {n.lower(): n for n in table.colnames}
        found = next((by_name[name] for name in names if name in by_name), None)
        return float("nan") if found is None or np.ma.is_masked(row[found]) else float(row[found])

    return value("ra", "ra(deg)"), value("dec", "dec(deg)"), value("redshift (z)", "redshift")


def galaxies_from(
    source: str,
    ra: float,
    dec: float,
    angle: float,
    z_range: tuple[float, float],
    caller: Caller,
    cache: AnswerCache,
    *,
    redshift_column: str | None = None,
    progress: bool = False,
) -> tuple[Reading, str]:
    """Galaxies with redshifts in a cone, and the day of the (oldest) answer.

    Args:
        source: one of `SOURCES`.
        ra, dec: centre [deg].
        angle: radius [deg].
        z_range: redshifts of interest, where the archive can be asked for them.
        caller, cache: how it is asked, and where answers are kept.
        redshift_column: of a table of VizieR.
        progress: show a bar where several requests are needed.

    Raises:
        ArchiveError: unknown source, nothing there, or the archive cannot be reached.
        CatalogError: the answer has no galaxy with a redshift.
    """
    kind, _, catalogue = source.partition(":")
    if kind == "vizier" and catalogue:
        return _vizier(catalogue, ra, dec, angle, caller, cache, redshift_column)
    if kind not in ("ned", "sdss") or catalogue:
        raise ArchiveError(f"The source '{source}' is unknown; it is one of {', '.join(SOURCES)}.")
    if redshift_column is not None:
        raise ArchiveError(
            "--redshift-column is for tables of VizieR; the columns of ned and sdss are known, so leave it out."
        )
    if kind == "sdss":
        return _sdss(ra, dec, angle, z_range, caller, cache)
    return _ned_region(ra, dec, angle, caller, cache, progress)


def _ned(caller: Caller) -> Any:
    return caller.prepare(astroquery_class("ipac.ned", "NedClass")())


def _ned_answer(question: Callable[[], Any], name: str | None = None) -> Any:
    """A table of NED; an empty one where a region has no object."""
    remote, parse = (astroquery_class("exceptions", n) for n in ("RemoteServiceError", "TableParseError"))
    try:
        return question()
    except (parse, ExpatError):
        raise NoAnswer("its answer is cut short") from None
    except remote as error:
        said = " ".join(str(error).split())
        if name is not None:
            raise ArchiveError(
                f"NED knows no object '{name}' ({said[-120:]}); check the name, or give --position RA DEC and "
                "--redshift."
            ) from None
        if _NOTHING_THERE.search(said):
            return Table()
        raise ArchiveError(f"NED refuses the request: {said[-200:]}") from None


def _ned_region(
    ra: float, dec: float, angle: float, caller: Caller, cache: AnswerCache, progress: bool
) -> tuple[Reading, str]:
    ned, parts, days = _ned(caller), [], []
    cones = _cones(ra, dec, angle)
    for one_ra, one_dec, radius in tqdm(
        cones, desc="NED", unit=" cones", disable=not progress or len(cones) == 1, file=sys.stderr
    ):
        centre = SkyCoord(one_ra, one_dec, unit="deg")

        def ask(centre: Any = centre, radius: float = radius) -> Table:
            query = lambda: ned.query_region(centre, radius=radius * u.deg)  # noqa: E731
            return _plain(caller.ask("NED", lambda: _ned_answer(query)))

        # Each cone is kept by itself: a dropped connection costs one of them.
        table, day = cache.get({"archive": "ned", "cone": [one_ra, one_dec, radius]}, ask)
        days.append(day)
        if len(table):
            parts.append(table)
    if not parts:
        raise ArchiveError(f"NED has no objects within {angle:.3f} deg of {ra:.4f} {dec:+.4f}.")
    whole = vstack(parts, metadata_conflicts="silent")
    # Cones overlap; an object has one name.
    _, first = np.unique(np.asarray(whole["Object Name"]).astype(str), return_index=True)
    return NED().convert(whole[np.sort(first)], "NED"), min(days)


def _cones(ra: float, dec: float, angle: float) -> list[tuple[float, float, float]]:
    """Cones (ra, dec, radius) [deg] that cover a disc, none larger than what NED answers in a minute."""
    if angle <= _LARGEST_CONE:
        return _rounded([ra], [dec], angle)
    # Hexagonal packing; on the sphere a step of angle is at most a step in the plane.
    step = np.sqrt(3.0) * _LARGEST_CONE * 0.97
    n = int(np.ceil(2.0 * (angle + _LARGEST_CONE) / step))
    row, column = np.meshgrid(np.arange(-n, n), np.arange(-n, n))
    east = ((column + 0.5 * row) * step).ravel()
    north = (row * step * np.sqrt(0.75)).ravel()
    reached = np.hypot(east, north) < angle + _LARGEST_CONE
    places = sky_position(
        np.full(reached.sum(), ra),
        np.full(reached.sum(), dec),
        np.radians(east[reached]),
        np.radians(north[reached]),
    )
    return _rounded(*places, _LARGEST_CONE)


def _rounded(ra: ArrayLike, dec: ArrayLike, angle: float) -> list[tuple[float, float, float]]:
    """Places and a radius as they are asked for, and by which answers are kept."""
    columns = np.broadcast_arrays(ra, dec, angle)
    return [(a, d, radius) for a, d, radius in np.round(columns, 6).T.tolist()]


def _sdss(
    ra: float, dec: float, angle: float, z_range: tuple[float, float], caller: Caller, cache: AnswerCache
) -> tuple[Reading, str]:
    sdss = caller.prepare(astroquery_class("sdss", "SDSSClass")())
    remote = astroquery_class("exceptions", "RemoteServiceError")
    sql = _sdss_query(ra, dec, angle, z_range)

    def question() -> Table:
        try:
            answer = sdss.query_sql(sql, cache=False)
        except remote as error:
            raise ArchiveError(f"SDSS refuses the request: {' '.join(str(error).split())[:200]}") from None
        except ValueError as error:
            raise NoAnswer(f"its answer is no table: {' '.join(str(error).split())[:80]}") from None
        return Table() if answer is None else answer

    table, day = cache.get({"archive": "sdss", "sql": sql}, lambda: _plain(caller.ask("SDSS", question)))
    if len(table):
        centre = np.full(len(table), ra), np.full(len(table), dec)
        distance = np.hypot(*sky_offsets(np.asarray(table["ra"]), np.asarray(table["dec"]), *centre))
        table = table[distance < np.radians(angle)]
    if len(table) == 0:
        raise ArchiveError(
            f"SDSS has no spectra within {angle:.3f} deg of {ra:.4f} {dec:+.4f} at redshifts {z_range[0]:.4f} to "
            f"{z_range[1]:.4f}; it covers a third of the sky: try --source ned."
        )
    return SkyServer().convert(table, "SDSS"), day


def _sdss_query(ra: float, dec: float, angle: float, z_range: tuple[float, float]) -> str:
    """SpecObj in a rectangle around the disc; it has the best spectrum of each object. No TOP: all rows."""
    low, high = max(dec - angle, -90.0), min(dec + angle, 90.0)
    sine, cosine = np.sin(np.radians(angle)), np.cos(np.radians(max(abs(low), abs(high))))
    where = "1 = 1"
    if sine < cosine:
        half = float(np.degrees(np.arcsin(sine / cosine)))
        left, right = ra - half, ra + half
        where = f"s.ra BETWEEN {left:.6f} AND {right:.6f}"
        if left < 0.0 or right > 360.0:
            where = f"(s.ra > {left % 360.0:.6f} OR s.ra < {right % 360.0:.6f})"
    columns = ", ".join(f"s.{name.strip()}" for name in _SDSS_COLUMNS.split(","))
    return (
        f"SELECT {columns} FROM SpecObj AS s WHERE {where} AND s.dec BETWEEN {low:.6f} AND {high:.6f} "
        f"AND s.z BETWEEN {z_range[0]:.6f} AND {z_range[1]:.6f}"
    )


def _vizier(
    catalogue: str,
    ra: float,
    dec: float,
    angle: float,
    caller: Caller,
    cache: AnswerCache,
    redshift_column: str | None,
) -> tuple[Reading, str]:
    kind = astroquery_class("vizier", "VizierClass")
    parse = astroquery_class("exceptions", "TableParseError")
    # All columns, positions in decimal degrees, and all rows: by default the rows beyond 50 are left out silently.
    vizier = caller.prepare(
        kind(columns=["**", "_RAJ2000", "_DEJ2000"], row_limit=-1, timeout=caller.timeout)
    )
    centre = SkyCoord(ra, dec, unit="deg")

    def question() -> Table:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answer = vizier.query_region(centre, radius=angle * u.deg, catalog=catalogue, cache=False)
        except parse:
            raise NoAnswer("its answer is cut short") from None
        if answer is None or isinstance(answer, str):
            raise NoAnswer("its answer is no table")
        return _largest(answer, redshift_column, catalogue)

    asked = {
        "archive": "vizier",
        "catalogue": catalogue,
        "cone": list(_rounded([ra], [dec], angle)[0]),
    }
    if redshift_column is not None:
        asked["redshift_column"] = redshift_column
    table, day = cache.get(asked, lambda: _plain(caller.ask("VizieR", question)))
    if len(table) == 0:
        raise ArchiveError(
            f"VizieR has nothing of {catalogue} within {angle:.3f} deg of {ra:.4f} {dec:+.4f}; check the catalogue and "
            "the position."
        )
    name = str(table.meta.get("table") or catalogue)
    reading = galaxies_by_ucd(table, f"VizieR {name}", redshift_column)
    left_out = table.meta.get("other_tables")
    notes = reading.notes + ((f"taken from {name}; not from {left_out}.",) if left_out else ())
    return Reading(reading.galaxies, notes=notes, counts=reading.counts), day


def _largest(tables: Any, redshift_column: str | None, catalogue: str) -> Table:
    """The table of a catalogue with most rows among those with redshifts; mixing them would count galaxies twice."""
    usable = {
        name: table
        for name, table in zip(tables.keys(), tables.values(), strict=True)
        if (redshift_column in table.colnames if redshift_column else bool(redshift_columns(table)))
    }
    if not usable:
        if len(tables) == 0:
            return Table()
        names = list(tables.keys())
        what = f"column {redshift_column}" if redshift_column else "redshift"
        there = "; ".join(f"{name}: {', '.join(tables[name].colnames)}" for name in names)
        raise ArchiveError(
            f"VizieR {catalogue}: no table there has a {what}; name the column with --redshift-column "
            f"({there[:400]})."
        )
    name = max(usable, key=lambda key: len(usable[key]))
    chosen = usable[name].copy()
    chosen.meta = {"table": name, "other_tables": ", ".join(key for key in usable if key != name)}
    return chosen


def _plain(table: Table) -> Table:
    """Columns that a text file can hold: objects as text, arrays left out; descriptions and UCDs kept."""
    result = Table(meta={k: v for k, v in table.meta.items() if k in ("table", "other_tables")})
    for name in table.colnames:
        column = table[name]
        if column.ndim != 1:
            continue
        mask = np.ma.getmaskarray(np.ma.asarray(column))
        values = np.ma.getdata(np.ma.asarray(column))
        if values.dtype.kind == "O":
            values = np.array(
                ["" if m or v is None else str(v) for v, m in zip(values, mask, strict=True)], dtype=str
            )
        new = MaskedColumn(values, name=name, mask=mask) if mask.any() else MaskedColumn(values, name=name)
        unit = None if column.unit is None else str(column.unit)
        new.meta = {key: str(column.meta[key]) for key in ("ucd",) if column.meta.get(key)}
        if unit is not None:
            new.meta["unit"] = unit
            try:
                new.unit = u.Unit(unit)
            except ValueError:
                new.unit = None
        result[name] = new
    return result
