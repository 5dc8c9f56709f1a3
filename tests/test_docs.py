"""The documentation against the package: links, commands, code, and that every page has its place."""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from bayesflowmass.cli import VERBS

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
# Fragments of docs/results.md, with links that hold there.
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted(DOCS.glob("*.md")),
    *sorted(DOCS.glob("api/*.md")),
    *sorted(p for p in DOCS.glob("results/*.md") if not p.name.startswith("notes_")),
]
OUTSIDE = ("http://", "https://", "mailto:")


def name_of(page):
    return str(page.relative_to(ROOT))


def without_code(text):
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def slugs(page):
    """Anchors that the headings of a page have, in the repository and on the site."""
    headings = re.findall(r"^#+ +(.+?) *$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def broken_links(page):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        if target.startswith(OUTSIDE):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        if not place.exists() or (anchor and place.suffix == ".md" and anchor not in slugs(place)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page):
    assert broken_links(page) == []


def test_a_broken_link_and_a_broken_anchor_are_found(tmp_path):
    page = tmp_path / "a.md"
    page.write_text(
        "# One *thing*\n[x](a.md#one-thing) [y](b.md) [z](#two) `[w](c.md)`\n```\n[v](d.md)\n```\n",
        encoding="utf-8",
    )
    assert broken_links(page) == ["b.md", "#two"]


def fences(page):
    """(language, text) of the code blocks of a page."""
    found = re.findall(
        r"^```([^\n]*)\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    return [(language.strip(), text) for language, text in found]


def commands(page):
    """Command lines of our programs in blocks without a language and in the text."""
    lines = [line for language, text in fences(page) if language in ("", "bash") for line in joined(text)]
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
    starts = ("bayesflowmass ", "python benchmarks/", "make ", "python -m bayesflowmass")
    return [
        line for line in (re.sub(r"^\$ |^\.venv/bin/", "", line) for line in lines) if line.startswith(starts)
    ]


def joined(text):
    return [line.split("  #")[0].strip() for line in text.replace("\\\n", " ").splitlines()]


@pytest.fixture(scope="session")
def flags_of():
    """verb -> the flags in its --help."""
    known: dict[str, set[str]] = {}

    def find(verb):
        if verb not in known:
            from contextlib import redirect_stdout
            from io import StringIO

            out = StringIO()
            with redirect_stdout(out), pytest.raises(SystemExit):
                importlib.import_module(f"bayesflowmass.{verb}").main(["--help"])
            known[verb] = set(re.findall(r"--[a-z0-9][a-z0-9_.-]*", out.getvalue()))
        return known[verb]

    return find


def faults_of(line, flags_of):
    """What is wrong with a command line, in words."""
    try:
        words = shlex.split(line)
    except ValueError:
        return [f"no command line: {line}"]
    if words[:2] == ["python", "-m"]:
        verb = words[2].removeprefix("bayesflowmass").lstrip(".")
        if "." in verb:
            return [] if importlib.util.find_spec(words[2]) else [f"no module: {words[2]}"]
        words = ["bayesflowmass", *([verb] if verb else []), *words[3:]]
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        targets = [w for w in words[1:] if "=" not in w]
        return [
            f"no target: {w}" for w in targets if not re.search(rf"^{re.escape(w)}:", makefile, re.MULTILINE)
        ]
    if words[0] == "python":
        return [] if (ROOT / words[1]).is_file() else [f"no file: {words[1]}"]
    verb = words[1]
    # `bayesflowmass --help` and `bayesflowmass <verb>` are about the program.
    if verb[0] in "-<":
        return []
    if verb not in VERBS:
        return [f"no command: {verb}"]
    used = {w.split("=")[0] for w in words if re.match(r"--[a-z]", w)}
    return [f"{verb} has no flag {flag}" for flag in sorted(used - flags_of(verb))]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_exists_with_its_flags(page, flags_of):
    assert [fault for line in commands(page) for fault in faults_of(line, flags_of)] == []


def test_wrong_commands_are_found(flags_of, tmp_path):
    page = tmp_path / "a.md"
    page.write_text(
        "`bayesflowmass reprot x` and `bayesflowmass report DIR --outt x`\n"
        "```\nmake nothing\npython benchmarks/none.py --seed 0  # words\n"
        "bayesflowmass report x \\\n  --out y.html\nbayesflowmass train --fit.learning-rat 1\n```\n",
        encoding="utf-8",
    )
    assert [fault for line in commands(page) for fault in faults_of(line, flags_of)] == [
        "no target: nothing",
        "no file: benchmarks/none.py",
        "train has no flag --fit.learning-rat",
        "no command: reprot",
        "report has no flag --outt",
    ]
    assert sum(len(commands(page)) for page in PAGES) > 40


def test_every_file_of_the_project_that_a_text_names_exists():
    named = re.compile(
        r"\b(?:tests|benchmarks|bayesflowmass|notebooks|configs)/[\w/]+\.(?:py|ipynb|yaml|csv|sh)\b"
    )
    sources = [*PAGES, *(ROOT / "bayesflowmass").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    gone = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources
        for name in named.findall(path.read_text(encoding="utf-8"))
        if not (ROOT / name).is_file()
    ]
    assert not gone


def blocks():
    found = [
        (page, i, text) for page in PAGES for i, (lang, text) in enumerate(fences(page)) if lang == "python"
    ]
    return [pytest.param(text, id=f"{name_of(page)}-{i}") for page, i, text in found]


@pytest.mark.parametrize("text", blocks())
def test_every_python_block_compiles_and_its_imports_exist(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "bayesflowmass":
            module = importlib.import_module(node.module)
            for alias in node.names:
                missing = not hasattr(module, alias.name)
                assert not missing or importlib.util.find_spec(f"{node.module}.{alias.name}"), alias.name


def stands_alone(text):
    """Uses no name that it does not make, and no file."""
    tree = ast.parse(text)
    made = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            made |= {(a.asname or a.name).split(".")[0] for a in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            made.add(node.name)
        elif isinstance(node, ast.arg):
            made.add(node.arg)
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    files = re.search(r"\.(csv|fits|parquet|dat|nc|ecsv|npy|txt)\b|runs/|demo/", text)
    return not (used - made - set(dir(builtins))) and files is None


@pytest.mark.parametrize("text", [p for p in blocks() if stands_alone(p.values[0])])
def test_every_block_that_stands_alone_runs(text):
    import pyro

    pyro.clear_param_store()
    exec(compile(text, "block", "exec"), {"__name__": "block"})


def test_some_blocks_stand_alone_and_run():
    assert sum(stands_alone(p.values[0]) for p in blocks()) >= 3
    assert not stands_alone("print(x)")
    assert not stands_alone("open('a.csv')")


def toctree_entries(text):
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return {
        line.strip()
        for text in trees
        for line in text.splitlines()
        if line.strip() and line.strip()[0] != ":"
    }


def test_every_page_is_in_a_section_of_the_site(conf):
    source = [(DOCS / "index.md").read_text(encoding="utf-8")]
    conf.add_what_is_new(None, "index", source)
    listed = toctree_entries(source[0]) | {
        f"{entry}" for entry in toctree_entries((DOCS / "api.md").read_text(encoding="utf-8"))
    }
    pages = {str(p.relative_to(DOCS).with_suffix("")) for p in (*DOCS.glob("*.md"), *DOCS.glob("api/*.md"))}
    assert pages - listed == {"index"}
    # A page that no section names comes last.
    text = "```{toctree}\nmethod\n```\n"
    source = [text]
    conf.add_what_is_new(None, "index", source)
    assert pages - toctree_entries(source[0]) == {"index"} | {p for p in pages if "/" in p}
    assert source[0].count("method") == 1


PLACES = re.findall(
    r"^\| (.+?) \| `(.+?)` \| (.+?) \|$", (DOCS / "where.md").read_text(encoding="utf-8"), re.MULTILINE
)


@pytest.mark.parametrize(("what", "file", "names"), PLACES, ids=[what for what, _, _ in PLACES])
def test_what_people_look_for_is_where_the_page_says(what, file, names):
    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    for name in re.findall(r"`(\w+)`", names):
        thing = getattr(module, name)
        # At home there, not only imported.
        assert getattr(thing, "__module__", module.__name__) in (module.__name__, "builtins", "typing"), name


def test_every_command_is_in_the_api_reference(conf):
    source = [(DOCS / "api" / "verbs.md").read_text(encoding="utf-8")]
    conf.add_what_is_new(None, "api/verbs", source)
    documented = set(re.findall(r"automodule:: (\S+)", source[0]))
    assert documented == {f"bayesflowmass.{verb}" for verb in VERBS}


@pytest.fixture
def conf(tmp_path, monkeypatch):
    pytest.importorskip("sphinx", reason="Sphinx is not installed; pip install '.[docs]' to run this test")
    spec = importlib.util.spec_from_file_location("conf_of_docs", DOCS / "conf.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "conf_of_docs", module)
    spec.loader.exec_module(module)
    module.NOTEBOOKS, module.COPIES = tmp_path / "notebooks", tmp_path / "docs" / "_notebooks"
    module.NOTEBOOKS.mkdir()
    module.COPIES.parent.mkdir()
    return module


def test_links_between_notebooks_and_pages_hold_on_the_site_too(conf):
    cell = {"cell_type": "markdown", "metadata": {}, "source": ["See [kde](../docs/kde.md)."]}
    text = json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    (conf.NOTEBOOKS / "1_first.ipynb").write_text(text, encoding="utf-8")
    conf.copy_notebooks(None)
    assert "](../kde.md)" in (conf.COPIES / "1_first.ipynb").read_text(encoding="utf-8")
    for name, given, expected in (
        ("method", "[one](../notebooks/1_first.ipynb)", "[one](_notebooks/1_first.ipynb)"),
        ("api/io", "[one](../../notebooks/1_first.ipynb)", "[one](../_notebooks/1_first.ipynb)"),
    ):
        source = [given]
        conf.point_to_copies(None, name, source)
        assert source == [expected]
    (conf.NOTEBOOKS / "1_first.ipynb").unlink()
    conf.copy_notebooks(None)
    assert list(conf.COPIES.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("shape (*, K), |v| < 3", r"shape (\*, K), \|v\| < 3"),
        ("this *is* ``(*, a)``", "this *is* ``(*, a)``"),
        ("numpy.dtype[numpy.str_]", r"numpy.dtype[numpy.str\_]"),
        ("* a point of a list", "* a point of a list"),
        ("    |in| a * literal", "    |in| a * literal"),
        (r"already \*here", r"already \*here"),
        (r":math:`|\mu| * 2` and |x|", r"``|\mu| * 2`` and \|x\|"),
    ],
)
def test_signs_in_docstrings_stay_signs(conf, line, expected):
    lines = ["An equation::", "", line] if line.startswith("    ") else [line]
    conf.keep_signs(None, "function", "f", None, None, lines)
    assert lines[-1] == expected


def test_every_promise_is_held_by_a_test_that_exists():
    text = (DOCS / "promises.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    named = [re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row) for row in rows]
    assert all(named), "a promise without a test"
    for path, name in [one for row in named for one in row] + re.findall(r"`(tests/\S+)::(\w+)`", text):
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (
            f"{path}::{name}"
        )
