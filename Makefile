# Everything from a fresh clone, with nothing but Python 3.11+ and make:
#   make search   own virtual environment, install, 5,000 architectures on the embedded digits
#   make test     own virtual environment, install, tests
#   make check    what CI adds: ruff, mypy --strict, import-linter
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
NUM_SAMPLES ?= 5000

.PHONY: search test test-unit test-lowest-ray check clean

search: $(VENV)/.installed
	$(BIN)/python search.py --num-samples $(NUM_SAMPLES)

# A test process per core; what runs on Ray is in two of them, each with a cluster, and is begun with (tests/conftest.py).
test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n auto --dist loadscope --no-loadscope-reorder

test-unit: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not ray and not slow" --ignore tests/cluster

# The cluster's tests with the lowest Ray that setup.cfg allows, in a virtual environment of its own.
LOWEST_RAY := $(shell sed -n 's/.*ray\[default,train,tune\]>=//p' setup.cfg).0
test-lowest-ray:
	$(PYTHON) -m venv .venv-lowest
	sed '/^ray==/d' constraints.txt > .venv-lowest/constraints.txt
	.venv-lowest/bin/python -m pip install --quiet -e '.[test]' 'ray[default,train,tune]==$(LOWEST_RAY)' -c .venv-lowest/constraints.txt
	.venv-lowest/bin/python -m pytest tests/cluster

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1), but Python 3.11 or newer is needed: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.cfg constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e . -c constraints.txt
	@touch $@

$(VENV)/.installed-test: setup.cfg constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[test]' -c constraints.txt
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: setup.cfg constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[dev]' -c constraints.txt
	@touch $@ $(VENV)/.installed $(VENV)/.installed-test

clean:
	rm -rf $(VENV) .venv-lowest *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
