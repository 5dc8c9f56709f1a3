"""Pyro's own checks of a transform, in double precision.

After ``TransformTests`` of tests/distributions/test_transforms.py in https://github.com/pyro-ppl/pyro (commit ff6ae1c),
copyright 2017-2019 Uber Technologies, Inc., Apache License 2.0; changed: functions instead of methods, and no
autoregressive or Dirichlet cases.
"""

from __future__ import annotations

import torch
from pyro.distributions import Normal, TransformedDistribution

__all__ = ["check_inverse", "check_jacobian", "check_shape"]

EPSILON, DELTA = 1e-4, 1e-6


def check_jacobian(input_dim, transform):
    """The log determinant is that of the Jacobian of central differences."""
    x = torch.randn(1, input_dim, dtype=torch.float64)
    y = transform(x)
    log_det = transform.log_abs_det_jacobian(x, y)
    if transform.domain.event_dim == 0:
        log_det = log_det.sum(-1)
    jacobian = torch.zeros(input_dim, input_dim, dtype=torch.float64)
    for j in range(input_dim):
        step = torch.zeros_like(x)
        step[0, j] = EPSILON
        jacobian[j] = ((transform(x + 0.5 * step) - transform(x - 0.5 * step)) / EPSILON)[0]
    assert abs(float(log_det) - float(jacobian.det().abs().log())) < EPSILON


def check_inverse(shape, transform):
    """Inverse of the forward direction, without a cache, and the same log determinant after it."""
    x = torch.randn(10, *shape, dtype=torch.float64)
    y = transform._call(x)
    back = transform._inverse(y)
    assert float((x - back).abs().max()) < DELTA
    difference = transform.log_abs_det_jacobian(x, y) - transform.log_abs_det_jacobian(back, y)
    assert float(difference.abs().max()) < DELTA


def check_shape(base_shape, transform):
    """Shapes of samples and those that the transform foretells."""
    base = Normal(torch.zeros(base_shape, dtype=torch.float64), 1.0)
    assert TransformedDistribution(base, [transform]).sample().shape == base_shape
    events = len(base_shape) - transform.domain.event_dim
    event = base_shape[events:]
    assert transform.forward_shape(event) == transform.inverse_shape(event) == event
    assert transform.forward_shape(base_shape) == transform.inverse_shape(base_shape) == base_shape
