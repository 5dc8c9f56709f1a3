"""Where a survey has looked, from a file: regions of DS9, or a sampled map of its completeness."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from scipy.spatial import cKDTree

from bayesflowmass.catalog import CatalogError
from bayesflowmass.catalog.errors import refuse_where
from bayesflowmass.catalog.ranges import check_range
from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.io.flat.clusters import sky_angles
from bayesflowmass.io.opening import read_bytes
from bayesflowmass.io.sky import unit_vectors
from bayesflowmass.io.table import FlatTable

_REGION_LINE = re.compile(
    rb"^\s*(#\s*Region file format: DS9|[-+]?\s*(polygon|box|circle|ellipse|annulus)\s*[( ])", re.I | re.M
)
_LARGEST = np.radians(60.0)
"""Of a region, from its centre: a tangent plane shows less than half of the sky."""
_WITHOUT_AREA = ("Point", "Text", "Line")
_WITH_AREA = (
    "Polygon",
    "Circle",
    "Rectangle",
    "Ellipse",
    "CircleAnnulus",
    "EllipseAnnulus",
    "RectangleAnnulus",
)
_REACH_OF_SAMPLE = 0.75
"""Of the typical distance of neighbours: a square grid is covered without gaps from 0.71 on."""


class ObservedSky(Protocol):
    """Which share of the galaxies at each place a survey has observed."""

    says_completeness: bool
    """Whether shares are of all galaxies, and not only of places."""
    notes: list[str]

    def share(self, ra: FloatArray, dec: FloatArray) -> FloatArray:
        """Share, 0 to 1, at places ra, dec [deg], of any shape."""
        ...


def read_footprint(path: str | os.PathLike[str]) -> ObservedSky:
    """Regions of DS9 on the sky, or a table with ``ra, dec`` and ``completeness`` at places that sample it.

    Raises:
        CatalogError: the file is neither, a region is in pixels, or a value is out of its range.
    """
    content = read_bytes(path)
    if not _REGION_LINE.search(content[:65_536]):
        return CompletenessMap.read(path)
    try:
        return SkyRegions.parse(content.decode("utf-8"), str(path))
    except UnicodeDecodeError:
        raise CatalogError(
            f"{path}: regions of DS9 are text in UTF-8, and this is not; save it as that."
        ) from None


class SkyRegions:
    """What lies in one of the regions that are included, and in none that is excluded.

    Sides of polygons are great circles.

    Args:
        regions: of the package regions, in sky coordinates; those whose ``include`` is false are excluded.
        name: of their file, for messages.
    """

    says_completeness = False

    def __init__(self, regions: Sequence[Any], name: str = "regions") -> None:
        kinds = [type(region).__name__ for region in regions]
        if in_pixels := [row for row, kind in enumerate(kinds) if kind.endswith("PixelRegion")]:
            raise CatalogError(
                f"{name}: region {in_pixels[0] + 1} is in pixels of an image; save the regions in fk5 or icrs."
            )
        shapes = [kind.removesuffix("SkyRegion") for kind in kinds]
        flat = [shape for shape in shapes if shape in _WITHOUT_AREA]
        if odd := [shape for shape in shapes if shape not in (*_WITH_AREA, *_WITHOUT_AREA)]:
            raise CatalogError(
                f"{name}: a region is a {odd[0]}; expected polygon, circle, box, ellipse or annulus."
            )
        self.notes = (
            [f"{name}: {len(flat)} of {len(shapes)} regions have no area ({', '.join(sorted(set(flat)))})."]
            if flat
            else []
        )
        self._parts = [
            _Part(region, f"{name}: region {row + 1}")
            for row, (region, shape) in enumerate(zip(regions, shapes, strict=True))
            if shape not in _WITHOUT_AREA
        ]
        if not any(part.included for part in self._parts):
            raise CatalogError(
                f"{name}: no region with an area is included; expected where the survey has looked."
            )

    @classmethod
    def parse(cls, text: str, name: str) -> SkyRegions:
        """From the text of a file of DS9; needs the package regions."""
        try:
            from regions import Regions
        except ImportError:
            raise CatalogError(
                f"{name}: regions of DS9 need the package regions; install it with pip install"
                " 'bayesflowmass[footprints]'."
            ) from None
        try:
            with warnings.catch_warnings():
                # What is not understood would be left out with a warning.
                warnings.simplefilter("error")
                regions = list(Regions.parse(text, format="ds9"))
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            raise CatalogError(f"{name}: these regions of DS9 cannot be read: {said}") from None
        return cls(regions, name)

    def share(self, ra: FloatArray, dec: FloatArray) -> FloatArray:
        """1 inside, 0 outside; arguments of `ObservedSky.share`."""
        places = unit_vectors(ra.ravel(), dec.ravel())
        inside, excluded = np.zeros(ra.size, dtype=bool), np.zeros(ra.size, dtype=bool)
        for part in self._parts:
            if part.included:
                inside |= part.holds(ra.ravel(), dec.ravel(), places)
            else:
                excluded |= part.holds(ra.ravel(), dec.ravel(), places)
        return np.asarray((inside & ~excluded).reshape(ra.shape), dtype=np.float64)


class _Part:
    """One region in the plane that touches the sky at its middle."""

    def __init__(self, region: Any, name: str) -> None:
        self.included = bool(region.meta.get("include", True))
        corners = getattr(region, "vertices", None)
        if corners is None:
            middle, reach = region.center.icrs, _half_diagonal(region)
            self._middle = unit_vectors(np.array([middle.ra.deg]), np.array([middle.dec.deg]))[0]
        else:
            if corners.size < 3:
                raise CatalogError(f"{name} is a polygon of {corners.size} corners; expected three or more.")
            ends = unit_vectors(corners.icrs.ra.deg, corners.icrs.dec.deg)
            total = ends.sum(axis=0)
            self._middle = total / max(float(np.linalg.norm(total)), 1e-12)
            half_chord = np.linalg.norm(ends - self._middle, axis=1).max() / 2.0
            reach = 2.0 * float(np.arcsin(min(half_chord, 1.0)))
        if not reach < _LARGEST:
            raise CatalogError(
                f"{name} reaches {np.degrees(reach):.0f} degrees from its middle, and at most 60 can be; split it, or"
                " give a table of ra, dec and completeness."
            )
        self._chord = 2.0 * float(np.sin(reach / 2.0))
        x, y, z = self._middle
        self._plane = WCS(naxis=2)
        self._plane.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        self._plane.wcs.crval = [float(np.degrees(np.arctan2(y, x))), float(np.degrees(np.arcsin(z)))]
        # `regions` takes its scale from one pixel: an arcsecond, where the tangent is the angle to 1e-11.
        self._plane.wcs.cdelt = [-1.0 / 3600.0, 1.0 / 3600.0]
        self._plane.wcs.radesys = "ICRS"
        # A circle is one on the sphere too.
        self._shape = None if type(region).__name__ == "CircleSkyRegion" else region.to_pixel(self._plane)

    def holds(self, ra: FloatArray, dec: FloatArray, places: FloatArray) -> BoolArray:
        """Whether places (n,) are inside; ``places`` are their unit vectors (n, 3)."""
        from regions import PixCoord

        # Cosines of small angles are all one.
        inside = np.linalg.norm(places - self._middle, axis=1) <= self._chord * (1.0 + 1e-12)
        near = np.flatnonzero(inside)
        if near.size and self._shape is not None:
            where = SkyCoord(ra[near], dec[near], unit="deg")
            inside[near] = self._shape.contains(PixCoord.from_sky(where, self._plane))
        return np.asarray(inside)


def _half_diagonal(region: Any) -> float:
    """Radians from the centre of a region to its furthest point, or more."""
    widths = [
        getattr(region, name).to_value("rad") for name in ("radius", "outer_radius") if hasattr(region, name)
    ]
    sides = [
        getattr(region, name).to_value("rad") / 2.0
        for name in ("width", "height", "outer_width", "outer_height")
        if hasattr(region, name)
    ]
    # In the tangent plane angles are longer than on the sky.
    return float(max([*widths, np.hypot.reduce(sides[-2:]) if sides else 0.0]))


class CompletenessMap:
    """Shares known at places: each place has that of the nearest, and far from all of them nothing was observed.

    Args:
        ra, dec: of the samples, degrees (n,).
        completeness: share of the galaxies that were observed there, 0 to 1 (n,).
    """

    says_completeness = True

    def __init__(self, ra: FloatArray, dec: FloatArray, completeness: FloatArray) -> None:
        self.notes: list[str] = []
        places = unit_vectors(ra, dec)
        self._tree, self._values = cKDTree(places), completeness
        apart, _ = self._tree.query(places, k=2)
        self.reach = _REACH_OF_SAMPLE * float(np.median(apart[:, 1]))
        """Chord of the unit sphere within which a sample speaks."""

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> CompletenessMap:
        """From a table with ``ra, dec, completeness``."""
        table = FlatTable(path, "clusters")
        for name in ("ra", "dec", "completeness"):
            table.require(name)
        ra, dec, share = sky_angles(table, "ra"), sky_angles(table, "dec"), table.numbers("completeness")
        refuse_where(
            np.isnan(ra) | np.isnan(dec),
            lambda row: f"{table.name}: row {row + 1} has no position; remove it.",
        )
        check_range("completeness", share, lambda row: f"{table.name}: row {row + 1}")
        if share.size < 2:
            raise CatalogError(
                f"{table.name}: {share.size} place samples the completeness; expected many, on a grid."
            )
        found = cls(ra, dec, share)
        if found.reach == 0.0:
            raise CatalogError(f"{table.name}: most places are there twice; expected each once.")
        return found

    def share(self, ra: FloatArray, dec: FloatArray) -> FloatArray:
        """Completeness of the nearest sample; arguments of `ObservedSky.share`."""
        distance, nearest = self._tree.query(
            unit_vectors(ra.ravel(), dec.ravel()), distance_upper_bound=self.reach * (1.0 + 1e-9)
        )
        found = np.append(self._values, 0.0)[nearest]
        return np.asarray(np.where(np.isfinite(distance), found, 0.0).reshape(ra.shape))
