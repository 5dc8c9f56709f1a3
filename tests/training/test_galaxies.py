"""Models that read galaxies: training with the truth about members, saving, resuming, posteriors of the weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bayesflowmass.bayes.guides import MeanField
from bayesflowmass.bayes.objective import VariationalObjective
from bayesflowmass.bayes.priors import NormalPrior
from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.encoders import GalaxySet, SetEncoder
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.estimator.weight_draws import condition_draws
from bayesflowmass.flows import build_flow
from bayesflowmass.mocks import simulate_catalog
from bayesflowmass.networks.over_galaxies import membership_log_likelihood
from bayesflowmass.saliency import galaxy_gradients
from bayesflowmass.train import train
from bayesflowmass.training.fit import fit
from bayesflowmass.training.interrupt import TrainingInterrupted
from bayesflowmass.training.sources import EpochData, FixedSource

FIT = {
    "max_updates": 8,
    "validate_every": 4,
    "batch_size": 16,
    "patience_updates": None,
    "average_decay": 0.9,
}
SHORT = {"max_updates": 6, "validate_every": 3, "batch_size": 16}
FLOW = {"kind": "affine+spline", "hidden": (8,), "count_bins": 4, "galaxies": {"width": 8, "blocks": 1}}


@pytest.fixture(scope="module")
def catalog() -> ClusterCatalog:
    return simulate_catalog(n_clusters=90, log10_mass_range=(13.6, 14.6), seed=3, progress=False)


def trained(out: Path, catalog: ClusterCatalog, **changes) -> MassEstimator:
    arguments = {
        "encoder": SetEncoder([(0.2, 500.0)], extras=("redshift",)),
        "flow": FLOW,
        "options": FIT,
        "flip_velocity": True,
        "seed": 3,
        "device": "cpu",
        "progress": False,
    }
    return train(catalog, out=out, **arguments | changes)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, catalog: ClusterCatalog) -> Path:
    folder = tmp_path_factory.mktemp("galaxies") / "run"
    trained(folder, catalog)
    return folder


def small_flow(**changes):
    arguments = {
        "context_dim": 1,
        "loc": 14.0,
        "scale": 0.3,
        "trunk": "set",
        "shared": True,
        "activation": "gelu",
    }
    galaxies = {"galaxy_dim": 7, "width": 8, "blocks": 1}
    return build_flow(**arguments | FLOW | {"galaxies": galaxies} | changes)


def contexts(catalog: ClusterCatalog, truth: bool = False) -> tuple[GalaxySet, torch.Tensor]:
    mass = torch.tensor(catalog.column("log10_mass"), dtype=torch.float32)
    return SetEncoder([(0.2, 500.0)]).encode(catalog, truth=truth), mass


def test_a_saved_model_gives_the_same_posteriors(model, catalog):
    estimator = MassEstimator.load(model, "cpu")
    again = MassEstimator.load(estimator.save(model.parent / "copy"), "cpu")
    assert isinstance(again.encoder, SetEncoder)
    one, other = estimator.posterior(catalog), again.posterior(catalog, chunk=7)
    np.testing.assert_array_equal(one.median, again.posterior(catalog).median)
    # Other parts of the catalogue are other matrix products.
    np.testing.assert_allclose(one.median, other.median, atol=1e-5)
    assert json.loads((model / "model.json").read_text(encoding="utf-8"))["training"]["uses_richness"] is True


def test_a_finished_run_is_resumed_at_once(model, catalog):
    before = (model / "model.json").read_bytes()
    trained(model, catalog, resume=True)
    assert (model / "model.json").read_bytes() == before


def test_the_truth_adds_its_weighted_mean_log_probability(catalog):
    flow = small_flow()
    told, mass = contexts(catalog, truth=True)
    without = flow.log_prob(mass, told.without_truth())
    logit = flow.set_trunk.read(told)[1]
    expected = without + 0.5 * membership_log_likelihood(logit, told)
    torch.testing.assert_close(flow.log_prob(mass, told), expected, rtol=0, atol=0)
    density = flow.condition(told).log_prob(mass.double())
    torch.testing.assert_close(without.double(), density, rtol=1e-4, atol=1e-4)


def test_a_validation_loss_is_that_of_masses_alone(tmp_path, catalog):
    told, mass = contexts(catalog, truth=True)
    flow = small_flow()
    source = FixedSource(told, mass)
    result = fit(
        flow,
        source,
        (told.without_truth(), mass),
        device="cpu",
        progress=False,
        **FIT | {"keep": "last", "average_decay": 0.0},
    )
    with torch.no_grad():
        loss = -float(flow.log_prob(mass, told.without_truth()).double().mean())
    assert result.best_validation_loss == pytest.approx(loss, rel=1e-5)


def test_memberships_are_learnt(catalog):
    told, mass = contexts(catalog, truth=True)
    flow = small_flow()

    def loss() -> float:
        with torch.no_grad():
            return -float(membership_log_likelihood(flow.set_trunk.read(told)[1], told).mean())

    before = loss()
    options = FIT | {"max_updates": 120, "learning_rate": 1e-2, "average_decay": 0.0, "keep": "last"}
    fit(flow, FixedSource(told, mass), (told, mass), device="cpu", progress=False, **options)
    share = float(told.members.mean())
    guess = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    assert loss() < min(before, guess) - 0.03


class _Interrupted(FixedSource):
    def epoch(self, index: int) -> EpochData:
        if index == 1:
            raise KeyboardInterrupt
        return super().epoch(index)


def test_a_resumed_run_ends_with_the_same_weights(tmp_path, catalog):
    told, mass = contexts(catalog, truth=True)
    encoder = SetEncoder([(0.2, 500.0)])
    options = FIT | {
        "checkpoint_every": 2,
        "flip_velocity": encoder.flip_velocity,
        "device": "cpu",
        "progress": False,
    }
    held_out = told.without_truth(), mass
    whole, parts = small_flow(), small_flow()
    fit(whole, FixedSource(told, mass), held_out, **options)
    with pytest.raises(TrainingInterrupted):
        fit(parts, _Interrupted(told, mass), held_out, checkpoint_folder=tmp_path, **options)
    parts = small_flow()
    fit(parts, FixedSource(told, mass), held_out, checkpoint_folder=tmp_path, resume=True, **options)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name


def test_graphs_of_one_shape_are_refused(catalog, monkeypatch):
    told, mass = contexts(catalog)
    monkeypatch.setattr("bayesflowmass.training.fit.check_device", lambda *_: None)
    with pytest.raises(ValueError, match="batches of galaxies have many"):
        fit(small_flow(), FixedSource(told, mass), (told, mass), device="cpu", cuda_graphs=True, **FIT)


@pytest.mark.parametrize(
    "weights",
    [
        {"method": "variational"},
        {"method": "variational", "which": "all", "guide": "mean_field", "options": {"estimator": "shared"}},
        {"method": "laplace"},
        {"method": "ensemble:2"},
    ],
    ids=lambda weights: " ".join(str(value) for value in list(weights.values())[:2]),
)
def test_every_posterior_of_the_weights_is_fitted_saved_and_drawn(tmp_path, catalog, weights):
    estimator = trained(tmp_path / "run", catalog, flow=FLOW, weights=weights | {"fit": SHORT})
    again = MassEstimator.load(tmp_path / "run", "cpu")
    posterior, other = (one.posterior(catalog, n_draws=2) for one in (estimator, again))
    assert np.isfinite(posterior.median).all()
    np.testing.assert_array_equal(posterior.median, other.median)
    assert (posterior.sigma_epistemic > 0).all()


def test_draws_of_weights_that_galaxies_share_are_one_for_all_of_them(catalog):
    flow = small_flow()
    told, _ = contexts(catalog[:5])
    draws = {
        name: torch.stack([value.detach(), value.detach() + 0.1 * torch.randn_like(value)])
        for name, value in flow.named_parameters()
    }
    found = condition_draws(flow, draws, told)
    m = torch.full((5,), 14.0, dtype=torch.float64)
    for d in range(2):
        with torch.no_grad():
            for name, value in flow.named_parameters():
                value.copy_(draws[name][d])
            expected = flow.condition(told).log_prob(m)
        torch.testing.assert_close(found.log_prob(m)[d], expected, rtol=1e-5, atol=1e-5)


def test_weights_that_galaxies_share_are_drawn_once_for_the_cluster(catalog):
    """With one draw for each galaxy the expected log-likelihood is another, by a nat and more."""
    torch.manual_seed(0)
    flow = small_flow()
    told, mass = contexts(catalog[:4])
    guide = MeanField(flow, NormalPrior(), init_scale=1.0)

    def draws(name: str, n: int = 300) -> torch.Tensor:
        objective = VariationalObjective(flow, guide, 10**9, estimator=name).train()
        with torch.no_grad():
            found = torch.stack([objective.log_prob(mass, told) for _ in range(n)])
        shared = objective._handler.shared_layers
        if name == "local":
            of_galaxies = {"first", "member", "member_galaxy"}
            of_galaxies |= {f"blocks.0.{layer}" for layer in ("galaxy", "back", "counters")}
            assert shared.keys() == {f"trunk.0.{layer}" for layer in of_galaxies}
        return found.double()

    own, shared = draws("local"), draws("shared")
    error = (own.var(0) / len(own) + shared.var(0) / len(shared)).sqrt()
    assert ((own.mean(0) - shared.mean(0)).abs() < 5 * error).all()


def test_contexts_of_another_kind_are_refused_in_a_sentence(catalog):
    told, mass = contexts(catalog[:3])
    with pytest.raises(ValueError, match="the contexts are vectors and this flow reads galaxies"):
        small_flow().log_prob(mass, torch.zeros(3, 1))
    with pytest.raises(ValueError, match="the contexts are galaxies and this flow reads vectors"):
        build_flow(context_dim=1).condition(told)
    with pytest.raises(
        ValueError, match="has 7 numbers per galaxy and 2 per cluster and this flow was made for 7"
    ):
        small_flow().condition(replace(told, clusters=torch.zeros(3, 2)))
    with pytest.raises(ValueError, match="takes galaxies"):
        build_flow(trunk="set", shared=True)
    with pytest.raises(ValueError, match="shared by all blocks"):
        small_flow(shared=False)


@pytest.mark.parametrize(
    ("flow", "message"),
    [
        ({"galaxies": {"counted": True}}, r"galaxies\.counted is what the encoder says"),
        ({"trunk": "dense"}, "need the trunk 'set'"),
        ({"galaxies": {"widht": 3}}, "unexpected keyword argument 'widht'"),
    ],
)
def test_flows_that_do_not_fit_the_encoder_are_refused(tmp_path, catalog, flow, message):
    with pytest.raises(ValueError, match=message):
        trained(tmp_path / "run", catalog, flow=flow)


def test_gradients_with_respect_to_galaxies_equal_differences(model, catalog):
    estimator = MassEstimator.load(model, "cpu")
    few = catalog[:2]
    found = galaxy_gradients(estimator, few)
    v = np.array(few.galaxies("v_los"), dtype=np.float64)
    galaxy, step = 4, 2.0
    flow = estimator.flow

    def mass(shift: float) -> float:
        points = few.galaxy_tensor(("x", "y", "v_los"), torch.float64)
        points[galaxy, 2] = v[galaxy] + shift
        with torch.no_grad():
            context = estimator.encoder.at(few, points)
            return float(flow.double().condition(context).icdf(torch.full((2,), 0.5, dtype=torch.float64))[0])

    difference = (mass(step) - mass(-step)) / (2 * step)
    # The velocities are those of float32 files: the difference is right to the square of its step.
    assert found.v_los[galaxy] == pytest.approx(difference, rel=1e-3, abs=1e-9)
