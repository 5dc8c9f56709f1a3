"""The command `compare`: work folders, models, names of runs, and what is said of mistakes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from comparisons import SIGMA, gaussian_run
from small_model import toy_catalog, toy_estimator

from bayesflowmass.compare import compare, main
from bayesflowmass.comparison import runs as compare_runs
from bayesflowmass.comparison.models import find_work, parse_models
from bayesflowmass.evaluation.files import read_predictions, write_predictions
from bayesflowmass.plots.checks.comparison import FIRST_PAGE, plot_comparison
from bayesflowmass.plots.style import COLUMN_WIDTH


def write(path, truth, mean, sigma, epistemic=0.0, catalog=None, note=None):
    write_predictions(
        path, catalog, gaussian_run(truth, mean, sigma, epistemic=epistemic).columns, note or {}
    )
    return path


@pytest.fixture(scope="module")
def clusters():
    catalog = toy_catalog(900, seed=4)
    return catalog.with_columns(halo_id=np.arange(900) // 2)


@pytest.fixture(scope="module")
def work(clusters, tmp_path_factory):
    """Like that of the flagship comparison."""
    folder = tmp_path_factory.mktemp("work")
    clusters.write(folder / "test.parquet")
    truth = clusters.column("log10_mass")
    rng = np.random.default_rng(6)
    for name in ("small", "large"):
        noise = SIGMA * rng.normal(size=truth.size)
        for seed in range(4):
            mean = truth + noise + 0.01 * rng.normal(size=truth.size)
            write(
                folder / name / f"point-{seed}/predictions.parquet",
                truth,
                mean,
                0.7 * SIGMA,
                catalog=clusters,
            )
            write(folder / name / f"laplace-{seed}/predictions.parquet", truth, mean, SIGMA, 0.05, clusters)
    return folder


class TestCommand:
    def test_a_work_folder_is_compared_set_by_set(self, work, tmp_path, capsys):
        out = tmp_path / "out"
        assert main(["--work", str(work), "--out", str(out)]) == 0
        text = capsys.readouterr().out
        assert "laplace against point: coverage closer to nominal" in text
        stored = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
        assert [s["name"] for s in stored["sections"]] == ["large", "small"]
        assert stored["n_haloes"] == 450
        section = stored["sections"][0]
        assert section["reference"] == "point"
        assert section["methods"]["laplace"]["bayesian"]
        assert not section["methods"]["point"]["bayesian"]
        assert "epistemic_share" not in section["methods"]["point"]["by_true"][0]
        last = section["differences"]["laplace"]["by_predicted"][-1]
        assert last["bin"] == "14.0-15.4"
        assert last["log_score"]["error"] > 0
        assert last["coverage_68_distance"]["value"] < 0
        page = (out / "comparison.md").read_text(encoding="utf-8")
        assert page.startswith("# Deterministic against Bayesian on massive clusters")
        assert page.index("15.0-15.4") < page.index("## By true mass")
        tables = [line for line in page.splitlines() if line.startswith("|")]
        assert {line.count("|") for line in tables} == {11, 12}
        for stem in ("first_page_small", "accuracy_large"):
            assert (out / f"{stem}.pdf").is_file()
            assert (out / f"{stem}.png").is_file()

    def test_sets_can_be_chosen(self, work):
        assert list(find_work(work, ["small"])) == ["small"]
        assert [run.seed for run in find_work(work / "small")["small"]["point"]] == ["0", "1", "2", "3"]
        with pytest.raises(ValueError, match="holds nothing for the set 'tiny'; it has large, small"):
            find_work(work, ["tiny"])

    def test_methods_can_be_chosen(self, work):
        assert list(find_work(work, methods=["point", "laplace"])["small"]) == ["point", "laplace"]
        with pytest.raises(
            ValueError, match=r"set 'large' of .* has no method 'laplas'; it has laplace, point"
        ):
            find_work(work, methods=["point", "laplas"])

    def test_models_predict_once_and_a_rerun_reads(self, clusters, tmp_path, monkeypatch, capsys):
        clusters.filter(clusters.column("log10_mass") > 14.0).write(tmp_path / "test.parquet")
        for name in ("a", "b"):
            toy_estimator(uses_richness=name == "b").save(tmp_path / name)
        command = [
            "--models",
            str(tmp_path / "a"),
            f"other={tmp_path / 'b'}",
            "--catalog",
            str(tmp_path / "test.parquet"),
        ]
        command += [
            "--out",
            str(tmp_path / "out"),
            "--edges",
            "14",
            "14.7",
            "15.5",
            "--no-progress",
            "--device",
            "cpu",
        ]
        assert main(command) == 0
        assert "predicts" in capsys.readouterr().out
        first = json.loads((tmp_path / "out/comparison.json").read_text(encoding="utf-8"))
        note = read_predictions(tmp_path / "out/a-0/predictions.parquet", "0").note
        assert note["prior"] == "flat"

        def fail(*args, **kwargs):
            raise AssertionError("predicted again")

        monkeypatch.setattr(compare_runs, "predict", fail)
        assert main(command) == 0
        assert json.loads((tmp_path / "out/comparison.json").read_text(encoding="utf-8")) == first
        with pytest.raises(AssertionError, match="predicted again"):
            main([*command, "--prior", "hmf"])

    def test_baselines_are_among_the_models(self, clusters, tmp_path):
        clusters.write(tmp_path / "test.parquet")
        toy_catalog(500, seed=8).write(tmp_path / "train.parquet")
        toy_estimator().save(tmp_path / "a")
        command = [
            "--models",
            str(tmp_path / "a"),
            "--catalog",
            str(tmp_path / "test.parquet"),
            "--baselines",
        ]
        command += ["--baseline-catalog", str(tmp_path / "train.parquet"), "--out", str(tmp_path / "out")]
        command += ["--no-progress", "--device", "cpu"]
        assert main(command) == 0
        found = json.loads((tmp_path / "out/comparison.json").read_text(encoding="utf-8"))
        assert not any("do not say where their prior ends" in remark for remark in found["remarks"])
        section = found["sections"][0]
        assert list(section["methods"]) == [
            "a",
            "msigma_inverse",
            "msigma_regression",
            "msigma_evrard",
            "richness",
        ]
        # The network of random weights knows nothing; the galaxy count does.
        gain = section["differences"]["richness"]["by_true"][-1]["scatter"]
        assert gain["value"] < -3 * gain["error"]

    def test_clusters_may_come_in_any_order(self, tmp_path):
        truth = np.linspace(14, 15, 200)
        order = np.random.default_rng(0).permutation(200)
        straight = gaussian_run(truth, truth + 0.02, SIGMA)
        shuffled = gaussian_run(truth[order], truth[order] + 0.02, SIGMA, cluster_id=order)
        result = compare(
            {"": {"a": [straight], "b": [shuffled]}}, tmp_path, edges=(14.0, 14.5, 15.0), figures=False
        )
        for entry in result["sections"][0]["differences"]["b"]["by_true"]:
            assert abs(entry["crps"]["value"]) < 1e-15
        assert "the population is unknown and coverage is not judged" in result["remarks"][0]

    def test_a_mixed_pair_is_said_to_be_one(self, work, clusters, tmp_path):
        runs = {label: [read_predictions(r[0].path, "0")] for label, r in find_work(work)["small"].items()}
        result = compare({"": runs}, tmp_path, catalog=clusters, prior="hmf", figures=False)
        assert not result["coverage_can_be_nominal"]
        assert "give the prior of the set (--prior flat)" in result["remarks"][0]
        coverage = [v for v in result["sections"][0]["verdicts"] if v["quantity"] == "coverage_68"]
        assert {v["sentence"] for v in coverage} == {"coverage not judged (population and prior differ)"}
        assert "closer to nominal" not in "".join(result["sections"][0]["summary"])


def test_a_method_far_off_does_not_hide_the_others_in_the_figure(work, tmp_path):
    result = compare(
        {
            "": {
                label: [read_predictions(r.path, r.seed) for r in runs]
                for label, runs in find_work(work)["small"].items()
            }
        },
        tmp_path,
        figures=False,
    )
    section = result["sections"][0]
    for i, factor in enumerate((1.0, 1.5, 100.0)):
        copy = json.loads(json.dumps(section["differences"]["laplace"]))
        for entry in copy["by_predicted"]:
            entry["log_score"]["value"] *= factor
        section["methods"][f"m{i}"], section["differences"][f"m{i}"] = section["methods"]["laplace"], copy
    figure = plot_comparison(section, FIRST_PAGE)
    figure.canvas.draw()
    assert figure.get_size_inches()[0] == pytest.approx(COLUMN_WIDTH)
    assert all(axis.get_ylabel() for axis in figure.axes)
    drawn = max(abs(e["log_score"]["value"]) for e in section["differences"]["m1"]["by_predicted"])
    assert max(np.abs(figure.axes[1].get_ylim())) < 3 * drawn
    triangles = [line for line in figure.axes[1].lines if line.get_marker() == "^" and len(line.get_xdata())]
    assert sum(len(line.get_xdata()) for line in triangles if line.get_ydata()[0] == 0.95) == 5


class TestNames:
    def test_numbered_folders_are_seeds_of_one_method(self, work):
        found = parse_models([str(work / "small" / name) for name in ("point-0", "laplace-1", "point-1")])
        assert {label: [run.seed for run in runs] for label, runs in found.items()} == {
            "point": ["0", "1"],
            "laplace": ["1"],
        }

    def test_labels_group_any_folders(self, work):
        found = parse_models([f"mine={work / 'small/point-1'},{work / 'large/point-1'}"])
        assert [run.seed for run in found["mine"]] == ["0", "1"]
        found = parse_models([f"mine={work / 'small/point-1/predictions.parquet'},{work / 'large/point-0'}"])
        assert [run.seed for run in found["mine"]] == ["1", "0"]

    def test_two_runs_of_one_seed_are_refused(self, work):
        with pytest.raises(ValueError, match="are both run 1 of 'point'; give each method a label"):
            parse_models([str(work / "small/point-1"), str(work / "large/point-1")])


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (
            ["--models", "nowhere", "{work}/small/point-0"],
            "The run 'nowhere' does not exist; give a model folder",
        ),
        (["--models", "a=", "b"], "'a=' does not name models; expected RUN or LABEL=RUN,RUN."),
        (["--models", "{work}"], "holds neither model.json nor predictions.parquet"),
        (["--models", "{work}/small/point-0"], "There is only one model to compare, 'point'"),
        ([], "either --models or --work says what to compare"),
        (["--models", "x", "--work", "{work}"], "either --models or --work"),
        (["--work", "{work}/nothing"], "nothing' does not exist"),
        (["--work", "{work}", "--reference", "poin"], "The reference 'poin' is not among the models"),
        (["--work", "{work}", "--edges", "15", "14"], "at least two edges, increasing"),
        (
            ["--work", "{work}", "--baselines"],
            "Baselines need clusters to be fitted on; give --baseline-catalog",
        ),
        (["--models", "{work}/test.parquet", "{work}/small/point-0"], "has no column log10_mass_true, q025"),
        (["--models", "{work}/other.parquet", "{work}/small/point-0"], "are not of the same clusters"),
        (
            ["--models", "{work}/wrong.parquet", "{work}/small/point-0"],
            "disagree on the true log10_mass of cluster",
        ),
        (
            ["--models", "{work}/hmf.parquet", "{work}/small/point-0"],
            "under the hmf prior and flat is asked for",
        ),
        (["--models", "{work}/broken.parquet", "{work}/small/point-0"], "is not a readable parquet file"),
    ],
)
def test_mistakes_are_answered_in_one_sentence(argv, words, work, clusters, tmp_path, capsys):
    truth = clusters.column("log10_mass")
    write(work / "other.parquet", truth[:800], truth[:800], SIGMA, catalog=clusters[:800])
    write(work / "wrong.parquet", truth + 0.01, truth, SIGMA, catalog=clusters)
    write(work / "hmf.parquet", truth, truth, SIGMA, catalog=clusters, note={"prior": "hmf"})
    (work / "broken.parquet").write_bytes(b"PAR1 broken")
    code = main([word.format(work=work) for word in argv] + ["--out", str(tmp_path)])
    error = capsys.readouterr().err
    assert code == 2
    assert words in error
    assert len(error.strip().splitlines()) == 1


def test_a_model_without_a_catalogue_is_refused(tmp_path, capsys):
    toy_estimator().save(tmp_path / "a")
    toy_estimator().save(tmp_path / "b")
    code = main(["--models", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "o")])
    assert code == 2
    assert "must predict and there is no catalogue; give --catalog FILE" in capsys.readouterr().err


def test_the_output_must_not_be_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main(["--models", "a", "b", "--out", str(tmp_path / "file")]) == 2
    assert "is a file; give a folder" in capsys.readouterr().err
