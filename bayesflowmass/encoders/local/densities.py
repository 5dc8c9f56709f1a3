"""What surrounds each galaxy in (x, y, v): kernel densities at the galaxies themselves, and their first moments.

Interlopers are satellites of other haloes and clump in (x, y, v); an image of (R, v) folds that away.
docs/local_densities.md derives how the sums are evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bayesflowmass.encoders.kde.covariance import KDEError
from bayesflowmass.encoders.local.kernel_sums import kernel_sums
from bayesflowmass.encoders.ragged import check_offsets, group_of, spread

KERNEL_WIDTHS = ((0.06, 200.0), (0.12, 300.0), (0.25, 450.0), (0.4, 700.0), (0.7, 1200.0))
"""Widths of the kernels, r on the sky [Mpc/h comoving] and s in velocity [km/s]."""

# The direction to the centre fades out within 1 kpc/h of it instead of jumping.
_CENTRE = 1e-3


class LocalDensities(nn.Module):
    r"""Gaussian kernel densities at each galaxy of its own cluster, and first moments of its neighbours.

    With K_ij = exp(-|Delta_sky|^2 / (2 r^2) - (Delta v)^2 / (2 s^2)), Delta = j - i, and sums over the other galaxies
    j of the cluster, the four features of galaxy i and kernel (r, s) are

        ln(D), D = f + c sum_j K_ij             density
        c sum_j K_ij (v_j - v_i) / (s D)        mean velocity difference
        c sum_j K_ij (v_j - v_i)^2 / (s^2 D)    mean squared velocity difference
        c sum_j K_ij u_i . Delta_sky / (r D)    mean offset towards the centre, u_i the direction to it

    With ``counted`` c = 1 and f = 1, the galaxy itself: the density counts galaxies. Without, c = 1 / (N - 1) and
    f = ``floor``: means over the cluster, which in expectation do not change where galaxies are taken away at
    random. n (2 pi)^(3/2) r^2 s times the kernel density of scipy.stats.gaussian_kde, of this kernel, is
    1 + sum_j K_ij.

    Args:
        widths: (r, s) of each kernel [Mpc/h comoving, km/s].
        counted: whether the density counts.
        floor: f of a density that does not count.

    Raises:
        ValueError: a width or the floor is not positive.
    """

    names = ("log_density", "mean_velocity", "squared_velocity", "inward")
    """The features of each kernel."""

    odd = (False, True, False, False)
    """Which of them change sign where all velocities do."""

    def __init__(
        self, widths: Sequence[Sequence[float]] = KERNEL_WIDTHS, counted: bool = True, floor: float = 0.01
    ) -> None:
        super().__init__()
        self.widths = tuple((float(r), float(s)) for r, s in widths)
        for number in (*(w for pair in self.widths for w in pair), floor):
            if not (math.isfinite(number) and number > 0.0):
                raise ValueError(f"widths of kernels and the floor of a density are positive, not {number}")
        if not self.widths:
            raise ValueError("a local density needs at least one kernel width (r, s)")
        self.counted = counted
        self.floor = float(floor)

    @property
    def width(self) -> int:
        """Features of a galaxy."""
        return len(self.names) * len(self.widths)

    def extra_repr(self) -> str:
        return f"widths={self.widths}, counted={self.counted}, floor={self.floor}"

    def describe(self) -> dict[str, Any]:
        """JSON-able description from which ``from_description`` builds an equal module."""
        return {"widths": [list(pair) for pair in self.widths], "counted": self.counted, "floor": self.floor}

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> LocalDensities:
        """The module described by ``describe``.

        Raises:
            ValueError: if a key is missing or unknown.
        """
        wanted = {"widths", "counted", "floor"}
        if set(description) != wanted:
            raise ValueError(
                f"description of local densities has the keys {sorted(description)}, expected {sorted(wanted)}"
            )
        return cls(**description)

    def forward(self, points: Tensor, offsets: Tensor) -> Tensor:
        """Features of all galaxies of a batch of clusters; differentiable with respect to the points.

        Args:
            points: (n_points, 3) x, y [Mpc/h comoving] and v_los [km/s], cluster after cluster, float32 or float64.
            offsets: (n + 1,) integers; cluster k owns ``points[offsets[k]:offsets[k + 1]]``.

        Returns:
            (n_points, K, 4), dimensionless. A galaxy that is alone has no moments (0).

        Raises:
            ValueError: for malformed input, and as ``KDEError``, naming the cluster, for values that are not finite.
        """
        if points.ndim != 2 or points.shape[1] != 3:
            raise ValueError(
                f"points must have shape (n_points, 3), x, y and v_los, not {tuple(points.shape)}"
            )
        if points.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"local densities are computed in float32 or float64, not {points.dtype}")
        offsets = check_offsets(points, offsets)
        finite = torch.isfinite(points.detach()).all(1)
        if not bool(finite.all()):
            galaxy = int(torch.nonzero(~finite)[0])
            raise KDEError(group_of(offsets, galaxy), "it has a galaxy with a NaN or infinite coordinate")
        kernel, velocity, square, x, y = kernel_sums(points, offsets, self.widths)
        my_x, my_y, my_v = points.T.contiguous()
        r, s = points.new_tensor(self.widths).T[..., None]
        radius = (my_x.square() + my_y.square() + _CENTRE**2).sqrt()
        inward = -((x - kernel * my_x) * (my_x / radius) + (y - kernel * my_y) * (my_y / radius)) / r
        mean = (velocity - kernel * my_v) / s
        squared = (square - my_v * (2.0 * velocity - my_v * kernel)) / s**2
        if self.counted:
            density = kernel
        else:
            others = spread((offsets.diff() - 1).clamp_min(1).to(points.dtype), offsets, len(points))
            mean, squared, inward = mean / others, squared / others, inward / others
            density = (kernel - 1.0) / others + self.floor
        return torch.stack([density.log(), mean / density, squared / density, inward / density]).permute(
            2, 1, 0
        )
