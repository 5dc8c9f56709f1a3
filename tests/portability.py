"""Run the numerical tests with every set of vector instructions of this processor, on one thread and on two.

    python tests/portability.py [--all] [pytest arguments]

Sums in another order round otherwise; a tolerance that follows from the arithmetic holds for all of them. `make test`
runs the best set on one thread; here come the others on one thread, and the best on two.

The tests of files and commands run in a C locale without UTF-8, under ``python -O`` and twice in one process. Under
``-O`` the ``assert`` of the package are gone; those of the tests, which pytest rewrites, are not. ``--all``: instead of
everything else, all tests in a C locale under ``-O``, and then twice in one process.
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

C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
ONCE = "import pytest, sys; sys.exit(pytest.main(sys.argv[1:]))"
TWICE = "import pytest, sys; sys.exit(pytest.main(sys.argv[1:]) or pytest.main(sys.argv[1:]))"
CAPABILITIES = ("default", "avx2", "avx512")


def capabilities() -> list[str]:
    """Names for ``ATEN_CPU_CAPABILITY`` that this processor has; torch takes the word of the variable unchecked."""
    import torch

    best = torch.backends.cpu.get_cpu_capability().lower()
    return list(CAPABILITIES[: CAPABILITIES.index(best) + 1]) if best in CAPABILITIES else ["default"]


def passes(code: str, rooms: tuple[str, ...], variables: dict[str, str], *options: str) -> bool:
    """Whether the tests of some rooms (none: of all) pass in a process of its own."""
    given = [word for word in sys.argv[1:] if word != "--all"]
    command = [sys.executable, "-c", code, "-q", "-p", "no:cacheprovider", *options, *given]
    command += [str(TESTS / name) for name in rooms]
    return subprocess.run(command, env=os.environ | variables, check=False).returncode == 0


def main() -> int:
    failed = []
    everything = "--all" in sys.argv
    *others, best = capabilities()
    for capability, threads in [] if everything else [*((other, "1") for other in others), (best, "2")]:
        print(f"== ATEN_CPU_CAPABILITY={capability}, {threads} thread(s)", flush=True)
        variables = {"ATEN_CPU_CAPABILITY": capability, "BAYESFLOWMASS_TEST_THREADS": threads}
        if not passes(ONCE, NUMERICAL, variables):
            failed.append(f"{capability} with {threads} thread(s)")
    quiet = ("-W", "ignore::pytest.PytestConfigWarning")
    runs: list[tuple[str, str, dict[str, str], tuple[str, ...]]] = [
        ("a C locale", ONCE, C_LOCALE, ()),
        ("python -O", ONCE, {"PYTHONOPTIMIZE": "1"}, quiet),
    ]
    if everything:
        runs = [("a C locale under python -O", ONCE, {**C_LOCALE, "PYTHONOPTIMIZE": "1"}, quiet)]
    for name, code, variables, options in (*runs, ("twice in one process", TWICE, {}, ())):
        print(f"== {name}", flush=True)
        if not passes(code, () if everything else OF_FILES, variables, *options):
            failed.append(name)
    print("failed: " + "; ".join(failed) if failed else "all passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
