# Bare machine: Python 3.11 to 3.14, make, git. Everything else comes into .venv from requirements.lock.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
UV_VERSION := $(shell sed -n "s/^uv==\([0-9.]*\).*/\1/p" requirements.lock)
# The minor versions of Python 3 that pyproject.toml promises: the first one, and the first one no more.
PROMISED := $(shell sed -n 's/^requires-python = ">=3\.\([0-9]*\),<3\.\([0-9]*\)"/\1 \2/p' pyproject.toml)
PYTHONS := $(shell seq -f 3.%g $(firstword $(PROMISED)) $$(($(lastword $(PROMISED)) - 1)))
# An environment knows the folder and the Python that it was made with: in a checkout that was moved, after the Python is
# gone, or for another PYTHON named by hand, it is made anew. `installed` holds the folder.
STALE := $(shell test ! -e $(VENV) || { test "$$(cat $(VENV)/installed)" = "$$(pwd -P)" && $(BIN)/python -c ""; } 2>&- || echo stale)
ifneq ($(origin PYTHON),file)
STALE += $(shell test ! -e $(VENV) || $(PYTHON) -c "import sys; print('%d.%d' % sys.version_info[:2])" | \
	grep -qxF "$$($(BIN)/python -c "import sys; print('%d.%d' % sys.version_info[:2])")" 2>&- || echo stale)
endif
# Compiling Dagster anew in every process would double the time of everything.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-long test-part pythons ui bench lint check lock install clean

install: $(VENV)/installed

$(VENV)/installed: requirements.lock pyproject.toml Makefile $(if $(strip $(STALE)),stale)
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, $(firstword $(PROMISED))) <= sys.version_info < (3, $(lastword $(PROMISED))) else "dialog_assets needs one of the Pythons $(PYTHONS): say which one, make PYTHON=python3.12")'
	$(if $(strip $(STALE)),@test ! -e $(VENV) || test -O $(VENV) || { echo "$(VENV) belongs to another user: work in a checkout of your own." >&2; exit 1; })
	$(if $(strip $(STALE)),rm -rf $(VENV) bench/.venv)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@pwd -P >$@

.PHONY: stale

demo: install          ## the whole graph on the sandbox's week
	@$(BIN)/dialog-assets demo

ui: install            ## the Dagster UI and daemon on the same data; PORT=3001 for another port
	@$(BIN)/dialog-assets ui $(if $(PORT),--port $(PORT))

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

# What depends most on Python and its native packages, with a whole night among it.
PART := $(addprefix dialog_assets_tests/,audio/test_workers.py audio/test_convert.py audio/test_probe.py cli test_worklist.py \
	speech/test_voicekit.py store/test_pool.py end_to_end/test_again.py)

test-part: install     ## the part of the suite that CI runs on every Python
	$(BIN)/python -m pytest -n 4 --dist loadgroup $(PART)

pythons:               ## the Pythons that are promised
	@echo $(PYTHONS)

check: install         ## the lock has one version for all Pythons, and the definitions load
	$(BIN)/python .ci/lock.py
	DAGSTER_HOME=$$(mktemp -d) $(BIN)/dagster definitions validate -m dialog_assets.definitions

lock:                  ## renew requirements.lock
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --all-extras \
		--quiet --upgrade -o requirements.lock pyproject.toml
	for python in $(PYTHONS); do $(BIN)/uv pip install --quiet --dry-run --only-binary :all: --python-version $$python \
		--target build/wheels --require-hashes -r requirements.lock || exit 1; done
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--quiet --upgrade -o bench/requirements.lock bench/requirements.in

clean:                 ## remove what was made, the demo's data too
	rm -rf .venv .venv-* bench/.venv .data *.egg-info
