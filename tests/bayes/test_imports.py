"""The room stands alone: it needs torch and Pyro, and nothing of galaxy clusters."""

from __future__ import annotations

import subprocess
import sys

BLOCKED = ("arviz", "astropy", "colossus", "matplotlib", "pandas", "pyarrow", "pydantic", "xarray")
SCRIPT = f"""
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED!r}:
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Block())
import importlib, pkgutil
from bayesflowmass import bayes
for found in pkgutil.walk_packages(bayes.__path__, "bayesflowmass.bayes."):
    importlib.import_module(found.name)
rooms = {{name.split(".")[1] for name in sys.modules if name.startswith("bayesflowmass.")}}
assert rooms == {{"bayes", "common"}}, rooms
"""


def test_every_file_imports_without_the_libraries_of_astronomy():
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, timeout=120)
