"""Masses tables: columns, units, definitions of mass, files."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from astropy.io.votable import parse_single_table
from astropy.table import Table
from numpy.testing import assert_allclose

from bayesflowmass.cosmology import concentration_median, convert_mass, radius_delta
from bayesflowmass.posterior import MassPosterior
from bayesflowmass.posterior.masses_table import with_missing_rows
from bayesflowmass.posterior.write_table import write_table

COLUMNS = [
    *("cluster_id", "n_galaxies", "redshift", "log10_mass", "log10_mass_mean", "log10_mass_map", "sigma"),
    *("sigma_aleatoric", "sigma_epistemic", "q025", "q16", "q84", "q975", "r200c", "prior", "flags"),
]


def posterior(loc=(14.0, 14.5, 15.0), scale=0.1, draws=None, redshift=(0.05, 0.117, 0.3)):
    mean = torch.tensor(loc, dtype=torch.float64)
    if draws is not None:
        mean = mean + torch.tensor(draws, dtype=torch.float64)[:, None]
    return MassPosterior(
        torch.distributions.Normal(mean, torch.full_like(mean, scale), validate_args=False),
        log10_mass_range=(13.2, 15.6),
        redshift=redshift,
        cluster_id=["A", "B", "C"],
        n_galaxies=[10, 20, 30],
    )


def test_the_table_has_the_columns_and_header_of_the_contract():
    table = posterior().to_table(flags=["edge", "", "few_galaxies,edge"], model="runs/x")
    assert table.colnames == COLUMNS
    assert table.meta["units"] == "Msun/h"
    assert (table.meta["mdef"], table.meta["prior"], table.meta["model"]) == ("200c", "flat", "runs/x")
    assert table["flags"][2] == "few_galaxies,edge"
    assert_allclose(table["log10_mass"], [14.0, 14.5, 15.0])
    assert_allclose(table["q84"] - table["log10_mass"], 0.0994458, rtol=1e-5)
    assert_allclose(table["r200c"], radius_delta([14.0, 14.5, 15.0], np.array([0.05, 0.117, 0.3])), rtol=1e-9)


def test_a_point_model_has_null_never_zero_for_its_parts():
    table = posterior().to_table()
    assert np.all(table["sigma_epistemic"].mask)
    assert np.all(table["sigma_aleatoric"].mask)
    with_draws = posterior(draws=(-0.05, 0.05)).to_table()
    assert_allclose(with_draws["sigma_epistemic"], 0.05, rtol=1e-4)
    assert_allclose(with_draws["sigma_aleatoric"], 0.1, rtol=1e-4)


def test_solar_masses_are_shifted_by_h_and_nothing_else_changes():
    per_h, solar = posterior().to_table(pdf=True), posterior().to_table(pdf=True, units="Msun", h=0.7)
    for name in ("log10_mass", "log10_mass_mean", "log10_mass_map", "q025", "q975"):
        assert_allclose(solar[name] - per_h[name], -math.log10(0.7), rtol=1e-10)
    assert_allclose(solar["sigma"], per_h["sigma"])
    assert_allclose(solar["r200c"], per_h["r200c"] / 0.7)
    for table in (per_h, solar):
        grid = np.linspace(table.meta["pdf_lo"], table.meta["pdf_hi"], table.meta["pdf_n"])
        assert_allclose(np.trapezoid(table["pdf"], grid, axis=1), 1.0, atol=1e-4)
        peak = grid[np.argmax(table["pdf"], axis=1)]
        assert_allclose(peak, table["log10_mass_map"], atol=0.006)


def test_pdfs_are_on_a_grid_of_a_hundredth_of_a_dex_a_little_wider_than_the_range_of_training():
    for options, start in (({}, 12.9), ({"units": "Msun", "h": 0.7}, 13.05)):
        meta = posterior().to_table(pdf=True, **options).meta
        assert meta["pdf_lo"] == pytest.approx(start)
        # From 0.3 dex below 13.2 to 0.3 dex above 15.6, or a step more.
        assert meta["pdf_hi"] == pytest.approx(start + 3.0, abs=0.011)
        assert (meta["pdf_hi"] - meta["pdf_lo"]) / (meta["pdf_n"] - 1) == pytest.approx(0.01)


@pytest.mark.parametrize("mdef", ["500c", "vir", "200m"])
@pytest.mark.parametrize("prior", ["flat", "hmf"])
def test_other_definitions_agree_with_sampling_the_concentration(mdef, prior):
    base = posterior(scale=0.08).with_prior(prior)
    table = base.to_table(mdef=mdef)
    rng = np.random.default_rng(5)
    for i, z in enumerate((0.05, 0.117, 0.3)):
        mass = base.sample(30_000, seed=7)[:, i]
        grid = np.linspace(mass.min() - 0.01, mass.max() + 0.01, 60)
        median = np.interp(mass, grid, np.log10(concentration_median(grid, z)))
        concentration = 10.0 ** (median + 0.16 * rng.normal(size=mass.size))
        converted = convert_mass(mass, z, "200c", mdef, concentration=concentration)
        assert_allclose(table["log10_mass_mean"][i], converted.mean(), atol=2.5e-3)
        assert_allclose(table["sigma"][i], converted.std(), rtol=0.02)
        assert_allclose(
            [table[q][i] for q in ("q16", "log10_mass", "q84")],
            np.quantile(converted, [0.16, 0.5, 0.84]),
            atol=4e-3,
        )
    assert table[f"r{mdef}"].shape == (3,)


def test_the_scatter_of_the_concentration_widens_only_the_aleatoric_part():
    base, other = (posterior(draws=(-0.05, 0.05)).to_table(mdef=mdef) for mdef in ("200c", "500c"))
    assert_allclose(other["sigma_epistemic"], base["sigma_epistemic"], rtol=1e-6)
    assert np.all(other["sigma_aleatoric"] > base["sigma_aleatoric"])
    total = other["sigma_aleatoric"] ** 2 + other["sigma_epistemic"] ** 2
    assert_allclose(np.sqrt(total), other["sigma"], rtol=1e-6)


@pytest.mark.parametrize(("prior", "mdef"), [("flat", "200c"), ("hmf", "500c")])
@pytest.mark.parametrize(
    "loc",
    [math.nan, math.inf, 15.6 + 0.1 * 1.97, 13.2 - 0.1 * 1.97, 1e30],
    ids=["nan", "inf", "above", "below", "absurd"],
)
def test_what_is_no_mass_is_masked_and_flagged_and_stops_no_other(prior, mdef, loc):
    table = (
        posterior((14.0, loc, 15.0))
        .with_prior(prior)
        .to_table(mdef=mdef, pdf=True, flags=["", "edge", "edge"])
    )
    assert list(table["flags"]) == ["", "edge,no_density", "edge"]
    expected = posterior((14.0, 14.5, 15.0)).with_prior(prior).to_table(mdef=mdef, pdf=True)
    for name in (
        "log10_mass",
        "log10_mass_mean",
        "log10_mass_map",
        "sigma",
        "q025",
        "q975",
        f"r{mdef}",
        "pdf",
    ):
        assert np.all(table[name].mask[1])
        assert not np.any(table[name].mask[[0, 2]])
        assert_allclose(np.asarray(table[name])[[0, 2]], np.asarray(expected[name])[[0, 2]], rtol=1e-9)


def test_a_pdf_whose_interval_reaches_into_the_training_range_is_a_mass():
    inside = posterior((13.2 - 0.1 * 1.95, 15.6 + 0.1 * 1.95, 14.0))
    assert inside.has_mass.all()
    assert not np.any(inside.to_table()["log10_mass"].mask)


def test_a_draw_that_is_not_finite_takes_the_mass_of_its_cluster_alone():
    mean = torch.tensor([[14.0, math.nan, 15.0], [14.1, 14.5, 15.1]], dtype=torch.float64)
    found = MassPosterior(
        torch.distributions.Normal(mean, torch.full_like(mean, 0.1), validate_args=False),
        log10_mass_range=(13.2, 15.6),
    )
    assert found.has_mass.tolist() == [True, False, True]
    assert found.to_table()["log10_mass"].mask.tolist() == [False, True, False]
    assert_allclose(found.sigma_epistemic[[0, 2]], 0.05, rtol=1e-4)


def test_missing_rows_are_masked_in_their_place():
    table = posterior().to_table(pdf=True)
    usable = np.array([True, False, True, True])
    full = with_missing_rows(
        table,
        usable,
        {"cluster_id": np.array(["A", "X", "B", "C"]), "flags": np.array(["", "too_few_galaxies", "", ""])},
    )
    assert list(full["cluster_id"]) == ["A", "X", "B", "C"]
    assert list(full["log10_mass"].mask) == [False, True, False, False]
    assert np.all(full["pdf"].mask[1])
    assert_allclose(full["log10_mass"].compressed(), table["log10_mass"])
    assert full.meta == table.meta


@pytest.mark.parametrize("ending", ["ecsv", "fits", "vot", "parquet"])
def test_files_come_back_as_they_were_written(ending, tmp_path):
    table = posterior().to_table(pdf=True)
    path = write_table(table, tmp_path / f"masses.{ending}")
    again = Table.read(path, **({"format": "votable"} if ending == "vot" else {}))
    assert again.colnames == table.colnames
    assert [str(name) for name in again["cluster_id"]] == ["A", "B", "C"]
    assert_allclose(np.asarray(again["log10_mass"]), table["log10_mass"], rtol=1e-12)
    assert_allclose(np.asarray(again["pdf"]), table["pdf"], rtol=1e-12)
    assert not np.isfinite(np.ma.filled(np.ma.asarray(again["sigma_epistemic"], dtype=float), np.nan)).any()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_every_format_has_the_header(tmp_path):
    table = posterior().with_prior("hmf").to_table(units="Msun", h=0.7)
    for ending in ("ecsv", "fits", "vot", "parquet"):
        write_table(table, tmp_path / f"masses.{ending}")
    assert Table.read(tmp_path / "masses.ecsv").meta["prior"] == "hmf"
    assert Table.read(tmp_path / "masses.fits").meta["UNITS"] == "Msun"
    parameters = {p.name: p.value for p in parse_single_table(tmp_path / "masses.vot").params}
    assert (parameters["h"], parameters["mdef"]) == (0.7, "200c")
    schema = pq.read_schema(tmp_path / "masses.parquet")
    assert json.loads(schema.metadata[b"bayesflowmass_masses"])["prior"] == "hmf"
    assert pq.read_table(tmp_path / "masses.parquet")["sigma_epistemic"].null_count == 3


def test_the_end_of_a_long_text_fits_into_a_card_of_fits(tmp_path):
    name = "".join(f"/folder{k:02d}" for k in range(20))
    table = posterior().to_table(model=name)
    table.meta["odd"] = "a\tb\né"
    meta = Table.read(write_table(table, tmp_path / "masses.fits")).meta
    assert meta["MODEL"] == name[-68:]
    assert meta["ODD"] == "a b \\xe9"
    assert table.meta["model"] == name


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_table(posterior().to_table(), tmp_path / "masses.ecsv")
    before = path.read_bytes()

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Table, "write", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_table(posterior().to_table(), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["masses.ecsv"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": "kg"}, "Unknown unit of mass 'kg'; expected 'Msun/h' or 'Msun'"),
        ({"h": -0.7}, "h is -0.7; expected a positive number"),
        ({"h": 0.0}, "h is 0.0; expected a positive number"),
        ({"mdef": "180b"}, "Unknown mass definition '180b'"),
    ],
)
def test_impossible_tables_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        posterior().to_table(**options)


@pytest.mark.parametrize("name", ["masses.doc", "masses"])
def test_unknown_endings_are_refused(name, tmp_path):
    with pytest.raises(ValueError, match=r"must end in one of \.ecsv, \.fits"):
        write_table(posterior().to_table(), tmp_path / name)
