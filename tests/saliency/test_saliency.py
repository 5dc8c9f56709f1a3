"""Attribution of masses: against brute force, finite differences and closed forms."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from rounding import rounding_of_a_mass
from small_model import toy_catalog
from torch import nn

from bayesflowmass.bayes.ensemble import EnsemblePosterior
from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.encoders import ContextEncoder, KDEEncoder
from bayesflowmass.estimator import MassEstimator, TrainingInfo
from bayesflowmass.estimator.flags import usable_clusters
from bayesflowmass.flows import build_flow
from bayesflowmass.posterior import MassPosterior
from bayesflowmass.saliency import galaxy_gradients, leave_one_out, masked_map
from bayesflowmass.saliency.gradients import differentiable_masses
from bayesflowmass.saliency.map import mask_weights
from bayesflowmass.saliency.masses import mixture_median, point_masses
from bayesflowmass.saliency.removal import without_one

GRID = (12, 14)


def mean_error(posterior: MassPosterior) -> FloatArray:
    """Of a mean from a table: its panels are as wide as the density, some of which here are 19 dex wide."""
    return 2e-5 * np.maximum(posterior.sigma, 5.0)


def model(name: str) -> MassEstimator:
    """Models with random weights, one for each way of making a context and a density."""
    one = KDEEncoder(GRID, narrow="keep")
    options = {
        "paper": (one, "mean", (), "affine", {}),
        "two kernels": (
            [one, KDEEncoder(GRID, convention="scipy", bandwidth=0.4)],
            "sqrt",
            (),
            "affine+spline",
            {},
        ),
        "richness": (one, "log1p_richness", ("redshift",), "affine+mixture", {}),
        "ensemble": (one, "mean", (), "affine+spline", {}),
        "linear": (one, "mean", (), "affine", {"affine_blocks": 1, "hidden": ()}),
    }
    kdes, scaling, extras, kind, others = options[name]
    encoder = ContextEncoder(kdes, scaling, 30.0, extras)
    training = toy_catalog(300, seed=9)
    redshift = np.linspace(0.05, 0.2, len(training))
    training = training.with_columns(redshift=redshift)
    encoder.fit_extras(training)
    flow = build_flow(kind, encoder.context_dim, 14.4, 0.7, **{"hidden": (8,), "seed": 1} | others)
    rng = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in flow.parameters():
            # Untrained networks hardly look at their input; these do.
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=rng))
    weights = None
    if name == "ensemble":
        flat = nn.utils.parameters_to_vector(flow.parameters()).detach()
        members = flat + 0.05 * torch.randn(4, flat.numel(), generator=rng)
        weights = EnsemblePosterior(flow, members)
    info = TrainingInfo.from_catalog(training, uses_richness=encoder.uses_richness)
    return MassEstimator(encoder, flow, info, "cpu", weights)


def rounding(estimator: MassEstimator, clusters: ClusterCatalog) -> float:
    """What single precision may do to a difference of two medians of these clusters [dex]."""
    context = estimator.encoder.encode(clusters).double()
    errors = rounding_of_a_mass(
        deepcopy(estimator.flow).double(),
        lambda flow, contexts: flow.condition(contexts).icdf(torch.tensor(0.5, dtype=torch.float64)),
        context,
        int(clusters.n_galaxies.max()),
    )
    return 2.0 * float(errors.max())


MODELS = ("paper", "two kernels", "richness", "ensemble")


@pytest.fixture(scope="module")
def clusters() -> ClusterCatalog:
    """Three clusters in double precision, the poorest with twelve galaxies."""
    catalog = toy_catalog(3, seed=4)
    local = np.arange(catalog.n_galaxies_total) - catalog.offsets[:-1][catalog.galaxy_rows]
    catalog = catalog.filter_galaxies(local < np.array([12, 25, 31])[catalog.galaxy_rows])
    return catalog.with_galaxies(
        **{name: catalog.galaxies(name).astype(np.float64) for name in ("x", "y", "v_los")}
    )


def scipy_context(encoder: ContextEncoder, r_proj, v_los) -> torch.Tensor:
    """Scaled images of one cluster by scipy's kernel density, float64, without extras."""
    from scipy.stats import gaussian_kde

    parts = []
    for kde in encoder.kdes:
        factor = kde.h0 if kde.convention == "scipy" else np.sqrt(kde.h0)
        grid = np.meshgrid(*(kde.grid.nodes(d).numpy() for d in range(2)), indexing="ij")
        image = gaussian_kde(np.stack([r_proj, v_los]), bw_method=factor)(np.stack([g.ravel() for g in grid]))
        image = image / image.sum()
        constant = encoder.constant
        if encoder.scaling == "mean":
            parts.append(constant * image)
        elif encoder.scaling == "sqrt":
            parts.append(np.sqrt(constant * image))
        else:
            parts.append(np.log1p(constant * len(r_proj) * image))
    return torch.from_numpy(np.concatenate(parts))


@pytest.mark.parametrize("name", ["paper", "two kernels"])
def test_leaving_out_a_galaxy_is_what_scipy_makes_of_the_rest(name, clusters):
    estimator = model(name)
    for kde in estimator.encoder.kdes:
        kde.narrow = "keep"
    flow = deepcopy(estimator.flow).double()
    r, v = clusters.r_proj, clusters.galaxies("v_los")
    expected = []
    for start, end in zip(clusters.offsets[:-1], clusters.offsets[1:], strict=True):
        rows = [np.arange(start, end)] + [np.delete(np.arange(start, end), i) for i in range(end - start)]
        contexts = torch.stack([scipy_context(estimator.encoder, r[row], v[row]) for row in rows])
        with torch.no_grad():
            median = flow.condition(contexts).icdf(torch.tensor(0.5, dtype=torch.float64)).numpy()
        expected.append(median[0] - median[1:])
    expected = np.concatenate(expected)
    change = leave_one_out(estimator, clusters)
    assert change.dtype == np.float64
    tolerance = rounding(estimator, clusters)
    assert np.abs(expected).max() > 100 * tolerance
    np.testing.assert_allclose(change, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("statistic", ["median", "mean", "map"])
def test_leaving_out_a_galaxy_is_what_the_estimator_says_without_it(name, statistic, clusters):
    estimator = model(name)
    change = leave_one_out(estimator, clusters, statistic=statistic, seed=3)
    for galaxy in (0, 11, 12, 40, clusters.n_galaxies_total - 1):
        row = clusters.galaxy_rows[galaxy]
        without = clusters.filter_galaxies(np.arange(clusters.n_galaxies_total) != galaxy)
        posteriors = [estimator.posterior(c[row : row + 1], seed=3) for c in (clusters, without)]
        before, after = (getattr(posterior, statistic)[0] for posterior in posteriors)
        # The posterior tabulates its mean, and a mode is known to the root of the precision.
        known = {"median": rounding(estimator, clusters), "mean": mean_error(posteriors[0])[0], "map": 2e-4}
        tolerance = known[statistic]
        assert change[galaxy] == pytest.approx(before - after, abs=tolerance)


def test_the_order_and_number_of_clusters_do_not_matter(clusters):
    estimator = model("paper")
    change = leave_one_out(estimator, clusters)
    backwards = leave_one_out(estimator, clusters[[2, 1, 0]])
    parts = np.split(backwards, np.cumsum(clusters.n_galaxies[::-1])[:-1])
    np.testing.assert_allclose(
        np.concatenate(parts[::-1]), change, rtol=0, atol=rounding(estimator, clusters)
    )


def test_many_slices_give_what_one_gives(clusters, monkeypatch):
    estimator = model("two kernels")
    change = leave_one_out(estimator, clusters)
    monkeypatch.setattr("bayesflowmass.saliency.removal._SUBSETS_AT_ONCE", 7)
    monkeypatch.setattr("bayesflowmass.saliency.removal._GALAXIES_AT_ONCE", 100)
    sliced = leave_one_out(estimator, clusters)
    np.testing.assert_allclose(sliced, change, rtol=0, atol=rounding(estimator, clusters))


def test_a_galaxy_that_cannot_be_missed_has_no_number():
    catalog = ClusterCatalog.from_arrays(
        {"cluster_id": [1, 2], "redshift": [0.1, 0.1]},
        {
            "x": [0.1, 0.5, 0.9, 0.1, 0.5, 0.9, 0.4],
            "y": [0.0, 0.1, 0.0, 0.0, 0.1, 0.0, 0.2],
            # The second cluster has one galaxy inside the grid.
            "v_los": [-300.0, 200.0, 150.0, 2450.0, -2450.0, 2400.0, 0.0],
        },
        [3, 4],
    )
    change = leave_one_out(model("paper"), catalog)
    assert np.isnan(change).tolist() == [True, True, True, False, False, False, True]


def test_galaxies_left_almost_on_a_line_have_no_number():
    catalog = ClusterCatalog.from_arrays(
        {"cluster_id": [1], "redshift": [0.1]},
        {
            # Without the last one R follows v to 1e-3: a kernel far narrower than a bin.
            "x": np.array([0.2, 0.5, 0.8005, 0.5]),
            "y": np.zeros(4),
            "v_los": np.array([-300.0, 0.0, 300.0, 900.0]),
        },
        [4],
    )
    estimator = model("paper")
    estimator.encoder.kde.narrow = "integrate"
    assert usable_clusters(without_one(catalog, np.array([3]))).tolist() == [""]
    assert np.isnan(leave_one_out(estimator, catalog)).tolist() == [False, False, False, True]


def test_unusable_clusters_and_unknown_statistics_are_refused(clusters):
    estimator = model("paper")
    two = clusters.filter_galaxies((clusters.galaxy_rows != 1) | (np.arange(clusters.n_galaxies_total) < 14))
    with pytest.raises(CatalogError, match="Cluster 1 has fewer than 3 galaxies"):
        leave_one_out(estimator, two)
    with pytest.raises(CatalogError, match="no clusters"):
        galaxy_gradients(estimator, clusters[:0])
    with pytest.raises(ValueError, match="one of median, mean, map, not 'mode'"):
        leave_one_out(estimator, clusters, statistic="mode")
    with pytest.raises(ValueError, match="one of median, mean, not 'map'"):
        galaxy_gradients(estimator, clusters, statistic="map")


def test_subsets_lack_exactly_their_galaxy(clusters):
    removed = np.array([0, 13, 30])
    subsets = without_one(clusters, removed)
    assert subsets.n_galaxies.tolist() == (clusters.n_galaxies[clusters.galaxy_rows[removed]] - 1).tolist()
    for k, galaxy in enumerate(removed):
        left = set(subsets[k].galaxies("v_los"))
        assert set(clusters[int(clusters.galaxy_rows[galaxy])].galaxies("v_los")) - left == {
            clusters.galaxies("v_los")[galaxy]
        }


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("statistic", ["median", "mean"])
def test_gradients_are_finite_differences(name, statistic, clusters):
    estimator = model(name)
    gradients = galaxy_gradients(estimator, clusters, statistic=statistic)
    flow = deepcopy(estimator.flow).double()
    draws = estimator.draw()
    draws = None if draws is None else {key: value.double() for key, value in draws.items()}
    points = clusters.galaxy_tensor(("r_proj", "v_los"), torch.float64)

    def masses(moved):
        with torch.no_grad():
            return differentiable_masses(estimator.encoder, flow, clusters, moved, statistic, draws)

    for axis, step, found in ((0, 1e-4, gradients.r_proj), (1, 0.1, gradients.v_los)):
        for galaxy in (3, 20, 60):
            # Five points: an error of the fourth order in the step.
            shift = torch.zeros_like(points)
            shift[galaxy, axis] = step
            near, far = (masses(points + k * shift) - masses(points - k * shift) for k in (1, 2))
            slope = float((8 * near - far).sum()) / (12 * step)
            assert found[galaxy] == pytest.approx(slope, rel=1e-6, abs=1e-9)
    posterior = estimator.posterior(clusters)
    error = np.abs(gradients.log10_mass - getattr(posterior, statistic))
    assert (error < mean_error(posterior)).all()


def test_the_answer_to_faster_galaxies_is_that_of_scaled_velocities(clusters):
    estimator = model("two kernels")
    flow = deepcopy(estimator.flow).double()
    points = clusters.galaxy_tensor(("r_proj", "v_los"), torch.float64)

    def masses(factor):
        scaled = points * torch.tensor([1.0, factor], dtype=torch.float64)
        with torch.no_grad():
            return differentiable_masses(estimator.encoder, flow, clusters, scaled).numpy()

    step = 1e-4
    expected = (masses(10**step) - masses(10**-step)) / (2 * step)
    np.testing.assert_allclose(galaxy_gradients(estimator, clusters).log10_velocity, expected, rtol=1e-5)


def test_the_median_of_a_mixture_halves_it():
    estimator = model("ensemble")
    catalog = toy_catalog(20, seed=8)
    distribution = estimator.condition(catalog).draws
    median = mixture_median(distribution)
    assert float((distribution.cdf(median).mean(0) - 0.5).abs().max()) < 1e-11
    far = mixture_median(distribution, torch.full((20,), 17.0, dtype=torch.float64))
    np.testing.assert_allclose(far, median, atol=1e-9)


def test_a_mask_is_that_of_equation_9():
    masks = mask_weights((5, 7), 1.5)
    assert masks.shape == (35, 5, 7)
    a, b, i, j = 3, 2, 1, 6
    expected = 1 - np.exp(-((i - a) ** 2 + (j - b) ** 2) / (2 * 1.5**2))
    assert float(masks[a * 7 + b, i, j]) == pytest.approx(expected, rel=1e-6)
    assert float(masks[a * 7 + b, a, b]) == 0.0
    with pytest.raises(ValueError, match="positive number of pixels, not 0"):
        mask_weights((5, 5), 0.0)


def test_the_map_of_a_linear_network_is_known(clusters):
    estimator = model("linear")
    saliency = masked_map(estimator, clusters, 1)
    block = estimator.flow.transforms[0]
    weight = dict(block.nn.named_parameters())
    (matrix,) = (value for value in weight.values() if value.dim() == 2)
    context = estimator.encoder.encode(clusters[1:2])[0].double()
    holes = 1.0 - mask_weights(GRID, 2.0).double().flatten(1)
    expected = -0.7 * (holes * context) @ matrix[0].double()
    for statistic in ("map", "median"):
        np.testing.assert_allclose(
            saliency.change[statistic].ravel(), expected.detach(), rtol=0, atol=rounding(estimator, clusters)
        )
    # One affine transform: the same two numbers in another order.
    assert saliency.log10_mass["map"] == pytest.approx(saliency.log10_mass["median"], rel=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_a_masked_map_masks_the_density_before_it_is_scaled(name, clusters):
    from bayesflowmass.encoders.scaling import scale_images

    estimator = model(name)
    encoder = estimator.encoder
    saliency = masked_map(estimator, clusters, 2)
    assert saliency.change["median"].shape == GRID
    assert saliency.image.sum() == pytest.approx(1.0)
    a, b = 4, 6
    mask = mask_weights(GRID, 2.0)[a * GRID[1] + b].double()
    points = clusters[2].galaxy_tensor(("r_proj", "v_los"), torch.float64)
    count = torch.tensor([len(points)])
    images = [
        scale_images(
            kde(points, torch.tensor([0, len(points)])) * mask, encoder.scaling, encoder.constant, count
        )
        for kde in encoder.kdes
    ]
    size = int(np.prod(encoder.image_shape))
    whole = encoder.encode(clusters[2:3])
    context = torch.cat([torch.cat([i.flatten(1) for i in images], 1).float(), whole[:, size:]], 1)
    masses = point_masses(estimator, torch.cat([whole, context]), ("map", "median"), estimator.draw())
    tolerance = rounding(estimator, clusters)
    assert saliency.change["median"][a, b] == pytest.approx(masses[1, 1] - masses[1, 0], abs=tolerance)
    assert saliency.change["map"][a, b] == pytest.approx(masses[0, 1] - masses[0, 0], abs=2e-4)
