"""Make a catalogue of mock clusters: ``python -m bayesflowmass.simulate`` and :func:`simulate`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from bayesflowmass.command import MockSettings, run_command
from bayesflowmass.command.limits import Seed
from bayesflowmass.command.nbody import MADE_FROM_NOTHING, NbodySettings
from bayesflowmass.command.paths import OutFile
from bayesflowmass.common.terminal import say

# The rest is imported where it is used: --help, and an error in the input, should not wait for torch.
if TYPE_CHECKING:
    from bayesflowmass.catalog import ClusterCatalog

__all__ = ["SimulateSettings", "main", "simulate"]


class SimulateSettings(NbodySettings, MockSettings):
    """`bayesflowmass simulate`: make a mock catalogue, from nothing or from an N-body box."""

    out: OutFile = Field(Path("catalog.parquet"), description="catalogue to write (parquet)")
    seed: Seed = Field(0, description="random seed")
    scheduler: str | None = Field(
        None, description="address of a Dask scheduler whose workers make the clusters, e.g. tcp://node1:8786"
    )
    progress: bool = Field(True, description="show a progress bar")


def simulate(out: str | Path, n_clusters: int = 20000, **arguments: Any) -> ClusterCatalog:
    """Make a mock catalogue and write it.

    Args:
        out: file to write (parquet).
        n_clusters: clusters in the catalogue.
        arguments: the others of :func:`~bayesflowmass.mocks.catalog_builder.simulate_file`.

    Raises:
        ValueError: for unusable arguments, or an ending other than .parquet.
        OSError: if the file cannot be written.
    """
    from bayesflowmass.catalog import ClusterCatalog
    from bayesflowmass.mocks.catalog_builder import simulate_file

    out = _checked(out)
    simulate_file(out, n_clusters, **arguments)
    return ClusterCatalog.read(out)


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``simulate``; returns its exit code."""
    return run_command(SimulateSettings, _simulate_with, argv, prog="bayesflowmass simulate")


def _checked(out: str | Path) -> Path:
    out = Path(out)
    if out.suffix != ".parquet":
        raise ValueError(f"--out is '{out}'; catalogues are parquet files, so the name must end in .parquet.")
    if not out.parent.is_dir():
        raise ValueError(f"The folder '{out.parent}' of --out does not exist; make it first.")
    return out


def _simulate_with(settings: SimulateSettings) -> None:
    from bayesflowmass.mocks import MockParameters
    from bayesflowmass.mocks.catalog_builder import simulate_file

    if settings.hosts is not None:
        _simulate_box(settings)
        return
    values = settings.model_dump(exclude=set(NbodySettings.model_fields) - {"workers"})
    redshifts = values.pop("redshift_range")
    if redshifts is not None:
        values["redshift"] = redshifts
    values["parameters"] = MockParameters.preset(values.pop("preset"), values["parameters"])
    values["out"] = _checked(settings.out)
    n_clusters, n_galaxies = simulate_file(**values)
    say(
        f"{n_clusters} clusters with {n_galaxies} galaxies, {settings.kind}, masses"
        f" {settings.masses} in {settings.log10_mass_range[0]}-{settings.log10_mass_range[1]}: {settings.out}"
    )


def _simulate_box(settings: SimulateSettings) -> None:
    from bayesflowmass.mocks import simulate_nbody

    values = settings.model_dump(exclude=set(MADE_FROM_NOTHING))
    for name in ("log10_mass_range", "n_projections", "redshift"):
        # The defaults are those of mocks made from nothing; a box has its own.
        if name not in settings.model_fields_set:
            del values[name]
    made = simulate_nbody(**values | {"out": _checked(settings.out)})
    low, high = made.log10_mass_range
    say(
        f"{made.n_clusters} clusters with {made.n_galaxies} galaxies, {settings.kind}, masses {settings.masses} in"
        f" {low:.2f}-{high:.2f}, from {made.n_lines} lines of sight on {made.n_hosts} haloes: {settings.out}"
    )


if __name__ == "__main__":
    sys.exit(main())
