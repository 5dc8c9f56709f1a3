"""Our conditional transforms under Pyro's own tests of transforms, and the patch that offers one to Pyro."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pyro.distributions as dist
import pyro.distributions.transforms as transforms
import pytest
import torch
from pyro_transform_checks import check_inverse, check_jacobian, check_shape

from bayesflowmass.flows import ConditionalAffine, conditional_affine, conditional_monotone_spline
from bayesflowmass.networks.dense import DenseNetwork

PATCH = Path(__file__).parents[2] / "docs" / "upstream" / "pyro-conditional-affine.patch"


def affine_of_vectors(input_dim):
    return conditional_affine(3, input_dim=input_dim)


def affine_of_elements(input_dim):
    return conditional_affine(3)


def affine_with_a_shared_scale(input_dim):
    """ln sigma of the first element for all of them."""

    class Shared(ConditionalAffine):
        def conditioned(self, raw):
            transform = super().conditioned(raw)
            transform.log_scale = transform.log_scale[..., :1]
            return transform

    return Shared(DenseNetwork(3, (5,), 2 * input_dim), event_dim=1)


def spline_of_elements(input_dim):
    return conditional_monotone_spline(3, count_bins=5, bound=3.0)


@pytest.mark.parametrize(
    "make", [affine_of_vectors, affine_of_elements, affine_with_a_shared_scale, spline_of_elements]
)
@pytest.mark.parametrize("event_shape", [(2,), (5,)], ids=str)
@pytest.mark.parametrize("cache_size", [0, 1])
def test_it_passes_pyros_checks_of_a_transform(make, event_shape, cache_size):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        module = make(event_shape[0]).double()
        with torch.no_grad():
            transform = module.condition(torch.rand(3, dtype=torch.float64)).with_cache(cache_size)
        check_inverse(event_shape, transform)
        for shape in [(3,), (3, 4), (3, 4, 5)]:
            check_shape(torch.Size(shape + event_shape), transform)
        check_jacobian(event_shape[0], transform)


@pytest.mark.parametrize("make", [affine_of_vectors, affine_of_elements])
@pytest.mark.parametrize("inverse", [False, True])
def test_maximum_likelihood_learns_in_both_directions(make, inverse):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        module = make(2)
        context, value = torch.rand(64, 2, 3), torch.randn(64, 2) + 3.0
        if make is affine_of_vectors:
            context = context[:, 0]
        event_dim = int(make is affine_of_vectors)
        base = dist.Normal(torch.zeros(2), 1.0).to_event(event_dim)
        optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
        losses = []
        for _ in range(40):
            transform = module.condition(context)
            flow = dist.TransformedDistribution(base, [transform.inv if inverse else transform])
            loss = -flow.log_prob(value).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 1.0


def test_the_patch_applies_to_the_pyro_that_is_installed(tmp_path):
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")
    file = Path("pyro/distributions/transforms/__init__.py")
    (tmp_path / file).parent.mkdir(parents=True)
    shutil.copy(transforms.__file__, tmp_path / file)
    outside = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    command = [git, "apply", "--include=pyro/*", str(PATCH)]
    subprocess.run(command, cwd=tmp_path, env=outside, check=True)
    text = (tmp_path / file).read_text(encoding="utf-8")
    assert "from .conditional_affine import ConditionalAffine, conditional_affine" in text
    assert (tmp_path / file).with_name("conditional_affine.py").is_file()


def test_the_patch_for_pyro_adds_what_its_page_says():
    added = [line[1:] for line in PATCH.read_text(encoding="utf-8").splitlines() if line.startswith("+")]
    for expected in (
        "class ConditionalAffine(ConditionalTransformModule):",
        "    def test_conditional_affine(self):",
    ):
        assert expected in added
    source = PATCH.read_text(encoding="utf-8").split("conditional_affine.py\n@@")[1].split("diff --git")[0]
    module = "\n".join(line[1:] for line in source.splitlines()[1:] if line.startswith("+"))
    names = {
        "__name__": "pyro.distributions.transforms.conditional_affine",
        "__package__": "pyro.distributions.transforms",
    }
    exec(compile(module, "patch", "exec"), names)
    module = names["conditional_affine"](2, 3)
    with torch.no_grad():
        transform = module.condition(torch.rand(3))
        assert torch.allclose(transform.inv(transform(torch.ones(2))), torch.ones(2), atol=1e-6)
