"""Memberships from a model to its tables: order, masks, averages over draws, errors of expected numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.table import Table
from small_model import toy_catalog, toy_estimator, with_uncertain_weights

from bayesflowmass.catalog import CatalogError
from bayesflowmass.encoders import GalaxySet, SetEncoder
from bayesflowmass.estimator import MassEstimator, TrainingInfo
from bayesflowmass.estimator.memberships import MEMBER, fit_count_error, memberships
from bayesflowmass.flows import build_flow
from bayesflowmass.infer import infer, infer_members, main
from bayesflowmass.mocks import simulate_catalog
from bayesflowmass.networks import SetNetwork
from bayesflowmass.posterior import MassPosterior
from bayesflowmass.train import train

ENCODER = SetEncoder([(0.2, 500.0)])


def set_flow(seed=1):
    arguments = {
        "kind": "affine",
        "affine_blocks": 1,
        "loc": 14.4,
        "scale": 0.15,
        "hidden": (8,),
        "seed": seed,
    }
    return build_flow(**ENCODER.flow_arguments(arguments | {"galaxies": {"width": 8, "blocks": 1}}))


@pytest.fixture(scope="module")
def estimator() -> MassEstimator:
    catalog = toy_catalog(400, seed=9)
    flow = set_flow()
    with torch.no_grad():
        flow.set_trunk.network.count_error.copy_(torch.tensor([1.5, 0.1]))
    return MassEstimator(ENCODER, flow, TrainingInfo.from_catalog(catalog, uses_richness=True), "cpu")


@pytest.fixture(scope="module")
def catalog():
    """Clusters of which one has too few galaxies, and some have galaxies beyond the cylinder."""
    whole = toy_catalog(6, seed=2)
    rng = np.random.default_rng(0)
    keep = (whole.galaxy_rows != 3) | (np.arange(whole.n_galaxies_total) == whole.offsets[3])
    x = np.array(whole.galaxies("x"))
    x[rng.random(x.size) < 0.1] += 5.0
    return whole.with_galaxies(x=x).filter_galaxies(keep)


def test_each_galaxy_has_its_row_and_expected_numbers_are_sums(estimator, catalog):
    masses, members = infer_members(estimator, catalog, model="M")
    assert len(members) == catalog.n_galaxies_total
    np.testing.assert_array_equal(
        members["cluster_id"], np.asarray(catalog.column("cluster_id"))[catalog.galaxy_rows]
    )
    np.testing.assert_array_equal(members["v_los"], catalog.galaxies("v_los"))
    unseen = (np.asarray(members["r_proj"]) > 1.6) | (np.asarray(members["cluster_id"]) == 3)
    np.testing.assert_array_equal(members["p_member"].mask, unseen)
    sums = [members["p_member"][members["cluster_id"] == k].filled(0.0).sum() for k in (0, 1, 2, 4, 5)]
    np.testing.assert_allclose(masses["n_members"].compressed(), sums, rtol=1e-12)
    assert masses["n_members"].mask.tolist() == [False, False, False, True, False, False]
    assert masses["n_members_err"].mask.tolist() == masses["n_members"].mask.tolist()
    p = members["p_member"][members["cluster_id"] == 0].compressed()
    expected = np.sqrt(1.5 * (p * (1 - p)).sum() + (0.1 * p.sum()) ** 2)
    np.testing.assert_allclose(masses["n_members_err"][0], expected, rtol=1e-6)
    assert members.meta["member"] == masses.meta["member"] == MEMBER
    assert members.meta["model"] == "M"


def test_masses_are_those_without_memberships(estimator, catalog):
    masses, _ = infer_members(estimator, catalog)
    alone = infer(estimator, catalog)
    assert masses.colnames == alone.colnames
    np.testing.assert_array_equal(masses["log10_mass"], alone["log10_mass"])
    assert "n_members" not in infer(toy_estimator(), catalog).colnames


@pytest.mark.parametrize("uncertain", [False, True], ids=["point", "draws of all weights"])
def test_memberships_are_noted_on_the_way_to_the_masses(estimator, catalog, uncertain, monkeypatch):
    model = with_uncertain_weights(estimator) if uncertain else estimator
    within = catalog.filter_galaxies(catalog.r_proj <= 1.6).filter(np.arange(6) != 3)
    expected = model.memberships(within)
    read, times = SetNetwork.read, []
    monkeypatch.setattr(SetNetwork, "read", lambda *a: times.append(0) or read(*a))
    masses, members = infer_members(model, catalog)
    assert len(times) == (5 if uncertain else 1)
    np.testing.assert_allclose(members["p_member"].compressed(), expected.probability, rtol=1e-6)
    np.testing.assert_allclose(masses["n_members"].compressed(), expected.number, rtol=1e-6)
    np.testing.assert_allclose(masses["n_members_err"].compressed(), expected.error, rtol=1e-6)


def test_memberships_are_those_of_clusters_that_have_a_mass(estimator, catalog, monkeypatch):
    """A cluster whose mass turns out not to exist has no members, and the others keep theirs."""
    within = catalog.filter_galaxies(catalog.r_proj <= 1.6).filter(np.arange(6) != 3)
    _, whole = infer_members(estimator, within)
    monkeypatch.setattr(MassPosterior, "has_mass", property(lambda self: np.asarray(self.cluster_id) != 1))
    _, members = infer_members(estimator, within)
    lost = within.galaxy_rows == 1
    np.testing.assert_array_equal(members["p_member"].mask, lost)
    np.testing.assert_allclose(members["p_member"][~lost], whole["p_member"][~lost], rtol=1e-6)


def test_an_error_that_nobody_fitted_is_masked(catalog):
    info = TrainingInfo.from_catalog(toy_catalog(400, seed=9), uses_richness=True)
    table = infer(MassEstimator(ENCODER, set_flow(), info, "cpu"), catalog)
    assert table["n_members_err"].mask.all()
    assert not table["n_members"].mask.all()


def test_memberships_are_averages_over_draws_of_the_weights(catalog):
    flow = set_flow()
    contexts = ENCODER.encode(catalog)
    flow.set_trunk.network.count_error.copy_(torch.tensor([0.0, 0.0]))
    draws = {
        name: torch.stack([value.detach() + 0.2 * torch.randn_like(value) for _ in range(3)])
        for name, value in flow.named_parameters()
    }
    found = memberships(flow, contexts, draws)
    each = []
    for d in range(3):
        with torch.no_grad():
            for name, value in flow.named_parameters():
                value.copy_(draws[name][d])
        each.append(memberships(flow, contexts))
    np.testing.assert_allclose(found.probability, np.mean([one.probability for one in each], 0), rtol=1e-5)
    numbers = np.array([one.number for one in each])
    np.testing.assert_allclose(found.number, numbers.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.error, numbers.std(0), rtol=1e-4)


@pytest.mark.parametrize("shared", [0.0, 0.8], ids=["independent", "shared by a cluster"])
def test_errors_of_expected_numbers_are_those_of_held_out_clusters(shared):
    """Truths drawn from the probabilities themselves, with log odds that are off by a common amount."""
    generator = torch.Generator().manual_seed(5)
    flow, contexts = set_flow(), ENCODER.encode(toy_catalog(1500, seed=7))
    odds = flow.set_trunk.read(contexts)[1].detach()
    odds = odds + (shared * torch.randn(len(contexts), generator=generator))[contexts.numbers]
    truth = torch.bernoulli(torch.sigmoid(odds), generator=generator)
    fit_count_error(flow, GalaxySet(contexts.galaxies, contexts.offsets, contexts.clusters, truth))
    found = memberships(flow, contexts)
    true = np.add.reduceat(truth.numpy(), contexts.offsets[:-1].numpy())
    pull = (true - found.number) / found.error
    # The scatter of a standard deviation over 1500 clusters is 0.02.
    assert abs(np.sqrt(np.mean(pull**2)) - 1.0) < 0.1
    rich = contexts.counts.numpy() > np.median(contexts.counts.numpy())
    assert abs(np.sqrt(np.mean(pull[rich] ** 2)) - np.sqrt(np.mean(pull[~rich] ** 2))) < 0.2
    scatter = float(flow.set_trunk.network.count_error[1])
    assert (scatter > 0.05) == (shared > 0)


def test_the_command_writes_memberships(tmp_path: Path, capsys):
    catalog = simulate_catalog(n_clusters=60, log10_mass_range=(13.8, 14.4), seed=3, progress=False)
    train(
        catalog,
        out=tmp_path / "run",
        encoder=ENCODER,
        flow={"kind": "affine", "hidden": (8,), "galaxies": {"width": 8, "blocks": 1}},
        options={"max_updates": 4, "validate_every": 2, "batch_size": 16},
        device="cpu",
        progress=False,
    )
    catalog[:5].write(tmp_path / "cat.parquet")
    arguments = [
        "--galaxies",
        str(tmp_path / "cat.parquet"),
        "--out",
        str(tmp_path / "m.ecsv"),
        "--no-progress",
    ]
    members = str(tmp_path / "members.ecsv")
    assert main(["--model", str(tmp_path / "run"), *arguments, "--members", members]) == 0
    assert f"written to {members}" in capsys.readouterr().out
    table = Table.read(members)
    assert len(table) == catalog[:5].n_galaxies_total
    assert ((table["p_member"] >= 0) & (table["p_member"] <= 1)).all()
    assert "--members" in table.meta["command"]
    masses = Table.read(tmp_path / "m.ecsv")
    assert (masses["n_members_err"] > 0).all()


def test_galaxies_without_directions_are_refused_in_a_sentence(estimator, catalog):
    """Read as if they lay on a line, they would all be neighbours of each other."""
    radial = catalog.with_metadata(selection=catalog.metadata.selection | {"positions": "radial"})
    with pytest.raises(CatalogError, match=r"without directions.*give x, y or ra, dec"):
        infer(estimator, radial)


def test_a_model_of_images_refuses_in_a_sentence(catalog):
    with pytest.raises(
        ValueError, match=r"reads images, which do not say who is a member.*'sky_galaxies' ships"
    ):
        infer_members(toy_estimator(), catalog)
