# `make demo` and `make test` set everything up in .venv on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# What `make bench` measures; changes of less than 1 % do not count, as machines round differently.
BENCH := --generator demo --images 8 --methods w+ pti sam --steps 40 --edits effect editability distance \
  --batch 4 --workers 2
FIGURES := benchmarks/regression.json

.PHONY: demo test lint types layers unit bench bench-renew clean

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

# Inverts a few scenes and compares with the committed figures; fails if something got worse beyond noise.
bench: $(STAMP)
	rm -rf bench-out
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/saminv bench quality $(BENCH) --out bench-out
	@$(BIN)/saminv bench compare $(FIGURES) bench-out/quality.json --tolerance 0.01 || { \
	  echo "If this change is meant, \`make bench-renew\` takes the new figures into $(FIGURES); commit them."; exit 1; }

bench-renew:
	cp bench-out/quality.json $(FIGURES)

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache demo-out bench-out
