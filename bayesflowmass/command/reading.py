"""How the tables of a user are read: names, units, and what is known of all clusters."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from bayesflowmass.command.paths import InputPath
from bayesflowmass.common.settings import Settings


class ReadingSettings(Settings):
    """How tables are read, and what a model is told of their clusters."""

    listed_last: ClassVar[tuple[str, ...]] = (
        *("column", "guess", "unit", "table_cosmology", "cluster_id", "redshift"),
        *("cleaned", "mode", "aperture", "footprint", "assume"),
    )

    column: dict[str, str] = Field(
        default_factory=dict,
        description="OURS=THEIRS, names of columns; galaxies.OURS= and clusters.OURS= for one table",
    )
    guess: bool = Field(
        False, description="take columns whose names probably mean what is missing, as errors propose them"
    )
    unit: dict[str, str] = Field(
        default_factory=dict, description="OURS=UNIT, units of columns, such as 'r_proj=proper kpc'"
    )
    table_cosmology: str | None = Field(
        None,
        description="H0,Om that lengths in the table were made with, such as 70,0.3; default: the model's",
    )
    cluster_id: str | None = Field(None, description="all galaxies belong to this cluster")
    redshift: float | None = Field(None, description="redshift of all clusters, where tables have none")
    cleaned: bool = Field(False, description="interlopers were removed from this catalogue")
    mode: Literal["paper", "survey", "mixed"] | None = Field(
        None,
        description="interlopers in the data: satellites only (paper), central galaxies too (survey), or not known"
        " (mixed)",
    )
    aperture: str | None = Field(
        None,
        description="radius of the observed fields: comoving Mpc/h, or with a unit, as in '5 arcmin' or '1 proper Mpc'",
    )
    footprint: InputPath | None = Field(
        None,
        description="where the survey looked: regions of DS9 (.reg), or a table ra, dec, completeness that samples it",
    )
    assume: dict[str, float] = Field(
        default_factory=dict,
        description="NAME=VALUE taken as known of all clusters: a parameter of the mocks (velocity_bias=1.0), a column"
        " (abs_mag_limit=-20.1, completeness=0.9), galaxy_density=4.9e-3 per (Mpc/h)^3",
    )

    def reading(self) -> dict[str, Any]:
        """Arguments of `bayesflowmass.estimator.observations.read_for`."""
        return {name: getattr(self, name) for name in ReadingSettings.listed_last if name != "assume"}
