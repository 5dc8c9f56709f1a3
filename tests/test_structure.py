"""The package's shape: imports follow the one-way flow of the data, names shadow no module."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import bayesflowmass

PACKAGE = Path(bayesflowmass.__file__).parent

# A module imports only from rooms to its left (or its own).
FLOW = [
    *("common", "cosmology", "catalog", "selection", "io", "mocks", "encoders", "networks", "flows", "bayes"),
    *("posterior", "hierarchical", "novelty", "recalibration", "estimator", "training", "diagnostics"),
    *("baselines", "saliency", "plots", "evaluation", "comparison"),
    *("inspection", "survey", "page", "command"),
]
VERBS = [
    *("simulate", "train", "infer", "evaluate", "recalibrate", "compare", "figures", "report", "inspect"),
    *("adapt", "calibrate", "fetch", "demo"),
]
TOP_LEVEL = {"__init__", "__main__", "cli", *VERBS}


def module_of(path: Path) -> str:
    """``bayesflowmass.room.idea`` of a file; a package is its ``__init__``."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports; late imports and those for types alone are included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} uses a relative import on line {node.lineno}"
            if node.module and node.module.split(".")[0] == "bayesflowmass":
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    found.add(name if name in MODULES else node.module)
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.split(".")[0] == "bayesflowmass"}
    return found


IMPORTS = {module: imports(path) for module, path in MODULES.items()}


def room(module: str) -> str:
    """The room of ``bayesflowmass.room.idea``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def test_nouns_live_in_folders_and_verbs_at_the_top():
    at_the_top = {path.stem for path in PACKAGE.glob("*.py")}
    assert at_the_top == TOP_LEVEL
    assert len(at_the_top) <= 16, "a reader of the top level has enough; make room before you add a file"
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and list(path.glob("*.py"))}
    assert folders == set(FLOW)


def test_files_that_share_a_prefix_share_a_folder():
    """``kde_axes.py`` beside ``kde_plan.py`` is a folder ``kde`` that nobody made."""
    families: dict[tuple[str, str], list[str]] = {}
    for path in MODULES.values():
        if "_" in path.stem.strip("_"):
            families.setdefault((str(path.parent), path.stem.split("_")[0]), []).append(path.name)
    for path in MODULES.values():
        key = (str(path.parent), path.stem)
        if key in families:
            families[key].append(path.name)
    assert {key: names for key, names in families.items() if len(names) > 2} == {}


def test_imports_follow_the_flow_of_the_data():
    order = {name: i for i, name in enumerate([*FLOW, "verb", "cli", "__main__"])}

    def place(module: str) -> int:
        name = room(module)
        assert name in order or name in VERBS, f"{module} has no place in the flow; add it to FLOW"
        return order["verb" if name in VERBS else name]

    wrong = [
        f"{module} imports {target}"
        for module, targets in IMPORTS.items()
        for target in targets
        if room(module) != "__init__" and place(target) > place(module)
    ]
    assert not wrong


def test_verbs_import_no_verb_but_demo():
    wrong = [
        f"{module} imports {target}"
        for module, targets in IMPORTS.items()
        for target in targets
        if room(module) in set(VERBS) - {"demo"} and room(target) in VERBS
    ]
    assert not wrong


def test_no_import_comes_round_in_a_circle():
    """Late imports and those for types alone are edges too; a package's ``__init__`` only names what is inside."""
    edges = {
        module: {target for target in targets if MODULES.get(target, Path()).stem != "__init__"}
        for module, targets in IMPORTS.items()
        if MODULES[module].stem != "__init__"
    }
    done: set[str] = set()

    def walk(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join([*way[way.index(module) :], module])
        if module not in done:
            for target in sorted(edges.get(module, ())):
                walk(target, (*way, module))
            done.add(module)

    for module in edges:
        walk(module, ())


def imports_at_start(module: str) -> set[str]:
    """Modules, of the package and others, that are loaded when a module is: not late, not for types alone."""

    def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
        for node in body:
            if isinstance(node, ast.If):
                yield from statements(node.orelse if "TYPE_CHECKING" in ast.unparse(node.test) else node.body)
            yield node

    found = set()
    for node in statements(ast.parse(MODULES[module].read_text(encoding="utf-8")).body):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {node.module, *(name for name in names if name in MODULES)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    parts = module.split(".")
    parents = {".".join(parts[:n]) for n in range(1, len(parts))}
    return found | parents


def loaded_with(modules: Iterable[str]) -> set[str]:
    """Names of all top-level packages, our own modules left out, that importing some modules loads."""
    waiting, ours, others = list(modules), set(), set()
    while waiting:
        module = waiting.pop()
        if module in MODULES and module not in ours:
            ours.add(module)
            waiting += imports_at_start(module)
        elif module not in MODULES:
            others.add(module.split(".")[0])
    return others


HEAVY = {"torch", "pyro", "scipy", "matplotlib", "pandas", "colossus", "arviz", "safetensors"}


def test_help_and_bad_settings_wait_for_no_library():
    """``bayesflowmass infer --help``, and the name of a file that is not there, come in half a second."""
    light = loaded_with(["bayesflowmass.cli", *(f"bayesflowmass.{verb}" for verb in VERBS)])
    assert light & (HEAVY | {"astropy", "pyarrow"}) == set()


def test_an_error_in_a_table_waits_for_neither_torch_nor_the_model():
    read = ["bayesflowmass.io", "bayesflowmass.estimator.training_info", "bayesflowmass.estimator.shipped"]
    assert loaded_with(read) & HEAVY == set()


def test_inside_a_room_files_import_files_and_not_the_room():
    """Through ``__init__`` a file would depend on all of its neighbours, and circles would hide."""
    wrong = [
        f"{module} imports {target}"
        for module, targets in IMPORTS.items()
        for target in targets
        if MODULES[module].stem != "__init__"
        and MODULES.get(target, Path()).stem == "__init__"
        and (module + ".").startswith(target + ".")
        and target != "bayesflowmass"
    ]
    assert not wrong


def code_lines(function: ast.FunctionDef) -> int:
    """Lines of the body of a function, without its signature and its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def test_no_function_has_more_than_eighty_lines_of_code():
    long = {
        f"{module}.{node.name}": code_lines(node)
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and code_lines(node) > 80
    }
    assert long == {}


def test_the_package_exports_no_function_that_shadows_a_module():
    modules = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.name for path in PACKAGE.iterdir() if path.is_dir()
    }
    for name in getattr(bayesflowmass, "__all__", []):
        assert name not in modules


def test_every_public_name_has_a_docstring():
    """Public is what does not begin with an underscore; what users may rely on, `test_public_api` says."""
    missing = [
        f"{module}.{node.name}"
        for module, path in MODULES.items()
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and ast.get_docstring(node) is None
    ]
    assert missing == []


def test_a_module_inside_a_room_lists_no_names():
    """An underscore says there what is private; only the package, its rooms and the verbs promise names."""
    promising = {"bayesflowmass", *(f"bayesflowmass.{name}" for name in TOP_LEVEL)}
    listing = [
        module
        for module, path in MODULES.items()
        if path.stem != "__init__" and module not in promising
        if any(
            isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
            for node in ast.parse(path.read_text(encoding="utf-8")).body
        )
    ]
    assert listing == []


def test_no_file_is_much_longer_than_one_idea():
    lengths = {
        str(p.relative_to(PACKAGE)): len(p.read_text(encoding="utf-8").splitlines())
        for p in PACKAGE.rglob("*.py")
    }
    assert {name: n for name, n in lengths.items() if n > 450} == {}


def opens_text_unsaid(call: ast.Call) -> bool:
    """Whether a call reads or writes text in whatever encoding the machine has: half of it breaks in a C locale."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
    words = [*call.args, *(keyword.value for keyword in call.keywords)]
    if any(keyword.arg == "encoding" for keyword in call.keywords):
        return False
    if name == "open":
        modes = [
            word.value for word in words if isinstance(word, ast.Constant) and isinstance(word.value, str)
        ]
        return any(mode in ("r", "w", "a", "x", "r+", "w+", "a+") for mode in modes)
    return (name == "read_text" and not words) or (name == "write_text" and len(words) == 1)


def test_text_files_say_their_encoding():
    """In the package, its tests and benchmarks: 23 tests failed under LC_ALL=C without UTF-8 mode."""
    root = PACKAGE.parent
    wrong = [
        f"{path.relative_to(root)}:{node.lineno}"
        for folder in ("bayesflowmass", "tests", "benchmarks", "notebooks")
        for path in (root / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and opens_text_unsaid(node)
    ]
    assert not wrong


def test_every_noun_of_the_package_can_be_imported_from_it():
    for name in bayesflowmass.__all__:
        assert getattr(bayesflowmass, name) is not None
        assert name in dir(bayesflowmass)


def tells_a_type(test: ast.expr) -> bool:
    """Whether an assertion only says what a type checker cannot see: ``x is not None``, ``isinstance(x, T)``."""
    if isinstance(test, ast.BoolOp):
        return all(map(tells_a_type, test.values))
    if isinstance(test, ast.UnaryOp):
        return tells_a_type(test.operand)
    if isinstance(test, ast.Call):
        return getattr(test.func, "id", None) == "isinstance"
    return isinstance(test, ast.Compare) and ast.unparse(test.comparators[0]) == "None"


def test_no_assert_checks_what_a_user_gives():
    """Under ``python -O`` there are none."""
    wrong = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Assert) and not tells_a_type(node.test))
        or (isinstance(node, ast.Name) and node.id == "__debug__")
    ]
    assert not wrong
