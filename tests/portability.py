"""Run the numerical tests with every set of vector instructions of this processor, on one thread and on two.

    python tests/portability.py [pytest arguments]

Sums in another order round otherwise; a tolerance that follows from the arithmetic holds for all of them. `make test`
runs the best set on one thread; here come the others on one thread, and the best on two.

All tests run in a C locale without UTF-8 and under ``python -O``, the numerical ones with the best set on two threads.
Under ``-O`` the ``assert`` of the package are gone; those of the tests, which pytest rewrites, are not. The tests of
files and commands run twice in one process (``--twice-all``: all of them, and nothing else).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
NUMERICAL = (
    *("encoders", "networks", "flows", "bayes", "posterior", "hierarchical", "novelty", "recalibration"),
    *("diagnostics", "saliency"),
)
OF_FILES = ("common", "catalog", "command", "io")
"""Text, names, locks and messages: what a locale, ``-O`` or a second run in one process may change."""

BARE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONOPTIMIZE": "1"}
ONCE = "import pytest, sys; sys.exit(pytest.main(sys.argv[1:]))"
TWICE = "import pytest, sys; sys.exit(pytest.main(sys.argv[1:]) or pytest.main(sys.argv[1:]))"
CAPABILITIES = ("default", "avx2", "avx512")


def capabilities() -> list[str]:
    """Names for ``ATEN_CPU_CAPABILITY`` that this processor has; torch takes the word of the variable unchecked."""
    import torch

    best = torch.backends.cpu.get_cpu_capability().lower()
    return list(CAPABILITIES[: CAPABILITIES.index(best) + 1]) if best in CAPABILITIES else ["default"]


def others_than(rooms: tuple[str, ...]) -> tuple[str, ...]:
    """The files and folders of tests besides those of some rooms."""
    found = (path.name for path in TESTS.iterdir() if path.is_dir() or path.name.startswith("test_"))
    return tuple(sorted(set(found) - {*rooms, "support", "__pycache__"}))


def passes(code: str, rooms: tuple[str, ...], variables: dict[str, str], options: list[str]) -> bool:
    """Whether the tests of some rooms pass in a process of its own."""
    command = [sys.executable, "-c", code, "-q", "-p", "no:cacheprovider", *options]
    # pytest says that it does not see the assert of the files that it does not rewrite.
    command += ["-W", "ignore::pytest.PytestConfigWarning", *(str(TESTS / name) for name in rooms)]
    return subprocess.run(command, env=os.environ | variables, check=False).returncode == 0


def main() -> int:
    options = [word for word in sys.argv[1:] if word != "--twice-all"]
    runs = [("twice in one process", TWICE, OF_FILES, {})]
    if options != sys.argv[1:]:
        runs = [("twice in one process", TWICE, others_than(()), {})]
    else:
        *others, best = capabilities()
        for capability, threads, bare in [*((other, "1", {}) for other in others), (best, "2", BARE)]:
            variables = {"ATEN_CPU_CAPABILITY": capability, "BAYESFLOWMASS_TEST_THREADS": threads} | bare
            name = f"ATEN_CPU_CAPABILITY={capability}, {threads} thread(s)" + ", C locale, python -O" * bool(
                bare
            )
            runs.append((name, ONCE, NUMERICAL, variables))
        runs.append(("C locale, python -O", ONCE, others_than(NUMERICAL), BARE))
    failed = []
    for name, code, rooms, variables in runs:
        print(f"== {name}", flush=True)
        if not passes(code, rooms, variables, options):
            failed.append(name)
    print("failed: " + "; ".join(failed) if failed else "all passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
