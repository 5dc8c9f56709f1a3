"""The galaxies of flat tables: what each of them needs, what was not measured, what travels along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.catalog.errors import refuse_where
from bayesflowmass.catalog.ranges import RANGES, unmeasured
from bayesflowmass.common.arrays import BoolArray, FloatArray, IntArray
from bayesflowmass.cosmology import SPEED_OF_LIGHT, Cosmology
from bayesflowmass.io import plausibility
from bayesflowmass.io import units as convert
from bayesflowmass.io.flat.clusters import column_place, measured_column, sky_angles
from bayesflowmass.io.table import FlatTable

PREFIXED = ("v_err", "is_member", "component", "galaxy_id", "ra", "dec", "z", "abs_mag", "weight")
"""Columns of galaxies that a catalogue calls ``gal_<name>``."""

_FRAME = ("x", "y", "r_proj", "v_los", "cz", "cluster_id", "z_err")
_OF_CLUSTERS = (
    *(
        "halo_id",
        "redshift",
        "log10_mass",
        "completeness",
        "sigma_v_err",
        "redshift_err",
        "abs_mag_limit",
        "aperture",
        "mode",
    ),
    *("cleaned", "n_shared", "shares_with", "footprint_fraction", "redshift_edge"),
)
"""Names that mean something of a cluster: a galaxy's column of that name is called ``gal_<name>``."""


def settle_redshift(table: FlatTable) -> None:
    """Find which of ``z`` and ``redshift`` is that of the galaxies.

    A column ``redshift`` of galaxies on the sky without ``z`` and ``cz`` is theirs, unless it is one value for each
    cluster; beside a ``z`` that can only be a magnitude it is theirs too.
    """
    if not table.has("ra", "dec", "redshift") or "redshift" in table.given:
        return
    redshift = table.measured("redshift")
    if "z" not in table and "cz" not in table:
        if "cluster_id" in table:
            clusters, ids = np.unique(np.ma.getdata(table.columns["cluster_id"]), return_inverse=True)
            least, most = np.full(clusters.size, np.inf), np.full(clusters.size, -np.inf)
            np.minimum.at(least, ids, redshift)
            np.maximum.at(most, ids, redshift)
            if np.all(most - least < 1e-6) and clusters.size < table.n_rows:
                return
        table.move("redshift", "z")
        table.notes.append(f"{table.name}: redshift is taken for z, the redshift of each galaxy.")
    elif "z" in table and "z" not in table.given and table.units["z"] in (None, "mag"):
        z = table.measured("z")
        if np.nanmedian(z) > RANGES["gal_z"].high and RANGES["gal_z"].holds(np.nanmedian(redshift)):
            table.notes.append(
                f"{table.name}: z is {np.nanmedian(z):.1f} typically, a magnitude; the redshift is taken from redshift."
            )
            table.move("z", "z_in_file")
            table.move("redshift", "z")


def galaxies_on_sky(table: FlatTable) -> tuple[dict[str, FloatArray], IntArray]:
    """``ra, dec`` [deg] and ``z`` of the galaxies that have them, and their rows in the table."""
    ra, dec = sky_angles(table, "ra"), sky_angles(table, "dec")
    name = table.require("z", "cz")
    where = column_place(table, name)
    given = table.measured(name)
    if name == "cz":
        z = convert.velocity_to_km_s(given, table.units["cz"], where) / SPEED_OF_LIGHT
    else:
        z = convert.redshift_from(given, table.units["z"], where)
    outside = ~RANGES["gal_z"].holds(z)
    z[unmeasured("gal_z", z, given) | unmeasured("gal_z", z)] = np.nan
    outside &= np.isfinite(z)
    if np.sum(outside) > 0.5 * np.sum(np.isfinite(z)):
        plausibility.check_redshifts(z, "gal_z", where)
    keep = _without(table, np.isnan(z), f"without {table.theirs[name]}")
    low, high = RANGES["gal_z"].low, RANGES["gal_z"].high
    keep &= _without(table, outside, f"with {table.theirs[name]} outside {low:g} to {high:g} (as redshifts)")
    keep &= _without(table, np.isnan(ra) | np.isnan(dec), "without a position")
    rows = _some(table, keep)
    return {"ra": ra[rows], "dec": dec[rows], "z": z[rows]}, rows


def galaxies_in_frame(
    table: FlatTable, redshift: FloatArray, cosmology: Cosmology, made_with: Cosmology | None
) -> tuple[dict[str, FloatArray], IntArray]:
    """``x, y`` [comoving Mpc/h] and ``v_los`` [km/s] of the galaxies that have them, and their rows in the table.

    Args:
        redshift: of each galaxy's cluster (n_rows,).
        cosmology: of the catalogue.
        made_with: cosmology of the table, for its lengths; None takes that of the catalogue.
    """
    table.require("v_los")
    if table.has("x", "y"):
        names: tuple[str, ...] = ("x", "y")
    else:
        names = (table.require("x" if "y" in table else "y" if "x" in table else "r_proj"),)
    lengths = []
    keep = np.ones(table.n_rows, dtype=bool)
    for name in names:
        given = table.measured(name)
        unit, where = table.units[name], column_place(table, name)
        values = convert.length_to_comoving(given, unit, where, cosmology, lambda: redshift, made_with)
        unknown = np.isnan(given) | unmeasured(name, values, given)
        keep &= _without(table, unknown, f"without {table.theirs[name]}")
        lengths.append(values)
        if made_with is None and name != "y":
            _say_whose_lengths(table, name, cosmology)
    if names == ("r_proj",):
        expected = "is negative; expected a distance from the centre."
        refuse_where(keep & (lengths[0] < 0.0), lambda row: f"{table.place('r_proj', row)} {expected}")
        lengths.append(np.zeros(table.n_rows))
    given = table.measured("v_los")
    v_los = convert.velocity_to_km_s(given, table.units["v_los"], column_place(table, "v_los"))
    unknown = np.isnan(v_los) | unmeasured("v_los", v_los, given)
    keep &= _without(table, unknown, f"without {table.theirs['v_los']}")
    rows = _some(table, keep)
    return {"x": lengths[0][rows], "y": lengths[1][rows], "v_los": v_los[rows]}, rows


def carried_galaxies(
    table: FlatTable, rows: IntArray, made: Mapping[str, Any], clusters: Mapping[str, Any]
) -> dict[str, NDArray[Any]]:
    """All other columns of the galaxies at some rows, under the names of a catalogue."""
    result: dict[str, NDArray[Any]] = {}
    left_alone: list[str] = []
    for name in table.columns:
        ours = f"gal_{name}" if name in PREFIXED or name in _OF_CLUSTERS or name in clusters else name
        if (
            name in _FRAME
            or ours in made
            or (name == "redshift" and "z" not in clusters and "z" not in table)
        ):
            continue
        if name == "v_err":
            values: NDArray[Any] = velocity_error_column(table)
        elif name in ("abs_mag", "weight", "is_member"):
            numbers = _numbers_or_none(table, name)
            if numbers is None:
                left_alone.append(name)
                ours, numbers = f"{name}_in_file", table.carried(name)
            values = numbers
        else:
            values = table.carried(name)
        result[ours] = values[rows]
    if left_alone:
        table.notes.append(
            f"{table.name}: kept as they are, not used, since they are no numbers: {', '.join(left_alone)}."
        )
    return result


def velocity_error_column(table: FlatTable) -> FloatArray:
    """``v_err`` [km/s] of all rows, NaN where no error is known."""
    factor = convert.velocity_to_km_s(np.ones(1), table.units["v_err"], column_place(table, "v_err"))[0]
    return measured_column(table, "v_err", "gal_v_err", float(factor))


def _without(table: FlatTable, bad: BoolArray, which: str) -> BoolArray:
    """The mask of the others; how many are left out, and the first, go to the notes."""
    if bad.any():
        number = int(np.sum(bad))
        table.notes.append(
            f"{table.name}: {number} of {bad.size} galaxies {which} {'is' if number == 1 else 'are'} left out; the "
            f"first is row {int(np.argmax(bad)) + 1}."
        )
    return ~bad


def _some(table: FlatTable, keep: BoolArray) -> IntArray:
    if not keep.any():
        raise CatalogError(
            f"{table.name}: none of the {keep.size} galaxies has a position and a redshift or velocity."
        )
    return np.flatnonzero(keep)


def _say_whose_lengths(table: FlatTable, name: str, cosmology: Cosmology) -> None:
    """Lengths without /h are those of somebody's Hubble constant; which is taken must be said."""
    unit = table.units[name]
    if unit is None or "pc" not in unit or convert.length_per_h(unit):
        return
    table.notes.append(
        f"{column_place(table, name)}: {unit} are taken to be those of H0 = {100.0 * cosmology.h:g}, Om = "
        f"{cosmology.Om0:g}; for another cosmology of the table give --table-cosmology H0,Om (70,0.3 makes radii "
        f"{100.0 * (0.7 / cosmology.h - 1.0):.1f} % larger)."
    )


def _numbers_or_none(table: FlatTable, name: str) -> NDArray[Any] | None:
    """A column that has a meaning as numbers; None where it holds something else, or has gaps that it may not have."""
    if name == "is_member":
        values = table.columns[name]
        whole = values.dtype.kind in "biu" and not np.ma.getmaskarray(values).any()
        return np.asarray(values) if whole else None
    try:
        numbers = measured_column(table, name, f"gal_{name}")
    except CatalogError:
        return None
    return None if not RANGES[f"gal_{name}"].optional and np.isnan(numbers).any() else numbers
