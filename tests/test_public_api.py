"""The names that users may rely on: `docs/public_api.txt` lists them, so that a change of them is seen.

A name that comes, goes or moves changes the list, by ``python tests/test_public_api.py``, and the changelog.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import bayesflowmass
from bayesflowmass.cli import VERBS

PACKAGE = Path(bayesflowmass.__file__).parent
DOCS = PACKAGE.parent / "docs"
LIST = DOCS / "public_api.txt"


def module_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def exports(path):
    """What ``__all__`` of a file names; nothing where there is no file."""
    if not path.is_file():
        return []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


def public_names():
    """Of the package, its folders and theirs, and the verbs: each where it is nearest to the top."""
    verbs = [PACKAGE / f"{name}.py" for name in VERBS]
    files = {module_of(path): path for path in [*PACKAGE.rglob("__init__.py"), *verbs]}
    above = {
        module: exports(files.get(module.rpartition(".")[0], Path()))
        for module in files
        if module.count(".") > 1
    }
    return sorted(
        f"{module}.{name}"
        for module, path in files.items()
        for name in exports(path)
        if name not in above.get(module, ())
    )


def test_the_names_that_users_rely_on_are_those_of_the_list():
    listed = LIST.read_text(encoding="utf-8").split()
    assert public_names() == listed


def test_every_public_name_is_there_and_says_what_it_is():
    silent = []
    for name in public_names():
        module, _, attribute = name.rpartition(".")
        thing = getattr(importlib.import_module(module), attribute)
        if (inspect.isclass(thing) or inspect.isroutine(thing)) and not (thing.__doc__ or "").strip():
            silent.append(name)
    assert silent == []


def test_every_public_module_has_its_page():
    pages = "".join(page.read_text(encoding="utf-8") for page in sorted((DOCS / "api").glob("*.md")))
    # docs/conf.py writes the page of the verbs.
    written = {"bayesflowmass", *(f"bayesflowmass.{verb}" for verb in VERBS)}
    modules = {name.rpartition(".")[0] for name in public_names()} - written
    assert [module for module in sorted(modules) if f"automodule:: {module}\n" not in pages] == []


if __name__ == "__main__":
    LIST.write_text("\n".join([*public_names(), ""]), encoding="utf-8")
