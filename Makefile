# `make demo` and `make test` need nothing but Python >= 3.11; each makes .venv on first use.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
OUT ?= demo
# Threads that wait for each other should sleep, not spin: it matters where the cores are shared.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo model test portability lint docs notebooks gpu-check clean

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[tests,archives,distributed]"
	touch $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/bayesflowmass demo --out $(OUT)

# Trains the models that ship with the package and puts them in place: about twenty minutes of processor time.
model: $(INSTALLED)
	for name in sky sky_complete sky_galaxies; do \
	  nice -n 5 $(BIN)/bayesflowmass train --config $$name.yaml --device cpu --out runs/$$name && \
	  $(BIN)/python -m benchmarks.ship_model runs/$$name bayesflowmass/models/$$name || exit 1; \
	done

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist worksteal

# The numerical tests with the other sets of vector instructions of this processor, and on two threads.
portability: $(INSTALLED)
	$(BIN)/python tests/portability.py -n 2 --dist worksteal

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, in docs/_build/html; a warning is an error.
docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo docs/_build/html/index.html

# Executes all notebooks into a temporary folder; an error or a warning fails. SCALE=full takes the full sizes.
notebooks: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[notebooks]"
	$(BIN)/python notebooks/execute.py

# All that needs a GPU: its tests, and its speeds into docs/results/gpu.md. Without one it says so.
gpu-check: $(INSTALLED)
	$(BIN)/python -m benchmarks.gpu_check

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache docs/_build docs/_notebooks
