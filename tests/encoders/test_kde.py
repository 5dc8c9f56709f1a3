"""The kernel density against scipy, its derivatives, and what it refuses."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import gaussian_kde

from bayesflowmass.encoders import KDEEncoder, KDEError
from bayesflowmass.encoders.kde import axes, batches
from bayesflowmass.encoders.kde.covariance import kernel_shape, sample_covariance
from bayesflowmass.encoders.kde.plan import Level

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
CUBE = {"grid": (6, 7, 8), "lower": (-1.6, -1.6, -2200.0), "upper": (1.6, 1.6, 2200.0)}


def scipy_images(encoder, points, offsets, weights=None):
    h0 = encoder.h0
    factor = h0 if encoder.convention == "scipy" else h0**0.5
    grid = encoder.grid
    centres = [
        low + step * (np.arange(n) + 0.5)
        for low, step, n in zip(grid.lower, grid.spacing, grid.shape, strict=True)
    ]
    mesh = np.stack([m.ravel() for m in np.meshgrid(*centres, indexing="ij")])
    images = []
    for a, b in pairwise(offsets):
        kde = gaussian_kde(points[a:b].T, factor, None if weights is None else weights[a:b])
        images.append(kde(mesh).reshape(grid.shape))
    return np.stack(images)


def relative_error(images, expected):
    axes = tuple(range(1, expected.ndim))
    return (np.abs(images.detach().double().numpy() - expected).max(axes) / expected.max(axes)).max()


def ragged(seed, counts, correlation=0.0, sigma=(0.4, 500.0), mean=(0.8, 0.0)):
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    white = rng.normal(size=(offsets[-1], len(sigma)))
    if len(sigma) > 1:
        white[:, -1] = correlation * white[:, 0] + np.sqrt(1 - correlation**2) * white[:, -1]
    return white * sigma + mean, offsets


def levels_of(encoder, points, offsets, dtype=torch.float64):
    columns = (torch.tensor(points) - torch.tensor(encoder.grid.middle)).T.contiguous()
    size = columns.abs().amax(1)
    scale = encoder.h0 ** (2 if encoder.convention == "scipy" else 1)
    covariance = sample_covariance(columns, torch.tensor(offsets))
    kernel = kernel_shape(covariance, torch.tensor(scale, dtype=torch.float64), size)
    return encoder._plan(kernel, size, dtype).levels.tolist()


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    counts=st.lists(st.integers(5, 150), min_size=1, max_size=4),
    correlation=st.one_of(st.sampled_from([0.0, 0.9, -0.99, 0.999, -0.999]), st.floats(-0.95, 0.95)),
    scale=st.sampled_from([(0.4, 500.0), (0.1, 200.0), (0.6, 1500.0), (5.0, 300.0), (0.05, 5e4)]),
    convention=st.sampled_from(["covariance", "scipy"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_equals_scipy(seed, counts, correlation, scale, convention, dtype):
    points, offsets = ragged(seed, counts, correlation, scale)
    # A galaxy at the centre of a bin keeps the peak from falling between bins.
    points[offsets[:-1]] = (0.784, 44.0)
    points = torch.tensor(points, dtype=dtype)
    encoder = KDEEncoder(convention=convention, normalisation="density", narrow="keep")
    images = encoder(points, torch.tensor(offsets))
    assert images.dtype == dtype
    expected = scipy_images(encoder, points.double().numpy(), offsets)
    assert relative_error(images, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("grid", "sigma", "mean"),
    [
        ({"grid": (30,), "lower": (-2200.0,), "upper": (2200.0,)}, (500.0,), (0.0,)),
        (CUBE, (0.6, 0.5, 600.0), (0.0, 0.1, 50.0)),
    ],
    ids=["1-D", "3-D"],
)
def test_equals_scipy_in_other_dimensions(dtype, grid, sigma, mean):
    points, offsets = ragged(1, [9, 40, 300], 0.6, sigma, mean)
    points = torch.tensor(points, dtype=dtype)
    encoder = KDEEncoder(**grid, normalisation="density", narrow="keep")
    expected = scipy_images(encoder, points.double().numpy(), offsets)
    assert relative_error(encoder(points, torch.tensor(offsets)), expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("h0", [0.15, 0.08, 0.05, 0.03])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_narrow_kernels_reach_no_opposite_corner(h0, dtype):
    # Far from a galaxy one factor is clamped while those of galaxy and grid are both large.
    correlations = (0.05, 0.08, 0.1, 0.13, 0.2, -0.1)
    parts = [ragged(seed, [200], rho, (0.4, 1100.0))[0] for seed, rho in enumerate(correlations)]
    points, offsets = np.concatenate(parts), 200 * np.arange(len(parts) + 1)
    # One galaxy at the centre of a bin; others in every corner.
    points[offsets[:-1]] = (0.784, 44.0)
    for k, corner in enumerate([(0.02, -2190.0), (1.59, 2190.0), (0.02, 2190.0), (1.59, -2190.0)]):
        points[offsets[:-1] + 1 + k] = corner
    encoder = KDEEncoder(bandwidth=h0, convention="scipy", normalisation="density", narrow="keep")
    images = encoder(torch.tensor(points), torch.tensor(offsets), dtype=dtype)
    assert relative_error(images, scipy_images(encoder, points, offsets)) < TOLERANCE[dtype]


@pytest.mark.parametrize(
    ("correlation", "sigma", "convention", "level"),
    [
        (0.2, (0.4, 500.0), "covariance", Level.FACTORISED_64),
        (0.5, (0.4, 200.0), "scipy", Level.TILED_64),
        (0.9999, (0.4, 500.0), "covariance", Level.DIRECT_64),
    ],
)
def test_every_arithmetic_is_reached_and_equals_scipy(correlation, sigma, convention, level):
    points, offsets = ragged(3, [150, 80], correlation, sigma)
    encoder = KDEEncoder(convention=convention, normalisation="density", narrow="keep")
    assert levels_of(encoder, points, offsets) == [level, level]
    images = encoder(torch.tensor(points), torch.tensor(offsets))
    assert relative_error(images, scipy_images(encoder, points, offsets)) < 1e-10


def test_float32_is_used_where_it_is_safe_only():
    points, offsets = ragged(4, [100, 100], 0.0)
    points[100:, 1] += 1200.0 * (points[100:, 0] - 0.8)
    assert levels_of(KDEEncoder(), points, offsets, torch.float32) == [
        Level.FACTORISED_32,
        Level.FACTORISED_64,
    ]


@pytest.mark.parametrize("convention", ["covariance", "scipy"])
def test_weights_equal_scipy(convention):
    points, offsets = ragged(5, [40, 12], 0.3)
    weights = np.random.default_rng(5).uniform(0.1, 3.0, len(points))
    encoder = KDEEncoder(convention=convention, normalisation="density", narrow="keep")
    images = encoder(torch.tensor(points), torch.tensor(offsets), weight=torch.tensor(weights))
    assert relative_error(images, scipy_images(encoder, points, offsets, weights)) < 1e-10
    equal = encoder(torch.tensor(points), torch.tensor(offsets), weight=torch.full((52,), 7.0))
    torch.testing.assert_close(
        equal, encoder(torch.tensor(points), torch.tensor(offsets)), rtol=1e-10, atol=0
    )


def test_sum_normalised_images_sum_to_one():
    points, offsets = ragged(6, [30, 11, 200])
    images = KDEEncoder()(torch.tensor(points), torch.tensor(offsets))
    torch.testing.assert_close(images.sum((1, 2)), torch.ones(3, dtype=torch.float64))


def test_distant_outlier_changes_only_what_it_should():
    points, offsets = ragged(7, [60], 0.5)
    points[3] = (900.0, 4e5)
    encoder = KDEEncoder(normalisation="density", narrow="keep")
    images = encoder(torch.tensor(points), torch.tensor(offsets))
    assert relative_error(images, scipy_images(encoder, points, offsets)) < 1e-10


def test_a_batch_equals_its_clusters_one_by_one():
    points, offsets = ragged(8, [10, 400, 37, 37, 120], 0.4)
    points, encoder = torch.tensor(points), KDEEncoder(convention="scipy")
    images = encoder(points, torch.tensor(offsets))
    for k, (a, b) in enumerate(pairwise(offsets)):
        alone = encoder(points[a:b], torch.tensor([0, b - a]))[0]
        torch.testing.assert_close(images[k], alone, rtol=1e-12, atol=1e-16)


def test_same_bits_whatever_the_number_of_threads():
    points, offsets = ragged(9, [10 + 3 * k for k in range(120)], 0.2)
    points, offsets = torch.tensor(points, dtype=torch.float32), torch.tensor(offsets)
    before, results = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2, 2):
            torch.set_num_threads(n_threads)
            results.append(KDEEncoder()(points, offsets))
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[1], results[2])


def test_works_in_inference_mode():
    points, offsets = ragged(9, [200] * 60)
    points, offsets = torch.tensor(points), torch.tensor(offsets)
    with torch.inference_mode():
        images = KDEEncoder()(points, offsets)
    torch.testing.assert_close(images.clone(), KDEEncoder()(points, offsets))
    # What is kept from a call without gradients serves one with them.
    axes.grid_axes.cache_clear()
    with torch.inference_mode():
        KDEEncoder()(points, offsets)
    moving = points.clone().requires_grad_()
    KDEEncoder()(moving, offsets).square().sum().backward()
    assert float(moving.grad.abs().max()) > 0.0


@pytest.mark.parametrize("convention", ["covariance", "scipy"])
@pytest.mark.parametrize("normalisation", ["sum", "density"])
@pytest.mark.parametrize("evaluate", ["centre", "bin"])
def test_gradients_against_finite_differences(convention, normalisation, evaluate):
    rng = np.random.default_rng(10)
    points = torch.tensor(rng.normal((0.3, 0.0), 1.0, (13, 2)), requires_grad=True)
    weights = torch.tensor(rng.uniform(0.5, 2.0, 13), requires_grad=True)
    h0 = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    def images(points, h0, weights):
        encoder = KDEEncoder((3, 4), (-1.0, -1.5), (1.5, 1.0), 0.3, convention, normalisation, evaluate)
        encoder.bandwidth = h0
        return encoder(points, torch.tensor([0, 5, 13]), weight=weights)

    assert torch.autograd.gradcheck(images, (points, h0, weights))


@pytest.mark.parametrize(("correlation", "level"), [(0.85, Level.TILED_64), (0.9999, Level.DIRECT_64)])
def test_gradients_of_the_fallbacks(correlation, level):
    points, offsets = ragged(11, [7], correlation, (1.0, 1.0), (0.5, 0.5))
    encoder = KDEEncoder((5, 6), (-6.0, -5.0), (6.0, 7.0), 0.15, normalisation="density", narrow="keep")
    assert levels_of(encoder, points, offsets) == [level]
    points = torch.tensor(points, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: encoder(x, torch.tensor(offsets)), (points,), atol=1e-4, rtol=1e-3
    )


def test_a_bandwidth_parameter_learns():
    points, offsets = ragged(12, [30])
    encoder = KDEEncoder(bandwidth=torch.nn.Parameter(torch.tensor(0.15)))
    encoder(torch.tensor(points), torch.tensor(offsets)).max().backward()
    assert [name for name, _ in encoder.named_parameters()] == ["bandwidth"]
    assert float(encoder.bandwidth.grad) < 0


def test_description_round_trip_and_foreign_description():
    encoder = KDEEncoder((10, 12), bandwidth=0.3, convention="scipy", evaluate="bin", narrow="refuse")
    assert repr(KDEEncoder.from_description(encoder.describe())) == repr(encoder)
    with pytest.raises(ValueError, match="description of a KDEEncoder must have the keys"):
        KDEEncoder.from_description({"grid": [10, 12]})


def test_no_clusters_give_no_images():
    assert KDEEncoder()(torch.zeros(0, 2), torch.tensor([0])).shape == (0, 50, 50)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p[20:40, 1].fill_(300.1), "cluster 1: all its galaxies have the same value on axis 1"),
        (lambda p: p[20:40, 0].copy_(0.1 + 1e-3 * p[20:40, 1]), "cluster 1: its galaxies lie on a line"),
        (lambda p: p[45].fill_(float("nan")), "cluster 2: it has a galaxy with a NaN or infinite coordinate"),
        (lambda p: p[5, 1].fill_(float("inf")), "cluster 0: it has a galaxy with a NaN or infinite"),
        (lambda p: p[20:40, 0].add_(100.0), "cluster 1: none of its 20 galaxies lies inside the grid"),
    ],
    ids=["equal velocities", "collinear", "NaN", "inf", "outside"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_refuses_what_has_no_density_naming_the_cluster(change, message, dtype):
    points, offsets = ragged(13, [20, 20, 20])
    points = torch.tensor(points)
    change(points)
    with pytest.raises(KDEError, match=message):
        KDEEncoder(narrow="keep")(points, torch.tensor(offsets), dtype=dtype)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([20, 0], "cluster 1: it has 0 galaxies, too few for a covariance"),
        ([20, 1], "cluster 1: it has 1 galaxies, too few for a covariance"),
        ([20, 2], "cluster 1: its galaxies lie on a line"),
    ],
)
def test_refuses_too_few_galaxies(counts, message):
    points, offsets = ragged(14, counts)
    with pytest.raises(KDEError, match=message):
        KDEEncoder()(torch.tensor(points), torch.tensor(offsets))


def test_refuses_malformed_calls():
    points = torch.zeros(4, 2)
    with pytest.raises(
        ValueError, match=r"offsets must rise from 0 to the number of points, 4, but run from 0 to 3"
    ):
        KDEEncoder()(points, torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="and decrease"):
        KDEEncoder()(points, torch.tensor([0, 3, 2, 4]))
    with pytest.raises(ValueError, match="one column per axis of the grid"):
        KDEEncoder()(torch.zeros(4, 3), torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="float32 or float64"):
        KDEEncoder()(points.half(), torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="not negative"):
        KDEEncoder()(points, torch.tensor([0, 4]), weight=torch.tensor([1.0, -1.0, 1.0, 1.0]))


def test_slabs_of_an_image_are_the_whole(monkeypatch):
    points, offsets = (torch.tensor(part) for part in ragged(5, [30, 8]))
    encoder = KDEEncoder(narrow="integrate")
    whole = encoder(points, offsets)
    monkeypatch.setattr(batches, "_SLAB_AT_ONCE", 1000)
    torch.testing.assert_close(encoder(points, offsets), whole, rtol=1e-10, atol=1e-14)


def test_the_covariance_of_two_galaxies_is_that_of_numpy_and_one_has_none():
    points, _ = ragged(4, [2, 5])
    found = sample_covariance(torch.tensor(points).T.contiguous(), torch.tensor([0, 2, 7]))
    expected = np.stack([np.cov(part.T) for part in (points[:2], points[2:])])
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    with pytest.raises(KDEError, match="it has 1 galaxies") as caught:
        sample_covariance(torch.tensor(points).T.contiguous(), torch.tensor([0, 6, 7]))
    assert caught.value.cluster == 1


def test_a_galaxy_of_no_weight_is_as_good_as_absent_and_a_cluster_of_none_is_named():
    points, offsets = ragged(3, [12, 20])
    weight = torch.ones(32, dtype=torch.float64)
    weight[[2, 15, 31]] = 0.0
    there, less = weight > 0, torch.tensor([0, 11, 29])
    images = KDEEncoder()(torch.tensor(points), torch.tensor(offsets), weight=weight)
    expected = KDEEncoder()(torch.tensor(points)[there], less, weight=weight[there])
    torch.testing.assert_close(images, expected, rtol=1e-10, atol=1e-14)
    weight[12:] = 0.0
    with pytest.raises(KDEError, match="zero total weight") as caught:
        KDEEncoder()(torch.tensor(points), torch.tensor(offsets), weight=weight)
    assert caught.value.cluster == 1
    with pytest.raises(ValueError, match="one entry per galaxy, 32"):
        KDEEncoder()(torch.tensor(points), torch.tensor(offsets), weight=weight[:-1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bandwidth": 0.0}, "bandwidth must be a positive number"),
        ({"convention": "silverman"}, "convention is one of covariance, scipy"),
        ({"normalisation": "max"}, "normalisation is one of sum, density"),
        ({"evaluate": "corner"}, "evaluate is one of centre, bin"),
        ({"narrow": "ignore"}, "narrow is one of integrate, refuse, keep"),
        ({"grid": (50,)}, "one entry per axis"),
        ({"grid": (50, 0)}, "axis 1 of the grid has 0 bins"),
        ({"lower": (2.0, -2200.0)}, "axis 0 of the grid runs from 2.0 to 1.6"),
    ],
)
def test_refuses_unknown_options(options, message):
    with pytest.raises(ValueError, match=message):
        KDEEncoder(**options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("convention", ["covariance", "scipy"])
def test_gpu_equals_cpu(dtype, convention):
    points, offsets = ragged(15, [10, 400, 80, 33], 0.5)
    encoder = KDEEncoder(convention=convention, normalisation="density")
    results, gradients = [], []
    for device in ("cpu", "cuda"):
        x = torch.tensor(points, dtype=dtype, device=device, requires_grad=True)
        images = encoder(x, torch.tensor(offsets, device=device))
        (images / images.amax((1, 2), keepdim=True)).sum().backward()
        results.append(images.detach().cpu())
        gradients.append(x.grad.cpu())
    peak = results[0].amax((1, 2), keepdim=True)
    assert float(((results[0] - results[1]).abs() / peak).max()) < TOLERANCE[dtype]
    scale = gradients[0].abs().amax(0)
    assert float(((gradients[0] - gradients[1]).abs() / scale).max()) < 10 * TOLERANCE[dtype]
