"""What encoders are where nothing else is asked for: models that were stored without a word rely on it."""

from __future__ import annotations

import torch

from bayesflowmass.encoders import ContextEncoder, KDEEncoder, SetEncoder
from bayesflowmass.encoders.kde.grid import Grid
from bayesflowmass.encoders.local import LocalDensities
from bayesflowmass.encoders.scaling import DEFAULT_CONSTANTS
from tests.support.small_model import toy_catalog

WIDTHS = [[0.06, 200.0], [0.12, 300.0], [0.25, 450.0], [0.4, 700.0], [0.7, 1200.0]]


def test_the_image_is_that_of_the_paper():
    assert KDEEncoder().describe() == {
        "grid": [50, 50],
        "lower": [0.0, -2200.0],
        "upper": [1.6, 2200.0],
        "bandwidth": 0.15,
        "convention": "covariance",
        "normalisation": "sum",
        "evaluate": "centre",
        "narrow": "integrate",
    }
    grid = Grid((4,), (0.0,), (1.0,))
    assert grid.nodes(0).tolist() == grid.nodes(0, 1).tolist() == [0.125, 0.375, 0.625, 0.875]


def test_constants_of_a_scaling_are_those_of_its_kind():
    assert DEFAULT_CONSTANTS == {"mean": 2500.0, "sqrt": 2500.0, "log1p_richness": 25.0}
    for scaling, constant in DEFAULT_CONSTANTS.items():
        assert ContextEncoder(KDEEncoder((3, 3)), scaling=scaling).constant == constant


def test_local_densities_count_in_five_kernels():
    assert LocalDensities().describe() == {"widths": WIDTHS, "counted": True, "floor": 0.01}
    encoder = SetEncoder()
    assert encoder.local.describe() == LocalDensities().describe()
    assert (encoder.counted, encoder.uses_richness) == (True, True)
    assert (encoder.galaxy_dim, encoder.context_dim) == (3 + 4 * 5, 1)
    alone = SetEncoder(counted=False)
    assert (alone.counted, alone.uses_richness) == (False, False)


def test_nobody_is_shown_a_bar_or_given_the_truth_who_did_not_ask(capsys):
    catalog = toy_catalog(3)
    encoder = ContextEncoder(KDEEncoder((5, 5)))
    plain = encoder.encode(catalog)
    assert capsys.readouterr() == ("", "")
    assert torch.equal(torch.as_tensor(plain), torch.as_tensor(encoder.encode(catalog, truth=False)))
