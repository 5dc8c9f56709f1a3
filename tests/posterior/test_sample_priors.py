"""Priors that say how a sample was chosen: thresholds against closed forms, and their way through ``infer``."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from astropy import units as u
from astropy.cosmology import FlatLambdaCDM
from astropy.table import Table
from scipy.stats import norm
from small_model import toy_catalog, toy_estimator

from bayesflowmass.cosmology import MDPL2, convert_mass
from bayesflowmass.infer import main as infer_main
from bayesflowmass.posterior import MassFunctionPrior, make_prior
from bayesflowmass.selection import LimitedSample

RANGE = (13.2, 15.6)


def test_a_threshold_multiplies_the_mass_function_by_a_normal_cdf():
    mass, z = np.linspace(13.3, 15.5, 12)[:, None], np.array([0.1, 0.6])
    x = torch.from_numpy(np.broadcast_to(mass, (12, 2)).copy())
    prior = make_prior("sz:14.5,0.2", RANGE)
    assert prior.name == "hmf, sz:14.5,0.2"
    ratio = prior.log_density(z)(x) - MassFunctionPrior(RANGE).log_density(z)(x)
    np.testing.assert_allclose(
        ratio, np.broadcast_to(norm.logcdf((mass - 14.5) / 0.2), (12, 2)), rtol=1e-12, atol=1e-13
    )


def test_a_flux_limit_follows_the_luminosity_distance():
    z = np.array([0.05, 0.3])
    universe = FlatLambdaCDM(H0=70.0, Om0=MDPL2.Om0)
    distance = universe.luminosity_distance(z).to_value(u.cm)
    luminosity = 0.91 * 4.0 * np.pi * distance**2 * 3e-12 / 1e44
    m500 = 3e14 * (luminosity / universe.efunc(z) ** (7 / 3) / 10**0.274) ** (1 / 1.64)
    expected = convert_mass(np.log10(m500 * 0.7), z, "500c", "200c")
    sample = LimitedSample.from_text("xray:3e-12")
    # astropy counts radiation and the distances here do not: a part in ten thousand.
    np.testing.assert_allclose(sample.limit(z), expected, atol=2e-3)
    # Between nodes of the redshifts asked for the limit is interpolated.
    many = np.linspace(0.02, 0.5, 97)
    np.testing.assert_allclose(sample(sample.limit(many), many), 0.5, atol=5e-3)


@pytest.mark.parametrize(
    "text", ["sz:", "sz:3e-12", "xray:14.2,0.1,3", "xray:flux", "sz:14.5,-1", "sz:9", "xray:nan"]
)
def test_a_text_without_meaning_is_refused(text):
    with pytest.raises(ValueError, match="expected"):
        make_prior(text, RANGE)


# infer


@pytest.fixture
def flags(tmp_path, monkeypatch):
    """Flags of `infer` for six clusters in two tables, with a model of random weights."""
    monkeypatch.chdir(tmp_path)
    catalog = toy_catalog(6, seed=2)
    toy_estimator().save("model")
    rows = np.repeat(np.arange(6), catalog.n_galaxies)
    galaxies = {"cluster_id": rows} | {name: catalog.galaxies(name) for name in ("x", "y", "v_los")}
    Table(galaxies).write("g.csv")
    Table({"cluster_id": np.arange(6), "redshift": catalog.column("redshift")}).write("c.csv")
    catalog.write("mocks.parquet")
    return ["--galaxies", "g.csv", "--clusters", "c.csv", "--model", "model", "--device", "cpu"]


def test_one_sentence_says_which_prior_and_how_far_others_are(flags, capsys):
    assert infer_main([*flags, "--out", "flat.ecsv"]) == 0
    said = capsys.readouterr().err
    assert "the prior is flat in log mass, which few samples follow" in said
    flat = Table.read("flat.ecsv")
    assert not [name for name in flat.colnames if "hmf" in name or "sz" in name]
    assert infer_main([*flags, "--prior", "hmf", "--out", "hmf.ecsv"]) == 0
    assert "the prior is flat" not in capsys.readouterr().err
    hmf = Table.read("hmf.ecsv")
    assert f"--prior hmf by {np.median(hmf['log10_mass']) - np.median(flat['log10_mass']):+.2f}" in said
    # Mocks say themselves what their masses are drawn from.
    assert infer_main(["--galaxies", "mocks.parquet", *flags[4:], "--out", "m.ecsv"]) == 0
    assert "the prior is flat" not in capsys.readouterr().err


def test_a_table_carries_further_priors_beside_its_own(flags):
    assert infer_main([*flags, "--also", "hmf", "sz:14.5", "--mdef", "500c", "--out", "both.ecsv"]) == 0
    assert infer_main([*flags, "--prior", "sz:14.5", "--mdef", "500c", "--out", "sz.ecsv"]) == 0
    both, alone = Table.read("both.ecsv"), Table.read("sz.ecsv")
    assert set(alone["prior"]) == {"hmf, sz:14.5"}
    for name in ("log10_mass", "q16", "q84"):
        np.testing.assert_allclose(both[f"{name}_sz_14_5"], alone[name], atol=1e-9)
        assert (both[f"{name}_hmf"] < both[name]).all()


def test_a_cut_in_the_number_of_galaxies_cancels():
    mass = torch.linspace(13.3, 15.5, 12, dtype=torch.float64)[:, None]
    cut, hmf = (make_prior(name, RANGE) for name in ("richness:20", "hmf"))
    assert cut.name == "hmf, richness:20 (cancels)"
    assert torch.equal(cut.log_density(np.array([0.1]))(mass), hmf.log_density(np.array([0.1]))(mass))
    with pytest.raises(ValueError, match="Unknown prior"):
        make_prior("richness:many", RANGE)
