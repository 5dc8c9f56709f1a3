"""From the blocks of a box to one catalogue, with what is known of it as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bayesflowmass.catalog import CatalogError, CatalogMetadata, CatalogWriter
from bayesflowmass.catalog.work import WorkFolder
from bayesflowmass.mocks.nbody.block import CutRecipe

_CENTRALS = {"paper": "left out", "survey": "kept", "mixed": "kept around half of the hosts"}
_LINES_OF_SIGHT = ("n_projections", "target_density", "max_projections", "n_folds", "folds")


@dataclass(frozen=True)
class NbodySummary:
    """What was made.

    Attributes:
        out: the catalogue.
        n_hosts: in the range of mass and the folds.
        n_lines: lines of sight, each of which makes a cluster or is too poor for one.
        n_clusters, n_galaxies: in the catalogue.
        log10_mass_range: of the population [log10 M200c, Msun/h].
    """

    out: Path
    n_hosts: int
    n_lines: int
    n_clusters: int
    n_galaxies: int
    log10_mass_range: tuple[float, float]


def write_catalog(
    work: WorkFolder,
    n_blocks: int,
    out: Path,
    recipe: CutRecipe,
    chosen: Mapping[str, Any],
    masses: dict[str, Any],
    facts: Mapping[str, Any],
) -> NbodySummary:
    """Put the blocks together in one file, with the metadata of the whole, and remove the work folder.

    Args:
        work: in which all ``n_blocks`` are done.
        recipe: how they were cut.
        chosen: settings of the run.
        masses: entry ``masses`` of the metadata.
        facts: further entries of ``extra["nbody"]``, with ``n_hosts``.

    Raises:
        CatalogError: if no line of sight has enough galaxies, or the disk is full.
    """
    counts = [work.counts(block) for block in range(n_blocks)]
    n_lines, n_poor = (sum(count[name] for count in counts) for name in ("n_lines", "n_poor"))
    if n_lines == n_poor:
        work.remove()
        raise CatalogError(
            f"none of {n_lines} lines of sight has {recipe.min_galaxies} galaxies; raise --log10-mass-range, lower "
            "--min-galaxies or --galaxy-min."
        )
    cylinder = {"r_max": recipe.r_max, "v_max": recipe.v_max} if recipe.cylinder else {}
    chosen_galaxies = {name: chosen[name] for name in ("galaxy_column", "galaxy_min", "membership")}
    metadata = CatalogMetadata(
        kind=recipe.kind,
        mode=recipe.mode,
        cosmology=recipe.box.cosmology,
        selection={**cylinder, "min_galaxies": recipe.min_galaxies, **chosen_galaxies},
        masses=masses,
        seed=chosen["seed"],
        extra={
            "nbody": {
                **facts,
                "redshift": recipe.box.redshift,
                "box_size": recipe.box.size,
                "depth": recipe.depth,
                "centrals": _CENTRALS[recipe.mode],
                **{name: chosen[name] for name in _LINES_OF_SIGHT if name in chosen},
                "n_lines": n_lines,
                "n_poor": n_poor,
            }
        },
    )
    everywhere = {item.name: getattr(metadata, item.name) for item in fields(metadata)}
    n_clusters = n_galaxies = 0
    with CatalogWriter(out) as writer:
        for block in range(n_blocks):
            part = work.read(block)
            n_clusters += len(part)
            n_galaxies += part.n_galaxies_total
            writer.write(part.with_metadata(**everywhere))
    work.remove()
    limits = (masses["log10_mass_min"], masses["log10_mass_max"])
    return NbodySummary(out, facts["n_hosts"], n_lines, n_clusters, n_galaxies, limits)
