"""Do the tests notice? Small faults are put into the package one by one, and the tests that reach each are run.

    python -m benchmarks.mutants --record --work DIR      # which test calls which function
    python -m benchmarks.mutants --n 240 --seed 0 --work DIR

A mutant changes one operator, comparison or constant: ``<`` is ``<=``, ``+`` is ``-``, ``and`` is ``or``, n is n + 1.
Messages of errors, annotations and decorators are left alone. Scores are given with all mutants, and without those that
change how much is done at once, which no output depends on, by a rule: ``strict=`` of a zip, and assignments that name
a constant whose name ends in ``AT_ONCE``. Each mutant is made in a fork of a process that has
collected all tests, so that it costs what its tests cost; one outside of the bodies of functions is written into the
file for as long as its tests run, so run this in a clone. Results go to ``DIR/results.jsonl``, line by
line; a run that was stopped goes on from there, and ``--again`` tries the survivors once more.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import json
import math
import os
import random
import resource
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("posterior", "evaluation", "encoders", "bayes/guides", "io")
TESTS = (
    *("posterior", "evaluation", "encoders", "bayes", "io", "estimator", "recalibration", "inspection"),
    *("comparison", "diagnostics", "hierarchical", "page", "survey", "mocks/test_nbody.py"),
    *("test_infer.py", "test_infer_members.py", "test_figures.py", "test_calibrate.py"),
)
QUICK, LONG = 3.0, 15.0
"""Seconds of tests that are run first, and in all where those pass."""

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv,
}


def changed(node: ast.AST) -> ast.AST | None:
    """The mutant of one node; None where it has none."""
    new: Any = copy.deepcopy(node)
    if isinstance(new, ast.Compare) and type(new.ops[0]) in COMPARISONS:
        new.ops[0] = COMPARISONS[type(new.ops[0])]()
    elif isinstance(new, ast.BinOp) and type(new.op) in OPERATORS:
        # A union of types and a text that is put together are no sums.
        if any(isinstance(side, ast.JoinedStr) for side in (new.left, new.right)):
            return None
        new.op = OPERATORS[type(new.op)]()
    elif isinstance(new, ast.BoolOp):
        new.op = ast.Or() if isinstance(new.op, ast.And) else ast.And()
    elif isinstance(new, ast.UnaryOp) and isinstance(new.op, ast.Not | ast.USub):
        new = new.operand
    elif isinstance(new, ast.Constant) and isinstance(new.value, bool):
        new.value = not new.value
    elif isinstance(new, ast.Constant) and isinstance(new.value, int | float):
        if new.value + 1 == new.value:
            return None  # beyond 2^53
        new.value = new.value + 1
    else:
        return None
    return new


def places(
    tree: ast.AST, path: tuple[tuple[str, int | None], ...] = (), name: str = ""
) -> Iterator[tuple[Any, str]]:
    """``(way from the root, name of the function)`` of every node that can be changed."""
    if changed(tree) is not None:
        yield path, name
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns", "decorator_list") or isinstance(
            value, ast.Raise | ast.JoinedStr
        ):
            continue
        for place, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.Raise | ast.JoinedStr | ast.Assert):
                continue
            inner = name
            if isinstance(child, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
                inner = f"{name}.{child.name}".lstrip(".")
            yield from places(child, (*path, (field, place)), inner)


def of_amount(tree: ast.AST, path: Any) -> bool:
    """Whether a node says how much is done at once: ``strict=``, or an assignment that names some ``..._AT_ONCE``."""
    for field, place in path:
        tree = getattr(tree, field) if place is None else getattr(tree, field)[place]
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        if isinstance(tree, ast.Assign | ast.AnnAssign) and any(name.endswith("AT_ONCE") for name in names):
            return True
        if isinstance(tree, ast.keyword) and tree.arg == "strict":
            return True
    return False


def mutated(tree: ast.Module, path: Any) -> tuple[ast.Module, int, str]:
    """A copy with the node at ``path`` changed, its line, and both texts."""
    tree = copy.deepcopy(tree)
    parent: Any = tree
    for field, place in path[:-1]:
        parent = getattr(parent, field) if place is None else getattr(parent, field)[place]
    field, place = path[-1]
    old = getattr(parent, field) if place is None else getattr(parent, field)[place]
    new = ast.copy_location(changed(old), old)  # type: ignore[type-var]
    if place is None:
        setattr(parent, field, new)
    else:
        getattr(parent, field)[place] = new
    return ast.fix_missing_locations(tree), old.lineno, f"{ast.unparse(old)}  ->  {ast.unparse(new)}"


class Recorder:
    """Notes which functions of the rooms each test calls, and how long it takes."""

    def __init__(self) -> None:
        self.calls: dict[str, set[str]] = defaultdict(set)
        self.seconds: dict[str, float] = {}
        self.test = ""

    def trace(self, frame: FrameType, event: str, argument: Any) -> None:
        """Of ``sys.settrace``: calls only."""
        code = frame.f_code
        if "/bayesflowmass/" in code.co_filename and code.co_filename.startswith(str(ROOT)):
            name = code.co_qualname.replace(".<locals>", "").split(".<")[0]
            self.calls[f"{code.co_filename[len(str(ROOT)) + 1 :]}:{name}"].add(self.test)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        """Traces one test, its fixtures included."""
        self.test, start = item.nodeid, time.process_time()
        sys.settrace(self.trace)
        threading.settrace(self.trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
            self.seconds[item.nodeid] = time.process_time() - start


def record(work: Path, tests: list[str]) -> None:
    """Run the tests once, file by file; what was recorded before of other files is kept."""
    path = work / "record.json"
    for place in (ROOT / "tests" / name for name in tests):
        for file in sorted(place.rglob("test_*.py")) if place.is_dir() else [place]:
            recorder = Recorder()
            pytest.main(["-q", "-p", "no:cacheprovider", str(file)], plugins=[recorder])
            old = (
                json.loads(path.read_text(encoding="utf-8"))
                if path.is_file()
                else {"calls": {}, "seconds": {}}
            )
            again = f"{file.relative_to(ROOT)}::"
            calls = {
                key: {test for test in of if not test.startswith(again)} for key, of in old["calls"].items()
            }
            for key, of in recorder.calls.items():
                calls[key] = calls.get(key, set()) | of
            seconds = {test: cost for test, cost in old["seconds"].items() if not test.startswith(again)}
            found = {
                "calls": {key: sorted(of) for key, of in calls.items()},
                "seconds": seconds | recorder.seconds,
            }
            path.write_text(json.dumps(found), encoding="utf-8")


def tests_for(file: str, function: str, found: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Tests that call a function: those to run first, and the others that the time allows.

    Code outside of functions is reached by all tests that call any function of the file.
    """
    keys = [key for key in found["calls"] if key.startswith(f"{file}:")]
    own = [key for key in keys if function and f"{key}.".startswith(f"{file}:{function}.")]
    while function and not own:
        function = function.rpartition(".")[0]
        own = [key for key in keys if f"{key}.".startswith(f"{file}:{function}.")] if function else keys
    room = "tests/" + file.split("/")[1]
    seconds = found["seconds"]
    tests = sorted(
        {test for key in own or keys for test in found["calls"][key] if test},
        key=lambda test: (not test.startswith(room), seconds.get(test, 1.0)),
    )
    first: list[str] = []
    later: list[str] = []
    used, alike = {True: 0.0, False: 0.0}, defaultdict(int)
    for test in tests:
        alike[test.partition("[")[0]] += 1
        cost = seconds.get(test, 1.0)
        quick = used[True] + cost <= QUICK and alike[test.partition("[")[0]] <= 6
        if quick or used[False] + cost <= LONG:
            used[quick] += cost
            (first if quick else later).append(test)
    return first, later


def live_function(module: Any, function: str) -> Any:
    """The function of a module, or of a class in it, behind its decorators; None where there is none."""
    found: Any = module
    for name in function.split(".")[:2]:
        found = vars(found).get(name)
        found = getattr(found, "__func__", getattr(found, "fget", getattr(found, "func", found)))
        while hasattr(found, "__wrapped__"):
            found = found.__wrapped__
        if hasattr(found, "__code__"):
            return found
        if not isinstance(found, type):
            return None
    return None


def code_of(tree: ast.Module, path: str, like: Any) -> Any:
    """The compiled code, in a changed tree, of the function whose code is ``like``."""
    waiting = [compile(tree, path, "exec")]
    while waiting:
        code = waiting.pop()
        if code.co_qualname == like.co_qualname and code.co_firstlineno == like.co_firstlineno:
            return code
        waiting += [one for one in code.co_consts if hasattr(one, "co_consts")]
    return None


class Trial:
    """Within a session of pytest, which has collected all tests: forks try one mutant each."""

    def __init__(self, work: Path, chosen: list[tuple[str, int]], again: bool) -> None:
        self.path = work / "results.jsonl"
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        self.results = {line["id"]: line for line in map(json.loads, lines)}
        self.found = json.loads((work / "record.json").read_text(encoding="utf-8"))
        self.chosen, self.again, self.failed = chosen, again, False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Of pytest: notes what fails."""
        self.failed |= report.failed

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Of pytest: tries all mutants in place of running the tests."""
        items = {item.nodeid: item for item in session.items}
        controls: set[str] = set()
        for file, number in self.chosen:
            source = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            way, function = list(places(source))[number]
            tree, line, text = mutated(source, way)
            key = f"{file}:{function}:{number}:{text}"
            if key in self.results and not (self.again and self.results[key]["survived"]):
                continue
            if not any(call.startswith(f"{file}:") for call in self.found["calls"]):
                print(f"not recorded: {file}", flush=True)
                continue
            first, later = (
                [items[test] for test in some if test in items]
                for some in tests_for(file, function, self.found)
            )
            room = file.split("/")[1]
            if room not in controls and first:
                # Without a fault the tests must pass, or the deaths of mutants say nothing.
                controls.add(room)
                if not self.survives(file, function, None, first):
                    raise SystemExit(f"{file}: tests fail without any fault")
            survived = self.survives(file, function, tree, first) and self.survives(
                file, function, tree, later
            )
            result = {"id": key, "line": line, "survived": survived, "tests": len(first) + len(later)}
            result["of_amount"] = of_amount(source, way)
            self.results[key] = result
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(result) + "\n")
            if survived:
                print(f"survived {file}:{line} {function}: {text} ({result['tests']} tests)", flush=True)
        return True

    def survives(self, file: str, function: str, tree: ast.Module | None, tests: list[pytest.Item]) -> bool:
        """Whether all tests pass with the changed module, in a fork; what takes four times as long does not.

        What is in the body of a function is exchanged there; else the file is changed, for as long as a process of its
        own runs the tests.
        """
        if not tests:
            return True
        seconds = sum(self.found["seconds"].get(test.nodeid, 1.0) for test in tests)
        path = ROOT / file
        source = path.read_text(encoding="utf-8")
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                limit = int(time.process_time() + 40 + 4 * seconds)
                resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
                nothing = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nothing, 1)
                os.dup2(nothing, 2)
                if tree is not None and not exchanged(file, function, tree):
                    path.write_text(ast.unparse(tree), encoding="utf-8")
                    command = [sys.executable, "-B", "-m", "pytest", "-qx", "-p", "no:cacheprovider"]
                    os.execv(sys.executable, [*command, *(test.nodeid for test in tests)])
                for test, following in zip(tests, [*tests[1:], None], strict=True):
                    test.config.hook.pytest_runtest_protocol(item=test, nextitem=following)
                    if self.failed:
                        break
                code = int(self.failed)
            finally:
                os._exit(code)
        try:
            end = time.monotonic() + 30 * (20 + 4 * seconds)
            while time.monotonic() < end:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    return os.waitstatus_to_exitcode(status) == 0
                time.sleep(0.01)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return False
        finally:
            if path.read_text(encoding="utf-8") != source:
                path.write_text(source, encoding="utf-8")


def exchanged(file: str, function: str, tree: ast.Module) -> bool:
    """Put a changed body of a function into the place of the old, for whoever has imported it; whether it was one."""
    parts = Path(file).with_suffix("").parts
    module = importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    live = live_function(module, function) if function else None
    code = None if live is None else code_of(tree, str(ROOT / file), live.__code__)
    if live is None or code is None or code == live.__code__:
        return False
    live.__code__ = code
    return True


def sample(rooms: list[str], n: int, seed: int) -> list[tuple[str, int]]:
    """``(file, number of the place in it)`` of ``n`` mutants, by chance over all places of all files."""
    files = sorted(path for room in rooms for path in (ROOT / "bayesflowmass" / room).rglob("*.py"))
    everything = [
        (str(path.relative_to(ROOT)), number)
        for path in files
        for number, _ in enumerate(places(ast.parse(path.read_text(encoding="utf-8"))))
    ]
    print(f"{len(everything)} mutants in {len(files)} files.", flush=True)
    return random.Random(seed).sample(everything, min(n, len(everything)))


def try_all(work: Path, chosen: list[tuple[str, int]], again: bool) -> list[dict[str, Any]]:
    """Try the mutants that have no result yet (``again``: and those that survived)."""
    trial = Trial(work, chosen, again)
    needed: set[str] = set()
    for file, number in chosen:
        _, function = list(places(ast.parse((ROOT / file).read_text(encoding="utf-8"))))[number]
        needed.update(*tests_for(file, function, trial.found))
    files = sorted({test.partition("::")[0] for test in needed})
    code = pytest.main(["-qq", "-s", "-p", "no:cacheprovider", *files], plugins=[trial])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise SystemExit(f"pytest ended with {code!r}")
    return list(trial.results.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of the record and of the results")
    parser.add_argument("--record", action="store_true", help="run the tests once, and note what each calls")
    parser.add_argument(
        "--tests", nargs="*", default=list(TESTS), help="files and folders of tests to record"
    )
    parser.add_argument("--rooms", nargs="*", default=list(ROOMS), help="rooms to change")
    parser.add_argument("--n", type=int, default=240, help="mutants")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of mutants")
    parser.add_argument("--again", action="store_true", help="try survivors once more")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.record:
        record(arguments.work, arguments.tests)
        return
    results = try_all(arguments.work, sample(arguments.rooms, arguments.n, arguments.seed), arguments.again)
    for what, some in (
        ("all mutants", results),
        ("without how much is done at once", [result for result in results if not result["of_amount"]]),
    ):
        n, left = len(some), sum(result["survived"] for result in some)
        score = 1 - left / n
        error = math.sqrt(score * (1 - score) / n)
        print(f"{what}: {n - left} of {n} killed, {100 * score:.1f} +- {100 * error:.1f} %.")


if __name__ == "__main__":
    main()
