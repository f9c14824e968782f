# `make demo` and `make test` set everything up in .venv on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint types layers unit clean

$(STAMP): setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[segment,plot,test]"
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/saminv demo --out demo-out

test: $(STAMP) lint types layers unit

lint: $(STAMP)
	$(BIN)/ruff check saminv tests examples benchmarks docs
	$(BIN)/ruff format --check saminv tests examples benchmarks docs

types: $(STAMP)
	$(BIN)/mypy

layers: $(STAMP)
	$(BIN)/lint-imports --config setup.cfg

unit: $(STAMP)
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not slow and not gpu and not network"

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache demo-out
