# `make demo` and `make test` need nothing but Python >= 3.11; each makes .venv on first use.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
OUT ?= demo
# Threads that wait for each other should sleep, not spin: it matters where the cores are shared.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo model test lint clean

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[tests,archives]"
	touch $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/bayesflowmass demo --out $(OUT)

# Trains the models that ship with the package and puts them in place: about ten minutes of processor time.
model: $(INSTALLED)
	for name in sky sky_complete; do \
	  nice -n 5 $(BIN)/bayesflowmass train --config $$name.yaml --device cpu --out runs/$$name && \
	  $(BIN)/python benchmarks/ship_model.py runs/$$name bayesflowmass/models/$$name || exit 1; \
	done

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache
