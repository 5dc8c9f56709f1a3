"""A redshift survey in memory: where its galaxies are, and all that is known of those near clusters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.cosmology import SPEED_OF_LIGHT
from bayesflowmass.io import plausibility
from bayesflowmass.io.flat.clusters import measured_column
from bayesflowmass.io.flat.galaxies import galaxies_on_sky, settle_redshift, velocity_error_column
from bayesflowmass.io.frames import to_cmb
from bayesflowmass.io.sky import unit_vectors
from bayesflowmass.io.sources import OpenedTables

_CONVERTED = ("ra", "dec", "z", "cz", "z_err", "v_err", "cluster_id", "x", "y", "r_proj", "v_los", "redshift")
_GROUPS_AT_ONCE = 24


@dataclass(frozen=True)
class Survey:
    """Galaxies of a survey.

    Args:
        ra, dec, z: of the galaxies that matter, degrees (n,).
        others: further columns (n,).
        all_ra, all_dec: positions of all galaxies, degrees.
        limits: smallest and largest redshift of all.
        report: of the readers.
    """

    ra: FloatArray
    dec: FloatArray
    z: FloatArray
    others: dict[str, NDArray[Any]]
    all_ra: FloatArray
    all_dec: FloatArray
    limits: tuple[float, float]
    report: dict[str, Any]

    def near(
        self, ra: FloatArray, dec: FloatArray, redshift: FloatArray, angle: FloatArray, velocity: FloatArray
    ) -> Survey:
        """The galaxies within reach of a cluster; positions of all are kept.

        Args:
            ra, dec, redshift: of clusters (m,).
            angle: reach on the sky, radians (m,).
            velocity: reach in the rest frame, km/s (m,).
        """
        depth = velocity / SPEED_OF_LIGHT * (1.0 + redshift)
        by_z = np.argsort(self.z, kind="stable")
        z = self.z[by_z]
        from scipy.spatial import cKDTree

        kept = np.zeros(z.size, dtype=bool)
        # Clusters of similar redshifts together: they share a depth and a size on the sky.
        for group in np.array_split(np.argsort(redshift), min(_GROUPS_AT_ONCE, redshift.size)):
            first = np.searchsorted(z, (redshift - depth)[group].min())
            last = np.searchsorted(z, (redshift + depth)[group].max(), side="right")
            rows = by_z[first:last]
            centres = cKDTree(unit_vectors(ra[group], dec[group]))
            points = unit_vectors(self.ra[rows], self.dec[rows])
            # An arc is a little longer than its chord.
            reach = float(angle[group].max())
            kept[rows] |= np.isfinite(centres.query(points, distance_upper_bound=reach)[0])
        rows = np.flatnonzero(kept)
        others = {name: values[rows] for name, values in self.others.items()}
        return replace(self, ra=self.ra[rows], dec=self.dec[rows], z=self.z[rows], others=others)


def survey_part(opened: OpenedTables, galaxy_frame: str, frame: str) -> Survey:
    """Galaxies of a table with ``ra, dec, z`` or ``cz``, redshifts in the frame asked for."""
    table = opened.galaxies
    table.require("ra")
    table.require("dec")
    settle_redshift(table)
    sky, rows = galaxies_on_sky(table)
    ra, dec, z = sky["ra"], sky["dec"], sky["z"]
    if table.units["ra"] is None:
        plausibility.check_not_radians(ra, dec, table.name)
    if frame == "cmb":
        z = to_cmb(z, ra, dec, galaxy_frame)
    others = {column: table.carried(column)[rows] for column in table.columns if column not in _CONVERTED}
    if (error := table.first("z_err", "v_err")) is not None:
        # Beside cz or z on the sky, an error in km/s is that of cz.
        every = (
            velocity_error_column(table) / SPEED_OF_LIGHT
            if error == "v_err"
            else measured_column(table, "z_err", "gal_z_err")
        )
        values = every[rows]
        known = np.isfinite(values)
        others["z_err"] = np.where(known, values, np.median(values[known]) if known.any() else 0.0)
    limits = (float(z.min()), float(z.max()))
    report = {**opened.all_said(), "galaxies_read": table.n_rows}
    return Survey(ra, dec, z, others, ra, dec, limits, report)


def concatenated(first: Survey, second: Survey) -> Survey:
    """Two parts of a survey, which have the same columns."""
    odd = set(first.others) ^ set(second.others)
    if odd:
        raise CatalogError(
            f"parts of one survey have the same columns, and {sorted(odd)[0]} is in some only."
        )
    report = {**first.report}
    for name, value in second.report.items():
        report[name] = report[name] + value if isinstance(value, int | list) and name in report else value
    both = {
        name: np.concatenate([getattr(first, name), getattr(second, name)])
        for name in ("ra", "dec", "z", "all_ra", "all_dec")
    }
    return Survey(
        **both,
        others={name: np.concatenate([values, second.others[name]]) for name, values in first.others.items()},
        limits=(min(first.limits[0], second.limits[0]), max(first.limits[1], second.limits[1])),
        report=report,
    )
