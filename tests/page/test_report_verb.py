"""The report: what it says, and what it looks like in a browser."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table as AstropyTable
from browser import Browser, find_chromium
from comparisons import gaussian_run
from page_checks import CONTRAST, HEADINGS, LAYOUT, NAMES
from PIL import Image, PngImagePlugin
from run_folders import write_run

from bayesflowmass.cli import main as cli
from bayesflowmass.command import TrainSettings
from bayesflowmass.command.record import command_line
from bayesflowmass.command.run import parse_settings
from bayesflowmass.common.numbers import number, percent, with_error
from bayesflowmass.compare import compare
from bayesflowmass.evaluate import EvaluateSettings
from bayesflowmass.page.comparison import comparison_verdicts
from bayesflowmass.page.contents import report_page
from bayesflowmass.page.document import Page, Paragraph, Picture, Section, Table
from bayesflowmass.page.folder import ReportError, read_run_folder
from bayesflowmass.page.notes import note_sections
from bayesflowmass.page.render import render_page
from bayesflowmass.page.verdict import evaluation_verdict
from bayesflowmass.plots.card.names import card_names
from bayesflowmass.posterior.write_table import write_table
from bayesflowmass.report import main, report

ODD = "<b>A & B</b>"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """As the demo leaves it: a model, its evaluation, the masses of a table."""
    return write_run(tmp_path_factory.mktemp("runs") / "run", galaxies=(ODD, "beta", "gamma"))


@pytest.fixture(scope="module")
def page(runs):
    return report(runs)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """An exact method beside one that is 40 % too narrow, on 400 clusters."""
    rng = np.random.default_rng(0)
    mean = rng.uniform(13.7, 15.3, 400)
    truth = mean + 0.12 * rng.normal(size=400)

    def made(width, epistemic):
        return [gaussian_run(truth, mean, width * 0.12, epistemic=epistemic)]

    folder = tmp_path_factory.mktemp("compared") / "comparison"
    compare({"": {"point": made(0.6, 0.0), "bayes": made(1.0, 0.03)}}, folder, edges=(14.0, 14.5, 15.0))
    return folder


@pytest.fixture(scope="module")
def browser():
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium here; install Debian's package chromium to run this test")
    with Browser(path) as opened:
        yield opened


class Tags(HTMLParser):
    """Counts of elements, their texts, and their attributes."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.text.append(data)


def words(page):
    return " ".join(" ".join(Tags(page.read_text(encoding="utf-8")).text).split())


def test_the_verdict_comes_first_and_is_that_of_the_calibration(runs, page):
    calibration = json.loads((runs / "evaluation" / "calibration.json").read_text(encoding="utf-8"))
    first = report_page(runs).sections[0]
    assert first.title == "Verdict"
    assert first.blocks[0].tone == "bad"
    assert calibration["verdict"] in first.blocks[0].points
    text = words(page)
    assert text.index(calibration["verdict"]) < text.index("Test set")


def test_every_number_of_the_comparison_is_in_the_page(runs, page):
    metrics = json.loads((runs / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
    text = words(page)
    for entry in (metrics, *metrics["baselines"].values()):
        for key in ("scatter", "slope", "scatter_over_slope", "mean_residual"):
            shown = with_error(entry[key], entry[f"{key}_se"], sign=key == "mean_residual")
            assert shown in text, (key, shown)
        assert percent(entry["coverage_68"], entry["coverage_68_se"]) in text


def test_every_figure_is_inside_with_a_text_of_its_own(runs, page):
    figures = [p for folder in ("evaluation", "model") for p in (runs / folder).glob("*.png")]
    pictures = [b for s in report_page(runs).sections for b in s.blocks if isinstance(b, Picture)]
    assert len(pictures) == len(figures) >= 10
    assert len({p.alt for p in pictures}) == len(pictures)
    assert all(len(p.alt) > 30 and len(p.caption) > 20 and p.alt != p.caption for p in pictures)
    slope = json.loads((runs / "evaluation" / "metrics.json").read_text(encoding="utf-8"))["slope"]
    assert any(f"slope {number(slope, 2)}" in p.alt for p in pictures)
    assert page.read_text(encoding="utf-8").count('src="data:image/png;base64,') == len(figures)


def test_names_from_tables_are_escaped(page):
    html = page.read_text(encoding="utf-8")
    assert ODD not in html
    assert "&lt;b&gt;A &amp; B&lt;/b&gt;" in html
    assert ODD in words(page)
    assert "b" not in Tags(html).tags


def test_the_page_has_no_script_and_asks_for_nothing(page):
    parsed = Tags(page.read_text(encoding="utf-8"))
    assert not {"script", "iframe", "object", "form"} & set(parsed.tags)
    for name, value in parsed.attributes:
        assert not name.startswith("on")
        if name in ("src", "href"):
            assert value.startswith(("data:", "#")), value
    assert "url(" not in page.read_text(encoding="utf-8")
    assert "default-src 'none'" in page.read_text(encoding="utf-8")


def test_training_set_settings_and_commands_to_repeat_are_named(runs, page):
    text = words(page)
    for line in (
        f"bayesflowmass train --config {runs}/model/settings.yaml",
        f"bayesflowmass evaluate --model {runs}/model --catalog {runs}/test.parquet",
        f"bayesflowmass infer --model {runs}/model --galaxies {runs}/galaxies.csv",
    ):
        assert line in text
    assert "log10 M200c [Msun/h] 13.20–15.60, flat in log mass" in text
    assert "max_updates: 80" in text
    assert re.search(r"torch \d+\.\d+", text)


def test_the_recorded_command_and_settings_give_the_same_settings_again(runs):
    record = json.loads((runs / "evaluation" / "run.json").read_text(encoding="utf-8"))
    _, verb, *flags = record["command"].split()
    again = parse_settings(EvaluateSettings, flags, prog=verb)
    given = EvaluateSettings.model_validate(record["settings"])
    assert again.model_dump(exclude={"progress"}) == given.model_dump(exclude={"progress"})
    trained = parse_settings(TrainSettings, ["--config", str(runs / "model" / "settings.yaml")], prog="train")
    stored = TrainSettings.model_validate(
        json.loads((runs / "model" / "run.json").read_text(encoding="utf-8"))["settings"]
    )
    assert trained.model_dump(exclude={"progress"}) == stored.model_dump(exclude={"progress"})


def test_an_evaluation_alone_says_what_its_model_was_trained_on(runs, tmp_path):
    shutil.copytree(runs / "evaluation", tmp_path / "evaluation")
    text = words(report(tmp_path / "evaluation"))
    assert "What it was trained on" in text
    assert "13.20–15.60" in text


def test_what_holds_for_all_compared_models_is_said_once():
    section = {"name": "", "differences": {"a": {}, "b": {}}, "summary": ["A is worse.", "B is worse."]}
    section["verdicts"] = [{"method": label, "answer": "worse"} for label in "ab"]
    pair = {"coverage_can_be_nominal": False, "coverage_statement": "A mixed pair.", "remarks": ["A remark."]}
    found = list(comparison_verdicts({"sections": [section], **pair}))
    assert [set(verdict.points) >= {"A mixed pair.", "A remark."} for verdict in found] == [True, False]


def test_a_comparison_is_reported_with_its_own_words_and_numbers(compared):
    comparison = json.loads((compared / "comparison.json").read_text(encoding="utf-8"))
    section = comparison["sections"][0]
    page = report_page(compared)
    assert page.title == "Models compared"
    verdict = page.sections[0].blocks[0]
    assert (verdict.tone, verdict.headline) == ("good", section["summary"][0])
    text = words(report(compared))
    for answer in section["verdicts"]:
        assert with_error(answer["gain"], answer["error"], 4, sign=True) in text
    for entry in (
        e for m in section["methods"].values() for by in ("by_true", "by_predicted") for e in m[by]
    ):
        assert with_error(entry["scatter"]["value"], entry["scatter"]["error"]) in text
    pictures = [b for s in page.sections for b in s.blocks if isinstance(b, Picture)]
    assert len(pictures) == len(section["figures"]) == 2
    assert section["summary"][0] in pictures[0].alt


def test_a_model_alone_is_reported_as_not_judged(runs):
    page = report_page(runs / "model")
    assert page.title == "A trained model"
    assert [block.tone for block in page.sections[0].blocks] == ["open"]


@pytest.mark.parametrize("ending", ["ecsv", "fits", "vot", "parquet"])
def test_masses_are_read_from_each_format_that_infer_writes(runs, tmp_path, ending):
    table = AstropyTable.read(runs / "masses.ecsv", format="ascii.ecsv")
    table["flags"] = table["flags"].filled("") if hasattr(table["flags"], "filled") else table["flags"]
    write_table(table, tmp_path / f"masses.{ending}")
    text = words(report(tmp_path))
    for row in table:
        assert f"{number(float(row['log10_mass']), 2)} {number(float(row['sigma']), 2)}" in text


def test_expected_members_of_a_model_that_reads_galaxies_stand_in_the_page(runs, tmp_path):
    table = AstropyTable.read(runs / "masses.ecsv", format="ascii.ecsv")
    table["n_members"], table["n_members_err"] = 41.4 + np.arange(len(table)), 3.2
    write_table(table, tmp_path / "masses.ecsv")
    text = words(report(tmp_path))
    assert "expected members" in text
    assert "41 ± 3" in text
    assert "expected members" not in words(report(runs / "model"))


def test_of_many_masses_the_flagged_ones_are_shown_and_no_pdf_is_read(runs, tmp_path):
    few = AstropyTable.read(runs / "masses.ecsv", format="ascii.ecsv")
    table = few[np.arange(600) % 3]
    table["cluster_id"] = [f"c{k}" for k in range(600)]
    table["flags"] = ["low_probability" if k % 6 == 5 else "" for k in range(600)]
    table["pdf"] = np.ones((600, 40))
    write_table(table, tmp_path / "m.parquet")
    (masses,) = read_run_folder(tmp_path).masses
    assert "pdf" not in masses.columns.column_names
    assert (len(masses), masses.flag_counts["low_probability"]) == (600, 100)
    rows = [f"c{k}" for k in range(600)]
    assert [rows[k] for k in masses.flagged_first(200)] == rows[5::6] + [
        r for r in rows if r not in rows[5::6]
    ][:100]
    assert masses.flagged_first(600) == list(range(600))
    text = words(report(tmp_path))
    assert "500 of 600 masses stand" in text
    assert "200 of 600 clusters, flagged ones first" in text


def test_cards_stand_with_the_masses_of_their_clusters(runs, tmp_path):
    shutil.copy(runs / "masses.ecsv", tmp_path)
    (tmp_path / "cards").mkdir()
    for name in card_names([ODD, "beta"]):
        Image.new("RGB", (60, 40)).save(tmp_path / "cards" / f"{name}.png")
    Image.new("RGB", (60, 40)).save(tmp_path / "cards" / "another.png")
    page = report_page(tmp_path)
    masses = next(s for s in page.sections if s.title == "Masses")
    cards = [b for b in masses.blocks if isinstance(b, Picture)]
    assert sorted(c.caption for c in cards) == sorted([f"Cluster {ODD}", "Cluster beta"])
    row = AstropyTable.read(runs / "masses.ecsv", format="ascii.ecsv")[1]
    beta = next(c.alt for c in cards if "beta" in c.alt)
    assert f"log10 M200c [Msun/h] {number(float(row['log10_mass']), 2)}" in beta
    others = [b for s in page.sections if s.title == "Figures" for b in s.blocks]
    assert [b.caption for b in others] == ["Another."]


def test_tables_of_a_benchmark_become_tables_of_the_page(tmp_path):
    (tmp_path / "speed.json").write_text("{}", encoding="utf-8")
    (tmp_path / "speed.md").write_text(
        "### Speed of it\n\n`python benchmarks/x.py --seed 0`  \nseed 0, one core\n\nSee [kde](kde.md): **faster**.\n"
        "| step | time [ms] |\n|---|---|\n| a \\| b | 1.5 ± 0.1 |\n| c | |\n\nAfter.\n## Second\nWords.\n",
        encoding="utf-8",
    )
    (tmp_path / "README.md").write_text("# Not a result", encoding="utf-8")
    page = report_page(tmp_path)
    assert [s.title for s in page.sections] == ["Verdict", "Speed of it", "Second", "Provenance"]
    command, machine, see, table, after = page.sections[1].blocks
    assert command.lines == ("python benchmarks/x.py --seed 0",)
    assert [machine.text, see.text, after.text] == ["seed 0, one core", "See kde: faster.", "After."]
    assert table.columns == ("step", "time [ms]")
    assert table.rows == (("a | b", "1.5 ± 0.1"), ("c", ""))


@pytest.mark.parametrize("name", ["contaminated", "gold_standard", "mass_function"])
def test_committed_results_are_read_as_they_are(name):
    text = (Path(__file__).parents[2] / "docs" / "results" / f"{name}.md").read_text(encoding="utf-8")
    sections = list(note_sections(name, text))
    cells = [
        cell for s in sections for b in s.blocks if isinstance(b, Table) for row in b.rows for cell in row
    ]
    rows = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    tables = sum(isinstance(b, Table) for s in sections for b in s.blocks)
    assert tables >= 1
    found = sum(len(b.rows) for s in sections for b in s.blocks if isinstance(b, Table))
    assert found == len(rows) - tables
    assert not any(cell.startswith("|") or "**" in cell for cell in cells)


def test_figures_of_the_paper_are_captioned(tmp_path):
    pair = {"sigma_N": 0.07, "sigma_0": 0.05}
    record = {"three_clusters": ["7", "8", "9"], "prior": "flat", "equation_8": {"this model": pair}}
    (tmp_path / "figures.json").write_text(json.dumps(record), encoding="utf-8")
    Image.new("RGB", (60, 40)).save(tmp_path / "figure_6_equation8.png")
    (shown,) = [b for s in report_page(tmp_path).sections for b in s.blocks if isinstance(b, Picture)]
    assert "this model 0.070 and 0.050" in shown.alt


def test_a_figure_that_nobody_knows_is_shown_with_what_it_says_of_itself(tmp_path):
    note = PngImagePlugin.PngInfo()
    note.add_text("Description", "Two <lines> that cross at 14.2.")
    Image.new("RGB", (60, 40)).save(tmp_path / "some_figure.png", pnginfo=note)
    Image.new("RGB", (60, 40)).save(tmp_path / "another_figure.png")
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 4"><script>alert(1)</script></svg>'
    (tmp_path / "another_figure.svg").write_text(svg, encoding="utf-8")
    page = report(tmp_path)
    assert "Two <lines> that cross at 14.2." in words(page)
    # The drawing is preferred, and stays an image, in which no script runs.
    assert page.read_text(encoding="utf-8").count("data:image/svg+xml;base64,") == 1
    assert "script" not in Tags(page.read_text(encoding="utf-8")).tags


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: None, "holds nothing to report; give a folder that train"),
        (lambda folder: (folder / "checkpoint").mkdir(), "has not finished; go on with"),
        (
            lambda folder: (folder / "metrics.json").write_text('{"prior": ', encoding="utf-8"),
            "metrics.json' is truncated",
        ),
        (
            lambda folder: (folder / "metrics.json").write_text("[1]", encoding="utf-8"),
            "holds a list; expected an object",
        ),
        (
            lambda folder: (folder / "history.csv").write_text("update,loss\n1,x\n", encoding="utf-8"),
            "is not a training history",
        ),
        (lambda folder: (folder / "a.png").write_bytes(b"PNG"), "a.png' is not a readable png"),
        (
            lambda folder: (folder / "a.svg").write_text("<svg", encoding="utf-8"),
            "a.svg' is not a readable svg",
        ),
    ],
    ids=["empty", "unfinished", "truncated", "no object", "bad history", "bad png", "bad svg"],
)
def test_what_cannot_be_reported_is_one_sentence_and_writes_nothing(make, says, tmp_path, capsys):
    make(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_missing_folder_and_a_wrong_name_of_the_page_are_refused(tmp_path, capsys):
    assert cli(["report", str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main([str(tmp_path), "--out", str(tmp_path / "page.pdf")]) == 2
    assert "ends in .html" in capsys.readouterr().err
    assert main([]) == 2
    assert "folder" in capsys.readouterr().err


def test_the_page_goes_where_it_is_told_and_a_second_report_does_not_show_the_first(runs, page, tmp_path):
    out = tmp_path / "deep" / "page.html"
    assert report(runs, out) == out
    assert out.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")
    assert [p.name for p in out.parent.iterdir()] == ["page.html"]


def test_more_folders_than_a_page_holds_are_counted(runs, tmp_path):
    for i in range(14):
        shutil.copytree(runs / "model", tmp_path / f"model{i:02d}", ignore=shutil.ignore_patterns("*.png"))
    assert "2 more folders with results are not shown" in words(report(tmp_path))


@pytest.mark.parametrize(
    ("nominal", "inside", "error", "tone"),
    [
        (True, True, 0.2, "good"),
        (True, False, 0.049, "open"),
        (True, False, 0.051, "bad"),
        (False, None, 0.2, "open"),
    ],
)
def test_the_tone_of_the_verdict_is_that_of_the_tests_and_of_their_size(runs, nominal, inside, error, tone):
    metrics = json.loads((runs / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
    calibration = json.loads((runs / "evaluation" / "calibration.json").read_text(encoding="utf-8")) | {
        "nominal": nominal
    }
    for test in [calibration["overall"], *(t for b in calibration["by"].values() for t in b["tests"] if t)]:
        test["inside"] = inside
        test["difference"] = [0.6 * error, 0.0, -0.4 * error]
    verdict = evaluation_verdict(metrics, calibration)
    assert verdict.tone == tone
    assert ("to 4.9 points" in verdict.headline) == (error == 0.049)
    assert evaluation_verdict(metrics, None).tone == "open"


def test_numbers_have_a_true_minus_and_no_made_up_values():
    assert number(-0.1234) == "−0.123"
    assert number(None) == number(np.nan) == "–"
    assert with_error(0.1, None) == "0.100"
    assert percent(0.683, 0.005) == "68.3 ± 0.5 %"


def test_a_table_with_a_short_row_is_refused():
    with pytest.raises(ValueError, match="has 1 cells; expected 2"):
        Table("t", ("a", "b"), (("x",),))


def test_flags_that_equal_their_defaults_are_left_out(tmp_path):
    settings = EvaluateSettings(model=tmp_path / "a b", catalog="c.parquet", seed=3)
    assert command_line("bayesflowmass evaluate", settings) == (
        f"bayesflowmass evaluate --model '{tmp_path}/a b' --catalog c.parquet --seed 3"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280], ids=["phone", "desktop"])
def test_nothing_is_missing_cut_or_overlapping(page, browser, width, scheme):
    browser.open(page, width=width, scheme=scheme)
    assert {name: faults for name, check in LAYOUT.items() if (faults := browser.evaluate(check))} == {}
    assert browser.evaluate("document.images.length") >= 10
    assert browser.requests() == [page.resolve().as_uri()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_of_wcag_aa(page, browser, scheme):
    browser.open(page, width=1280, scheme=scheme)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.evaluate(CONTRAST) == []


def test_headings_names_and_landmarks_are_in_order(page, browser):
    browser.open(page, width=1280)
    assert browser.evaluate(HEADINGS) == []
    assert browser.evaluate(NAMES) == []
    assert browser.evaluate("document.title.length") > 10


def test_the_keyboard_reaches_the_verdict_and_every_wide_table(page, browser):
    browser.open(page, width=390)
    reached = []
    for _ in range(60):
        for kind in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        reached.append(
            browser.evaluate(
                "(e => [e.className || e.tagName, e.getBoundingClientRect().left >= 0,"
                " getComputedStyle(e).outlineStyle])(document.activeElement)"
            )
        )
    assert reached[0][:2] == ["skip", True]
    tables = browser.evaluate("document.querySelectorAll('.table').length")
    assert sum(name == "table" for name, _, _ in reached) >= tables >= 4
    assert all(outline != "none" for name, _, outline in reached if name in ("skip", "A", "table"))


def test_the_checks_see_each_fault_that_they_are_for(browser, tmp_path):
    style = "<style>*{margin:0} .a{position:absolute;top:10px;left:10px;width:200px}</style>"
    faults = {
        "missing images": '<img src="none.png" alt="x" width="9" height="9">',
        "scrolls sideways": '<div style="width:2000px;height:9px"></div>',
        "overlaps": '<p class="a">one text here</p><p class="a" style="top:14px">another text</p>',
        "cut": '<p style="width:40px;overflow:hidden;white-space:nowrap">a long line of text</p>',
    }
    page = tmp_path / "page.html"
    for name, html in faults.items():
        page.write_text(
            f"<!DOCTYPE html><html><head>{style}</head><body>{html}</body></html>", encoding="utf-8"
        )
        browser.open(page, width=390)
        assert {other for other, check in LAYOUT.items() if browser.evaluate(check)} == {name}
    page.write_text(
        f"<!DOCTYPE html><html><head>{style}</head><body><h2>x</h2><table><tr><th>a</th></tr></table>"
        '<p style="color:#888">grey</p><p style="color:#767676">dark enough</p></body></html>',
        encoding="utf-8",
    )
    browser.open(page, width=390)
    assert browser.evaluate(HEADINGS) == ["not one h1", "skips a level: x"]
    assert {"table without caption", "th without scope", "no lang"} <= set(browser.evaluate(NAMES))
    assert [fault.split(": ")[-1] for fault in browser.evaluate(CONTRAST)] == ["grey"]


def test_a_page_of_hostile_texts_is_harmless(browser, tmp_path):
    attack = "</style></title><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    hostile = Page(
        attack,
        attack,
        (Section(attack, (Paragraph(attack), Table(attack, (attack,), ((attack,),)))),),
        attack,
    )
    (tmp_path / "page.html").write_text(render_page(hostile), encoding="utf-8")
    browser.open(tmp_path / "page.html", width=390)
    assert browser.evaluate("document.title").startswith("</style>")
    assert browser.evaluate("document.images.length + document.scripts.length") == 0
    assert browser.requests() == [(tmp_path / "page.html").resolve().as_uri()]


def test_report_error_is_a_value_error():
    assert issubclass(ReportError, ValueError)
