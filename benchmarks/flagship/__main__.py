r"""Deterministic against Bayesian on massive clusters, with controls: networks, predictions and the tables.

    python -m benchmarks.flagship --work runs/flagship --out docs/results/flagship
    python -m benchmarks.flagship --work runs/flagship --mixture --out docs/results/flagship  # mixtures, after that
    python -m benchmarks.flagship --work runs/flagship --tables-only --out docs/results/flagship
    python -m benchmarks.flagship --network galaxies --work runs/flagship_galaxies --out docs/results/flagship_galaxies

The plan, written before the runs, is `benchmarks/flagship_plan.md`. Each set of ``data.py`` and seed is one cell: its
networks see the same clusters and settings, those of the study (``studies.py``). Predictions of the test set go to
WORK/SET/METHOD-SEED/predictions.parquet, which ``bayesflowmass compare --work`` reads, and what the trainings said
to WORK/SET/cell-SEED.json, last: a cell that has it is not made again. One process, one thread. Writes OUT.md,
OUT.json and the figure OUT.png / OUT.pdf.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.command import TrainSettings
from bayesflowmass.command.run import parse_settings
from bayesflowmass.diagnostics import PosteriorSummary
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluation.files import summary_columns, write_predictions
from bayesflowmass.evaluation.road import posteriors
from bayesflowmass.posterior import MassPosterior
from bayesflowmass.train import train_arguments
from bayesflowmass.training.weight_report import trend
from benchmarks.flagship.controls import Judged, widened
from benchmarks.flagship.data import SETS, TEST_RANGE, population, simulate_test, simulate_training
from benchmarks.flagship.networks import Networks, ensemble
from benchmarks.flagship.studies import STUDIES, Study
from benchmarks.flagship.tables import write_tables
from benchmarks.provenance import provenance

SMALL = 5
N_DRAWS = 32
MIXED = 3

View = Callable[[MassPosterior], MassPosterior]


class Cell:
    """One set and seed: trains, predicts, and keeps what it costs."""

    def __init__(self, name: str, seed: int, work: Path, test: ClusterCatalog, study: Study) -> None:
        self.study = study
        self.name, self.seed, self.folder, self.test = name, seed, work / name, test
        self.said: dict[str, float] = {}
        self.seconds: dict[str, float] = {}
        settings = parse_settings(TrainSettings, ["--config", study.config], prog="")
        self.population = population(name)
        self.networks = Networks(
            simulate_training(name, seed), self.population, seed, train_arguments(settings)
        )

    def timed(self, name: str, function: Callable):
        start = time.process_time()
        result = function()
        self.seconds[name] = time.process_time() - start
        return result

    def predict(self, estimator: MassEstimator, views: Mapping[str, View], correction: float = 0.0) -> None:
        """Store what a network says of the test set, seen in several ways.

        Args:
            views: method -> what is done to the posterior.
            correction: 1 / (K - 1) of an ensemble of K: what its epistemic variance lacks, as a share of it.
        """
        parts: dict[str, list] = {name: [] for name in views}
        draws = None if estimator.weights is None else estimator.weights.n_distinct or N_DRAWS
        for batch in posteriors(estimator, self.test, "flat", n_draws=draws, log10_mass_range=TEST_RANGE):
            if not batch.usable.all():
                raise SystemExit("A test cluster has no mass.")
            truth = np.asarray(batch.clusters.column("log10_mass"), dtype=np.float64)
            epistemic = batch.posterior.sigma_epistemic
            more = {}
            if epistemic is not None:
                more["sigma_epistemic"] = epistemic * np.sqrt(1.0 + correction)
            for name, view in views.items():
                seen = view(batch.posterior)
                parts[name].append(summary_columns(PosteriorSummary.from_posterior(seen, truth)) | more)
        for name, columns in parts.items():
            whole = {key: np.concatenate([part[key] for part in columns]) for key in columns[0]}
            path = self.folder / f"{name}-{self.seed}" / "predictions.parquet"
            note = {"prior": "flat", "prior_range": list(TEST_RANGE), "set": self.name, "seed": self.seed}
            write_predictions(path, self.test, whole, note)

    def single(self, name: str, network, *, recalibrated: bool = False) -> None:
        """Predictions of one network, as it is and with a temperature from the validation clusters."""
        estimator = self.networks.estimator(network)
        judged = Judged(estimator, self.networks.data.held_out, self.population)
        self.said[f"{name} temperature"] = float(np.exp(judged.log_temperature))
        views: dict[str, View] = {
            name: lambda posterior: posterior,
            f"{name}_temperature": lambda posterior: widened(posterior, judged.log_temperature),
        }
        if recalibrated:
            found = judged.recalibration
            self.said[f"{name} bins"] = len(found.edges) + 1
            views[f"{name}_recalibrated"] = lambda posterior: posterior.recalibrated(
                found.cdf_map(posterior.median)
            )
        self.predict(estimator, views)

    def run(self) -> None:
        """All networks but the mixture."""
        point, found = self.timed("point", lambda: self.networks.point())
        losses = {"point": found.best_validation_loss}
        members, member_losses = [state_of(point)], [found.best_validation_loss]
        self.single("point", point, recalibrated=True)

        decays = {1e-4: (losses["point"], state_of(point))}
        for decay in self.study.weight_decays:
            network, found = self.timed(
                f"decay {decay}", lambda decay=decay: self.networks.point(weight_decay=decay)
            )
            decays[decay] = found.best_validation_loss, state_of(network)
        best = min(decays, key=lambda decay: decays[decay][0])
        self.said["weight decay"] = best
        self.alone("weight_decay", point, decays[best][1])

        if self.study.long:
            network, found = self.timed("long", lambda: self.networks.point(patience_updates=None))
            losses["long"] = found.best_validation_loss
            self.alone("long", point, state_of(network))

        for k in range(1, self.study.members):
            network, found = self.timed(f"member {k}", lambda k=k: self.networks.point(k))
            members.append(state_of(network))
            member_losses.append(found.best_validation_loss)
        if self.study.members > 1:
            self.alone("best_of_10", point, members[int(np.argmin(member_losses))])
            for k, name in ((SMALL, "ensemble_5"), (self.study.members, "ensemble_10")):
                posterior = ensemble(point, members[:k])
                self.predict(self.networks.estimator(point, posterior), {name: corrected(k)}, 1.0 / (k - 1))

        network = copy.deepcopy(point)
        network.population = self.networks.told
        self.timed("map", lambda: self.networks.maximum_a_posteriori(network))
        self.single("map", network)

        network = copy.deepcopy(point)
        network.population = self.networks.told
        posterior, found = self.timed("variational", lambda: self.networks.variational(network))
        self.predict(self.networks.estimator(network, posterior), {"variational": lambda found: found})
        self.single("mean_of_q", network)
        self.said["share at prior"] = posterior.describe()["share_at_prior"]
        self.said["gain of as many updates again"] = trend(found.history).gain
        self.close({"validation_losses": losses | {"members": member_losses}})

    def alone(self, name: str, network, state) -> None:
        """Predictions of one network as it is."""
        changed = copy.deepcopy(network)
        changed.load_state_dict(state)
        self.predict(self.networks.estimator(changed), {name: lambda posterior: posterior})

    def mix(self) -> None:
        """The mixture of variational posteriors around several initialisations."""
        states = []
        for k in range(MIXED):
            network, _ = self.networks.point(k)
            posterior, _ = self.timed(f"variational {k}", lambda n=network: self.networks.variational(n))
            draws = posterior.draw(N_DRAWS // MIXED, k)
            for i in range(N_DRAWS // MIXED):
                states.append(state_of(network) | {name: value[i] for name, value in draws.items()})
        mixed = ensemble(network, states)
        self.predict(self.networks.estimator(network, mixed), {"mixture": lambda found: found})
        self.close({}, "mixture")

    def close(self, more: dict, kind: str = "cell") -> None:
        """Say that the cell is finished."""
        text = json.dumps({"processor_seconds": self.seconds, **self.said, **more}, indent=1)
        (self.folder / f"{kind}-{self.seed}.json").write_text(text, encoding="utf-8")


def state_of(network) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def corrected(members: int) -> View:
    """The posterior of an ensemble of K, widened so that the epistemic part of its variance grows by K / (K - 1)."""

    def view(posterior: MassPosterior) -> MassPosterior:
        share = (posterior.sigma_epistemic / posterior.sigma) ** 2
        return widened(posterior, 0.5 * np.log1p(share / (members - 1)))

    return view


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--work", type=Path, default=Path("runs/flagship"))
    parser.add_argument("--network", choices=list(STUDIES), default="image", help="what is compared")
    parser.add_argument(
        "--only", nargs="+", choices=list(SETS), help="training sets; default: those of the plan"
    )
    parser.add_argument("--seeds", type=int, nargs="+", help="default: those of the plan")
    parser.add_argument("--mixture", action="store_true", help="mixtures of variational posteriors")
    parser.add_argument("--tables-only", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    study = STUDIES[arguments.network]
    source = provenance(None) | {"seed": f"{study.seeds[0]} to {study.seeds[-1]}"}
    path = arguments.work / "test.parquet"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        simulate_test().write(path)
    test = ClusterCatalog.read(path)
    kind = "mixture" if arguments.mixture else "cell"
    if not arguments.tables_only:
        for name in arguments.only or study.sets:
            for seed in arguments.seeds or study.seeds:
                if not (arguments.work / name / f"{kind}-{seed}.json").is_file():
                    cell = Cell(name, seed, arguments.work, test, study)
                    (cell.mix if arguments.mixture else cell.run)()
                    print(
                        f"{name} {seed} {kind} done, {time.strftime('%H:%M:%S')}", file=sys.stderr, flush=True
                    )
    if arguments.out is not None:
        write_tables(arguments.work, arguments.out, source, study)


if __name__ == "__main__":
    main()
