"""A halo seen from several sides counts once where the posterior of the weights counts clusters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_model import toy_catalog

from bayesflowmass.encoders import ContextEncoder, KDEEncoder
from bayesflowmass.train import train
from bayesflowmass.training.sources import halo_numbers, one_view_of_each

HALO = torch.tensor([7, 3, 3, 9, 3, 7])


def test_one_row_of_each_halo_is_taken():
    rows = one_view_of_each(HALO, 0, 0)
    assert sorted(HALO[rows].tolist()) == [3, 7, 9]
    assert (rows.diff() > 0).all()


def test_every_view_is_as_likely():
    taken = torch.zeros(6)
    for index in range(3000):
        taken[one_view_of_each(HALO, 5, index)] += 1
    # Five standard deviations of a binomial; a view that is never taken misses by more than thirty.
    expected = torch.tensor([1 / 2, 1 / 3, 1 / 3, 1.0, 1 / 3, 1 / 2])
    error = (expected * (1 - expected) / 3000).sqrt()
    assert ((taken / 3000 - expected).abs() <= 5 * error).all()


def test_clusters_without_halos_have_no_numbers():
    assert halo_numbers(toy_catalog(5)) is None


def test_numbers_of_halos_are_equal_for_equal_names():
    catalog = toy_catalog(4).with_columns(halo_id=np.array(["b", "a", "b", "c"]))
    assert halo_numbers(catalog).tolist() == [1, 0, 1, 2]


def of_views(copies: int, halo_is_known: bool):
    """Each of 60 clusters several times."""
    rows = np.tile(np.arange(60), copies)
    catalog = toy_catalog(60, seed=1)[rows]
    halo = rows if halo_is_known else np.arange(len(rows))
    return catalog.with_columns(cluster_id=np.arange(len(rows)), halo_id=halo)


@pytest.mark.parametrize("method", ["variational", "laplace"])
def test_copies_of_a_cluster_teach_nothing_where_their_halo_is_known(method, tmp_path):
    found = {}
    for name, copies, known in (("once", 1, True), ("copies", 10, True), ("unknown", 10, False)):
        model = train(
            of_views(copies, known),
            out=tmp_path / name,
            encoder=ContextEncoder(KDEEncoder(grid=(8, 8)), constant=1.0),
            flow={"kind": "affine", "shared": True, "hidden": (16, 8)},
            options={"max_updates": 60, "validate_every": 20, "batch_size": 32, "patience_updates": None},
            weights={"method": method, "which": "last", "fit": {"max_updates": 400, "validate_every": 200}},
            device="cpu",
            progress=False,
        )
        found[name] = float(np.mean(model.posterior(toy_catalog(40, seed=2), n_draws=64).sigma_epistemic))
    # Ten times the data would make it smaller by about the root of ten.
    assert found["copies"] == pytest.approx(found["once"], rel=0.4)
    assert found["unknown"] < 0.6 * found["copies"]
