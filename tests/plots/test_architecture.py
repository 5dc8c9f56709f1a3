"""The architecture: read from the modules, counted right, and legible for every shipped configuration."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from figure_checks import drawn_texts, off_the_page, overlapping
from matplotlib.patches import FancyBboxPatch
from small_model import toy_estimator

from bayesflowmass.bayes import WeightPosterior
from bayesflowmass.command import TrainSettings, build_settings, load_yaml
from bayesflowmass.encoders import ContextEncoder, KDEEncoder
from bayesflowmass.estimator import MassEstimator, TrainingInfo
from bayesflowmass.flows import build_flow
from bayesflowmass.plots.paper.architecture import plot_architecture
from bayesflowmass.plots.paper.model_layout import model_layout

INFO = TrainingInfo((13.2, 15.6))


def configured(name, weights=None, **flow):
    """The untrained model of a shipped configuration, some options of its flow changed."""
    settings = build_settings(TrainSettings, load_yaml(name))
    kernels = [KDEEncoder(settings.encoder.grid, bandwidth=k.bandwidth, convention=k.convention)
               for k in settings.encoder.kernels]  # fmt: skip
    encoder = ContextEncoder(
        kernels, settings.encoder.scaling, settings.encoder.constant, settings.encoder.extras
    )
    options = {"kind": settings.flow.kind, **settings.flow.options} | flow
    if options.get("trunk") == "conv":
        options["image_shape"] = encoder.image_shape
    network = build_flow(context_dim=encoder.context_dim, loc=14.4, scale=0.7, **options)
    posterior = None if weights is None else weights(network)
    return MassEstimator(encoder, network, INFO, "cpu", posterior)


class Stated(WeightPosterior):
    """A posterior of the weights that it is told to name."""

    def __init__(self, names):
        super().__init__()
        self.names, self.method = tuple(names), "stated"

    fit = draw = describe = _restore = None


Stated.__abstractmethods__ = frozenset()

CASES = {
    "paper": lambda: configured("paper.yaml"),
    "default": lambda: configured("default.yaml"),
    "quick": lambda: configured("quick.yaml"),
    "best": lambda: configured("best.yaml"),
    "survey": lambda: configured("survey.yaml"),
    "flagship": lambda: configured("flagship.yaml"),
    "conv": lambda: configured("default.yaml", trunk="conv", hidden=(256, 128)),
    "conv per block": lambda: configured("paper.yaml", trunk="conv"),
    "deep": lambda: configured("default.yaml", hidden=(512,) * 14),
    "many blocks": lambda: configured(
        "default.yaml", kind="affine+spline+mixture", affine_blocks=7, spline_blocks=2, shared=False
    ),
    "Bayesian": lambda: configured(
        "default.yaml", lambda flow: Stated(n for n, _ in flow.named_parameters() if "transforms" in n)
    ),
    "one layer": toy_estimator,
}


@cache
def model(case):
    return CASES[case]()


@pytest.mark.parametrize("case", CASES)
def test_every_text_of_the_drawing_can_be_read_and_stays_in_its_box(case):
    figure = plot_architecture(model(case), title=case)
    texts = drawn_texts(figure)
    assert overlapping(texts) == []
    assert off_the_page(figure, texts) == []
    assert min(float(text.get_fontsize()) for text, _ in texts) >= 5.5
    (axis,) = figure.axes
    renderer = figure.canvas.get_renderer()
    boxes = [p.get_window_extent(renderer) for p in axis.patches if isinstance(p, FancyBboxPatch)]
    for text, extent in texts:
        middle = (0.5 * (extent.x0 + extent.x1), 0.5 * (extent.y0 + extent.y1))
        for box in (box for box in boxes if box.contains(*middle)):
            assert box.x0 - 1 <= extent.x0 <= extent.x1 <= box.x1 + 1, text.get_text()
            assert box.y0 - 1 <= extent.y0 <= extent.y1 <= box.y1 + 1, text.get_text()


@pytest.mark.parametrize("case", CASES)
def test_layers_hold_all_weights_of_the_model_and_no_others(case):
    estimator = model(case)
    layout = model_layout(estimator)
    layers = [*layout.encoder_layers, *layout.trunk, *(layer for b in layout.blocks for layer in b.network)]
    parameters = [*estimator.encoder.parameters(), *estimator.flow.parameters()]
    assert sum(layer.n_parameters for layer in layers) == sum(p.numel() for p in parameters)
    assert layout.n_parameters == sum(p.numel() for p in parameters)


def test_the_paper_is_three_blocks_of_512_64_512_over_a_normal_base():
    layout = model_layout(model("paper"))
    assert [b.name for b in layout.blocks] == ["standardise", "affine", "affine", "affine", "base: normal"]
    for block in layout.blocks[1:4]:
        assert [(layer.width, layer.after) for layer in block.network] == [
            (512, ("tanh",)),
            (64, ("tanh",)),
            (512, ("tanh",)),
            (2, ()),
        ]
        assert block.network[0].n_parameters == 2500 * 512 + 512
    texts = [t.get_text() for t in plot_architecture(model("paper")).axes[0].texts]
    assert sum("512" in t for t in texts) == 6
    assert any("$H = h_0\\Sigma$" in t for t in texts)


def test_the_steps_stand_in_the_order_of_the_density():
    """Follow log10 M through the transforms as `pull_back` does: last transform first, base last."""
    estimator = model("many blocks")
    names = [type(t).__name__ for t in reversed(estimator.flow.transforms)]
    drawn = [b.name for b in model_layout(estimator).blocks]
    words = {
        "ConditionalAffine": "affine",
        "ConditionalMonotoneSpline": "spline",
        "Standardisation": "standardise",
    }
    assert drawn == [*(words[n] for n in names), "base: mixture"]


def test_a_long_run_of_equal_steps_is_drawn_once_with_its_number():
    texts = [t.get_text() for t in plot_architecture(model("many blocks")).axes[0].texts]
    assert any("affine" in t and "7" in t for t in texts)
    assert sum(t.startswith("affine") for t in texts) == 1
    assert sum(t.startswith("spline") for t in texts) == 2


def test_layers_with_a_posterior_are_marked_and_counted():
    estimator = model("Bayesian")
    layout = model_layout(estimator)
    assert {layer.random for layer in layout.trunk} == {"none"}
    heads = [layer for block in layout.blocks for layer in block.network]
    assert {layer.random for layer in heads} == {"all"}
    assert layout.n_random == sum(layer.n_parameters for layer in heads)
    (axis,) = plot_architecture(estimator).axes
    thick = [p for p in axis.patches if p.get_linewidth() > 1]
    assert len(thick) == len(heads) + 1  # and the one of the legend
    assert any("stated" in t.get_text() for t in axis.texts)
    plain = plot_architecture(model("default")).axes[0]
    assert not [p for p in plain.patches if p.get_linewidth() > 1]


def test_a_layer_of_which_only_the_bias_is_random_says_so():
    estimator = configured("default.yaml", lambda flow: Stated(["trunk.0.bias"]))
    layout = model_layout(estimator)
    assert [layer.random for layer in layout.trunk] == ["some", "none", "none"]
    assert layout.n_random == 512
    (axis,) = plot_architecture(estimator).axes
    assert sum(p.get_linestyle() in ("--", "dashed") for p in axis.patches) == 1


def test_scaling_and_extra_columns_of_the_context_are_named():
    encoder = ContextEncoder([KDEEncoder((10, 12), bandwidth=0.3)], "log1p_richness", 7.0, ("redshift",))
    estimator = MassEstimator(
        encoder, build_flow("affine", encoder.context_dim, 14.0, 0.5, hidden=(4,)), INFO, "cpu"
    )
    layout = model_layout(estimator)
    assert "121 numbers" in layout.context
    assert "7" in layout.context
    assert "redshift" in layout.context
    assert "10$\\times$12" in layout.encoders[0]
    assert "0.3" in layout.encoders[0]
    assert np.all([b.network for b in layout.blocks[1:-1]])
