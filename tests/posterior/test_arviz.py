"""The ArviZ adapter: groups, netCDF, selection by bin, ArviZ's own statistics and plots."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats

from bayesflowmass.posterior import MassPosterior, arviz_adapter
from bayesflowmass.posterior.arviz_adapter import az, read_arviz, select_bin

RANGE = (13.0, 15.8)
SHIFTS = torch.tensor([-0.06, 0.0, 0.09], dtype=torch.float64)[:, None]
SIGMA = 0.12


def mixture(n=40, draws=True):
    """Gaussian posteriors, of three draws of the weights that disagree or of a point model."""
    centre = torch.linspace(13.8, 15.1, n, dtype=torch.float64)
    mean = centre + SHIFTS if draws else centre
    return MassPosterior(
        torch.distributions.Normal(mean, SIGMA),
        log10_mass_range=RANGE,
        redshift=np.full(n, 0.1),
        cluster_id=np.array([f"A{i}" for i in range(n)]),
        n_galaxies=np.arange(n) + 10,
    )


def truths(posterior, seed=1):
    return posterior.sample(1, seed)[0]


@pytest.fixture(scope="module")
def data():
    posterior = mixture()
    true = truths(posterior)
    constants = {"halo_id": np.arange(40) // 2}
    return posterior, true, posterior.to_arviz(true, n_samples=300, seed=3, constants=constants)


def test_the_groups_have_the_promised_dimensions_and_coordinates(data):
    posterior, true, idata = data
    sizes = {"chain": 3, "draw": 300, "cluster": 40}
    for group in ("posterior", "posterior_predictive", "log_likelihood"):
        assert dict(idata[group].sizes) == sizes
    np.testing.assert_array_equal(idata["observed_data"]["log10_mass"], true)
    np.testing.assert_array_equal(idata["posterior"]["cluster"], posterior.cluster_id)
    columns = {"predicted_bin", "true_bin", "pit", "redshift", "n_galaxies", "halo_id"}
    assert set(idata["constant_data"].data_vars) == columns
    assert idata["posterior"].attrs["prior"] == "flat"
    assert idata["posterior"]["log10_mass"].attrs["units"] == "log10(Msun/h)"


def test_a_chain_is_one_draw_of_the_weights_and_the_predictive_is_their_mixture(data):
    posterior, _, idata = data
    by_draw = idata["posterior"]["log10_mass"].mean(("draw", "cluster")).values
    centre = float(np.linspace(13.8, 15.1, 40).mean())
    np.testing.assert_allclose(by_draw, centre + SHIFTS[:, 0].numpy(), atol=5 * SIGMA / np.sqrt(300 * 40))
    spread = idata["posterior"]["log10_mass"].std("draw").mean().item()
    assert spread == pytest.approx(SIGMA, rel=0.02)
    predictive = idata["posterior_predictive"]["log10_mass"]
    np.testing.assert_allclose(predictive.std(("chain", "draw")).mean(), posterior.sigma.mean(), rtol=0.02)
    # The mixture is wider than each of its parts.
    assert posterior.sigma.mean() > 1.1 * SIGMA


def test_log_likelihood_is_the_density_of_each_draw_at_the_truth(data):
    posterior, true, idata = data
    centre = np.linspace(13.8, 15.1, 40)
    expected = stats.norm.logpdf(true, centre + SHIFTS.numpy(), SIGMA)
    np.testing.assert_allclose(idata["log_likelihood"]["log10_mass"].isel(draw=7), expected, rtol=1e-10)
    mixed = np.log(np.exp(expected).mean(0))
    np.testing.assert_allclose(mixed, posterior.log_pdf(true), rtol=1e-10)


def test_under_another_prior_every_draw_is_reweighted_and_normalised():
    posterior = mixture(8).with_prior("hmf", (13.4, 15.6))
    true = posterior.median
    log_density = posterior.of_draws(torch.from_numpy(true)).log_pdf_at.numpy()
    grid = np.linspace(13.4, 15.6, 4001)
    prior = np.exp(
        posterior.prior.log_density(posterior.redshift)(torch.from_numpy(grid)[:, None].expand(-1, 8)).numpy()
    )
    centre = np.linspace(13.8, 15.1, 8)
    for d, shift in enumerate(SHIFTS[:, 0].numpy()):
        pdf = stats.norm.pdf(grid[:, None], centre + shift, SIGMA) * prior
        pdf /= np.trapezoid(pdf, grid, axis=0)
        expected = [np.interp(true[i], grid, np.log(pdf[:, i])) for i in range(8)]
        np.testing.assert_allclose(log_density[d], expected, atol=2e-5)
    draws = posterior.to_arviz(n_samples=2000, seed=0)["posterior"]["log10_mass"]
    assert float(draws.min()) >= 13.4
    mean = np.trapezoid(grid[:, None] * pdf, grid, axis=0)
    np.testing.assert_allclose(draws.mean("draw")[-1], mean, atol=5 * SIGMA / np.sqrt(2000))


def test_a_point_model_has_one_chain_and_data_without_truth_no_truth():
    idata = mixture(5, draws=False).to_arviz(n_samples=20)
    assert idata["posterior"].sizes["chain"] == 1
    assert set(idata.groups()) == {"posterior", "posterior_predictive", "constant_data"}


def test_the_same_seed_gives_the_same_draws(data):
    posterior, true, idata = data
    again = posterior.to_arviz(true, n_samples=300, seed=3)
    other = posterior.to_arviz(true, n_samples=300, seed=4)
    for group in ("posterior", "posterior_predictive"):
        xr.testing.assert_equal(idata[group], again[group])
        assert not np.allclose(idata[group]["log10_mass"], other[group]["log10_mass"])


def test_netcdf_returns_every_group_unchanged(data, tmp_path):
    *_, idata = data
    idata.to_netcdf(str(tmp_path / "posteriors.nc"))
    back = read_arviz(tmp_path / "posteriors.nc")
    assert set(back.groups()) == set(idata.groups())
    for group in idata.groups():
        xr.testing.assert_allclose(back[group], idata[group])
    assert back["posterior"].attrs["draws_of_the_weights"] == 3


def test_selecting_a_bin_keeps_its_clusters_in_every_group(data):
    posterior, true, idata = data
    chosen = select_bin(idata, "predicted_bin", 14.25)
    inside = (posterior.median >= 14.25) & (posterior.median < 14.5)
    assert 0 < inside.sum() < 40
    for group in idata.groups():
        np.testing.assert_array_equal(chosen[group]["cluster"], posterior.cluster_id[inside])
    np.testing.assert_array_equal(chosen["observed_data"]["log10_mass"], true[inside])
    assert idata["posterior"].sizes["cluster"] == 40
    with pytest.raises(ValueError, match=r"No cluster has predicted_bin = 12\.0; there are 13\.75"):
        select_bin(idata, "predicted_bin", 12.0)
    with pytest.raises(ValueError, match="no column 'colour'; it has predicted_bin"):
        select_bin(idata, "colour", 1.0)


def test_bins_are_named_by_their_lower_edges_which_they_hold():
    masses = np.array([14.0, 14.249999, 14.25, 14.2499999999, -0.1])
    np.testing.assert_allclose(arviz_adapter._bin(masses, 0.25), [14.0, 14.0, 14.25, 14.25, -0.25])
    np.testing.assert_allclose(arviz_adapter._bin(masses[:3], 0.1), [14.0, 14.2, 14.2])


def test_by_default_there_are_five_hundred_draws_in_bins_of_a_quarter_of_a_dex():
    posterior = mixture(3)
    idata = posterior.to_arviz()
    assert dict(idata["posterior"].sizes) == {"chain": 3, "draw": 500, "cluster": 3}
    xr.testing.assert_equal(idata["posterior"], posterior.to_arviz(n_samples=500, seed=0)["posterior"])
    bins = idata["constant_data"]["predicted_bin"]
    np.testing.assert_allclose(bins, np.floor(posterior.median / 0.25) * 0.25)


def test_shapes_that_disagree_and_converted_masses_are_refused(data):
    posterior, true, _ = data
    with pytest.raises(ValueError, match=r"log10_true has shape \(3,\); 40 clusters need \(40,\)"):
        posterior.to_arviz(true[:3])
    with pytest.raises(ValueError, match=r"halo_id has shape \(2,\)"):
        posterior.to_arviz(constants={"halo_id": [1, 2]})
    with pytest.raises(ValueError, match="before the mass definition is changed"):
        posterior.with_mass_definition("500c").to_arviz()


# ArviZ 0.23 calls matplotlib as it was before 3.11.
@pytest.mark.filterwarnings("ignore::matplotlib.MatplotlibDeprecationWarning")
def test_arviz_summarises_and_draws_them(data):
    posterior, true, idata = data
    one_bin = select_bin(idata, "predicted_bin", 14.0)
    table = az.summary(one_bin, kind="stats")
    assert len(table) == one_bin["posterior"].sizes["cluster"]
    points = np.linspace(0.01, 1.0, 100)
    options = {"eval_points": points, "difference": True, "confidence_bands": "simulated", "num_trials": 200}
    uniform = stats.uniform(0.0, 1.0)
    az.plot_ecdf(posterior.cdf(true), cdf=uniform.cdf, rvs=uniform.rvs, **options)
    az.plot_forest(one_bin, combined=True)
    az.plot_ppc(one_bin, num_pp_samples=5, random_seed=0)
    az.plot_bpv(one_bin, kind="u_value")
    plt.close("all")


def test_without_inference_data_the_same_groups_become_a_tree(data, monkeypatch, tmp_path):
    """What ArviZ 1.x takes: xarray's DataTree, with the same groups, selection and netCDF."""
    posterior, true, idata = data
    monkeypatch.delattr(arviz_adapter.az, "InferenceData")
    tree = posterior.to_arviz(true, n_samples=300, seed=3)
    assert isinstance(tree, xr.DataTree)
    assert set(tree.children) == set(idata.groups())
    xr.testing.assert_equal(tree["posterior"].to_dataset(), idata["posterior"])
    chosen = select_bin(tree, "predicted_bin", 14.25)
    assert chosen["posterior"].sizes["cluster"] == chosen["observed_data"].sizes["cluster"] < 40
    tree.to_netcdf(str(tmp_path / "tree.nc"))
    xr.testing.assert_equal(read_arviz(tmp_path / "tree.nc")["posterior"].to_dataset(), idata["posterior"])
