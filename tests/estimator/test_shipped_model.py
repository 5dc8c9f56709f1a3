"""The models that ship with the package: there, small, calibrated, used by default; what they are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.stats import rankdata
from small_model import toy_catalog, toy_estimator

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.encoders import ContextEncoder, KDEEncoder
from bayesflowmass.estimator import MassEstimator, TrainingInfo, shipped, shipped_models
from bayesflowmass.estimator.shipped import choose_model
from bayesflowmass.estimator.systematic import sigma_systematic, systematic_nodes
from bayesflowmass.evaluation.test_sets import like_training
from bayesflowmass.flows import build_flow
from bayesflowmass.infer import main as infer_main
from bayesflowmass.io.selection_file import read_selection
from bayesflowmass.mocks import catalog_builder
from bayesflowmass.posterior import FlatPrior, SelectedPrior
from bayesflowmass.selection import SelectionTable
from bayesflowmass.train import main as train_main

QUANTILES = [0.025, 0.16, 0.5, 0.84, 0.975]


@pytest.fixture(scope="module")
def sky() -> MassEstimator:
    return MassEstimator.load("sky", "cpu")


@pytest.fixture(scope="module")
def mocks(sky) -> ClusterCatalog:
    """About 400 clusters as the model was trained on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog_builder, "_BATCH_ROWS", 512)
        return like_training(sky.training_info, 900, seed=31)


def tables(catalog: ClusterCatalog, folder: Path, **columns) -> list[str]:
    """Flags of `infer` for the clusters as a user has them: two flat tables, nothing else known."""
    rows = np.repeat(np.arange(len(catalog)), catalog.n_galaxies)
    galaxies = Table({"cluster_id": np.asarray(catalog.column("cluster_id"))[rows]})
    for name in ("x", "y", "v_los"):
        galaxies[name] = np.array(catalog.galaxies(name))
    clusters = Table({name: np.array(catalog.column(name)) for name in ("cluster_id", "redshift")} | columns)
    galaxies.write(folder / "my.csv", overwrite=True)
    clusters.write(folder / "my_clusters.csv", overwrite=True)
    return [
        "--galaxies",
        str(folder / "my.csv"),
        "--clusters",
        str(folder / "my_clusters.csv"),
        "--no-progress",
    ]


# What ships


def test_all_shipped_models_are_there_and_small():
    assert shipped.DEFAULT_MODEL in shipped_models()
    assert set(shipped_models()) <= set(shipped.SHIPPED)
    files = [path for folder in shipped_models().values() for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 8e6
    assert {path.name for path in files} == {"model.json", "model.safetensors"}
    assert not any("/work" in path.read_text(encoding="utf-8") for path in files if path.suffix == ".json")


def test_the_default_model_is_calibrated_on_fresh_mocks(sky, mocks):
    truth = np.asarray(mocks.column("log10_mass"))
    posterior = sky.posterior(mocks, n_draws=8)
    n = len(mocks)
    assert n > 300
    residual = posterior.median - truth
    # Four standard errors, of the mean at a scatter of 0.33 dex and of a binomial share.
    assert abs(residual.mean()) < 4.0 * 0.33 / np.sqrt(n)
    assert residual.std() < 0.40
    pit = posterior.cdf(truth)
    for level in (0.68, 0.95):
        share = (np.abs(pit - 0.5) < 0.5 * level).mean()
        assert share == pytest.approx(level, abs=4.0 * np.sqrt(level * (1.0 - level) / n))
    assert (posterior.sigma_epistemic > 0.0).all()
    parts = posterior.sigma_aleatoric**2 + posterior.sigma_epistemic**2
    assert_allclose(posterior.sigma**2, parts, rtol=1e-12)


@pytest.mark.skipif(
    "sky_galaxies" not in shipped_models(), reason="this version ships without the model of galaxies"
)
def test_the_model_of_galaxies_is_calibrated_and_knows_members(mocks):
    galaxies = MassEstimator.load("sky_galaxies", "cpu")
    truth, n = np.asarray(mocks.column("log10_mass")), len(mocks)
    posterior = galaxies.posterior(mocks, n_draws=8)
    # As above.
    assert abs((posterior.median - truth).mean()) < 4.0 * 0.33 / np.sqrt(n)
    for level in (0.68, 0.95):
        share = (np.abs(posterior.cdf(truth) - 0.5) < 0.5 * level).mean()
        assert share == pytest.approx(level, abs=4.0 * np.sqrt(level * (1.0 - level) / n))
    found = galaxies.memberships(mocks, n_draws=2)
    is_member = np.asarray(mocks.galaxies("gal_is_member"), dtype=bool)
    p = found.probability[np.isfinite(found.probability)]
    # Their mean is the share of the members; galaxies of a cluster share its error, so n clusters count.
    assert p.mean() == pytest.approx(is_member.mean(), abs=4.0 * 0.3 / np.sqrt(n))
    ranks = rankdata(found.probability)
    members = is_member.sum()
    area = (ranks[is_member].sum() - members * (members + 1) / 2) / (members * (~is_member).sum())
    # A guess has 0.5 with a standard error below 0.03 for these clusters.
    assert area > 0.65


def test_a_larger_velocity_bias_makes_lighter_clusters(sky, mocks):
    n = len(mocks)
    masses = [
        sky.posterior(mocks.with_columns(known_velocity_bias=np.full(n, bias)), n_draws=2).mean
        for bias in (0.95, 1.10)
    ]
    # ln(1.10 / 0.95) times d log M / d ln sigma of a dynamical estimate: 3 without noise, about 1 with it.
    shift = float(np.mean(masses[1] - masses[0]))
    assert -0.25 < shift < -0.02


needs_complete = pytest.mark.skipif(
    "sky_complete" not in shipped_models(), reason="this version ships without the model for complete samples"
)


@needs_complete
def test_the_model_for_complete_samples_counts():
    complete = MassEstimator.load("sky_complete", "cpu")
    assert complete.training_info.uses_richness
    assert not MassEstimator.load("sky", "cpu").training_info.uses_richness


def test_infer_needs_no_model(mocks, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = mocks[:12]
    flags = tables(few, tmp_path)
    assert infer_main([*flags, "--out", "masses.ecsv"]) == 0
    said = capsys.readouterr().err
    assert "model: sky, which ships with the package" in said
    assert "which galaxies count as interlopers is not known: the PDFs are averaged over both kinds" in said
    masses = Table.read("masses.ecsv")
    assert masses.meta["model"] == "sky"
    for name in ("sigma_aleatoric", "sigma_epistemic", "sigma_systematic"):
        assert (np.asarray(masses[name]) > 0.0).all()
    assert (masses["sigma_systematic"] < masses["sigma"]).all()
    again = tables(few, tmp_path, sigma_v_err=np.full(12, 50.0))
    told = ["--mode", "survey", "--assume", "velocity_bias=1.0", "richness_at_1e14=45"]
    told += ["orbit_loss=0.55", "velocity_bias_slope=0"]
    assert infer_main([*again, *told, "--out", "told.ecsv"]) == 0
    said = capsys.readouterr().err
    assert "velocity bias is taken to be 1." in said
    assert "interlopers is not known" not in said
    assert_allclose(Table.read("told.ecsv")["sigma_systematic"], 0.0, atol=1e-9)
    code = infer_main([*flags, "--complete", "--out", "complete.ecsv"])
    if "sky_complete" in shipped_models():
        assert code == 0
        assert Table.read("complete.ecsv").meta["model"] == "sky_complete"
    else:
        assert code == 2
        assert "comes without the model 'sky_complete'" in capsys.readouterr().err


def test_a_named_model_is_the_one_used(tmp_path, monkeypatch):
    assert choose_model(None) == Path("sky")
    assert choose_model("runs/mine") == Path("runs/mine")
    assert choose_model("sky_complete", complete=True) == Path("sky_complete")
    with pytest.raises(ValueError, match="--model is 'runs/mine'; leave one of them out"):
        choose_model("runs/mine", complete=True)
    # A model of that name comes before the shipped one, another folder does not.
    monkeypatch.chdir(tmp_path)
    Path("sky").mkdir()
    assert shipped.model_folder("sky") == shipped_models()["sky"]
    toy_estimator().save("sky")
    assert shipped.model_folder("sky") == choose_model("sky") == Path("sky")
    with pytest.raises(ValueError, match="No --model was named, and the folder 'sky' here holds a model"):
        choose_model(None)
    monkeypatch.setattr(shipped, "_FOLDER", tmp_path / "nothing")
    with pytest.raises(ValueError, match="comes without the model 'sky'; train one"):
        choose_model(None)


# A reduced version of the configuration


def test_a_reduced_version_of_the_configuration_trains(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(catalog_builder, "_BATCH_ROWS", 512)
    run = tmp_path / "sky"
    reduced = ["--simulate.n-clusters", "900", "--encoder.grid", "12", "12", "--flow.options", "hidden=[32]"]
    reduced += ["--fit.max-updates", "120", "--fit.validate-every", "40", "--fit.warmup-updates", "10"]
    reduced += [
        "--fit.batch-size",
        "50",
        "--weights.fit",
        "max_updates=60",
        "--device",
        "cpu",
        "--no-progress",
    ]
    assert train_main(["--config", "sky.yaml", "--out", str(run), *reduced]) == 0
    capsys.readouterr()
    estimator = MassEstimator.load(run, "cpu")
    info = estimator.training_info
    assert info.config["simulate"]["randomise"]["velocity_bias"] == [0.95, 1.10]
    assert info.selection["cleaned_share"] == 0.2
    assert info.mode == "mixed"
    clusters = like_training(info, 600, seed=4)
    posterior = estimator.posterior(clusters, n_draws=4)
    score = -np.mean(posterior.log_pdf(np.asarray(clusters.column("log10_mass"))))
    # The flat density over 2.4 dex scores 0.875 nats; the shipped model about 0.
    assert score < 0.7
    # float16 may move quantiles by no more than 0.002 dex.
    stored = MassEstimator.load(estimator.save(tmp_path / "half", half=True), "cpu")
    half = stored.posterior(clusters, n_draws=4).quantile(QUANTILES)
    assert np.abs(half - posterior.quantile(QUANTILES)).max() < 0.002
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (run, tmp_path / "half")]
    assert sizes[1] < sizes[0]


# The systematic part of the width


def told_model() -> MassEstimator:
    """Random weights, told of mode and velocity bias."""
    catalog = toy_catalog(300, seed=9)
    n = len(catalog)
    rng = np.random.default_rng(0)
    catalog = catalog.with_columns(
        mode=np.where(rng.random(n) < 0.5, "paper", "survey"), known_velocity_bias=rng.uniform(0.95, 1.1, n)
    ).with_metadata(mode="mixed")
    encoder = ContextEncoder(KDEEncoder((10, 10)), constant=1.0, optional=("mode", "known_velocity_bias"))
    encoder.fit_extras(catalog)
    flow = build_flow("affine", encoder.context_dim, 14.4, 0.15, hidden=(8,), seed=1)
    config = {"simulate": {"randomise": {"velocity_bias": [0.95, 1.10]}}}
    info = TrainingInfo.from_catalog(catalog, uses_richness=False, config=config)
    return MassEstimator(encoder, flow, info, "cpu")


def test_the_systematic_part_sums_the_variances_of_the_means():
    model, catalog = told_model(), toy_catalog(20, seed=3).with_metadata(mode=None)
    nodes = systematic_nodes(model)
    assert set(nodes) == {"mode", "known_velocity_bias"}
    for values, weights in nodes.values():
        assert weights.sum() == pytest.approx(1.0)
        assert len(values) == len(weights)
    # Two Gauss-Legendre nodes have the variance of the uniform prior.
    values, weights = nodes["known_velocity_bias"]
    assert weights @ (values - 1.025) ** 2 == pytest.approx(0.15**2 / 12.0)
    told = {
        "mode": [catalog.with_columns(mode=np.full(20, mode)) for mode in ("paper", "survey")],
        "bias": [catalog.with_columns(known_velocity_bias=np.full(20, value)) for value in values],
    }
    means = {name: np.array([model.posterior(one).mean for one in several]) for name, several in told.items()}
    by_bias = weights @ (means["bias"] - weights @ means["bias"]) ** 2
    expected = np.sqrt(means["mode"].var(axis=0) + by_bias)
    assert_allclose(sigma_systematic(model, catalog), expected, rtol=1e-6, atol=1e-9)
    half = catalog.with_columns(mode=np.array(["paper", "mixed"] * 10))
    mixture = sigma_systematic(model, half)
    assert_allclose(mixture[1::2], expected[1::2], rtol=1e-6, atol=1e-9)
    all_told = told["mode"][0].with_columns(known_velocity_bias=np.ones(20))
    assert sigma_systematic(model, all_told).max() < 1e-9
    assert sigma_systematic(toy_estimator(), catalog) is None


# Selection functions


def test_a_selected_prior_against_quadrature():
    posterior = toy_estimator().posterior(toy_catalog(5, seed=2))
    table = SelectionTable([13.0, 14.0, 14.6, 16.0], [0.0, 0.2, 0.9, 1.0])
    chosen = posterior.with_prior(SelectedPrior(FlatPrior((13.2, 15.6)), table))
    assert chosen.prior.name == "flat, selected"

    def density(m: float, row: int) -> float:
        return float(posterior.pdf(np.full((1, 5), m))[0, row]) * float(table(m))

    for row in range(2):
        norm = quad(density, 13.2, 15.6, args=(row,), limit=200, points=[14.0, 14.6])[0]
        at = float(posterior.median[row])
        assert chosen.pdf(np.full((1, 5), at))[0, row] == pytest.approx(density(at, row) / norm, rel=1e-4)


@settings(max_examples=40, deadline=None)
@given(chances=st.lists(st.floats(0.0, 1.0), min_size=3, max_size=8).filter(lambda p: max(p) > 0.01))
def test_a_selection_table_is_a_probability_through_its_rows(chances):
    mass = np.linspace(13.0, 16.0, len(chances))
    table = SelectionTable(mass, np.sort(chances))
    assert_allclose(table(mass), np.sort(chances), atol=1e-12)
    values = table(np.linspace(13.0, 16.0, 301), 0.1)
    assert (values >= 0.0).all()
    assert (values <= 1.0).all()
    assert (np.diff(values) >= -1e-12).all()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"log10_mass": [13.0, 16.0]}, "there is no column selected"),
        ({"mass": [13.0], "probability": [0.1]}, "there is no column log10_mass"),
        ({"log10_mass": [13.0, 13.0, 16.0], "probability": [0.1, 0.2, 0.3]}, "row 2 has log10_mass 13"),
        ({"log10_mass": [13.0, 16.0], "probability": [0.1, 1.2]}, "row 2 has probability 1.2"),
        ({"log10_mass": [13.0, 16.0], "probability": [0.0, 0.0]}, "every probability is 0"),
        ({"log10_mass": [13.0, 16.0], "selected": [0, 2]}, "must hold 0 or 1"),
        ({"log10_mass": [13.0, 16.0], "selected": [0, 1]}, "too few"),
    ],
)
def test_unusable_selection_files_name_the_file_and_the_row(columns, message, tmp_path):
    path = tmp_path / "selection.csv"
    Table(columns).write(path)
    with pytest.raises(CatalogError, match=message) as error:
        read_selection(path)
    assert str(path) in str(error.value)


def test_a_selection_function_from_mocks(tmp_path):
    rng = np.random.default_rng(3)
    mass = rng.uniform(13.2, 15.6, 4000)
    chance = 1.0 / (1.0 + np.exp(-6.0 * (mass - 14.4)))
    Table({"log10_mass": mass, "selected": (rng.random(4000) < chance).astype(int)}).write(tmp_path / "m.csv")
    probability = read_selection(tmp_path / "m.csv")
    grid = np.linspace(13.6, 15.2, 9)
    # 4000 mocks, about 170 in 0.1 dex: a standard error of 0.04 where P is a half, less elsewhere.
    assert_allclose(probability(grid, 0.0), 1.0 / (1.0 + np.exp(-6.0 * (grid - 14.4))), atol=0.1)


def test_selection_multiplies_the_prior_of_infer(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = toy_estimator().save(tmp_path / "model")
    Table({"log10_mass": [13.0, 14.0, 14.6, 16.0], "probability": [0.0, 0.0, 0.9, 1.0]}).write("s.csv")
    flags = [*tables(toy_catalog(6, seed=2), tmp_path), "--model", str(model), "--device", "cpu"]
    assert infer_main([*flags, "--prior", "hmf", "--out", "all.ecsv"]) == 0
    assert infer_main([*flags, "--prior", "hmf", "--selection", "s.csv", "--out", "chosen.ecsv"]) == 0
    plain, chosen = Table.read("all.ecsv"), Table.read("chosen.ecsv")
    assert set(chosen["prior"]) == {"hmf, selected"}
    assert (chosen["log10_mass"] > plain["log10_mass"]).all()


def test_a_model_cannot_be_told_what_it_does_not_know(tmp_path, capsys):
    model = toy_estimator().save(tmp_path / "model")
    flags = [*tables(toy_catalog(6, seed=2), tmp_path), "--model", str(model), "--device", "cpu"]
    assert infer_main([*flags, "--assume", "velocity_bias=1.0", "--out", str(tmp_path / "m.ecsv")]) == 2
    assert "this model can be told nothing" in capsys.readouterr().err


# A million rows, one of them broken


def test_one_broken_row_of_a_million_is_left_out_and_said_and_nothing_else_is_lost(tmp_path, capsys):
    n, broken = 1_000_000, 654_321
    rng = np.random.default_rng(1)
    galaxies = Table(
        {
            "cluster_id": np.repeat(np.arange(n // 100), 100),
            "x": rng.uniform(-1.0, 1.0, n),
            "y": rng.uniform(-1.0, 1.0, n),
            "v_los": rng.normal(0.0, 300.0, n),
        }
    )
    galaxies["v_los"][broken] = np.nan
    galaxies.write(tmp_path / "galaxies.parquet")
    Table({"cluster_id": np.arange(n // 100), "redshift": np.full(n // 100, 0.1)}).write(
        tmp_path / "c.parquet"
    )
    before = (tmp_path / "galaxies.parquet").read_bytes()
    out = tmp_path / "masses.ecsv"
    flags = ["--galaxies", str(tmp_path / "galaxies.parquet"), "--clusters", str(tmp_path / "c.parquet")]
    model = toy_estimator().save(tmp_path / "model")
    code = infer_main([*flags, "--model", str(model), "--device", "cpu", "--no-progress", "--out", str(out)])
    assert code == 0
    said = capsys.readouterr().err.replace(",", "")
    assert "galaxies.parquet" in said
    assert f"row {broken + 1}" in said
    assert "v_los" in said
    masses = Table.read(out, format="ascii.ecsv")
    assert len(masses) == n // 100
    assert masses["n_galaxies"].sum() == n - 1
    assert masses["n_galaxies"][broken // 100] == 99
    assert (tmp_path / "galaxies.parquet").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "c.parquet",
        "galaxies.parquet",
        "masses.ecsv",
        "model",
    ]
