"""Training clusters that count unequally: how often they come, what they stand for, how many the weights may count."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from small_model import toy_catalog

from bayesflowmass.catalog import CatalogError
from bayesflowmass.config import TrainSettings
from bayesflowmass.encoders import ContextEncoder, KDEEncoder
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.flows import build_flow
from bayesflowmass.train import main, train, train_arguments
from bayesflowmass.training.cluster_weights import cluster_weights, each_at_most_once, weighted_rows
from bayesflowmass.training.fit import mean_loss

WEIGHTS = st.lists(st.floats(0.0, 100.0), min_size=1, max_size=60).filter(lambda w: max(w) > 1e-3)


@given(WEIGHTS, st.integers(0, 5))
def test_each_row_comes_as_often_as_its_share_rounded_down_or_up(given_weights, epoch):
    weight = torch.tensor(given_weights, dtype=torch.float64)
    counts = torch.bincount(weighted_rows(weight, 1, epoch), minlength=len(weight))
    share = weight / weight.mean()
    assert ((counts - share).abs() < 1 + 1e-9).all()
    assert abs(int(counts.sum()) - len(weight)) <= 1


@given(WEIGHTS)
def test_a_sample_of_the_weighted_population_has_no_row_twice_and_the_heaviest_always(given_weights):
    weight = torch.tensor(given_weights, dtype=torch.float64)
    rows = each_at_most_once(weight, 2)
    assert (rows.diff() > 0).all()
    assert abs(len(rows) - float(weight.sum() / weight.max())) < 1 + 1e-9
    assert bool((weight[rows] > 0).all())


def test_equal_weights_are_all_rows_in_random_order():
    rows = weighted_rows(torch.full((50,), 3.0, dtype=torch.float64), 0, 0)
    assert sorted(rows.tolist()) == list(range(50))
    assert rows.tolist() != list(range(50))
    assert each_at_most_once(torch.full((50,), 3.0, dtype=torch.float64), 0).tolist() == list(range(50))


def test_rows_are_unbiased_over_epochs():
    weight = torch.tensor([0.1, 0.5, 1.0, 3.7], dtype=torch.float64)
    counts = sum(torch.bincount(weighted_rows(weight, 4, epoch), minlength=4) for epoch in range(4000))
    # A count is one of two neighbouring integers: standard deviation 0.5 at most, of 4000 epochs 0.008.
    assert torch.allclose(counts.double() / 4000, weight / weight.mean(), atol=0.04)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, -2.0, 1.0], "1 unusable weights, the first, -2.0, at row 1"),
        ([1.0, 1.0, np.nan], "the first, nan, at row 2"),
        ([0.0, 0.0, 0.0], "are 0; at least one cluster must count"),
        (["a", "b", "c"], "holds no numbers"),
    ],
)
def test_unusable_weights_are_refused(values, message):
    with pytest.raises(CatalogError, match=message):
        cluster_weights(toy_catalog(3).with_columns(heft=np.array(values)), "heft")


def test_a_column_that_is_not_there_is_named_beside_those_that_are(tmp_path):
    with pytest.raises(
        CatalogError, match=r"no column 'heft', which weight_column names; its columns are .*log10_mass"
    ):
        train(toy_catalog(20), out=tmp_path, weight_column="heft", progress=False)


def test_mocks_have_no_weights(tmp_path, capsys):
    assert main(["--fit.weight-column", "heft", "--out", str(tmp_path / "m"), "--no-progress"]) != 0
    assert "give a catalogue or leave weight_column out" in capsys.readouterr().err


def test_settings_reach_the_function():
    arguments = train_arguments(TrainSettings(fit={"weight_column": "heft", "weighted_masses": "hmf"}))
    assert (arguments["weight_column"], arguments["weighted_masses"]) == ("heft", "hmf")
    assert "weight_column" not in arguments["options"]


def test_a_validation_loss_is_the_weighted_mean():
    flow = build_flow("affine", 3, 14.4, 0.6, hidden=(4,), affine_blocks=1)
    generator = torch.Generator().manual_seed(0)
    context, mass = torch.rand(700, 3, generator=generator), 14.0 + torch.rand(700, generator=generator)
    weight = torch.randint(0, 4, (700,), generator=generator).double()
    copies = torch.arange(700).repeat_interleave(weight.long())
    weighted = mean_loss(flow, (context, mass), weight=weight)
    assert weighted == pytest.approx(mean_loss(flow, (context[copies], mass[copies])), rel=1e-6)


def trained(catalog, out, **arguments):
    return train(
        catalog,
        out=out,
        encoder=ContextEncoder(KDEEncoder(grid=(8, 8)), constant=1.0),
        flow={"kind": "affine", "shared": True, "hidden": (16, 8)},
        options={
            "max_updates": 300,
            "learning_rate": 3e-3,
            "validate_every": 20,
            "batch_size": 32,
            "patience_updates": None,
        },
        device="cpu",
        progress=False,
        **arguments,
    )


def thinned(seed):
    """Few clusters above 14.4, and the weights that make up for it."""
    catalog = toy_catalog(600, seed=seed)
    massive = catalog.column("log10_mass") > 14.4
    kept = ~massive | (np.random.default_rng([seed, 1]).random(600) < 0.1)
    return catalog.filter(kept).with_columns(weight=np.where(massive[kept], 10.0, 1.0))


def test_weights_undo_the_thinning_of_a_population(tmp_path):
    test = toy_catalog(200, seed=9)
    offsets = {}
    for name, column in (("all", None), ("weighted", "weight")):
        model = trained(thinned(1), tmp_path / name, weight_column=column)
        massive = test.column("log10_mass") > 14.4
        median = model.posterior(test).median
        offsets[name] = float(np.mean(test.column("log10_mass")[massive] - median[massive]))
    # Without weights the few massive clusters are taken for less massive ones.
    assert offsets["weighted"] < 0.5 * offsets["all"]


def test_heavy_clusters_do_not_count_as_many_for_the_posterior_of_the_weights(tmp_path, capsys):
    catalog = thinned(1)
    weight = catalog.column("weight")
    model = trained(
        catalog,
        tmp_path / "model",
        weight_column="weight",
        weights={
            "method": "variational",
            "which": "last",
            "fit": {"max_updates": 200, "validate_every": 100},
        },
    )
    n_data = model.weights.found["n_data"]
    assert f"N = {n_data} is few, and PDFs will be wide" in capsys.readouterr().out
    # Nine tenths are trained on.
    assert n_data == pytest.approx(0.9 * weight.sum() / 10.0, rel=0.15)
    assert n_data < 0.5 * len(catalog)
    again = MassEstimator.load(tmp_path / "model")
    assert again.training_info.masses == "flat"
    assert again.training_info.config["weight_column"] == "weight"


def test_the_same_seed_gives_the_same_weights_of_the_network(tmp_path):
    first = trained(thinned(1), tmp_path / "first", weight_column="weight")
    second = trained(thinned(1), tmp_path / "second", weight_column="weight")
    for name, value in first.flow.state_dict().items():
        assert torch.equal(value, second.flow.state_dict()[name])
