"""Settings of mock catalogues: what is simulated, and what observing does to it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from bayesflowmass.command.limits import Clusters, Sightlines
from bayesflowmass.common.settings import Settings


class MockSettings(Settings):
    """Which mock clusters to make."""

    n_clusters: Clusters = Field(20000, description="clusters in the catalogue")
    masses: Literal["flat", "hmf"] = Field("flat", description="flat in log10 mass, or the mass function")
    log10_mass_range: tuple[float, float] = Field((13.2, 15.6), description="limits of log10 M200c [Msun/h]")
    kind: Literal["pure", "contaminated"] = Field(
        "contaminated", description="members only, or with interlopers"
    )
    mode: Literal["paper", "survey", "mixed"] = Field(
        "paper",
        description="interlopers: satellites only (paper), with central galaxies (survey), or either (mixed)",
    )
    redshift: float = Field(0.117, description="redshift of all clusters, 0.01-1.5")
    redshift_range: tuple[float, float] | None = Field(
        None, description="draw redshifts between these instead"
    )
    n_projections: Sightlines = Field(1, description="lines of sight of each halo (they share halo_id)")
    r_max: float = Field(1.6, gt=0, le=50, description="radius of the cylinder [comoving Mpc/h]")
    v_max: float = Field(2500.0, gt=0, le=30_000, description="half depth of the cylinder [km/s]")
    min_galaxies: int = Field(10, ge=3, le=100_000, description="fewest galaxies of a cluster")
    preset: Literal["paper", "sky"] = Field(
        "paper", description="mock parameters: those of the paper's simulation, or of orbits and surveys"
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="mock parameters that differ from the preset"
    )
    randomise: dict[str, tuple[float, float]] = Field(
        default_factory=dict,
        description="parameters that each halo draws between two limits, e.g. 'velocity_bias=[0.95, 1.1]'",
    )

    @field_validator("randomise")
    @classmethod
    def _known_priors(cls, value: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        if value:
            # Imported late: --help should not wait for the mocks.
            from bayesflowmass.mocks import Randomisation

            Randomisation(value)
        return value

    @model_validator(mode="after")
    def _ordered(self) -> MockSettings:
        low, high = self.log10_mass_range
        if not low < high:
            raise ValueError(f"log10_mass_range is [{low}, {high}]; the first limit must be the smaller one")
        if self.redshift_range is not None and not self.redshift_range[0] <= self.redshift_range[1]:
            raise ValueError(
                f"redshift_range is {list(self.redshift_range)}; the first limit must be the smaller one"
            )
        return self


class AugmentationSettings(Settings):
    """What observing does to each training cluster, drawn anew each epoch."""

    magnitude_limit: tuple[float, float] | None = Field(
        None, description="faintest magnitude, drawn between these"
    )
    apparent: bool = Field(True, description="the limit is an apparent magnitude, else M - 5 log10 h")
    completeness: tuple[float, float] | None = Field(
        None, description="share of galaxies kept, drawn between these"
    )
    completeness_log: bool = Field(False, description="completeness is drawn uniformly in its logarithm")
    fibre_collisions: tuple[float, float] | None = Field(
        None, description="no two galaxies are closer than this [arcsec], drawn between these"
    )
    central_losses: tuple[float, float] | None = Field(
        None, description="share of galaxies lost at the centre, drawn between these"
    )
    central_losses_scale: float = Field(0.1, gt=0, description="where half of that is lost [comoving Mpc/h]")
    velocity_error: tuple[float, float] | None = Field(
        None, description="velocity errors [km/s], drawn between these"
    )
    miscentre_r: float | tuple[float, float] = Field(
        0.0, description="scatter of the centre on the sky [comoving Mpc/h]; two numbers: drawn between them"
    )
    miscentre_v: float | tuple[float, float] = Field(
        0.0, description="scatter of the velocity centre [km/s]; two numbers: drawn between them"
    )
    recentre: bool = Field(False, description="find the velocity centre again, as is done with data")
    aperture: tuple[float, float] | None = Field(
        None, description="radius of the observed field [comoving Mpc/h], drawn between these"
    )
    cleaning: float = Field(0.0, ge=0, le=1, description="share of clusters whose interlopers are removed")
    known: dict[str, float] = Field(
        default_factory=dict,
        description="share of clusters of which the model is told a column, e.g. mode=0.5",
    )
