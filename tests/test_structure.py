"""The package's shape: imports follow the one-way flow of the data, names shadow no module."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import bayesflowmass

PACKAGE = Path(bayesflowmass.__file__).parent

# A module imports only from rooms to its left (or its own).
FLOW = [
    "threads",
    "cosmology",
    "catalog",
    "selection",
    "io",
    "mocks",
    "encoders",
    "flows",
    "bayes",
    "posterior",
    "novelty",
    "recalibration",
    "estimator",
    "training",
    "diagnostics",
    "baselines",
    "saliency",
    "plots",
    "page",
    "config",
    "command",
    *("simulate", "train", "infer", "evaluate", "recalibrate", "compare", "figures", "report"),
    *("inspect", "fetch", "demo"),
    "cli",
    "__main__",
]


def room(module: str) -> str:
    """The room of ``bayesflowmass.room.idea``; ``catalog_metadata`` lives beside ``catalog``."""
    parts = module.split(".")
    name = parts[1] if len(parts) > 1 else "__init__"
    return next((known for known in FLOW if name == known or name.startswith(known + "_")), name)


def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports, late imports included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} uses a relative import on line {node.lineno}"
            if node.module and node.module.split(".")[0] == "bayesflowmass":
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                found |= set(names) if node.module == "bayesflowmass" else {node.module}
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.split(".")[0] == "bayesflowmass"}
    return found


def test_imports_follow_the_flow_of_the_data():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(("bayesflowmass", *path.relative_to(PACKAGE).with_suffix("").parts))
        own = room(module)
        if own == "__init__":
            continue
        assert own in FLOW, f"{module} has no place in the flow; add it to FLOW"
        for target in imports(path):
            if target == "bayesflowmass.__version__":
                continue
            if FLOW.index(room(target)) > FLOW.index(own):
                wrong.append(f"{module} imports {target}")
    assert not wrong


def test_the_package_exports_no_function_that_shadows_a_module():
    modules = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.name for path in PACKAGE.iterdir() if path.is_dir()
    }
    for name in getattr(bayesflowmass, "__all__", []):
        assert name not in modules


def test_every_public_name_has_a_docstring():
    missing = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name == "__main__.py":
            continue
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        module = importlib.import_module(".".join(p for p in parts if p != "__init__"))
        for name in getattr(module, "__all__", []):
            thing = getattr(module, name)
            if (inspect.isfunction(thing) or inspect.isclass(thing)) and not (thing.__doc__ or "").strip():
                missing.append(f"{module.__name__}.{name}")
    assert not missing


def test_no_file_is_much_longer_than_one_idea():
    lengths = {str(p.relative_to(PACKAGE)): len(p.read_text().splitlines()) for p in PACKAGE.rglob("*.py")}
    assert {name: n for name, n in lengths.items() if n > 450} == {}


def test_every_noun_of_the_package_can_be_imported_from_it():
    for name in bayesflowmass.__all__:
        assert getattr(bayesflowmass, name) is not None
        assert name in dir(bayesflowmass)
