"""What is known about a catalogue as a whole: cosmology, kind, selection, units; the error of readers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version as installed_version
from typing import Any

from bayesflowmass.catalog.errors import CatalogError
from bayesflowmass.cosmology import MDPL2, Cosmology

METADATA_KEY = b"bayesflowmass"
"""Key of the JSON text in the schema metadata of a catalogue file."""

KINDS = ("pure", "contaminated")
MODES = ("paper", "survey", "mixed")

COLUMN_UNITS: dict[str, str] = {
    "log10_mass": "log10 M200c [Msun/h]",
    "ra": "deg",
    "dec": "deg",
    "sigma_v_err": "km/s",
    "aperture": "Mpc/h comoving",
    "x": "Mpc/h comoving",
    "y": "Mpc/h comoving",
    "v_los": "km/s",
    "gal_v_err": "km/s",
    "gal_ra": "deg",
    "gal_dec": "deg",
    "gal_abs_mag": "mag - 5 log10 h",
}
"""The one unit that each known column has."""


@dataclass(frozen=True)
class CatalogMetadata:
    """What is known about a catalogue as a whole; stored as JSON in the schema metadata of its file.

    Args:
        kind: ``"pure"`` (members only), ``"contaminated"`` (with interlopers), or None where unknown.
        mode: definition of interlopers, ``"paper"`` (satellites only), ``"survey"`` (centrals too) or
            ``"mixed"`` (cluster column ``mode`` says which); None where unknown.
        cosmology: turns angles and redshifts into Mpc/h and km/s.
        selection: what was done to the galaxies: ``r_max`` [Mpc/h], ``v_max`` [km/s], ``min_galaxies``, ...;
            ``positions: "radial"`` where distances from the centre are known and directions are not (y = 0).
        masses: of a mock, ``{"distribution": "flat" or "hmf", "log10_mass_min": ..., "log10_mass_max":
            ...}``.
        seed: of a mock.
        version: of this package, at the time of writing.
        units: of the columns; a unit other than that of `COLUMN_UNITS` is refused by
            `ClusterCatalog.validate`.
        extra: anything else, JSON-able.

    Raises:
        CatalogError: if kind or mode is unknown, or a value cannot be written as JSON.
    """

    kind: str | None = None
    mode: str | None = None
    cosmology: Cosmology = MDPL2
    selection: dict[str, Any] = field(default_factory=dict)
    masses: dict[str, Any] | None = None
    seed: int | None = None
    version: str = field(default_factory=lambda: installed_version("bayesflowmass"))
    units: dict[str, str] = field(default_factory=lambda: dict(COLUMN_UNITS))
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, known in (("kind", KINDS), ("mode", MODES)):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise CatalogError(
                    f"catalogue metadata: {name} is {value!r}; expected one of {', '.join(known)}."
                )
        for name in ("selection", "masses", "units", "extra"):
            # Tuples and numpy scalars become what JSON gives back, so that a file changes nothing.
            object.__setattr__(self, name, _through_json(name, getattr(self, name)))
        if self.seed is not None:
            object.__setattr__(self, "seed", int(self.seed))

    def replace(self, **changes: Any) -> CatalogMetadata:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    @property
    def radial(self) -> bool:
        """Whether only distances from the centre are known, so that x is a distance and y is 0."""
        return self.selection.get("positions") == "radial"

    def with_selection(self, **entries: Any) -> CatalogMetadata:
        """A copy with entries added to (or replaced in) ``selection``."""
        return self.replace(selection={**self.selection, **entries})

    def to_dict(self) -> dict[str, Any]:
        """JSON-able dictionary."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {**values, "cosmology": self.cosmology.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CatalogMetadata:
        """Inverse of `to_dict`; keys that this version does not know go to ``extra``."""
        known = {item.name for item in dataclasses.fields(cls)}
        fields = {key: value for key, value in values.items() if key in known}
        unknown = {key: value for key, value in values.items() if key not in known}
        if "cosmology" in fields:
            fields["cosmology"] = Cosmology.from_dict(fields["cosmology"])
        if unknown:
            fields["extra"] = {**fields.get("extra", {}), **unknown}
        return cls(**fields)

    def to_json(self) -> bytes:
        """UTF-8 JSON text."""
        return json.dumps(self.to_dict(), sort_keys=True).encode()

    @classmethod
    def from_json(cls, text: bytes) -> CatalogMetadata:
        """Inverse of `to_json`.

        Raises:
            CatalogError: if the text is not a JSON dictionary of the fields.
        """
        try:
            return cls.from_dict(json.loads(text))
        except (ValueError, TypeError, AttributeError) as error:
            raise CatalogError(f"the catalogue's metadata cannot be read: {error}") from error

    @staticmethod
    def merge(several: Sequence[CatalogMetadata]) -> CatalogMetadata:
        """Metadata of catalogues put together: what they agree on.

        A seed, a mass distribution, a version or an extra entry that differs becomes None or is left out,
        and modes that differ become ``"mixed"``.

        Raises:
            CatalogError: where cosmology, kind, selection or units differ, since no one value is then true.
        """
        first = several[0]
        for name in ("cosmology", "kind", "selection", "units"):
            for other in several[1:]:
                if getattr(other, name) != getattr(first, name):
                    raise CatalogError(
                        f"catalogues to be put together differ in {name}: {getattr(first, name)} and "
                        f"{getattr(other, name)}; give the metadata of the result to say which is right."
                    )

        def agreed(name: str, otherwise: Any) -> Any:
            value = getattr(first, name)
            return value if all(getattr(other, name) == value for other in several) else otherwise

        return first.replace(
            mode=agreed("mode", "mixed"),
            masses=agreed("masses", None),
            seed=agreed("seed", None),
            version=agreed("version", installed_version("bayesflowmass")),
            extra={
                key: value
                for key, value in first.extra.items()
                if all(key in other.extra and other.extra[key] == value for other in several)
            },
        )


def _through_json(name: str, value: Any) -> Any:
    try:
        return json.loads(json.dumps(value, default=_plain))
    except (TypeError, ValueError) as error:
        raise CatalogError(f"catalogue metadata: {name} cannot be written as JSON: {error}") from error


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
