"""The names that users may rely on: `docs/public_api.txt` lists them, so that a change of them is seen.

A name that comes, goes or moves changes the list, by ``python tests/test_public_api.py``, and the changelog.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import bayesflowmass
from bayesflowmass.cli import VERBS

PACKAGE = Path(bayesflowmass.__file__).parent
DOCS = PACKAGE.parent / "docs"
LIST = DOCS / "public_api.txt"


def module_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def exports(path):
    """What ``__all__`` of a file names."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


def public_files():
    """The package, its folders, the verbs, the cosmology, and every file of figures."""
    yield from sorted(PACKAGE.rglob("__init__.py"))
    yield from (PACKAGE / f"{name}.py" for name in sorted([*VERBS, "cosmology"]))
    yield from sorted(path for path in (PACKAGE / "plots").rglob("*.py") if path.stem != "__init__")


def public_names():
    return sorted(f"{module_of(path)}.{name}" for path in public_files() for name in exports(path))


def test_the_names_that_users_rely_on_are_those_of_the_list():
    listed = LIST.read_text(encoding="utf-8").split()
    assert public_names() == listed


@pytest.mark.parametrize("name", public_names())
def test_every_public_name_is_there_and_says_what_it_is(name):
    module, _, attribute = name.rpartition(".")
    thing = getattr(importlib.import_module(module), attribute)
    if inspect.isclass(thing) or inspect.isroutine(thing):
        assert (thing.__doc__ or "").strip()


def test_every_public_module_has_its_page():
    pages = "".join(page.read_text(encoding="utf-8") for page in sorted((DOCS / "api").glob("*.md")))
    # docs/conf.py writes these two pages.
    written = ("bayesflowmass.plots.", *(f"bayesflowmass.{verb}" for verb in VERBS))
    modules = {name.rpartition(".")[0] for name in public_names()} - {"bayesflowmass"}
    missing = [m for m in sorted(modules) if f"automodule:: {m}\n" not in pages and not m.startswith(written)]
    assert missing == []


if __name__ == "__main__":
    LIST.write_text("\n".join([*public_names(), ""]), encoding="utf-8")
