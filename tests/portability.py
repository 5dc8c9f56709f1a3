"""Run the numerical tests with every set of vector instructions of this processor, on one thread and on two.

    python tests/portability.py [pytest arguments]

Sums in another order round otherwise; a tolerance that follows from the arithmetic holds for all of them. `make test`
runs the best set on one thread; here come the others on one thread, and the best on two.
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
CAPABILITIES = ("default", "avx2", "avx512")


def capabilities() -> list[str]:
    """Names for ``ATEN_CPU_CAPABILITY`` that this processor has; torch takes the word of the variable unchecked."""
    import torch

    best = torch.backends.cpu.get_cpu_capability().lower()
    return list(CAPABILITIES[: CAPABILITIES.index(best) + 1]) if best in CAPABILITIES else ["default"]


def main() -> int:
    failed = []
    *others, best = capabilities()
    for capability, threads in [*((other, "1") for other in others), (best, "2")]:
        print(f"== ATEN_CPU_CAPABILITY={capability}, {threads} thread(s)", flush=True)
        environment = os.environ | {"ATEN_CPU_CAPABILITY": capability, "BAYESFLOWMASS_TEST_THREADS": threads}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *sys.argv[1:]]
        command += [str(TESTS / name) for name in NUMERICAL]
        if subprocess.run(command, env=environment, check=False).returncode:
            failed.append(f"{capability} with {threads} thread(s)")
    print("failed: " + "; ".join(failed) if failed else "all passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
