"""Settings of mocks that are cut out of an N-body box."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from bayesflowmass.command.limits import Sightlines
from bayesflowmass.command.paths import InputPath
from bayesflowmass.common.settings import Settings

MADE_FROM_NOTHING = ("n_clusters", "redshift_range", "preset", "parameters", "randomise")
"""Settings of mocks that need no box, and say nothing about one."""


class NbodySettings(Settings):
    """Where the box is, and how clusters are cut out of it."""

    hosts: InputPath | None = Field(
        None, description="host haloes of an N-body box (Rockstar CSV or text); makes mocks from the box"
    )
    galaxies: InputPath | None = Field(
        None, description="box: its galaxies or subhaloes (UniverseMachine, Rockstar); may be the hosts' file"
    )
    membership: Literal["id", "radius"] = Field(
        "id", description="box: members have the host's id as upid, or lie within its R_vir"
    )
    cylinder: bool = Field(True, description="box: cut members by the cylinder, too (kind pure: or not)")
    target_density: float = Field(
        -5.2, ge=-12, le=0, description="box, masses flat: log10 of lines of sight per dex and (Mpc/h)^3"
    )
    max_projections: Sightlines = Field(
        500, ge=3, description="box, masses flat: most lines of sight of one halo"
    )
    galaxy_column: str | None = Field(
        None, description="box: column that chooses galaxies (default: log10_macc, else log10_mpeak)"
    )
    galaxy_min: float | None = Field(
        None, description="box: its lower limit (default for these two: 11, log10 Msun/h)"
    )
    box_size: float | None = Field(
        None, gt=0, description="box: its side [comoving Mpc/h], if no file says it"
    )
    cosmology: dict[str, Any] = Field(
        default_factory=dict, description="box: parameters other than MDPL2's, of Om0, h, sigma8, ns, Ob0"
    )
    n_folds: int = Field(10, gt=0, le=10_000, description="box: folds by halo id (cluster column fold)")
    folds: tuple[int, ...] | None = Field(None, description="box: only these folds (default: all)")
    workers: int | None = Field(None, gt=0, le=1024, description="processes (default: one per core)")

    @model_validator(mode="after")
    def _box_or_not(self) -> NbodySettings:
        given = self.model_fields_set
        if self.hosts is None:
            odd = [name for name in NbodySettings.model_fields if name in given - {"hosts", "workers"}]
            if odd:
                raise ValueError(
                    f"--{_flag(odd[0])} goes with an N-body box; name its host haloes with --hosts, or leave it out"
                )
            return self
        if self.galaxies is None:
            raise ValueError(
                "--hosts needs --galaxies, the galaxies or subhaloes of the same box (it may be the same file)"
            )
        for name in MADE_FROM_NOTHING:
            if name in given:
                raise ValueError(
                    f"--{_flag(name)} is of mocks made from nothing; leave it out beside --hosts"
                )
        masses = getattr(self, "masses", "flat")
        for name in ("n_projections",) if masses == "flat" else ("target_density", "max_projections"):
            if name in given:
                other, who = ("hmf", "--target-density") if masses == "flat" else ("flat", "--n-projections")
                raise ValueError(
                    f"--{_flag(name)} goes with masses {other}; with masses {masses}, {who} says how many lines of "
                    "sight a halo gets"
                )
        return self


def _flag(name: str) -> str:
    return name.replace("_", "-")
