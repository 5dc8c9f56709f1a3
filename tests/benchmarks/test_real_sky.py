"""What `benchmarks/real_sky/__main__.py` computes: on mocks of known truth here, on real clusters where they are."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from small_model import toy_estimator

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.cosmology import comoving_distance, redshift_at_distance, transverse_mpc_h_per_radian
from benchmarks.real_sky import __main__ as real_sky
from benchmarks.real_sky import data as sky_data
from benchmarks.real_sky import field as sky_field
from benchmarks.real_sky import method as sky_method
from benchmarks.real_sky import samples as sky_samples
from benchmarks.real_sky.page import page, samples_page, table

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
needs_data = [
    pytest.mark.shared_data,
    pytest.mark.skipif(not DATA.is_dir(), reason="the real catalogues of ../shared/data are not here"),
]


def _catalog(x, y, v, counts, redshift=0.05, **columns):
    clusters = {"cluster_id": np.arange(len(counts)), "redshift": np.full(len(counts), redshift), **columns}
    flat = {"x": np.asarray(x, float), "y": np.asarray(y, float), "v_los": np.asarray(v, float)}
    return ClusterCatalog.from_arrays(clusters, flat, np.asarray(counts))


def _sample(n, rng, shift=0.0, width=0.3):
    ours = rng.uniform(14.0, 15.0, n)
    return {"ours": ours, "sigma": np.full(n, 0.2), "virial": ours + shift + width * rng.normal(size=n)}


@pytest.fixture
def few_resamples(monkeypatch):
    monkeypatch.setattr(sky_method, "RESAMPLES", 200)


def test_samples_of_one_population_agree_within_two_standard_errors(few_resamples):
    rng = np.random.default_rng(0)
    rows = [row for k in range(12) for row in sky_method.agreement(_sample(150, rng), _sample(400, rng), k)]
    # 95 % are expected of 60, of which the pulls repeat what the residuals say: 80 % leaves room for that.
    assert np.mean([row["agrees"] for row in rows]) > 0.8


def test_a_shift_and_a_wider_scatter_do_not_agree(few_resamples):
    rng = np.random.default_rng(8)
    # 0.15 dex is 4.5 standard errors of the median of 150 with a scatter of 0.3 dex (and its factor 1.25).
    moved = {r["statistic"]: r for r in sky_method.agreement(_sample(150, rng, 0.15), _sample(600, rng), 0)}
    assert not moved["median"]["agrees"]
    assert not moved["pull_median"]["agrees"]
    wide = {r["statistic"]: r for r in sky_method.agreement(_sample(150, rng, 0, 0.5), _sample(600, rng), 0)}
    assert not wide["scatter"]["agrees"]
    assert wide["scatter"]["sky"] == pytest.approx(0.5, rel=0.25)


def test_bootstrap_errors_are_those_of_many_samples(few_resamples):
    rng = np.random.default_rng(1)
    medians = [sky_method.difference(_sample(200, rng))["median"] for _ in range(300)]
    _, error = sky_method.bootstrap(_sample(200, rng), sky_method.difference, 2)
    # 300 samples give the standard error to 4 %, and one bootstrap scatters by 15 %.
    assert error["median"] == pytest.approx(np.std(medians), rel=0.5)


def test_fibres_collide_within_55_arcsec_and_a_third_is_recovered():
    rng = np.random.default_rng(2)
    scale = float(transverse_mpc_h_per_radian(0.05)) * np.pi / 180 / 3600
    n = 3000
    # Pairs 40 arcsec apart, far from each other: one of each pair collides.
    x = np.repeat(np.arange(n) * 0.1, 2) + np.tile([0.0, 40 * scale], n)
    catalog = _catalog(x, np.zeros(2 * n), np.zeros(2 * n), [2 * n])
    left = sky_method.fibre_collisions(catalog, rng).n_galaxies_total
    # Lost: 2/3 of 3000, give or take 26.
    assert 2 * n - left == pytest.approx(2000, abs=120)
    apart = _catalog(np.arange(50) * 60 * scale, np.zeros(50), np.zeros(50), [50])
    assert sky_method.fibre_collisions(apart, rng).n_galaxies_total == 50
    # Galaxies of different clusters never collide.
    two = _catalog(np.zeros(2), np.zeros(2), np.zeros(2), [1, 1])
    assert sky_method.fibre_collisions(two, rng).n_galaxies_total == 2


def test_mocks_are_thinned_to_the_redshifts_of_the_sky():
    rng = np.random.default_rng(3)
    wanted, there = 0.02 + 0.08 * rng.beta(4, 2, 150), rng.uniform(0.02, 0.1, 20_000)
    kept = there[sky_method.like_redshifts(there, wanted, rng)]
    edges = np.quantile(wanted, np.linspace(0, 1, 7))
    share = np.histogram(kept, edges)[0] / kept.size
    np.testing.assert_allclose(share, 1 / 6, atol=0.05)


def test_a_group_beside_a_cluster_is_no_peak():
    rng = np.random.default_rng(4)
    main = rng.normal(size=(3, 60)) * [[0.2], [0.2], [500.0]]
    group = main[:, :12] * 0.5
    beside = np.concatenate([group, main + np.array([[1.0], [0.0], [0.0]])], axis=1)
    both = np.concatenate([main, beside], axis=1)
    catalog = _catalog(*both, [60, 72])
    np.testing.assert_array_equal(sky_method.is_peak(catalog), [True, False])


def test_centres_that_run_away_are_left_out_and_others_come_back():
    rng = np.random.default_rng(5)
    cluster = rng.normal(size=(3, 80)) * [[0.25], [0.25], [400.0]]
    near = cluster + np.array([[0.15], [0.0], [200.0]])
    far = cluster + np.array([[0.9], [0.0], [0.0]])
    catalog = _catalog(*np.concatenate([near, far], axis=1), [80, 80])
    found = sky_method.centred_again(catalog, toy_estimator())
    assert list(found.column("cluster_id")) == [0]
    assert abs(np.mean(found.galaxies("x"))) < 0.08
    assert found.column("moved_r")[0] == pytest.approx(0.15, abs=0.08)


def test_clusters_that_share_a_tenth_of_their_galaxies_are_flagged(estimator):
    rng = np.random.default_rng(9)
    one = rng.normal(size=(3, 40)) * [[0.3], [0.3], [600.0]]
    counts = [40, 40]
    catalog = _catalog(*np.concatenate([one, one], axis=1), counts, 0.117, n_shared=np.array([4, 5]))
    flags = estimator.flags(catalog)
    assert ["shared" in row.split(",") for row in flags] == [False, True]


def test_mocks_of_the_survey_have_what_was_asked_for():
    estimator, z = toy_estimator(), np.linspace(0.05, 0.09, 60)
    survey = sky_method.mock_survey(estimator, 120, z, 0, "flat")
    assert survey.galaxies("gal_abs_mag").max() < sky_method.MAGNITUDE
    given = sky_method.mock_clusters(survey, estimator, z, 0, again=False)
    again = sky_method.mock_clusters(survey, estimator, z, 0, again=True)
    for catalog in (given, again):
        assert catalog.n_galaxies.min() >= sky_method.LEAST
        assert catalog.r_proj.max() < 1.6
        assert 0.05 <= catalog.column("redshift").min() <= catalog.column("redshift").max() <= 0.09
    assert again.column("moved_r").max() < sky_method.RUN_AWAY_R


def test_trends_find_a_planted_slope(few_resamples):
    rng = np.random.default_rng(6)
    against = {"n": rng.uniform(0, 1, 300), "nothing": rng.uniform(0, 1, 300)}
    residual = 0.4 * against["n"] + 0.1 * rng.normal(size=300)
    planted, nothing = sky_method.trends(residual, against, 0)
    assert planted["slope"] == pytest.approx(0.4, abs=4 * planted["error"])
    assert planted["error"] == pytest.approx(0.1 / np.sqrt(300 / 12), rel=0.3)
    assert abs(nothing["slope"]) < 4 * nothing["error"]


def test_volume_of_the_fast_cylinder_follows_from_the_hubble_flow():
    # At z = 0, 1000 km/s are 10 Mpc/h; two parts.
    assert sky_field.volume_of(0.0) == pytest.approx(np.pi * 1.6**2 * 20.0)
    assert sky_field.volume_of(0.1) < sky_field.volume_of(0.0) * 1.1
    assert sky_field.volume_of(0.0, 0.0, 500.0, 0.8) == pytest.approx(np.pi * (1.6**2 - 0.8**2) * 10.0)


def test_absolute_magnitudes_at_redshift_one_tenth():
    # D_L = 322 Mpc/h: M = 17 - 25 - 12.54 + 0.10.
    assert sky_field.absolute_magnitude(np.array([17.0]), np.array([0.1]))[0] == pytest.approx(
        -20.44, abs=0.02
    )


def test_a_random_field_has_its_density_and_no_excess_variance(tmp_path, monkeypatch):
    monkeypatch.setattr(sky_field, "CYLINDERS", 1500)
    rng = np.random.default_rng(7)
    n, (z_low, z_high) = 20_000, (0.04, 0.2)
    cube = np.array([float(comoving_distance(z)) ** 3 for z in (z_low, z_high)])
    distance = np.cbrt(rng.uniform(*cube, n))
    ra, dec = rng.uniform(129, 141, n), np.degrees(np.arcsin(rng.uniform(*np.sin(np.radians([-2, 3])), n)))
    z = redshift_at_distance(distance)
    r = -21.0 + 25 + 5 * np.log10(distance * (1 + z)) + (-0.10 + (z - 0.1))
    path = tmp_path / "field.dat"
    np.savetxt(
        path, np.stack([np.arange(n), ra, dec, z, r], axis=-1), header="UberID RA DEC Z Rpetro", comments=""
    )
    area = np.radians(12) * (np.sin(np.radians(3)) - np.sin(np.radians(-2)))
    density = n / (area * (cube[1] - cube[0]) / 3)
    for row in sky_field.gama(path, 0):
        # 1500 cylinders hold about 3000 galaxies: 2 %; and a variance is known to sqrt(2 / 1500) = 4 %.
        assert row["density"] == pytest.approx(density, rel=0.1)
        assert row["fano"] == pytest.approx(1.0, abs=0.2)


def test_literature_is_complete_and_in_one_definition():
    known, places = sky_data.literature(), sky_data.clusters("table")
    assert len(places) == 8
    for name in places["cluster"]:
        rows = known[known["cluster"] == name]
        assert {"table", "flow"} <= set(rows["kind"])
        assert all(13.5 < mass < 15.6 for mass in rows["log10_m200c"])
    assert all(str(reference) for reference in known["reference"])


def test_a_missing_file_and_a_broken_one_are_told_apart(tmp_path):
    estimator = toy_estimator()
    (missing,) = real_sky.attempt("DESI", "Coma", estimator, lambda: sky_data.coma_desi(estimator, tmp_path))
    assert missing["missing"].startswith("not available offline: coma_desi/data_DESI.dat")
    (tmp_path / "coma_gmp_dirty").mkdir()
    (tmp_path / "coma_gmp_dirty" / "coma_clusters.csv").write_text(
        "GMP,RA,Dec,Velocity\n1,194.9,27.9,\n", encoding="utf-8"
    )
    (refused,) = real_sky.attempt("gmp", "Coma", estimator, lambda: sky_data.coma_gmp(estimator, tmp_path))
    assert "none of the 1 galaxies has a position and a redshift or velocity" in refused["refused"]


def test_the_page_says_what_is_not_there(tmp_path):
    found = {"masses": real_sky.masses(toy_estimator(), tmp_path, [])}
    found |= {
        "samples": {"rows": list(sky_samples.samples(toy_estimator(), tmp_path))},
        "method": {"missing": "not available offline: x"},
        "field": {"missing": "not available offline: y"},
    }
    found["coma"] = real_sky.coma_verdict(found["masses"])
    text = page(found, sky_data.literature())
    for name in ("Coma", "A1689", "A85", "A119", "A576", "A1651", "A2142", "A2670"):
        assert f"| {name} | SDSS |  | not available offline" in text
    assert "cannot be judged here" in text
    assert "14.95 +0.04 -0.14 (Munari et al. 2014)" in text


def test_a_sample_that_disagrees_is_named_before_the_tables(monkeypatch):
    monkeypatch.setattr(sky_samples, "RESAMPLES", 50)
    rng = np.random.default_rng(3)
    reference = rng.uniform(14.0, 15.0, 200)
    noise, sigma = 0.2 * rng.normal(size=200), np.full(200, 0.2)
    text = {}
    for shift in (0.0, 0.3):
        estimates = {
            "this model, sz:14": (reference + noise + shift, sigma),
            "richness": (reference + 0.4, sigma),
        }
        rows = sky_samples.compare(estimates, reference, 0)
        value = rows["this model, sz:14"]["value"]
        assert value["median"] == pytest.approx(shift, abs=0.06)
        assert value["scatter"] == pytest.approx(noise.std(ddof=1))
        assert rows["richness"]["value"]["rank"] == pytest.approx(1.0)
        assert rows["richness"]["ours_minus_this"]["value"] == pytest.approx(noise.std(ddof=1))
        row = {"sample": "A", "prior": "sz:14", "n": 200, "rows": rows}
        both = sky_samples.statistics(reference + noise + shift, np.full(200, 0.5), reference)
        row["with_error"] = {"of": "somebody", "dex": 0.46, **both}
        text[shift] = samples_page({"rows": [row]})
    # Four standard errors of a share of 200 are 13 points, so that the coverage of the first may be named too.
    assert "median" not in text[0.0].split("from nominal:")[1].split("**")[0]
    # Noise of 0.2 dex beside errors of 0.5: 98.7 +- 0.8 % within the half width of 0.497.
    assert re.search(r"\(median 0\.46 dex: somebody\): (9[5-9]|100) / 100 % of our masses", text[0.0])
    assert "A (200 clusters): median +0.3" in text[0.3].split("from nominal:")[1].split("**")[0]


@pytest.mark.parametrize("connected", [True, False], ids=["online", "no connection"])
def test_archives_fill_the_rows_of_the_table_where_there_is_a_network(connected, monkeypatch, tmp_path):
    pytest.importorskip("astroquery")
    import requests
    from archive_answers import Archives, usual

    archives = Archives(usual if connected else lambda *request: requests.exceptions.ConnectionError("none"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(
        requests.adapters.HTTPAdapter, "send", lambda self, *a, **k: archives.send(self, *a, **k)
    )
    rows = real_sky.masses(toy_estimator(), tmp_path, ["sdss"])["table"]
    found = {row["cluster"]: row for row in rows if row["source"] == "sdss"}
    assert len(found) == 8
    if connected:
        # The recorded answer has the galaxies of A2142, and none of the others.
        assert np.isfinite(found["A2142"]["log10_mass"])
        assert "SDSS has no spectra" in found["Coma"]["missing"]
    else:
        assert "there is no connection to it" in found["A2142"]["missing"]


def test_coma_agrees_or_not_by_one_combined_sigma():
    def way(source, mass):
        return {
            "cluster": "Coma",
            "source": source,
            "log10_mass": mass,
            "sigma": 0.1,
            "q16": mass,
            "q84": mass,
        }

    close = real_sky.coma_verdict({"table": [way("a", 14.9), way("b", 15.0)]})
    assert close["agree"]
    assert close["in_range"] == {"a": True, "b": True}
    far = real_sky.coma_verdict({"table": [way("a", 14.9), way("b", 15.1)]})
    assert not far["agree"]
    assert far["in_range"] == {"a": True, "b": False}


def test_a_markdown_table_has_a_rule_below_its_heads():
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n|---|---|\n| 1 | 2 |\n"


class TestRealClusters:
    """On the files themselves; masses of a toy model mean nothing, so galaxies and sentences are looked at."""

    pytestmark = needs_data

    def test_shapley_clusters_are_cut_from_the_survey_and_share_galaxies(self, estimator):
        catalog = sky_data.shapley(estimator, DATA)
        counts = dict(zip(catalog.column("cluster_id"), catalog.n_galaxies, strict=True))
        for name, expected in {"A3558": 394, "A3571": 110, "A3562": 220, "A3528": 161, "A3556": 142}.items():
            assert counts[name] == pytest.approx(expected, rel=0.15)
        partners = dict(zip(catalog.column("cluster_id"), catalog.column("shares_with"), strict=True))
        assert partners["A3556"] == "A3558"
        row = real_sky.attempt("shapley", "", estimator, lambda: catalog)[4]
        assert row["cluster"] == "A3556"
        assert "galaxies with A3558" in row["flags"]

    def test_the_bullet_cluster_runs_and_a2255_has_each_galaxy_once(self, estimator):
        assert sky_data.bullet(estimator, DATA).n_galaxies[0] > 150
        a2255 = sky_data.a2255(estimator, DATA)
        assert a2255.n_galaxies_total <= 92
        assert "47 repeated measurements left out" in a2255.metadata.extra["notes"][0]

    def test_the_dirty_coma_table_is_refused_for_its_degrees_called_x(self, estimator):
        (row,) = real_sky.attempt("gmp", "Coma", estimator, lambda: sky_data.coma_gmp(estimator, DATA))
        assert "fits no unit we know" in row["refused"]

    def test_coma_of_desi_has_1350_galaxies_and_is_flagged_as_cleaned(self, estimator):
        (row,) = real_sky.attempt("DESI", "Coma", estimator, lambda: sky_data.coma_desi(estimator, DATA))
        assert row["n_galaxies"] == pytest.approx(1350, abs=20)
        assert "cleaned" in row["flags"]

    def test_the_density_of_gama_is_that_of_the_luminosity_function_within_its_cosmic_variance(
        self, monkeypatch
    ):
        monkeypatch.setattr(sky_field, "CYLINDERS", 1500)
        rows = sky_field.gama(DATA / "gama_g09" / "g09_galaxies.dat", 0)
        # 0.5 million (Mpc/h)^3 scatter by 10 to 15 %.
        assert rows[1]["density"] == pytest.approx(4.9e-3, rel=0.3)

    def test_sdss_clusters_are_chosen_by_count_alone(self, estimator):
        sky = sky_method.sky_clusters(estimator, *sky_data.galwcat(DATA))
        assert sky.n_galaxies.min() >= 20
        assert 60 < len(sky) < 124
        given = sky_method.sky_clusters(estimator, *sky_data.galwcat(DATA), again=False)
        assert len(given) == 124


def test_counts_compare_clusters_with_mocks_of_their_masses():
    rng = np.random.default_rng(0)

    def at(n_inner, n_outer, masses):
        n = len(masses)
        x = np.tile(np.repeat([0.2, 1.2], [n_inner, n_outer]), n)
        flat = {"x": x, "y": np.zeros(x.size), "v_los": rng.normal(0.0, 300.0, x.size)}
        columns = {
            "cluster_id": np.arange(n),
            "redshift": np.full(n, 0.05),
            "log10_mass": np.asarray(masses),
            "mode": np.full(n, "survey"),
        }
        return ClusterCatalog.from_arrays(columns, flat, np.full(n, n_inner + n_outer))

    mocks = ClusterCatalog.concatenate([at(5, 5, [14.0, 14.02]), at(20, 10, [14.5])])
    found = sky_samples.counts(at(8, 4, 4 * [0.0]), np.array([14.01, 14.5, 14.52, 15.2]), mocks)
    # The last has no mock of its mass, and the first none as rich as the poorest cluster.
    assert found["sky"] == [8.0, 0.0, 4.0]
    assert found["mocks"] == [20.0, 0.0, 10.0]
    both = sky_samples.counts(at(6, 4, [0.0, 0.0]), np.array([14.01, 14.5]), mocks)
    assert both["mocks"] == [12.5, 0.0, 7.5]
