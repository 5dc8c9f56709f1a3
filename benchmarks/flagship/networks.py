"""The networks of one training set and seed: all see the same clusters, prepared once."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bayesflowmass.bayes.choice import choose, top_layers
from bayesflowmass.bayes.ensemble import EnsemblePosterior
from bayesflowmass.bayes.layout import WeightLayout
from bayesflowmass.bayes.point import PenalisedLikelihood
from bayesflowmass.bayes.priors import as_prior
from bayesflowmass.bayes.protocol import WeightPosterior
from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.estimator import MassEstimator, TrainingInfo
from bayesflowmass.flows import ConditionalFlow, build_flow
from bayesflowmass.posterior import FlatPrior, MassPrior
from bayesflowmass.training.augmentation import Augmentation
from bayesflowmass.training.fit import FitResult, fit
from bayesflowmass.training.known_population import population_of_halos, tabulate
from bayesflowmass.training.last_layers import MirroredSource, cut_before_random_layers
from bayesflowmass.training.preparation import prepare
from bayesflowmass.training.random_state import derive_seed
from bayesflowmass.training.sources import EachHaloOnce, weights_of_views
from bayesflowmass.training.weights import LAST_LAYER_FIT, fit_weights
from benchmarks.flagship.data import MASS_RANGE

__all__ = ["Networks", "ensemble"]

_CPU = torch.device("cpu")


class Networks:
    """Training of networks on the clusters of one set and seed.

    Args:
        catalog: training clusters; a fifth of their haloes is for validation.
        population: that their masses were drawn from; unless it is flat the likelihood is told of it.
        seed: of the split; each network has one of its own, derived from it.
        arguments: of `bayesflowmass.train.train`, of which encoder, flow, options and the split are used.
    """

    def __init__(
        self, catalog: ClusterCatalog, population: MassPrior, seed: int, arguments: Mapping[str, Any]
    ) -> None:
        self.seed = seed
        self.encoder, self.flow, self.options = (arguments[name] for name in ("encoder", "flow", "options"))
        self.data = prepare(
            catalog,
            {},
            self.encoder,
            augmentation=Augmentation(),
            validation_fraction=arguments["validation_fraction"],
            seed=seed,
            device=_CPU,
            progress=False,
        )
        self.told = None
        if not isinstance(population, FlatPrior):
            self.told = tabulate(population, self.data.seen, self.data.held_out)
        self.info = replace(
            TrainingInfo.from_catalog(self.data.seen, uses_richness=self.encoder.uses_richness, seed=seed),
            log10_mass_range=MASS_RANGE,
        )

    def point(self, member: int = 0, **changes: Any) -> tuple[ConditionalFlow, FitResult]:
        """Maximum likelihood from one of any number of initialisations.

        Args:
            member: which.
            changes: of the options of `fit`.
        """
        seed = derive_seed(self.seed, "member", member)
        network = build_flow(
            **self.encoder.flow_arguments(self.flow),
            loc=sum(MASS_RANGE) / 2.0,
            scale=(MASS_RANGE[1] - MASS_RANGE[0]) / 12.0**0.5,
            seed=seed,
        )
        network.population = self.told
        found = fit(
            network,
            self.data.source,
            self.data.validation,
            flip_velocity=self.encoder.flip_velocity,
            seed=seed,
            device=_CPU,
            progress=False,
            **self.options | changes,
        )
        network.eval()
        return network, found

    def variational(self, network: ConditionalFlow) -> tuple[WeightPosterior, FitResult]:
        """The default posterior around a trained network, whose weights become the mean of q."""
        with tempfile.TemporaryDirectory() as folder:
            posterior, phases = fit_weights(
                network,
                {"method": "variational"},
                self.data.source,
                self.data.validation,
                encoder=self.encoder,
                flip_velocity=True,
                fit_options=self.options,
                settings={},
                folder=Path(folder) / "phases",
                resume=False,
                seed=self.seed,
                device=_CPU,
                progress=False,
            )
        return posterior, phases["variational"]

    def maximum_a_posteriori(self, network: ConditionalFlow) -> None:
        """Move the layers that `variational` makes random to the maximum of the same posterior density, in place.

        The schedule is the same too, and each halo counts once.
        """
        cut = cut_before_random_layers(network, choose(network, top_layers(network)))
        first = self.data.source.epoch(0)
        mirrored = self.encoder.flip_velocity(first.context.clone())
        features = torch.stack([cut.features(context) for context in (first.context, mirrored)])
        n_halos = len(first.log10_mass)
        if first.halo is not None:
            n_halos, weight = len(first.halo.unique()), weights_of_views(first.halo)
            if weight.max() > weight.min():
                cut.head.population = population_of_halos(self.told, first.log10_mass, weight)
        options = LAST_LAYER_FIT | {"batch_size": min(LAST_LAYER_FIT["batch_size"], len(first.log10_mass))}
        fit(
            PenalisedLikelihood(cut.head, as_prior(None), n_halos),
            EachHaloOnce(MirroredSource(features, first.log10_mass, self.seed, first.halo)),
            (cut.features(self.data.validation[0]), self.data.validation[1]),
            seed=self.seed,
            device=_CPU,
            progress=False,
            **self.options | options | {"keep": "last", "patience_updates": None},
        )
        network.eval()

    def estimator(self, network: ConditionalFlow, posterior: WeightPosterior | None = None) -> MassEstimator:
        """What gives masses, under the flat prior."""
        network.population = None
        return MassEstimator(self.encoder, network, self.info, _CPU, weights=posterior)


def ensemble(network: ConditionalFlow, states: Sequence[Mapping[str, Tensor]]) -> EnsemblePosterior:
    """The posterior that holds each of these sets of all weights equally likely."""
    layout = WeightLayout(network, choose(network, "all"))
    return EnsemblePosterior(network, torch.stack([layout.flatten(state) for state in states]))
