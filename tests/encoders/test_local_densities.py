"""Kernel densities at the galaxies against scipy and plain sums, their derivatives, memory, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import gaussian_kde
from torch.utils._python_dispatch import TorchDispatchMode

from bayesflowmass.encoders.kde import KDEError
from bayesflowmass.encoders.local import KERNEL_WIDTHS, LocalDensities, kernel_sums
from bayesflowmass.encoders.local.blocks import blocks_of, near_blocks

SCALE = torch.tensor([0.5, 0.5, 800.0], dtype=torch.float64)
EPS = torch.finfo(torch.float64).eps


def clusters(counts, seed=0):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(sum(counts), 3, generator=generator, dtype=torch.float64) * SCALE
    return points, torch.tensor([0, *counts]).cumsum(0)


def plain(points, widths, counted=True, floor=0.01):
    """The definition, galaxy by galaxy: (n, K, 4)."""
    points, n = points.numpy(), len(points)
    result = np.empty((n, len(widths), 4))
    for i in range(n):
        delta = np.delete(points, i, 0) - points[i]
        to_centre = -points[i, :2] / math.sqrt(points[i, 0] ** 2 + points[i, 1] ** 2 + 1e-6)
        for k, (r, s) in enumerate(widths):
            sky = (delta[:, :2] ** 2).sum(1)
            kernel = np.exp(-sky / (2 * r**2) - delta[:, 2] ** 2 / (2 * s**2))
            c, f = (1.0, 1.0) if counted else (1.0 / max(1, n - 1), floor)
            density = f + c * kernel.sum()
            result[i, k] = [
                math.log(density),
                c * (kernel * delta[:, 2] / s).sum() / density,
                c * (kernel * delta[:, 2] ** 2 / s**2).sum() / density,
                c * (kernel * (delta[:, :2] @ to_centre) / r).sum() / density,
            ]
    return torch.tensor(result)


def rounding(points, widths, dtype=torch.float64):
    """Differences of squares of coordinates in units of the kernel lose this much, over the galaxies of a cluster."""
    smallest = torch.tensor([min(r for r, _ in widths), min(r for r, _ in widths), min(s for _, s in widths)])
    return float(8 * torch.finfo(dtype).eps * (points.double() / smallest).square().sum(1).max())


@pytest.fixture
def in_blocks(monkeypatch):
    """Clusters from ten galaxies on go through blocks, in strips of a few."""
    monkeypatch.setitem(kernel_sums._GALAXIES_AT_ONCE, "cpu", 10)
    monkeypatch.setitem(kernel_sums._PAIRS_AT_ONCE, "cpu", 64)


def test_density_equals_that_of_scipy_at_the_same_points():
    points, offsets = clusters([80])
    # Whitened, the sample covariance is a multiple of the one kernel that ours has too.
    white = points - points.mean(0)
    white = white @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(white.T))).T
    for r, s in KERNEL_WIDTHS:
        h = 0.4
        ours = white * torch.tensor([r / h, r / h, s / h], dtype=torch.float64)
        expected = gaussian_kde(ours.T.numpy(), bw_method=h)(ours.T.numpy())
        density = LocalDensities([(r, s)])(ours, offsets)[:, 0, 0].exp()
        norm = 80 * (2 * math.pi) ** 1.5 * r**2 * s
        # Whitening leaves the covariance diagonal to its condition times the rounding.
        np.testing.assert_allclose(density.numpy() / norm, expected, rtol=1e-10)


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("counts", [[40], [3, 0, 1, 25, 2, 12]], ids=["one", "ragged"])
def test_features_equal_their_definition(counts, counted):
    points, offsets = clusters(counts)
    found = LocalDensities(counted=counted)(points, offsets)
    expected = torch.cat([plain(mine, KERNEL_WIDTHS, counted) for mine in points.split(counts)])
    share = 1.0 if counted else 1.0 / 0.01
    torch.testing.assert_close(found, expected, rtol=0, atol=rounding(points, KERNEL_WIDTHS) * share)


@pytest.mark.parametrize("counted", [True, False])
def test_blocks_give_the_same_features(counted, in_blocks):
    counts = [9, 10, 11, 150, 0, 64]
    points, offsets = clusters(counts)
    found = LocalDensities(counted=counted)(points, offsets)
    expected = torch.cat([plain(mine, KERNEL_WIDTHS, counted) for mine in points.split(counts)])
    share = 1.0 if counted else 1.0 / 0.01
    torch.testing.assert_close(found, expected, rtol=0, atol=rounding(points, KERNEL_WIDTHS) * share)


def test_far_blocks_are_passed_over(in_blocks, monkeypatch):
    points, offsets = clusters([200])
    points = torch.cat([points, points + torch.tensor([50.0, 0.0, 0.0])])
    seen = []
    original = kernel_sums._sums_of_blocks
    monkeypatch.setattr(
        kernel_sums,
        "_sums_of_blocks",
        lambda rows, columns, *rest: (
            seen.append(len(rows) * len(columns)),
            original(rows, columns, *rest),
        )[1],
    )
    with torch.no_grad():
        both = LocalDensities([(0.1, 300.0)])(points, torch.tensor([0, 400]))
    assert sum(seen) < 0.3 * 400 * 400
    alone = LocalDensities([(0.1, 300.0)])(points[:200], offsets)
    torch.testing.assert_close(both[:200], alone, rtol=0, atol=rounding(points[:200], [(0.1, 300.0)]))


def test_blocks_are_near_where_the_kernels_between_them_are_more_than_rounding():
    widths = [(0.1, 300.0), (0.2, 450.0)]
    # T^2 / 2 = ln(100 n / eps), of the larger kernel, from the one block to the other.
    far = math.sqrt(2.0 * math.log(100.0 * 3 / EPS))
    for axis, unit in ((0, 0.2), (1, 0.2), (2, 450.0)):
        for side in (1.0, -1.0):
            for factor, expected in ((1.0 - 1e-6, True), (1.0 + 1e-6, False)):
                points = torch.zeros(3, 3, dtype=torch.float64)
                points[1, 2], points[2, axis] = 0.0, side * factor * far * unit
                near = near_blocks(points, [(0, 2), (2, 3)], widths)
                assert near[:, [0, 1], [0, 1]].all()
                assert near[:, 0, 1].tolist() == near[:, 1, 0].tolist() == [False, expected]


def test_a_cluster_is_halved_across_its_longest_side():
    points = torch.tensor([[0.0, 0.0, 300.0], [0.3, 0.0, 0.0], [0.1, 0.0, 600.0], [0.2, 0.05, 900.0]])
    order, edges = blocks_of(points, [(0.1, 300.0), (0.2, 250.0)], 2)
    # In velocity they are 900 / 250 widths apart, on the sky three.
    assert [sorted(order[start:stop].tolist()) for start, stop in edges] == [[0, 1], [2, 3]]
    order, edges = blocks_of(points, [(0.05, 300.0)], 2)
    assert [sorted(order[start:stop].tolist()) for start, stop in edges] == [[0, 2], [1, 3]]
    assert [stop - start for start, stop in blocks_of(points, [(0.1, 300.0)], 1)[1]] == [1] * 4
    assert blocks_of(points, [(0.1, 300.0)], 4)[1] == [(0, 4)]


def test_single_precision_equals_double_to_its_rounding():
    points, offsets = clusters([30, 120, 600])
    single = points.float()
    found = LocalDensities()(single, offsets)
    assert found.dtype == torch.float32
    expected = LocalDensities()(single.double(), offsets)
    torch.testing.assert_close(
        found.double(), expected, rtol=0, atol=rounding(points, KERNEL_WIDTHS, torch.float32)
    )


@pytest.mark.parametrize("counted", [True, False])
def test_derivatives_equal_finite_differences(counted):
    points, offsets = clusters([5, 1, 3])
    local = LocalDensities([(0.5, 700.0), (1.0, 1500.0)], counted)
    # In units of order one, as finite differences need them.
    unit = (points / SCALE).requires_grad_()
    assert torch.autograd.gradcheck(lambda u: local(u * SCALE, offsets), unit)


def test_derivatives_through_blocks_equal_finite_differences(in_blocks):
    points, offsets = clusters([11])
    local = LocalDensities([(0.5, 700.0)])
    unit = (points / SCALE).requires_grad_()
    assert torch.autograd.gradcheck(lambda u: local(u * SCALE, offsets), unit)


def test_turning_and_mirroring_the_sky_changes_nothing():
    points, offsets = clusters([50])
    cos, sin = math.cos(0.7), math.sin(0.7)
    turn = torch.tensor([[cos, sin], [sin, -cos]], dtype=torch.float64)
    turned = torch.cat([points[:, :2] @ turn, points[:, 2:]], 1)
    local = LocalDensities()
    torch.testing.assert_close(
        local(turned, offsets), local(points, offsets), rtol=0, atol=rounding(points, KERNEL_WIDTHS)
    )


def test_mirrored_velocities_change_the_sign_of_the_odd_features_alone():
    points, offsets = clusters([50])
    local = LocalDensities()
    sign = torch.where(torch.tensor(local.odd), -1.0, 1.0).double()
    mirrored = local(points * torch.tensor([1.0, 1.0, -1.0]).double(), offsets)
    torch.testing.assert_close(
        mirrored, local(points, offsets) * sign, rtol=0, atol=rounding(points, KERNEL_WIDTHS)
    )


def test_a_density_that_does_not_count_stays_on_average_where_galaxies_are_lost():
    points, offsets = clusters([12])
    local = LocalDensities([(0.5, 700.0)], counted=False)
    whole = local(points, offsets)[0, 0, 0].exp()
    kept = [torch.cat([points[:i], points[i + 1 :]]) for i in range(1, 12)]
    thinned = torch.stack([local(some, torch.tensor([0, 11]))[0, 0, 0].exp() for some in kept])
    assert float(thinned.std()) > 1e-3
    torch.testing.assert_close(thinned.mean(), whole, rtol=100 * EPS, atol=0)


class _LargestTensor(TorchDispatchMode):
    """Notes the largest tensor that any operation gives."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(part, torch.Tensor):
                self.numel = max(self.numel, part.numel())
        return result


@pytest.mark.parametrize("counts", [[1500], [300] * 10], ids=["one rich cluster", "many clusters"])
def test_memory_is_bounded_with_gradients_too(counts):
    points, offsets = clusters(counts)
    points = points.float().requires_grad_()
    kept: list[int] = []
    # The same storage may be kept several times: each counts.
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        result = LocalDensities()(points, offsets)
    with _LargestTensor() as largest:
        LocalDensities()(points, offsets).sum().backward()
    features = result.numel()
    # All pairs of the rich cluster would be 2.3 million numbers, those of the many 0.9 million.
    assert largest.numel <= max(2 * kernel_sums._PAIRS_AT_ONCE["cpu"], 2 * features)
    assert max(kept) <= 2 * features


def test_clusters_do_not_see_each_other():
    points, offsets = clusters([20, 30])
    together = LocalDensities()(points, offsets)
    alone = LocalDensities()(points[20:], torch.tensor([0, 30]))
    torch.testing.assert_close(together[20:], alone, rtol=0, atol=rounding(points, KERNEL_WIDTHS))


def test_no_clusters_give_no_features():
    local = LocalDensities()
    assert local(torch.zeros(0, 3), torch.tensor([0])).shape == (0, 5, 4)
    assert local(torch.zeros(0, 3), torch.tensor([0, 0, 0])).shape == (0, 5, 4)


def test_a_galaxy_alone_has_no_moments():
    features = LocalDensities()(torch.tensor([[0.3, 0.1, 200.0]]), torch.tensor([0, 1]))
    assert torch.equal(features, torch.zeros(1, 5, 4))


def test_what_is_refused_is_named():
    points, offsets = clusters([4, 5])
    points[6, 1] = math.nan
    with pytest.raises(KDEError, match="cluster 1: it has a galaxy with a NaN"):
        LocalDensities()(points, offsets)
    with pytest.raises(ValueError, match=r"shape \(n_points, 3\)"):
        LocalDensities()(points[:, :2], offsets)
    with pytest.raises(ValueError, match="float32 or float64"):
        LocalDensities()(points.half(), offsets)
    with pytest.raises(ValueError, match="positive, not -1"):
        LocalDensities([(0.1, -1.0)])
    with pytest.raises(ValueError, match="at least one kernel"):
        LocalDensities([])


def test_a_description_gives_an_equal_module():
    local = LocalDensities([(0.1, 250.0)], counted=False, floor=0.02)
    assert LocalDensities.from_description(local.describe()).describe() == local.describe()
    with pytest.raises(ValueError, match="expected"):
        LocalDensities.from_description({"widths": [[0.1, 250.0]]})


@pytest.mark.gpu
@pytest.mark.parametrize("counts", [[30, 400, 1, 0, 1000], [9000]], ids=["small", "in blocks"])
def test_a_gpu_gives_the_same_features(counts):
    points, offsets = clusters(counts)
    on_gpu = LocalDensities()(points.cuda(), offsets.cuda()).cpu()
    torch.testing.assert_close(
        on_gpu, LocalDensities()(points, offsets), rtol=0, atol=rounding(points, KERNEL_WIDTHS)
    )
