"""What a model was trained on, and therefore what it can speak about."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.common.version import __version__
from bayesflowmass.cosmology import MDPL2, Cosmology
from bayesflowmass.estimator.description import does_not_describe, read_description
from bayesflowmass.estimator.reference import Reference
from bayesflowmass.estimator.shipped import model_folder

MASSES = ("flat", "hmf")


@dataclass(frozen=True)
class TrainingInfo:
    """Facts about the training set that a model carries with it.

    Args:
        log10_mass_range: limits of log10 M200c [Msun/h]; the training prior is zero outside them.
        masses: population of the training masses, ``"flat"`` in log10 mass or ``"hmf"``; this *is* the prior.
        redshift_range: smallest and largest redshift.
        kind: ``"contaminated"`` or ``"pure"``.
        mode: interloper mode, ``"paper"``, ``"survey"`` or ``"mixed"``.
        selection: cylinder (``r_max`` [comoving Mpc/h], ``v_max`` [km/s]), ``min_galaxies`` and the rest.
        richness_range: fewest and most galaxies of a training cluster.
        uses_richness: the context depends on the number of galaxies.
        cosmology: of the mocks.
        version: of bayesflowmass.
        seed: of the training run.
        n_train: clusters in the training split.
        reference: what training clusters look like, for the flags (`Reference`).
        config: settings of the run, as JSON.
    """

    log10_mass_range: tuple[float, float]
    masses: str = "flat"
    redshift_range: tuple[float, float] = (0.117, 0.117)
    kind: str | None = "contaminated"
    mode: str | None = "paper"
    selection: dict[str, Any] = field(default_factory=dict)
    richness_range: tuple[int, int] = (10, 1000)
    uses_richness: bool = False
    cosmology: Cosmology = MDPL2
    version: str = __version__
    seed: int | None = None
    n_train: int | None = None
    reference: Reference | None = None
    config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("log10_mass_range", "redshift_range", "richness_range"):
            low, high = getattr(self, name)
            if not (np.isfinite(low) and np.isfinite(high) and low <= high):
                raise ValueError(
                    f"TrainingInfo: {name} is ({low}, {high}); two increasing finite values are expected."
                )
            object.__setattr__(self, name, (low, high))
        if self.log10_mass_range[0] == self.log10_mass_range[1]:
            raise ValueError(
                "TrainingInfo: all training masses are equal; a range of log10 masses is expected."
            )
        if self.masses not in MASSES:
            raise ValueError(f"TrainingInfo: masses is {self.masses!r}; expected one of {', '.join(MASSES)}.")

    @classmethod
    def from_catalog(
        cls,
        catalog: ClusterCatalog,
        *,
        uses_richness: bool,
        seed: int | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> TrainingInfo:
        """Collect the facts from the training split, as the network sees it (after augmentation).

        The limits of mass are those in the metadata of the catalogue, else the extremes of its masses.

        Args:
            catalog: training clusters with ``log10_mass`` and ``redshift``.
            uses_richness: whether the context depends on the number of galaxies.

        Raises:
            CatalogError: the catalogue has no masses, or no clusters.
        """
        if len(catalog) == 0 or not catalog.has("log10_mass"):
            raise CatalogError(
                "The training catalogue has no clusters or no column log10_mass; "
                "simulate one, or add the true log10 M200c [Msun/h] of each cluster."
            )
        metadata = catalog.metadata
        masses = metadata.masses or {}
        truth = catalog.column("log10_mass")
        limits = (truth.min(), truth.max())
        if "log10_mass_min" in masses and "log10_mass_max" in masses:
            limits = (masses["log10_mass_min"], masses["log10_mass_max"])
        redshift = catalog.column("redshift")
        return cls(
            log10_mass_range=(float(limits[0]), float(limits[1])),
            masses=str(masses.get("distribution", "flat")),
            redshift_range=(float(redshift.min()), float(redshift.max())),
            kind=metadata.kind,
            mode=metadata.mode,
            selection=dict(metadata.selection),
            richness_range=(int(catalog.n_galaxies.min()), int(catalog.n_galaxies.max())),
            uses_richness=uses_richness,
            cosmology=metadata.cosmology,
            seed=seed,
            n_train=len(catalog),
            reference=Reference.from_catalog(catalog),
            config=dict(config or {}),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able dictionary."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        plain["cosmology"] = self.cosmology.to_dict()
        plain["reference"] = None if self.reference is None else asdict(self.reference)
        for name in ("log10_mass_range", "redshift_range", "richness_range"):
            plain[name] = list(plain[name])
        return plain

    def summary(self) -> dict[str, Any]:
        """`to_dict` without the settings of the run and the reference, for results to carry."""
        return {name: value for name, value in self.to_dict().items() if name not in ("reference", "config")}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingInfo:
        """Inverse of `to_dict`.

        Raises:
            ValueError: a key is unknown or missing.
        """
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown or "log10_mass_range" not in values:
            problem = f"unknown key {unknown[0]!r}" if unknown else "no key 'log10_mass_range'"
            raise ValueError(f"TrainingInfo: {problem}; the keys are {', '.join(sorted(known))}.")
        plain = dict(values)
        for name in ("log10_mass_range", "redshift_range", "richness_range"):
            if name in plain:
                plain[name] = tuple(plain[name])
        if "cosmology" in plain:
            plain["cosmology"] = Cosmology.from_dict(plain["cosmology"])
        if plain.get("reference") is not None:
            plain["reference"] = Reference.from_dict(plain["reference"])
        return cls(**plain)


def read_training_info(folder: str | os.PathLike[str]) -> TrainingInfo:
    """What a model was trained on, without its weights: a folder, or the name of a shipped model.

    Raises:
        ModelError: the model is missing, truncated, foreign or from a newer version.
    """
    folder = model_folder(folder)
    description = read_description(folder)
    try:
        return TrainingInfo.from_dict(description["training"])
    except (KeyError, TypeError, ValueError) as error:
        raise does_not_describe(folder, error) from None
