# Bare machine: Python 3.11+, make, git. Everything else comes into .venv from requirements.lock.
PYTHON ?= python3
UV_VERSION := $(shell sed -n "s/^uv==\([0-9.]*\).*/\1/p" requirements.lock)
BIN := .venv/bin
# Compiling Dagster anew in every process would double the time of everything.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-long ui bench lint check lock install clean

install: .venv/installed

.venv/installed: requirements.lock pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "dialog_assets needs Python 3.11, 3.12 or 3.13; say which one: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

demo: install          ## the whole graph on the sandbox's week
	@$(BIN)/dialog-assets demo

ui: install            ## the Dagster UI and daemon on the same data
	@$(BIN)/dialog-assets ui

# More workers than cores: most of the time a test waits for a server.
test: install          ## the whole suite, as CI runs it
	$(BIN)/python -m pytest -n 4 --dist loadgroup

test-long: install     ## the fuzzers, at length
	$(BIN)/python -m pytest -n 2 -m long

bench: install bench/.venv/installed ## the measurements; BENCH="store", BENCH="bitrix24 --large" …
	$(BIN)/python -m bench.run $(BENCH)

# The peers live apart: what they depend on never meets ours.
bench/.venv/installed: bench/requirements.lock
	test -x bench/.venv/bin/python || $(PYTHON) -m venv bench/.venv
	$(BIN)/uv pip sync --quiet --python bench/.venv/bin/python --require-hashes bench/requirements.lock
	touch $@

lint: install          ## style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: install         ## the definitions load
	DAGSTER_HOME=$$(mktemp -d) $(BIN)/dagster definitions validate -m dialog_assets.definitions

lock:                  ## renew requirements.lock
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --all-extras \
		--quiet --upgrade -o requirements.lock pyproject.toml
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--quiet --upgrade -o bench/requirements.lock bench/requirements.in

clean:                 ## remove what was made, the demo's data too
	rm -rf .venv bench/.venv .data *.egg-info
