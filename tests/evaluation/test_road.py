"""The road from a catalogue to posteriors: one mass from every command, any batches, unusable clusters set aside."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from counted_bar import counted_bars
from matplotlib.figure import Figure
from small_model import toy_catalog, toy_estimator, with_uncertain_weights

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.compare import main as compare
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.evaluate import main as evaluate
from bayesflowmass.evaluation import cards, posterior_columns, posteriors, road, write_cards
from bayesflowmass.evaluation import figures as evaluation_figures
from bayesflowmass.figures import figures
from bayesflowmass.infer import infer
from bayesflowmass.infer import main as infer_command
from bayesflowmass.plots import style
from bayesflowmass.recalibrate import recalibrate
from bayesflowmass.saliency import galaxy_gradients, leave_one_out, masked_map

AGREE = 1e-6  # dex
FEW = 40


@pytest.fixture(scope="module")
def estimator():
    """A toy model that counts galaxies: its masses differ by half a dex, and by more with the galaxies outside."""
    return toy_estimator(uses_richness=True)


@pytest.fixture(scope="module")
def near():
    """Clusters inside the cylinder of the model, with known members."""
    catalog = toy_catalog(FEW, seed=2)
    return catalog.with_galaxies(gal_is_member=np.abs(catalog.galaxies("v_los")) < 1500.0)


@pytest.fixture(scope="module")
def far(near):
    """The same clusters in a wider and deeper cylinder: a third more galaxies beyond 1.6 Mpc/h or 2500 km/s."""
    rng = np.random.default_rng(7)
    extra = rng.poisson(near.n_galaxies / 3.0) + 3
    n = int(extra.sum())
    angle, deep = rng.uniform(0.0, 2.0 * np.pi, n), rng.random(n) < 0.5
    radius = np.where(deep, rng.uniform(0.1, 1.5, n), rng.uniform(1.65, 3.0, n))
    speed = np.where(
        deep, rng.choice([-1.0, 1.0], n) * rng.uniform(2550.0, 4000.0, n), rng.normal(0.0, 800.0, n)
    )
    columns = {
        "x": radius * np.cos(angle),
        "y": radius * np.sin(angle),
        "v_los": speed,
        "gal_is_member": np.zeros(n, dtype=bool),
    }
    owner = np.concatenate([near.galaxy_rows, np.repeat(np.arange(len(near)), extra)])
    order = rng.permutation(owner.size)
    order = order[np.argsort(owner[order], kind="stable")]
    galaxies = {
        name: np.concatenate([near.galaxies(name), values])[order] for name, values in columns.items()
    }
    galaxies["gal_inside"] = np.concatenate(
        [np.ones(near.n_galaxies_total, dtype=bool), np.zeros(n, dtype=bool)]
    )[order]
    clusters = {name: near.column(name) for name in near.cluster_columns}
    metadata = near.metadata.replace(selection=near.metadata.selection | {"r_max": 3.0, "v_max": 4000.0})
    return ClusterCatalog.from_arrays(clusters, galaxies, near.n_galaxies + extra, metadata)


@pytest.fixture(scope="module")
def masses(estimator, near):
    """What the model says of the clusters without the galaxies outside."""
    return np.asarray(infer(estimator, near)["log10_mass"])


@pytest.fixture(scope="module")
def folder(estimator, near, far, tmp_path_factory):
    place = tmp_path_factory.mktemp("far")
    estimator.save(place / "model")
    near.write(place / "near.parquet")
    far.write(place / "far.parquet")
    toy_catalog(400, seed=8).write(place / "training.parquet")
    return place


def command(folder, words):
    """Flags of a command, their values files of a folder."""
    flags = [word for name, value in words.items() for word in (f"--{name}", str(folder / value))]
    return [*flags, "--no-progress", "--device", "cpu"]


def nothing_saved(figure, path, **options):
    """Files take most of the time of a figure, and show nothing of its numbers."""
    return []


class TestGalaxiesOutsideTheCylinderChangeNoMassOf:
    def test_the_model(self, estimator, far, masses):
        np.testing.assert_allclose(estimator.posterior(far).median, masses, rtol=0, atol=AGREE)
        np.testing.assert_allclose(
            estimator.condition(far).mean.numpy(), estimator.posterior(far).mean, rtol=0, atol=1e-4
        )

    def test_infer(self, folder, masses):
        words = {"model": "model", "galaxies": "far.parquet", "out": "masses.ecsv"}
        assert infer_command(command(folder, words)) == 0
        np.testing.assert_allclose(
            Table.read(folder / "masses.ecsv")["log10_mass"], masses, rtol=0, atol=AGREE
        )

    def test_evaluate(self, folder, near, masses, monkeypatch):
        monkeypatch.setattr(evaluation_figures, "save_figure", nothing_saved)
        words = {"model": "model", "catalog": "far.parquet", "out": "evaluation"}
        words["baseline-catalog"] = "training.parquet"
        assert evaluate([*command(folder, words), "--bootstrap", "5"]) == 0
        stored = pq.read_table(folder / "evaluation" / "predictions.parquet")
        np.testing.assert_allclose(stored["log10_mass"], masses, rtol=0, atol=AGREE)
        np.testing.assert_array_equal(stored["n_galaxies"], near.n_galaxies)

    def test_compare_and_its_baselines(self, folder, masses, monkeypatch):
        """Baselines are fitted on clusters of a cylinder, and see no other."""
        monkeypatch.setattr(style, "save_figure", nothing_saved)
        counted = []
        for name in ("near", "far"):
            words = {"models": "model", "catalog": f"{name}.parquet", "out": f"compared-{name}"}
            words["baseline-catalog"] = "training.parquet"
            assert compare([*command(folder, words), "--baselines"]) == 0
            stored = pq.read_table(folder / f"compared-{name}" / "model-0" / "predictions.parquet")
            np.testing.assert_allclose(stored["log10_mass"], masses, rtol=0, atol=AGREE)
            richness = pq.read_table(folder / f"compared-{name}" / "richness-0" / "predictions.parquet")
            counted.append(richness["log10_mass"].to_numpy())
        np.testing.assert_allclose(*counted, rtol=0, atol=AGREE)

    def test_recalibrate(self, estimator, near, far):
        reports = [
            recalibrate(estimator, twenty_times(c), conformal_fraction=0.5, min_count=100)[1]
            for c in (near, far)
        ]
        for key in ("raw", "recalibrated"):
            ours, theirs = (report["held_out"][key] for report in reports)
            assert ours == pytest.approx(theirs, rel=1e-4), key
        np.testing.assert_allclose(*(report["edges"] for report in reports), rtol=0, atol=AGREE)

    def test_figures(self, estimator, near, far, folder, tmp_path, monkeypatch):
        monkeypatch.setattr(style, "save_figure", nothing_saved)
        training = ClusterCatalog.read(folder / "training.parquet")
        drawn = []
        for name, catalog in (("near", near), ("far", far)):
            (tmp_path / name).mkdir()
            figures(estimator, catalog, tmp_path / name, training_catalog=training, n_resamples=2)
            drawn.append(json.loads((tmp_path / name / "figures.json").read_text(encoding="utf-8")))
        assert drawn[0]["three_clusters"] == drawn[1]["three_clusters"]
        for name, pair in drawn[0]["equation_8"].items():
            for key in ("sigma_N", "sigma_0"):
                assert drawn[1]["equation_8"][name][key] == pytest.approx(pair[key], abs=AGREE), name

    def test_the_cards(self, estimator, near, far, masses, tmp_path, monkeypatch):
        shown = []

        def draw(cluster, posterior, **options):
            shown.append((posterior.median[0], cluster.n_galaxies_total, len(options["attribution"])))
            return Figure()

        monkeypatch.setattr(cards, "plot_cluster_card", draw)
        monkeypatch.setattr(cards, "save_figure", nothing_saved)
        write_cards(estimator, far[:2], tmp_path)
        np.testing.assert_allclose([median for median, _, _ in shown], masses[:2], rtol=0, atol=AGREE)
        counts = near.n_galaxies[:2].tolist()
        assert [(n, attributed) for _, n, attributed in shown] == [(n, n) for n in counts]

    def test_saliency(self, estimator, near, far, masses):
        few, wide = near[:2], far[:2]
        inside = wide.galaxies("gal_inside")
        change = leave_one_out(estimator, wide)
        assert (change[~inside] == 0.0).all()
        order = np.lexsort((wide.galaxies("v_los")[inside], wide.galaxy_rows[inside]))
        expected = leave_one_out(estimator, few)
        theirs = np.lexsort((few.galaxies("v_los"), few.galaxy_rows))
        np.testing.assert_allclose(change[inside][order], expected[theirs], rtol=0, atol=2 * AGREE)
        assert masked_map(estimator, wide).log10_mass["median"] == pytest.approx(masses[0], abs=AGREE)
        gradients = galaxy_gradients(estimator, wide)
        np.testing.assert_allclose(gradients.log10_mass, masses[:2], rtol=0, atol=1e-4)
        assert (gradients.v_los[~inside] == 0.0).all()
        assert (gradients.v_los[inside] != 0.0).any()
        np.testing.assert_allclose(
            gradients.log10_velocity, galaxy_gradients(estimator, few).log10_velocity, rtol=1e-9
        )


def twenty_times(catalog):
    """Twenty copies of each cluster, each a halo of its own: as many as a recalibration needs."""
    many = catalog[np.tile(np.arange(len(catalog)), 20)]
    return many.with_columns(cluster_id=np.arange(len(many)))


class TestBatches:
    @pytest.mark.parametrize("limits", [(1, 10**6), (7, 10**6), (10**6, 1), (10**6, 300), (10**6, 10**6)])
    def test_any_batches_give_the_same_masses_in_order(self, estimator, near, masses, limits):
        batches = list(posteriors(estimator, near, clusters_at_once=limits[0], galaxies_at_once=limits[1]))
        for batch in batches:
            assert len(batch) <= limits[0]
            assert batch.everyone.n_galaxies_total <= limits[1] or len(batch) == 1
        np.testing.assert_array_equal(np.concatenate([batch.rows for batch in batches]), np.arange(FEW))
        medians = np.concatenate([batch.posterior.median for batch in batches])
        np.testing.assert_allclose(medians, masses, rtol=0, atol=AGREE)

    def test_a_cluster_of_200_000_galaxies_passes(self, estimator, near):
        rng = np.random.default_rng(0)
        n = 200_000
        big = ClusterCatalog.from_arrays(
            {"cluster_id": [0], "redshift": [0.117], "log10_mass": [15.0]},
            {"x": rng.normal(0.0, 0.4, n), "y": rng.normal(0.0, 0.4, n), "v_los": rng.normal(0.0, 800.0, n)},
            [n],
            near.metadata,
        )
        both = ClusterCatalog.concatenate([near[:3].without("gal_is_member"), big])
        table = infer(estimator, both)
        assert not table["log10_mass"].mask.any()
        np.testing.assert_allclose(
            table["log10_mass"][3], estimator.posterior(big).median[0], rtol=0, atol=AGREE
        )

    def test_all_batches_have_the_same_draws_of_the_weights(self, estimator, near, monkeypatch):
        model = with_uncertain_weights(estimator)
        drawn = []
        draw = MassEstimator.draw
        monkeypatch.setattr(MassEstimator, "draw", lambda self, *a: drawn.append(a) or draw(self, *a))
        parts = [b.posterior.mean for b in posteriors(model, near, n_draws=5, seed=3, clusters_at_once=9)]
        assert drawn == [(5, 3)]
        list(posteriors(model, near[:1]))
        assert drawn[1:] == [(None, 0)]
        np.testing.assert_allclose(
            np.concatenate(parts), model.posterior(near, n_draws=5, seed=3).mean, rtol=0, atol=AGREE
        )

    def test_an_interruption_ends_the_bar_and_leaves_the_batches_before(
        self, estimator, near, monkeypatch, capsys
    ):
        whole = MassEstimator.posterior
        calls = []

        def interrupted(self, *args, **options):
            calls.append(args)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return whole(self, *args, **options)

        monkeypatch.setattr(MassEstimator, "posterior", interrupted)
        done = []

        def walk():
            for batch in posteriors(estimator, near, clusters_at_once=10, progress=True):
                done.append(batch.first)

        with pytest.raises(KeyboardInterrupt):
            walk()
        assert done == [0, 10]
        # The bar is closed: the cursor is back at the start of a cleared line.
        assert capsys.readouterr().err.endswith("\r")

    def test_progress_counts_clusters_on_standard_error(self, estimator, near, capsys, monkeypatch):
        list(posteriors(estimator, near, clusters_at_once=16, progress=True, label="masses"))
        streams = capsys.readouterr()
        assert "masses: " in streams.err
        assert f"/{FEW}" in streams.err
        assert streams.out == ""
        bars = counted_bars(monkeypatch, road)
        list(posteriors(estimator, near, clusters_at_once=16))
        assert [(bar.n, bar.total, bar.shown) for bar in bars] == [(FEW, FEW, False)]


@pytest.fixture(scope="module")
def spoiled(near):
    """Clusters of which some have no mass: 0 has two galaxies, 5 none in the grid, 6 one velocity, 9 lies outside."""
    velocity, x = np.array(near.galaxies("v_los")), np.array(near.galaxies("x"))
    rows, offsets = near.galaxy_rows, near.offsets
    velocity[rows == 5] = 2300.0 + 10.0 * np.arange(near.n_galaxies[5]) % 150
    velocity[rows == 6] = 120.0
    x[rows == 9] += 5.0
    keep = np.ones(rows.size, dtype=bool)
    keep[offsets[0] + 2 : offsets[1]] = False
    return near.with_galaxies(v_los=velocity, x=x).filter_galaxies(keep)


UNUSABLE = {0: "too_few_galaxies", 5: "no_density", 6: "no_density", 9: "too_few_galaxies"}


class TestUnusableClusters:
    @pytest.mark.parametrize("at_once", [1, 6, 10**6])
    def test_are_set_aside_with_their_reason(self, estimator, spoiled, masses, at_once):
        problems, medians = [], np.full(FEW, np.nan)
        for batch in posteriors(estimator, spoiled, clusters_at_once=at_once):
            problems += batch.problems.tolist()
            assert len(batch.flags) == len(batch.p_novelty) == len(batch)
            if batch.posterior is not None:
                medians[batch.rows] = batch.posterior.median
        assert {row: why for row, why in enumerate(problems) if why} == UNUSABLE
        good = np.array([row not in UNUSABLE for row in range(FEW)])
        np.testing.assert_array_equal(np.isfinite(medians), good)
        np.testing.assert_allclose(medians[good], masses[good], rtol=0, atol=AGREE)

    def test_have_masked_rows_even_in_a_batch_of_their_own(self, estimator, spoiled, masses, monkeypatch):
        whole = infer(estimator, spoiled, pdf=True)
        monkeypatch.setitem(road.posteriors.__kwdefaults__, "clusters_at_once", 1)
        table = infer(estimator, spoiled, pdf=True)
        assert table.colnames == whole.colnames
        np.testing.assert_array_equal(np.flatnonzero(table["log10_mass"].mask), list(UNUSABLE))
        for row, why in UNUSABLE.items():
            assert table["flags"][row].split(",")[0] == why
        np.testing.assert_allclose(table["log10_mass"][1:5], masses[1:5], rtol=0, atol=AGREE)
        np.testing.assert_array_equal(table["flags"], whole["flags"])

    def test_leave_the_flags_of_the_others_as_they_were(self, estimator, near, spoiled):
        others = np.array([row not in UNUSABLE for row in range(FEW)])
        alone, beside = (infer(estimator, catalog)["flags"] for catalog in (near.filter(others), spoiled))
        np.testing.assert_array_equal(beside[others], alone)

    def test_are_nan_in_columns(self, estimator, spoiled):
        found = posterior_columns(
            estimator,
            spoiled,
            {"median": lambda p, _: p.median, "ends": lambda p, _: p.quantile([0.1, 0.9]).T},
        )
        assert found["ends"].shape == (FEW, 2)
        for values in (found["median"], found["ends"][:, 1]):
            np.testing.assert_array_equal(np.flatnonzero(np.isnan(values)), list(UNUSABLE))

    def test_have_no_card(self, estimator, spoiled, tmp_path, monkeypatch):
        bars = counted_bars(monkeypatch, cards)
        paths = write_cards(estimator, spoiled[:2], tmp_path, attribution=False)
        assert [path.name for path in paths] == ["1.pdf", "1.png"]
        assert [(bar.n, bar.total, bar.shown) for bar in bars] == [(1, 2, False)]

    def test_a_catalogue_of_nothing_else_is_refused_by_name(self, estimator, spoiled):
        with pytest.raises(CatalogError, match=r"None of the 2 clusters .* cluster 5 has galaxies without"):
            list(posteriors(estimator, spoiled[5:7]))
        for at_once in (1, 2):
            with pytest.raises(CatalogError, match=r"None of the 2 clusters .* cluster 0 has fewer than"):
                list(posteriors(estimator, spoiled[np.array([0, 5])], clusters_at_once=at_once))
        assert len(list(posteriors(estimator, spoiled[5:7], a_part=True))) == 1
        with pytest.raises(CatalogError, match="no clusters"):
            list(posteriors(estimator, spoiled[:0]))
