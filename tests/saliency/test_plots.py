"""Figures of attributions and robustness hold what they were given."""

from __future__ import annotations

import numpy as np
import pytest

from bayesflowmass.plots.paper.saliency import plot_saliency
from benchmarks.plots.attribution import plot_attribution
from benchmarks.plots.residuals_physics import plot_residuals_physics
from benchmarks.plots.robustness import plot_bandwidth, plot_robustness


def cluster(change):
    rng = np.random.default_rng(1)
    return {
        "r_proj": rng.uniform(0, 1.6, 12),
        "v_los": rng.normal(0, 800, 12),
        "is_member": np.arange(12) < 9,
        "image": np.abs(change),
        "change": change,
        "extent": (0.0, 1.6, -2200.0, 2200.0),
        "note": "a note",
    }


def test_saliency_maps_share_one_symmetric_scale():
    small, large = np.linspace(-0.01, 0.005, 20).reshape(4, 5), np.linspace(-0.02, 0.03, 20).reshape(4, 5)
    figure = plot_saliency({"pure": cluster(small), "contaminated": cluster(large)})
    maps = [axis for axis in figure.axes if axis.get_title() == "a note"]
    assert len(maps) == 2
    for axis in maps:
        assert axis.images[0].get_clim() == pytest.approx((-0.03, 0.03))
    # R runs to the right and v upward: the image is the transpose of (R, v).
    np.testing.assert_array_equal(maps[0].images[0].get_array(), small.T)
    assert len(maps[0].lines[0].get_xdata()) == 9
    with pytest.raises(ValueError, match="no clusters"):
        plot_saliency({})


def test_attribution_leaves_out_galaxies_without_a_number():
    change = np.array([0.01, -0.02, np.nan, 0.03])
    figure = plot_attribution(
        [0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0], change, is_member=[True, False, True, True]
    )
    points, rings = figure.axes[0].collections[:2]
    assert sorted(points.get_array()) == pytest.approx([-20.0, 10.0, 30.0])
    assert points.get_clim()[0] == -points.get_clim()[1]
    assert rings.get_offsets().tolist() == [[0.2, 2.0]]
    with pytest.raises(ValueError, match="finite change"):
        plot_attribution([0.1], [1.0], [np.nan])


def test_partial_correlations_are_drawn_from_top_to_bottom():
    row = {"alone": 0.2, "alone_se": 0.01, "joint": -0.1, "joint_se": 0.02}
    table = {"substructure": row, "orientation": {**row, "alone": -0.3}, "all": {"explained": 0.5}}
    figure = plot_residuals_physics({"fixed true mass": table})
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["substructure", "orientation"]
    assert axis.get_yticks()[0] > axis.get_yticks()[1]
    assert axis.containers[0].lines[0].get_xdata() == pytest.approx([0.2, -0.3])


def measured(model, kept, noise, value):
    keys = ("mean_residual", "scatter", "slope", "coverage_68", "coverage_95")
    return {
        "model": model,
        "kept": kept,
        "noise": noise,
        **dict.fromkeys(keys, value),
        **{f"{key}_se": 0.01 for key in keys},
    }


def test_robustness_draws_each_condition_in_its_column():
    entries = [measured("a", kept, 0, kept) for kept in (0.1, 0.5, 1.0)]
    entries += [measured("a", 1.0, noise, 1.0) for noise in (100, 300)]
    # Too few clusters to measure anything.
    entries.append({"model": "a", "kept": 0.05, "noise": 0, "n": 3})
    figure = plot_robustness(entries)
    kept, noise = figure.axes[0], figure.axes[1]
    assert kept.containers[0].lines[0].get_xdata().tolist() == [10.0, 50.0, 100.0]
    assert kept.containers[0].lines[0].get_ydata().tolist() == [0.1, 0.5, 1.0]
    assert noise.containers[0].lines[0].get_xdata().tolist() == [0.0, 100.0, 300.0]
    with pytest.raises(ValueError, match="no measurements"):
        plot_robustness(entries[-1:])


def test_bandwidths_of_both_conventions_share_an_axis():
    entries = [
        {**measured("m", kept, noise, width), "convention": convention, "width": width}
        for convention in ("covariance", "scipy")
        for width in (0.4, 0.1)
        for kept, noise in ((1.0, 0), (0.33, 0), (1.0, 100))
    ]
    figure = plot_bandwidth(entries)
    assert figure.axes[0].containers[0].lines[0].get_xdata().tolist() == [0.1, 0.4]
    assert len(figure.axes[0].containers) == 6
    with pytest.raises(ValueError, match="no measurements"):
        plot_bandwidth([])
