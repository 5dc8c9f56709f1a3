"""Posteriors of the weights from the command to the table: training, saving, inference, evaluation, resuming."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from model_files import signed
from numpy.testing import assert_allclose
from small_model import toy_catalog, toy_estimator

from bayesflowmass.bayes import (
    FullCovariance,
    VariationalPosterior,
    build_objective,
    choose,
)
from bayesflowmass.bayes.laplace import LaplacePosterior
from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common import files
from bayesflowmass.encoders import ContextEncoder, KDEEncoder
from bayesflowmass.estimator import MassEstimator, ModelError
from bayesflowmass.estimator.weight_draws import condition_draws
from bayesflowmass.evaluate import evaluate
from bayesflowmass.flows import build_flow
from bayesflowmass.infer import infer
from bayesflowmass.posterior import monte_carlo_error, number_of_draws
from bayesflowmass.train import main, train
from bayesflowmass.training import checkpoint, phases
from bayesflowmass.training import run as run_module
from bayesflowmass.training import weights as weights_module
from bayesflowmass.training.fit import fit
from bayesflowmass.training.history import HistoryRow
from bayesflowmass.training.last_layers import MirroredSource, cut_before_random_layers
from bayesflowmass.training.sources import FixedSource
from bayesflowmass.training.weight_report import trend

FIT = {
    "max_updates": 12,
    "validate_every": 3,
    "batch_size": 16,
    "checkpoint_every": 4,
    "patience_updates": None,
}
SHORT = {"max_updates": 15, "validate_every": 1, "checkpoint_every": 5, "batch_size": 16}
FLOWS = {
    "paper": {"kind": "affine", "hidden": (8, 6)},
    "shared trunk": {"kind": "affine+spline", "shared": True, "hidden": (8, 6), "count_bins": 4},
    "own networks": {"kind": "affine+spline+mixture", "hidden": (8, 6), "count_bins": 4, "components": 2},
}


@pytest.fixture(scope="module")
def catalog() -> ClusterCatalog:
    return toy_catalog(100, seed=4)


def small(out: Path, catalog: ClusterCatalog, weights, **changes) -> MassEstimator:
    arguments = {
        "encoder": ContextEncoder(KDEEncoder(grid=(8, 8)), constant=1.0),
        "flow": {"kind": "affine+spline", "shared": True, "hidden": (8,), "count_bins": 4, "dropout": 0.1},
        "options": FIT,
        "flip_velocity": True,
        "seed": 3,
        "device": "cpu",
        "progress": False,
    }
    if isinstance(weights, str):
        weights = {"method": weights, "fit": SHORT}
    return train(catalog, out=out, weights=weights, **arguments | changes)


def weights_hash(folder: Path) -> str:
    return json.loads((folder / "model.json").read_text(encoding="utf-8"))["weights_sha256"]


@pytest.fixture(scope="module")
def variational(tmp_path_factory: pytest.TempPathFactory, catalog: ClusterCatalog) -> Path:
    folder = tmp_path_factory.mktemp("variational") / "run"
    small(folder, catalog, "variational")
    return folder


@pytest.mark.parametrize("which", ["last", "last:2"])
@pytest.mark.parametrize("kind", FLOWS)
def test_a_flow_cut_below_its_random_layers_is_the_same_flow(kind, which):
    flow = build_flow(context_dim=12, loc=14.4, scale=0.5, seed=2, dropout=0.3, **FLOWS[kind]).eval()
    names = choose(flow, which)
    cut = cut_before_random_layers(flow, names)
    assert cut is not None
    x, y = torch.rand(9, 12), 14.0 + torch.rand(9)
    # Without dropout, in training too: the bound is of the network as it predicts.
    of_head = cut.head.train().log_prob(y, cut.features(x))
    assert torch.allclose(of_head, flow.eval().log_prob(y, x), atol=1e-5)
    assert {n for n, _ in cut.head.named_parameters()} == set(names)
    for name in names:
        assert cut.head.get_parameter(name) is flow.get_parameter(name)
    draws = {n: torch.randn(3, *flow.get_parameter(n).shape) for n in names}
    with torch.no_grad():
        whole = condition_draws(flow, draws, x).log_prob(y.double())
        of_head = condition_draws(cut.head, draws, cut.features(x)).log_prob(y.double())
    assert_allclose(of_head, whole, rtol=1e-5)


@pytest.mark.parametrize("kind", FLOWS)
def test_a_flow_is_not_cut_where_a_random_layer_reads_the_context(kind):
    flow = build_flow(context_dim=12, **FLOWS[kind])
    assert cut_before_random_layers(flow, choose(flow, "all")) is None


@pytest.mark.parametrize("kind", FLOWS)
def test_laplace_takes_the_layers_of_the_affine_blocks(kind):
    flow = build_flow(context_dim=12, **FLOWS[kind])
    chosen = choose(flow, LaplacePosterior.defaults(flow)["which"])
    assert set(chosen) <= set(choose(flow, "last"))
    assert all(flow.get_parameter(name).shape[0] == 2 for name in chosen)
    assert len(chosen) == (6 if kind == "paper" else 2)


def test_mirrored_features_are_a_function_of_the_epoch():
    features = torch.stack([torch.zeros(400, 3), torch.ones(400, 3)])
    source = MirroredSource(features, torch.full((400,), 14.0), seed=5)
    first, again, second = source.epoch(0).context, source.epoch(0).context, source.epoch(1).context
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    # 400 fair coins: 0.5 +- 0.025, five standard errors.
    assert float(first[:, 0].mean()) == pytest.approx(0.5, abs=0.125)


def rows_of(loss, rate=lambda update: 1e-3) -> list[HistoryRow]:
    return [HistoryRow(u, 0, loss(u), 0.0, 0.0, rate(u), 0.0) for u in range(50, 2401, 50)]


def test_the_trend_of_a_straight_fall_is_what_as_many_updates_again_gain():
    found = trend(rows_of(lambda u: 5.0 - 1e-5 * u))
    # 24 rows of the second half in ten blocks of two: 20 rows, 1000 updates.
    assert found.gain == pytest.approx(0.01, rel=1e-9)
    assert found.standard_error < 1e-9
    assert trend(rows_of(lambda u: 5.0)[:8]) is None


def test_a_loss_that_stands_still_because_the_rate_falls_is_not_judged():
    assert trend(rows_of(lambda u: 5.0, rate=lambda u: 1e-3 * (1.0 - u / 2400))) is None


@pytest.mark.parametrize("noise", [5e-4, 3e-3])
def test_a_fit_that_would_gain_a_hundredth_is_called_converged_once_in_forty(noise):
    """The verdict's size and power over 2000 histories with noise that neighbouring rows share."""
    rng, verdicts = np.random.default_rng(2), {"falling": 0, "flat": 0}
    for _ in range(2000):
        white = noise * rng.normal(size=49)
        shared = 0.8 * white[1:] + 0.6 * white[:-1]
        for name, slope in (("falling", 1e-5), ("flat", 0.0)):
            found = trend(rows_of(lambda u, slope=slope, e=shared: 5.0 - slope * u + e[u // 50 - 1]))
            verdicts[name] += found.converged
    # Neighbours in different blocks are correlated, for which the quantile of t does not allow: 2.5 % become 6 %.
    assert verdicts["falling"] / 2000 < 0.08
    if noise < 1e-3:
        assert verdicts["flat"] == 2000


class Regression(torch.nn.Module):
    """y ~ N(w x + b, 0.5)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1).double()
        torch.nn.init.zeros_(self.layer.weight)
        torch.nn.init.zeros_(self.layer.bias)

    def forward(self, y, x):
        return torch.distributions.Normal(self.layer(x).squeeze(-1), 0.5).log_prob(y)

    log_prob = forward


def test_a_fit_stopped_early_is_not_converged_and_a_long_one_is():
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1000, 3, generator=generator, dtype=torch.float64)
    y = x @ torch.tensor([0.5, -0.3, 0.1]).double() + 0.5 * torch.randn(1000, generator=generator).double()
    found, last = {}, {}
    for updates in (60, 1200):
        objective = build_objective(Regression(), (x, y), which="all", guide="mean_field", estimator="local")
        result = fit(
            objective, FixedSource(x, y), (x[:10], y[:10]), learning_rate=0.01, betas=(0.9, 0.99), schedule="cosine",
            hold_fraction=0.6, final_fraction=0.0, batch_size=1000, max_updates=updates, patience_updates=None,
            validate_every=updates // 60, keep="last", device="cpu", progress=False,
        )  # fmt: skip
        found[updates], last[updates] = trend(result.history), result.history[-1].train_loss
    # The short one ends with a rate of zero, and stands still.
    assert last[60] > last[1200] + 0.02
    assert not found[60].converged
    assert found[1200].converged


def test_the_number_of_draws_follows_from_the_error():
    assert number_of_draws() == 31
    for error in (0.05, 0.1, 0.2):
        n = number_of_draws(error)
        assert monte_carlo_error(n) <= error < monte_carlo_error(n - 1)
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(20000, 31)).std(axis=1, ddof=1)
    # 20 000 repetitions: the relative error of a standard deviation is known to 0.5 %.
    assert spread.std() / spread.mean() == pytest.approx(monte_carlo_error(31), rel=0.03)


def test_variational_from_the_command_line(tmp_path: Path, catalog: ClusterCatalog, capsys):
    catalog.write(tmp_path / "cat.parquet")
    settings = {
        "catalog": str(tmp_path / "cat.parquet"),
        "encoder": {"grid": [8, 8], "constant": 1.0},
        "flow": {"kind": "affine", "options": {"hidden": [8]}},
        "fit": FIT,
        "weights": {"fit": SHORT},
        "device": "cpu",
        "progress": False,
    }
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    runs = {
        "a": ["--variational"],
        "b": ["--weights", "variational"],
        "c": ["--weights.method", "variational"],
    }
    for name, flags in runs.items():
        assert main(["--config", str(path), "--out", str(tmp_path / name), *flags]) == 0
        assert weights_hash(tmp_path / name) == weights_hash(tmp_path / "a")
    shown = capsys.readouterr().out
    for word in (
        "variational posterior",
        "KL/N",
        "at their prior",
        "Negative log likelihood",
        "was not judged",
    ):
        assert word in shown
    assert (
        main(["--config", str(path), "--out", str(tmp_path / "d"), "--variational", "--weights", "laplace"])
        == 2
    )
    assert "choose one of them" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["laplace", "linearised", "ensemble:2", "sghmc:8"])
def test_every_method_goes_from_training_to_a_table(tmp_path: Path, catalog: ClusterCatalog, method: str):
    options = {"warmup": 1, "path_steps": 3} if method == "sghmc:8" else {}
    estimator = small(tmp_path / "run", catalog, {"method": method, "options": options, "fit": SHORT})
    posterior = MassEstimator.load(tmp_path / "run", "cpu").posterior(catalog[:5])
    assert posterior.n_draws == {"ensemble:2": 2, "sghmc:8": 32}.get(method, 31)
    assert (posterior.sigma_epistemic > 0).all()
    assert_allclose(posterior.mean, estimator.posterior(catalog[:5]).mean, rtol=1e-9)
    assert not (tmp_path / "run" / "phases").exists()
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_the_other_weights_are_those_of_maximum_likelihood(tmp_path: Path, catalog, variational: Path):
    point = small(tmp_path / "point", catalog, "point").flow.state_dict()
    fitted = MassEstimator.load(variational, "cpu").flow.state_dict()
    differ = {name for name in point if not torch.equal(point[name], fitted[name])}
    flow = MassEstimator.load(variational, "cpu").flow
    assert differ == set(choose(flow, VariationalPosterior.defaults(flow)["which"]))


def test_a_posterior_can_start_from_a_trained_model(tmp_path: Path, catalog, variational: Path):
    small(tmp_path / "point", catalog, "point")
    weights = {"method": "variational", "fit": SHORT, "start": tmp_path / "point"}
    small(tmp_path / "again", catalog, weights)
    assert weights_hash(tmp_path / "again") == weights_hash(variational)
    with pytest.raises(ValueError, match="trained with another seed"):
        small(tmp_path / "other", catalog, weights, seed=4)


def test_draws_are_shared_by_all_clusters_and_follow_the_seed(catalog, variational: Path):
    estimator = MassEstimator.load(variational, "cpu")
    whole = estimator.posterior(catalog[:20], n_draws=5, seed=1)
    parts = [estimator.posterior(catalog[i : i + 10], n_draws=5, seed=1) for i in (0, 10)]
    assert_allclose(whole.mean, np.concatenate([part.mean for part in parts]), rtol=1e-9)
    assert_allclose(whole.mean, estimator.posterior(catalog[:20], n_draws=5, seed=1, chunk=7).mean, rtol=1e-6)
    assert not np.allclose(whole.mean, estimator.posterior(catalog[:20], n_draws=5, seed=2).mean, rtol=1e-9)
    assert whole.n_draws == 5
    with pytest.raises(ValueError, match="at least 2 draws"):
        estimator.posterior(catalog[:2], n_draws=1)


def test_condition_gives_the_posterior_as_a_distribution_of_pyro(catalog, variational: Path):
    estimator = MassEstimator.load(variational, "cpu")
    predictive = estimator.condition(catalog[:6], n_draws=8, seed=2)
    posterior = estimator.posterior(catalog[:6], n_draws=8, seed=2)
    m = torch.linspace(13.5, 15.5, 6, dtype=torch.float64)
    assert predictive.batch_shape == (6,)
    assert_allclose(predictive.log_prob(m), posterior.log_pdf(m.numpy()), rtol=1e-9)
    assert_allclose(predictive.cdf(m), posterior.cdf(m.numpy()), rtol=1e-9)
    assert_allclose(predictive.mean, posterior.mean, atol=1e-5)
    assert_allclose(predictive.variance.sqrt(), posterior.sigma, rtol=1e-3)
    torch.manual_seed(0)
    samples = predictive.sample((4000,))
    # The mean of 4000 samples has an error of sigma / 63; five of them.
    assert (np.abs(samples.mean(0).numpy() - posterior.mean) < 5 * posterior.sigma / math.sqrt(4000)).all()
    point = toy_estimator().condition(catalog[:6])
    assert point.n_draws is None
    assert point.log_prob(m).shape == point.sample().shape == (6,)


def test_infer_and_evaluate_fill_the_epistemic_columns(tmp_path: Path, catalog, variational: Path):
    estimator = MassEstimator.load(variational, "cpu")
    table = infer(estimator, catalog[:8], n_draws=6, seed=1)
    total = np.sqrt(np.asarray(table["sigma_aleatoric"]) ** 2 + np.asarray(table["sigma_epistemic"]) ** 2)
    assert_allclose(total, np.asarray(table["sigma"]), rtol=1e-3)
    assert not np.ma.is_masked(table["sigma_epistemic"])
    metrics = evaluate(
        estimator,
        catalog,
        tmp_path,
        baseline_catalog=toy_catalog(300, seed=8),
        n_resamples=20,
        n_draws=4,
        figures=False,
    )
    assert 0.0 < metrics["epistemic_share"] < 1.0
    assert metrics["epistemic_share_se"] > 0.0
    by_mass = metrics["bins_true"]["epistemic_share"]
    assert len(by_mass) == len(metrics["bins_true"]["n"])
    assert metrics["mutual_information"] > 0.0
    assert metrics["sigma_epistemic"] > 0.0


def test_a_point_model_has_no_epistemic_metrics(tmp_path: Path, catalog):
    metrics = evaluate(
        toy_estimator(),
        catalog,
        tmp_path,
        baseline_catalog=toy_catalog(300, seed=8),
        n_resamples=20,
        figures=False,
    )
    assert "epistemic_share" not in metrics


def test_a_loaded_model_needs_its_weight_posterior_whole(tmp_path: Path, variational: Path):
    for name in ("model.json", "model.safetensors"):
        (tmp_path / name).write_bytes((variational / name).read_bytes())
    described = json.loads((variational / "model.json").read_text(encoding="utf-8"))["weights"]
    signed(tmp_path, weights=described | {"method": "unheard-of"})
    with pytest.raises(ModelError, match="unheard-of"):
        MassEstimator.load(tmp_path)


def test_options_that_a_method_does_not_know_are_named(tmp_path: Path, catalog):
    with pytest.raises(ValueError, match="'laplace' has no option 'guide'; it takes which, prior"):
        small(tmp_path / "run", catalog, {"method": "laplace", "guide": "mean_field"})


def test_full_covariance_is_a_choice(tmp_path: Path, catalog):
    weights = {"method": "variational", "guide": "full_covariance", "prior": 0.5, "fit": SHORT}
    estimator = small(tmp_path / "run", catalog, weights)
    assert isinstance(estimator.weights, VariationalPosterior)
    assert isinstance(estimator.weights.guide, FullCovariance)
    assert set(estimator.weights.guide.prior_scales) == {0.5}


class KilledError(Exception):
    """Stands for SIGKILL: nothing after it runs."""


def test_a_run_stopped_anywhere_ends_with_the_same_weights(
    tmp_path: Path, catalog, variational: Path, monkeypatch: pytest.MonkeyPatch
):
    expected, write = weights_hash(variational), files.write_through
    seen, stop = 0, 10**6

    def dies(path: Path, content: bytes) -> None:
        nonlocal seen
        seen += 1
        if seen == stop:
            path.write_bytes(content[: len(content) // 2])
            raise KilledError
        write(path, content)

    monkeypatch.setattr(files, "write_through", dies)
    small(tmp_path / "whole", catalog, "variational")
    total = seen
    assert total > 20
    for stop in sorted({1, 2, 3, *range(5, total, 5), total - 1, total}):
        seen, out = 0, tmp_path / f"run{stop}"
        with pytest.raises(KilledError):
            small(out, catalog, "variational")
        small(out, catalog, "variational", resume=True)
        assert weights_hash(out) == expected, f"stopped at write {stop} of {total}"
        assert not (out / "phases").exists()


def test_an_unfinished_run_is_not_written_over(tmp_path: Path, catalog, monkeypatch: pytest.MonkeyPatch):
    def dies(*_: object, **__: object) -> None:
        raise KilledError

    monkeypatch.setattr(MassEstimator, "save", dies)
    with pytest.raises(KilledError):
        small(tmp_path / "run", catalog, "variational")
    monkeypatch.undo()
    with pytest.raises(checkpoint.CheckpointError, match="unfinished training run"):
        small(tmp_path / "run", catalog, "variational")
    with pytest.raises(checkpoint.CheckpointError, match="seed was 3 and is now 4"):
        small(tmp_path / "run", catalog, "variational", resume=True, seed=4)
    small(tmp_path / "run", catalog, "variational", resume=True)
    assert not (tmp_path / "run" / "phases").exists()


def test_other_settings_of_the_weights_go_on_from_the_point(
    tmp_path: Path, catalog, variational: Path, monkeypatch: pytest.MonkeyPatch
):
    def dies(*_: object, **__: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(weights_module, "fit", dies)
        with pytest.raises(KilledError):
            small(tmp_path / "run", catalog, {"method": "ensemble", "fit": SHORT})
    with monkeypatch.context() as patch:
        # Maximum likelihood is done: what follows may not repeat it.
        patch.setattr(run_module, "fit", dies)
        small(tmp_path / "run", catalog, "variational", resume=True)
    assert weights_hash(tmp_path / "run") == weights_hash(variational)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"fit": {"max_update": 3}}, "Unknown key 'max_update' in weights.fit; did you mean 'max_updates'?"),
        ({"fit": {"batch_size": 0}}, "'batch_size' in weights.fit is 0"),
        ({"fit": {"learning_rate": "fast"}}, "'learning_rate' in weights.fit is 'fast'"),
        ({"whihc": "last"}, "weights has no setting 'whihc'; it takes method, which"),
        ({"which": "nothing.*"}, "matches no parameter"),
        ({"guide": "banana"}, "Unknown guide 'banana'"),
        ({"options": {"guide_options": {"init": 1}}}, "guide_options of the guide 'eigenbasis'"),
        ({"options": {"guide_options": {"init_scale": -1}}}, "init_scale is -1"),
        ({"options": {"tempering": "hot"}}, "tempering of the posterior 'variational' is 'hot'"),
        ({"options": {"tempering": -1.0}}, "tempering is -1.0"),
        ({"options": {"temperature": 1.0}}, "has no option 'temperature'"),
        ({"method": "ensemble:1"}, "members is 1"),
        ({"start": "nowhere"}, "nowhere"),
    ],
    ids=str,
)
def test_settings_of_the_weights_are_checked_before_the_work(
    tmp_path: Path, catalog, weights, message, monkeypatch
):
    monkeypatch.setattr(run_module, "prepare", lambda *_, **__: pytest.fail("the work had begun"))
    changes = {"flow": {"kind": "affine", "hidden": (8,)}}
    with pytest.raises(ValueError, match=re.escape(message)):
        small(tmp_path / "run", catalog, {"method": "variational"} | weights, **changes)
    assert not (tmp_path / "run").exists()


def test_a_damaged_phase_is_refused(tmp_path: Path):
    (tmp_path / "point.json").write_text("{", encoding="utf-8")
    with pytest.raises(checkpoint.CheckpointError, match="damaged"):
        phases.run_phase(tmp_path, "point", torch.nn.Linear(1, 1), {}, lambda: None)
