# make run    a hub, two managed clusters and the gateway on this host, until Ctrl-C
# make test   every test, the end-to-end ones on real control planes included
# make fuzz   every parser's invariants on RUNS made-up inputs each, from SEED
# Each sets up all it needs; see README.md.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
RUNS ?= 20000
SEED ?= 1
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run setup test fuzz bench bench-isolation bench-memory verify lint types imports proto format update-constraints clean

run: setup
	@$(BIN)/python -m cluster_gateway.demo $(ARGS)

setup: $(VENV)/.installed

test: $(VENV)/.installed-dev
	@$(BIN)/python -m cluster_gateway.control_planes --build-only
	@$(BIN)/python -m pytest $(ARGS)

fuzz: $(VENV)/.installed-fuzz
	@$(BIN)/python -m tests.fuzz.run --runs $(RUNS) --seed $(SEED) $(ARGS)

# The gateway beside the other ways to a cluster, on real control planes; figures also go to .run/bench.json.
bench: $(VENV)/.installed-dev
	@$(BIN)/python -m cluster_gateway.control_planes --build-only
	@PYTHONPATH=. $(BIN)/python -m tests.bench.measure $(ARGS)

# What a healthy cluster's callers notice of a sick neighbour; about two minutes.
bench-isolation: $(VENV)/.installed-dev
	@PYTHONPATH=. $(BIN)/python -m tests.bench.measure_isolation $(ARGS)

verify: lint types imports proto

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@command -v gofmt >/dev/null || { echo "error: gofmt was not found; install Go 1.26 or newer" >&2; exit 1; }
	@badly=$$(gofmt -l deploy/control-planes tests/oracle tests/bench); test -z "$$badly" || { echo "error: run gofmt -w $$badly" >&2; exit 1; }

types: $(VENV)/.installed-dev
	@MYPYPATH=core:facade:deploy:proto/gen $(BIN)/mypy
	@$(BIN)/pyright --pythonpath $(BIN)/python

imports: $(VENV)/.installed-dev
	@$(BIN)/lint-imports

# Generated code is committed; this proves that it is what the .proto files say.
proto: $(VENV)/.installed-dev
	@PATH="$(CURDIR)/$(BIN):$$PATH" proto/verify.sh

format: $(VENV)/.installed-dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@PATH="$(CURDIR)/$(BIN):$$PATH" proto/generate.sh

# What streams that stand still and large bodies cost in memory; about four minutes.
bench-memory: $(VENV)/.installed-dev
	@PYTHONPATH=. $(BIN)/python tests/bench/measure_memory.py $(ARGS)

update-constraints:
	@deploy/update-constraints.sh $(PYTHON)

clean:
	@rm -rf $(VENV) .run .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing the gateway into $(VENV)"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing the gateway and its development tools into $(VENV)"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.installed

# Apart from the other tools, because it is not to be had for every platform.
$(VENV)/.installed-fuzz: pyproject.toml constraints.txt $(VENV)/.installed-dev
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,fuzz]' || { echo "error: atheris could not be installed; it exists for Linux on x86-64" >&2; exit 1; }
	@touch $@

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) was not found; install Python 3.11 or newer, or name one with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is older than 3.11; name a newer one with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "error: $(PYTHON) has no venv module; install it (Debian: python3-venv)" >&2; exit 1; }
