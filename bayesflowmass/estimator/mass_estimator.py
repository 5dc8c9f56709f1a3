"""Encoder, flow and what they were trained on: from galaxies to posteriors of masses."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bayesflowmass.bayes import WeightPosterior
from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.common.devices import check_device_name
from bayesflowmass.common.version import __version__
from bayesflowmass.encoders import Contexts, Encoder, concatenate
from bayesflowmass.estimator.conditioning import AT_ONCE, condition_in_parts
from bayesflowmass.estimator.cylinder import in_cylinder
from bayesflowmass.estimator.description import DESCRIPTION, WHOLE_HASH, ModelError, does_not_describe
from bayesflowmass.estimator.flags import cluster_flags, pressed_against_edge, require_usable
from bayesflowmass.estimator.memberships import Memberships, memberships
from bayesflowmass.estimator.model_folder import read_model_folder, write_model_folder
from bayesflowmass.estimator.shipped import model_folder
from bayesflowmass.estimator.training_info import TrainingInfo
from bayesflowmass.estimator.weight_draws import condition_draws
from bayesflowmass.flows import ConditionalFlow
from bayesflowmass.novelty import Assessment, NoveltyDetector
from bayesflowmass.posterior import (
    ConditionedDistribution,
    MassPosterior,
    MassPrior,
    PredictiveMass,
    number_of_draws,
)
from bayesflowmass.recalibration import Recalibration

# Clusters encoded at once; their images are then let go.
_CHUNK = AT_ONCE
_WITHOUT_A_MASS = "or use `bayesflowmass infer`, which gives such clusters a row without a mass"


class MassEstimator:
    """p(log10 M200c | galaxies) of clusters, from an encoder and a conditional flow.

    Whatever it is asked, it sees of a catalogue the galaxies inside the cylinder that it was trained in.

    Args:
        encoder: galaxies to contexts.
        flow: context to p(log10 mass).
        training_info: what they were trained on.
        device: where both run; ``"auto"`` is a CUDA device where there is one.
        weights: posterior of the flow's weights; None, or one without random weights, is a point model.
        novelty: tells clusters that are unlike the training set; None: nothing is known of that.
        recalibrations: each for one prior and its limits.
    """

    def __init__(
        self,
        encoder: Encoder,
        flow: ConditionalFlow,
        training_info: TrainingInfo,
        device: str | torch.device = "auto",
        weights: WeightPosterior | None = None,
        novelty: NoveltyDetector | None = None,
        recalibrations: Sequence[Recalibration] = (),
    ) -> None:
        self.device = resolve_device(device)
        self.encoder = encoder.to(self.device).eval()
        self.flow = flow.to(self.device).eval()
        self.weights = weights.to(self.device).eval() if weights is not None and weights.names else None
        self.flow.linear_draws = self.weights is not None and self.weights.linear
        self.training_info = training_info
        self.novelty = novelty
        self.recalibrations = tuple(recalibrations)
        self.notes: tuple[str, ...] = ()
        """What a user of a loaded model should know of its files."""

    def posterior(
        self,
        catalog: ClusterCatalog,
        prior: str | MassPrior = "flat",
        *,
        n_draws: int | None = None,
        seed: int = 0,
        chunk: int = _CHUNK,
        contexts: Contexts | None = None,
        draws: Mapping[str, Tensor] | None = None,
        log10_mass_range: tuple[float, float] | None = None,
        recalibrated: bool | None = None,
    ) -> MassPosterior:
        """Posteriors of all clusters of a catalogue.

        With a posterior of the weights they are mixtures over draws of them, the same draws for all clusters.
        A recalibration that the model has for the prior is applied, and with it the limits that it was made for;
        `MassPosterior.recalibration` says so, `MassPosterior.raw` is the posterior before.

        Args:
            catalog: clusters, each with at least three galaxies that span both R and v.
            prior: ``"flat"``, ``"hmf"`` or a `MassPrior` (`MassPosterior.with_prior`).
            n_draws: draws of the weights; default: 31, which leave sigma_epistemic a Monte Carlo error of 13 %
                (`number_of_draws`), or all members of a finite posterior such as an ensemble.
            seed: of the draws.
            chunk: clusters encoded at once.
            contexts: of the clusters, where `encode` has been called before.
            draws: of the weights, where `draw` has been called before; ``n_draws`` and ``seed`` are then not used.
            log10_mass_range: limits of the prior [log10 Msun/h]; default: those of the recalibration, else of training.
            recalibrated: None: where there is a recalibration for this prior and these limits; True: there must be one;
                False: the raw posterior.

        Raises:
            CatalogError: the catalogue is empty, or a cluster has too few galaxies or no spread.
            ValueError: fewer than two draws of the weights, or there is no such recalibration.
        """
        info = self.training_info
        catalog = in_cylinder(catalog, info.selection)
        if contexts is None or len(catalog) == 0:
            # Clusters that have contexts had a kernel density.
            require_usable(catalog, "infer", _WITHOUT_A_MASS)
        drawn = self.draw(n_draws, seed) if draws is None else draws
        posterior = MassPosterior(
            list(self._condition(catalog, chunk, drawn, contexts)),
            log10_mass_range=info.log10_mass_range,
            training_prior=info.masses,
            redshift=np.asarray(catalog.column("redshift"), dtype=np.float64),
            cosmology=info.cosmology,
            cluster_id=catalog.column("cluster_id"),
            n_galaxies=catalog.n_galaxies,
        )
        return self.under(posterior, prior, log10_mass_range=log10_mass_range, recalibrated=recalibrated)

    def under(
        self,
        posterior: MassPosterior,
        prior: str | MassPrior,
        *,
        log10_mass_range: tuple[float, float] | None = None,
        recalibrated: bool | None = None,
    ) -> MassPosterior:
        """A raw posterior of this model under another prior, recalibrated where the model knows how; see `posterior`.

        Raises:
            ValueError: there is no such recalibration, and there must be one.
        """
        if recalibrated is not False:
            found = self._recalibration_for(prior, log10_mass_range)
            if found is not None:
                return found.apply(posterior.with_prior(found.prior, found.log10_mass_range))
            if recalibrated:
                there = "; ".join(one.label for one in self.recalibrations) or "none"
                raise ValueError(
                    f"The model has no recalibration for the prior {getattr(prior, 'name', prior)!r} with these limits "
                    f"(it has: {there}); make one with `bayesflowmass recalibrate`, or take the raw posterior."
                )
        return posterior.with_prior(prior, log10_mass_range)

    def _recalibration_for(
        self, prior: str | MassPrior, log10_mass_range: tuple[float, float] | None
    ) -> Recalibration | None:
        name, limits = (
            (prior, log10_mass_range) if isinstance(prior, str) else (prior.name, prior.log10_mass_range)
        )
        return next((one for one in reversed(self.recalibrations) if one.fits(name, limits)), None)

    def with_recalibration(self, recalibration: Recalibration) -> MassEstimator:
        """The same model with a recalibration more; one for the same prior and limits is replaced."""
        kept = [
            one
            for one in self.recalibrations
            if not one.fits(recalibration.prior, recalibration.log10_mass_range)
        ]
        return MassEstimator(
            self.encoder,
            self.flow,
            self.training_info,
            self.device,
            self.weights,
            self.novelty,
            [*kept, recalibration],
        )

    def condition(
        self, catalog: ClusterCatalog, *, n_draws: int | None = None, seed: int = 0, chunk: int = _CHUNK
    ) -> PredictiveMass:
        """The Pyro distribution of log10 M200c [Msun/h] of all clusters, batch shape (n,), densities per dex.

        Under the prior of training, and averaged over draws of the weights, for each cluster by itself; its ``joint()``
        is the distribution of all masses together. Its ``draws`` hold each draw. Never recalibrated.

        Args:
            catalog, n_draws, seed, chunk: see `posterior`.

        Raises:
            CatalogError, ValueError: see `posterior`.
        """
        catalog = in_cylinder(catalog, self.training_info.selection)
        require_usable(catalog, "infer", _WITHOUT_A_MASS)
        with torch.no_grad():
            contexts = self.encode(catalog, chunk)
            draws = self.draw(n_draws, seed)
            if draws is None:
                return PredictiveMass(self.flow.condition(contexts))
            return PredictiveMass(condition_draws(self.flow, draws, contexts))

    def encode(self, catalog: ClusterCatalog, chunk: int = _CHUNK) -> Contexts:
        """Contexts of all clusters, on the device of the model.

        Raises:
            CatalogError: see `posterior`.
        """
        parts = [
            self.encoder.encode(
                in_cylinder(catalog[start : start + chunk], self.training_info.selection), device=self.device
            )
            for start in range(0, max(1, len(catalog)), chunk)
        ]
        return concatenate(parts)

    def assess(self, catalog: ClusterCatalog, contexts: Contexts | None = None) -> Assessment | None:
        """How unlike the training set each cluster is (docs/novelty.md); None for a model that does not know.

        Args:
            catalog: clusters with a kernel density.
            contexts: see `posterior`.

        Raises:
            CatalogError: see `posterior`.
        """
        if self.novelty is None:
            return None
        catalog = in_cylinder(catalog, self.training_info.selection)
        if contexts is not None or len(catalog) == 0:
            contexts = self.encode(catalog) if contexts is None else contexts
            return self.novelty.assess(catalog, self.encoder.outline(contexts))
        parts = [catalog[start : start + _CHUNK] for start in range(0, len(catalog), _CHUNK)]
        return Assessment.concatenate(
            [self.novelty.assess(part, self.encoder.outline(self.encode(part))) for part in parts]
        )

    def memberships(
        self,
        catalog: ClusterCatalog,
        *,
        n_draws: int | None = None,
        seed: int = 0,
        contexts: Contexts | None = None,
        draws: Mapping[str, Tensor] | None = None,
    ) -> Memberships | None:
        """Which galaxies are members, and how many; None for a model that does not read galaxies.

        Args:
            catalog: clusters; galaxies outside the cylinder of the model are not seen and have no entry.
            n_draws, seed, contexts, draws: see `posterior`.

        Raises:
            CatalogError: a galaxy has no finite position or velocity.
        """
        if self.flow.set_trunk is None:
            return None
        contexts = self.encode(catalog) if contexts is None else contexts
        return memberships(self.flow, contexts, self.draw(n_draws, seed) if draws is None else draws)

    def draw(self, n_draws: int | None = None, seed: int = 0) -> dict[str, Tensor] | None:
        """Draws of the weights by name, (n_draws, *shape); None for a point model.

        Args:
            n_draws, seed: see `posterior`.

        Raises:
            ValueError: fewer than two draws.
        """
        if self.weights is None:
            return None
        n_draws = n_draws or self.weights.n_distinct or number_of_draws()
        if n_draws < 2:
            raise ValueError(f"n_draws is {n_draws}; expected at least 2 draws of the weights.")
        draws = self.weights.draw(n_draws, seed)
        return {name: value.to(self.device) for name, value in draws.items()}

    @torch.no_grad()
    def _condition(
        self,
        catalog: ClusterCatalog,
        chunk: int,
        draws: Mapping[str, Tensor] | None,
        encoded: Contexts | None = None,
    ) -> Iterator[ConditionedDistribution]:
        for start in range(0, len(catalog), chunk):
            if encoded is None:
                contexts = self.encoder.encode(catalog[start : start + chunk], device=self.device)
            else:
                contexts = encoded[start : start + chunk]
            yield from condition_in_parts(self.flow, contexts, draws)

    def flags(
        self,
        catalog: ClusterCatalog,
        posterior: MassPosterior | None = None,
        p_novelty: FloatArray | None = None,
    ) -> npt.NDArray[np.str_]:
        """Flags of each cluster (n,): empty, or names joined by commas (docs/flags.md).

        Args:
            catalog: the clusters.
            posterior: of the same clusters, for the flag ``edge``; without it that flag is not set.
            p_novelty: of `assess`, for the flag ``unlike_training``; without it that flag is not set.
        """
        edge = None if posterior is None else pressed_against_edge(posterior, self.training_info)
        catalog = in_cylinder(catalog, self.training_info.selection)
        return cluster_flags(catalog, self.training_info, edge, p_novelty=p_novelty)

    def save(self, folder: str | os.PathLike[str], *, half: bool = False) -> Path:
        """Write ``model.safetensors`` and ``model.json`` into a folder, atomically.

        Args:
            folder: made where it does not exist.
            half: matrices of the network in float16, half as large; `load` makes float32 of them. They are
                rounded by 5e-4 of each weight.
        """
        tensors = {f"encoder.{k}": v for k, v in self.encoder.state_dict().items()}
        for name, value in self.flow.state_dict().items():
            large = half and value.dim() > 1 and value.dtype == torch.float32
            tensors[f"flow.{name}"] = value.half() if large else value
        description: dict[str, Any] = {
            "version": __version__,
            "encoder": self.encoder.describe(),
            "flow": self.flow.describe(),
            "training": self.training_info.to_dict(),
        }
        if self.weights is not None:
            tensors |= {f"weights.{k}": v for k, v in self.weights.state_dict().items()}
            description["weights"] = self.weights.describe()
        if self.novelty is not None:
            tensors |= {f"novelty.{k}": v for k, v in self.novelty.state().items()}
            description["novelty"] = self.novelty.describe()
        for i, one in enumerate(self.recalibrations):
            tensors |= {f"recalibration{i}.{k}": v for k, v in one.state().items()}
            description.setdefault("recalibrations", []).append(one.describe())
        return write_model_folder(folder, tensors, description)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str | torch.device = "auto") -> MassEstimator:
        """Read what `save` wrote, or a shipped model by its name, such as ``"sky"``; nothing is unpickled.

        Raises:
            ModelError: the model is missing, truncated, foreign or from a newer version.
            ValueError: the device does not exist.
        """
        folder = model_folder(folder)
        tensors, description = read_model_folder(folder)
        try:
            encoder = Encoder.from_description(description["encoder"])
            flow = ConditionalFlow.from_description(description["flow"])
            info = TrainingInfo.from_dict(description["training"])
            weights = (
                WeightPosterior.from_description(flow, description["weights"])
                if "weights" in description
                else None
            )
            novelty = (
                NoveltyDetector.from_state(_part(tensors, "novelty"), description["novelty"])
                if "novelty" in description
                else None
            )
            recalibrations = [
                Recalibration.from_state(_part(tensors, f"recalibration{i}"), one)
                for i, one in enumerate(description.get("recalibrations", ()))
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise does_not_describe(folder, error) from None
        parts: dict[str, nn.Module] = {"encoder": encoder, "flow": flow}
        if weights is not None:
            parts["weights"] = weights
        for name, module in parts.items():
            try:
                module.load_state_dict(_part(tensors, name))
            except RuntimeError as error:
                raise ModelError(
                    f"The weights in '{folder}' do not fit the {name} that {DESCRIPTION} describes "
                    f"({' '.join(str(error).split())[:200]}); train the model again."
                ) from None
        estimator = cls(encoder, flow, info, device, weights, novelty, recalibrations)
        if description["format_version"] < WHOLE_HASH:
            estimator.notes = (
                f"the model '{folder}' was written by version 0.1, which stored no hash of its description: a damaged "
                f"{DESCRIPTION} would not be seen (saving the model again adds it).",
            )
        return estimator


def _part(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of one part of a model, by their names in it."""
    return {key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")}


def resolve_device(device: str | torch.device) -> torch.device:
    """A torch device from its name; ``"auto"`` is CUDA where it is available, else the CPU.

    Raises:
        ValueError: the name is not a device, or CUDA is not available.
    """
    if check_device_name(str(device)) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    resolved = torch.device(device)
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"Device '{device}' was asked for, but CUDA is not available; use cpu or auto.")
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"Device '{device}' was asked for, but there are {torch.cuda.device_count()}, from cuda:0 on."
        )
    return resolved
