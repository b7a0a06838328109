# Everything from a fresh clone, with nothing but Python 3.11+ and make:
#   make search   own virtual environment, install, 5,000 architectures on the embedded digits
#   make test     own virtual environment, install, the tests of the gate: minutes
#   make check    what CI adds: ruff, mypy --strict, import-linter
#   make test-all every test, with the lowest Ray, and with Python 3.12 where there is one: most of an hour
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Python 3.12, where it is not the one above and there is one: test-all runs every test with it once more.
OTHER_PYTHON ?= $(shell $(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 12))' && \
  python3.12 -c 'import sys; print(sys.executable)' 2> /dev/null)
NUM_SAMPLES ?= 5000

.PHONY: search fuzz lab-interrupts cluster-lab test test-unit test-all test-every test-lowest-ray check clean

search: $(VENV)/.installed
	$(BIN)/python search.py --num-samples $(NUM_SAMPLES)

# A test process per core; what runs on Ray is in one of them, and is begun with (tests/conftest.py).
PYTEST := $(BIN)/python -m pytest -n auto --dist loadscope --no-loadscope-reorder
test: $(VENV)/.installed-test
	$(PYTEST) -m "not night"

test-unit: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not ray and not slow and not night" --ignore tests/cluster

test-all: test-every test-lowest-ray
	$(if $(OTHER_PYTHON),$(MAKE) test-every PYTHON=$(OTHER_PYTHON) VENV=.venv-other)

test-every: $(VENV)/.installed-test
	$(PYTEST)

# Damaged files of every kind that is read, for half an hour.
fuzz: $(VENV)/.installed-test
	TVT_FUZZ_EXAMPLES=20000 $(PYTEST) tests/test_fuzz.py

# Ctrl-C at 60 moments of a search, a fit and a distillation: an hour.
lab-interrupts: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks interrupts

# A cluster brought up by `ray up` on machines of namespaces, and broken: a quarter of an hour, as root.
cluster-lab: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks cluster_lab

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
	$(BIN)/python -m pip install --quiet -e '.[weights]' -c constraints.txt
	@touch $@

$(VENV)/.installed-test: setup.cfg constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[test]' -c constraints.txt
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: setup.cfg constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[dev]' -c constraints.txt
	@touch $@ $(VENV)/.installed $(VENV)/.installed-test

clean:
	rm -rf $(VENV) .venv-lowest .venv-other *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
