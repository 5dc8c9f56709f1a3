"""Run the numerical tests with every set of vector instructions of this processor, on one thread and on two.

    python tests/portability.py [--all] [pytest arguments]

Sums in another order round otherwise; a tolerance that follows from the arithmetic holds for all of them. `make test`
runs the best set on one thread; here come the others, the plainest of them on two threads. A processor with one set
runs that on two.

The tests of files and commands run twice in one process, which is one of ``python -O`` in a C locale without UTF-8.
Under ``-O`` the ``assert`` of the package are gone; those of the tests, which pytest rewrites, are not. ``--all``:
instead of everything else, all tests in that way.
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
PLAIN_PYTHON = C_LOCALE | {"PYTHONOPTIMIZE": "1"}
ONCE = "import pytest, sys; sys.exit(pytest.main(sys.argv[1:]))"
TWICE = "import pytest, sys; sys.exit(pytest.main(sys.argv[1:]) or pytest.main(sys.argv[1:]))"
CAPABILITIES = ("default", "avx2", "avx512")


def capabilities() -> list[str]:
    """Names for ``ATEN_CPU_CAPABILITY`` that this processor has; torch takes the word of the variable unchecked."""
    import torch

    best = torch.backends.cpu.get_cpu_capability().lower()
    return list(CAPABILITIES[: CAPABILITIES.index(best) + 1]) if best in CAPABILITIES else ["default"]


def passes(rooms: tuple[str, ...], variables: dict[str, str], code: str, *options: str) -> bool:
    """Whether the tests of some rooms (none: of all) pass in a process of its own."""
    given = [word for word in sys.argv[1:] if word != "--all"]
    command = [sys.executable, "-c", code, "-q", "-p", "no:cacheprovider", *given, *options]
    command += [str(TESTS / name) for name in rooms]
    return subprocess.run(command, env=os.environ | variables, check=False).returncode == 0


def main() -> int:
    failed = []
    everything = "--all" in sys.argv
    plainest, *others = capabilities()
    settings = [(plainest, "2"), *((other, "1") for other in others[:-1])]
    for capability, threads in [] if everything else settings:
        print(f"== ATEN_CPU_CAPABILITY={capability}, {threads} thread(s)", flush=True)
        variables = {"ATEN_CPU_CAPABILITY": capability, "BAYESFLOWMASS_TEST_THREADS": threads}
        if not passes(NUMERICAL, variables, ONCE):
            failed.append(f"{capability} with {threads} thread(s)")
    print("== twice in one process, in a C locale, under python -O", flush=True)
    # -n0: the workers of pytest-xdist would be new processes the second time. pytest warns of -O.
    options = ("-n0", "-W", "ignore::pytest.PytestConfigWarning")
    if not passes(() if everything else OF_FILES, PLAIN_PYTHON, TWICE, *options):
        failed.append("twice in one process, in a C locale, under python -O")
    print("failed: " + "; ".join(failed) if failed else "all passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
