"""The documentation site: ``make docs`` writes it to docs/_build/html."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import bayesflowmass
from bayesflowmass.cli import VERBS

HERE = Path(__file__).resolve().parent
# Sphinx reads only what lies below it: the notebooks are copied here, and are not committed twice.
NOTEBOOKS, COPIES = HERE.parent / "notebooks", HERE / "_notebooks"

project = "bayesflowmass"
author = "The bayesflowmass developers"
project_copyright = author
version = release = bayesflowmass.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# results/notes_* are fragments of results.md.
exclude_patterns = ["_build", "results/notes_*"]
# The tables of results/ begin with the level that they have in results.md.
# A word such as mean, where a type stands in a docstring, is the name of several objects.
suppress_warnings = ["myst.header", "ref.python"]
# `name` in a docstring: short names such as mean belong to many objects, and a link would be to any of them.
default_role = "code"
highlight_language = "none"

myst_heading_anchors = 3
# Notebooks are shown with the outputs that they were committed with.
nb_execution_mode = "off"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
python_use_unqualified_type_names = True
maximum_signature_line_length = 90
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"bayesflowmass {version}"
html_copy_source = False
html_show_sourcelink = False


def copy_notebooks(app: Sphinx) -> None:
    """Copies of the notebooks whose links to docs/ hold from here."""
    wanted = sorted(NOTEBOOKS.glob("*.ipynb"))
    COPIES.mkdir(exist_ok=True)
    for path in COPIES.glob("*.ipynb"):
        if path.name not in {notebook.name for notebook in wanted}:
            path.unlink()
    for notebook in wanted:
        text = notebook.read_text(encoding="utf-8").replace("](../docs/", "](../")
        copy = COPIES / notebook.name
        # An untouched file is not read again.
        if not copy.is_file() or copy.read_text(encoding="utf-8") != text:
            copy.write_text(text, encoding="utf-8")
    for folder in (p for p in NOTEBOOKS.glob("*") if p.is_dir() and p.name[0] not in "._"):
        shutil.copytree(folder, COPIES / folder.name, dirs_exist_ok=True)


def point_to_copies(app: Sphinx, name: str, source: list[str]) -> None:
    """Links to notebooks, right where the pages are read in the repository, point to the copies."""
    if not name.startswith(COPIES.name):
        up = "../" * name.count("/")
        source[0] = re.sub(r"\]\((?:\.\./)+notebooks/", f"]({up}{COPIES.name}/", source[0])
    if name == "tutorials" and not any(COPIES.glob("*.ipynb")):
        source[0] = re.sub(r"```\{toctree\}.*?```", "", source[0], flags=re.DOTALL)


def add_what_is_new(app: Sphinx, name: str, source: list[str]) -> None:
    """Pages that no section lists come last; commands are listed from the package."""
    if name == "index":
        listed = "\n".join(re.findall(r"^```\{toctree\}.*?^```", source[0], re.MULTILINE | re.DOTALL)).split()
        others = sorted(p.stem for p in HERE.glob("*.md") if p.stem not in {*listed, "index"})
        if others:
            source[0] += "\n```{toctree}\n:hidden:\n:caption: More\n\n" + "\n".join(others) + "\n```\n"
    sections = (
        f"## {verb}\n\n```{{eval-rst}}\n.. automodule:: bayesflowmass.{verb}\n```\n" for verb in VERBS
    )
    source[0] = source[0].replace("<!-- every command -->", "\n".join(sections))


# What is markup in a docstring: literals and emphasised words.
MARKUP = re.compile(r"(``.*?``|\*\*?\w[^*]*?(?<!\s)\*\*?(?!\w))")


def keep_signs(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Docstrings write |v| for an absolute value, (*, n) for a shape, str_ for a type: signs, no markup here.

    Formulas stay as they are written: what would typeset them comes from another site.
    """
    literal: int | None = None
    for i, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if literal is not None and (not line.strip() or indent > literal):
            continue
        literal = indent if line.rstrip().endswith("::") else None
        line = re.sub(r":math:`([^`]+)`", r"``\1``", line)
        bullet = re.match(r"\s*\* ", line)
        start = bullet.end() if bullet else 0
        pieces = MARKUP.split(line[start:])
        escaped = (
            p if odd % 2 else re.sub(r"(?<!\\)([|*]|_(?!\w))", r"\\\1", p) for odd, p in enumerate(pieces)
        )
        lines[i] = line[:start] + "".join(escaped)


def skip_foreign(
    app: Sphinx, what: str, name: str, thing: object, skip: bool, options: object
) -> bool | None:
    """matplotlib makes a method set for every subclass of its artists, in words that only its own site knows."""
    return True if name == "set" and "mpltype" in (getattr(thing, "__doc__", None) or "") else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Connects them."""
    app.connect("builder-inited", copy_notebooks)
    app.connect("autodoc-process-docstring", keep_signs)
    app.connect("autodoc-skip-member", skip_foreign)
    app.connect("source-read", point_to_copies)
    app.connect("source-read", add_what_is_new)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
