"""Galaxies around a cluster from an archive: ``bayesflowmass fetch NAME`` and :func:`fetch`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field, model_validator

from bayesflowmass.command import run_command
from bayesflowmass.command.paths import OutTable
from bayesflowmass.common.settings import Settings
from bayesflowmass.common.terminal import say, say_aside

# The rest is imported where it is used: --help, and an error in the input, should not wait for torch.
if TYPE_CHECKING:
    from bayesflowmass.io.archives import AnswerCache, Caller, FetchedCluster

__all__ = ["FetchSettings", "fetch", "main"]


class FetchSettings(Settings):
    """`bayesflowmass fetch NAME`: galaxies around a cluster, from an archive."""

    name: str | None = Field(None, description="name of the cluster, as NED knows it, such as 'Abell 2142'")
    position: tuple[float, float] | None = Field(
        None, description="RA and DEC of the centre, J2000 [deg], instead of NED's"
    )
    redshift: float | None = Field(None, gt=0, description="redshift of the cluster, instead of NED's")
    source: str = Field("ned", description="ned, sdss or vizier:CATALOGUE, such as vizier:J/ApJS/246/2")
    redshift_column: str | None = Field(
        None, description="which column is the redshift, where a table of VizieR does not say"
    )
    radius: float = Field(2.0, gt=0, le=50, description="radius of the cylinder [comoving Mpc/h]")
    v_max: float = Field(4000.0, gt=0, le=30_000, description="half depth of the cylinder [km/s]")
    out: OutTable = Field(Path("galaxies.ecsv"), description="table to write (ecsv, fits, votable, parquet)")
    cache: bool = Field(True, description="keep answers, and take kept ones")
    cache_folder: Path | None = Field(
        None, description="where answers are kept; default: bayesflowmass/archives in the user's cache"
    )
    timeout: float = Field(
        60.0, gt=0, description="seconds without an answer after which a request is given up"
    )
    attempts: int = Field(4, gt=0, le=100, description="tries of each request")
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


def fetch(
    name: str | None = None,
    *,
    position: tuple[float, float] | None = None,
    redshift: float | None = None,
    source: str = "ned",
    radius: float = 2.0,
    v_max: float = 4000.0,
    redshift_column: str | None = None,
    cache: AnswerCache | None = None,
    caller: Caller | None = None,
    progress: bool = False,
) -> FetchedCluster:
    """Galaxies around a cluster by name or position.

    Args:
        name: as NED knows it; with ``position`` and ``redshift`` it is a label only.
        position: right ascension and declination of the centre, J2000 [deg].
        redshift: of the cluster, heliocentric.
        source: "ned", "sdss" or "vizier:CATALOGUE".
        radius: of the cylinder [comoving Mpc/h].
        v_max: its half depth [km/s].
        redshift_column: of a table of VizieR, where UCDs do not say.
        cache: where answers are kept; default: nowhere.
        caller: how archives are asked; default: a second apart, a minute each, four tries.
        progress: show a bar where several requests are needed.

    Raises:
        ArchiveError: astroquery is not installed, the object is unknown, nothing is there, or no connection.
    """
    from bayesflowmass.io.archives import (
        AnswerCache,
        ArchiveError,
        Caller,
        ClusterPosition,
        fetch_cluster,
        resolve_name,
    )

    caller, cache = caller or Caller(), cache or AnswerCache(None)
    if position is None or redshift is None:
        if name is None:
            raise ArchiveError(
                "A cluster is found by its name, or by position and redshift; give one of them."
            )
        ra, dec, z = resolve_name(name, caller, cache)
        position = (ra, dec) if position is None else position
        if redshift is None and not np.isfinite(z):
            raise ArchiveError(f"NED has no redshift of '{name}'; give --redshift.")
        redshift = z if redshift is None else redshift
    label = name or f"{position[0]:.4f}{position[1]:+.4f}"
    return fetch_cluster(
        source,
        ClusterPosition(label, *position, redshift),
        radius=radius,
        v_max=v_max,
        caller=caller,
        cache=cache,
        redshift_column=redshift_column,
        progress=progress,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``fetch``; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-"):
        words = ["--name", *words]
    return run_command(FetchSettings, _fetch_with, words, prog="bayesflowmass fetch")


def _fetch_with(settings: FetchSettings) -> None:
    from bayesflowmass.io.archives import AnswerCache, Caller, default_cache_folder
    from bayesflowmass.posterior.write_table import write_table

    out = settings.out
    folder = Path(settings.cache_folder) if settings.cache_folder else default_cache_folder()
    cache = AnswerCache(folder if settings.cache else None)
    caller = Caller(timeout=settings.timeout, attempts=settings.attempts)
    found = fetch(
        settings.name,
        position=settings.position,
        redshift=settings.redshift,
        source=settings.source,
        radius=settings.radius,
        v_max=settings.v_max,
        redshift_column=settings.redshift_column,
        cache=cache,
        caller=caller,
        progress=settings.progress,
    )
    for note in found.notes:
        say_aside(f"note: {note}")
    if cache.unwritten:
        say_aside(f"warning: the answer could not be kept in {folder}; the next run asks again.")
    write_table(found.table, out)
    meta = found.table.meta
    kept = (
        f", from the answer kept on {meta['date']} (--no-cache asks again)"
        if not caller.requests_made
        else ""
    )
    say(
        f"{len(found.table)} galaxies around {meta['cluster']} (ra {meta['ra']:.4f}, dec {meta['dec']:+.4f}, z "
        f"{meta['redshift']:.5f}) from {meta['source']}{kept}.\nWritten to {out}\n"
        f"Next: bayesflowmass infer --galaxies {out} --out masses.ecsv"
    )


if __name__ == "__main__":
    sys.exit(main())
