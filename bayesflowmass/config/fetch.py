"""Settings of `fetch`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from bayesflowmass.config.base import Settings

__all__ = ["FetchSettings"]


class FetchSettings(Settings):
    """`bayesflowmass fetch NAME`: galaxies around a cluster, from an archive."""

    name: str | None = Field(None, description="of the cluster, as NED knows it, such as 'Abell 2142'")
    position: tuple[float, float] | None = Field(
        None, description="RA and DEC of the centre, J2000 [deg], instead of NED's"
    )
    redshift: float | None = Field(None, gt=0, description="of the cluster, instead of NED's")
    source: str = Field("ned", description="ned, sdss or vizier:CATALOGUE, such as vizier:J/ApJS/246/2")
    redshift_column: str | None = Field(
        None, description="of a table of VizieR whose columns do not say which is the redshift"
    )
    radius: float = Field(2.0, gt=0, description="of the cylinder [comoving Mpc/h]")
    v_max: float = Field(4000.0, gt=0, description="half depth of the cylinder [km/s]")
    out: Path = Field(Path("galaxies.ecsv"), description="table to write (ecsv, fits, votable, parquet)")
    cache: bool = Field(True, description="keep answers, and take kept ones")
    cache_folder: Path | None = Field(
        None, description="where answers are kept; default: bayesflowmass/archives in the user's cache"
    )
    timeout: float = Field(
        60.0, gt=0, description="seconds without an answer after which a request is given up"
    )
    attempts: int = Field(4, gt=0, description="tries of each request")
    progress: bool = Field(True, description="show a progress bar")

    @model_validator(mode="after")
    def _a_place(self) -> FetchSettings:
        if self.name is None and self.position is None:
            raise ValueError("there is neither a name nor --position RA DEC; give one of them")
        if self.name is None and self.redshift is None:
            raise ValueError("--position without a name needs --redshift, from which distances follow")
        if self.position is not None and not (
            0.0 <= self.position[0] <= 360.0 and -90.0 <= self.position[1] <= 90.0
        ):
            raise ValueError(f"--position is {list(self.position)}; expected degrees, 0 to 360 and -90 to 90")
        return self
