# Two commands do everything: `make demo` and `make test`. The environment is .venv/, made on first use.
PYTHON ?= python3
BIN := .venv/bin
CONSTRAINTS := .ci/constraints.txt
# For `make bench`: the scans, and what else benchmarks/compare.py takes, e.g. BENCH='--rounds 1'.
SCANS ?= data
BENCH ?=

.PHONY: demo test lint unit contract integration bench constraints clean
.DEFAULT_GOAL := help

help:  ## Say what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: .venv/.installed  ## Make sample scans, train on two workers, export, serve, predict
	@bash .ci/demo $(BIN)/python

test: lint unit contract integration  ## Install what the tests need and run all of them

lint: .venv/.installed-test  ## Style (ruff) and types (mypy)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

unit contract integration: .venv/.installed-test  ## One suite of tests
	$(BIN)/python -m pytest tests/$@

constraints: .venv/.installed-test  ## Write the exact versions in use to .ci/constraints.txt
	( head -1 $(CONSTRAINTS); $(BIN)/pip freeze --exclude-editable --exclude covid-ct ) > build.tmp
	mv build.tmp $(CONSTRAINTS)

bench: .bench/.installed  ## Measure ours beside what people would use instead: make bench SCANS=DIR
	.bench/bin/python -m benchmarks.compare $(SCANS) $(BENCH)

clean:  ## Remove the environment and what the demo made
	rm -rf .venv .bench build samples runs/demo models/covid_ct

.venv/bin/python:
	@echo "making the environment in .venv/ with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv .venv

.venv/.installed: .venv/bin/python pyproject.toml $(CONSTRAINTS)
	@echo "installing covid-ct and what it needs (TensorFlow, Ray, ...): about 700 MB, some minutes on the first time"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable .
	@touch $@

.venv/.installed-test: .venv/.installed
	@echo "installing what the tests need"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable '.[test]'
	@touch $@

.bench/bin/python:
	@$(PYTHON) -m venv .bench

.bench/.installed: .bench/bin/python pyproject.toml $(CONSTRAINTS) benchmarks/requirements.txt
	@echo "installing covid-ct and its peers (PyTorch) in .bench/"
	@.bench/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --requirement benchmarks/requirements.txt --editable .
	@touch $@

include k8s/images.mk
