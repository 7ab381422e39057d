# make reproduce   the smoke experiment, from nothing to its report
# make drill       a small study struck by faults, again and again: does it end with the same bits?
# make test        the tests; make test-all adds the slow ones, and the oldest packages allowed
# make check       lint, format, types
# make bench       steps, data and threads beside plain PyTorch; writes tests/bench/RESULTS.md; long
#
# VENV=DIR         use or make the environment there (default .venv)
# JOBS=2           processes that run the fast tests side by side
# DRILL="--seed 7 --faults 40"   options of the drill
# BENCH="search text"            parts of the benchmark, and its options
# TORCH_INDEX=URL  where to get PyTorch, such as https://download.pytorch.org/whl/cpu

VENV ?= .venv
PYTHON ?= python3
EXPERIMENT ?= smoke
JOBS ?= 2
PY := $(VENV)/bin/python
# Installed once for this checkout and this pyproject.toml.
STAMP = $(CURDIR) $$(cksum < pyproject.toml)

.PHONY: install reproduce drill test test-all check bench clean

install:
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@if [ "$$(cat $(VENV)/.gdas-install 2>/dev/null)" != "$(STAMP)" ]; then \
	  set -e; \
	  if [ -n "$(TORCH_INDEX)" ]; then \
	    $(PY) -m pip install --quiet --index-url $(TORCH_INDEX) torch torchvision; \
	  fi; \
	  echo "installing into $(VENV)"; \
	  $(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev]'; \
	  echo "$(STAMP)" > $(VENV)/.gdas-install; \
	fi

reproduce: install
	$(PY) -m orchestrator.reproduce_paper $(EXPERIMENT)

drill: install
	$(PY) -m tests.drill $(DRILL)

test: install
	$(PY) -m pytest -m "not slow" -n $(JOBS) --dist loadfile --no-loadscope-reorder

test-all: install
	$(PY) -m pytest
	$(PY) -m tests.ends

check: install
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

bench: install
	$(PY) -m tests.bench $(BENCH) --page tests/bench/RESULTS.md

clean:
	rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache
