# Every target makes .venv if it is absent: `make train` and `make test` work on a fresh clone.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PINS   := requirements/pins.txt
STAMP  := $(VENV)/.installed
FLWR   := .venv-flwr
ZOO    := .venv-zoo
OLDEST := .venv-oldest
TOGETHER := .venv-oldest-together
INSTALL := -m pip --disable-pip-version-check install --quiet
PIP    := $(BIN)/python $(INSTALL) -c $(PINS)

# How many test processes, or runs of `make results`, work at once. Each uses one thread.
JOBS   ?= 2
# The core's tests: all but those of the applications, of the project as a whole, and of pictures.
BEYOND := __pycache__ bench benchmarks_zoo cli domains integrations turbofan web $(patsubst %,test_%.py,benchmarks cli cmapss coming_from \
            communication cuda demo docs docstrings examples extras first_change imports package readme tutorials)
CORE   := $(filter-out $(addprefix tests/,$(BEYOND)),$(patsubst %/,%,$(sort $(wildcard tests/*/ tests/test_*.py))))
CORE   += --ignore-glob=*/test_plots.py --ignore-glob=*/test_report.py
WHOLE  := --doctest-modules src tests
PYTEST := OMP_NUM_THREADS=1 MPLBACKEND=Agg $(BIN)/python -m pytest $(WHOLE)

# What `make train` trains. SUBSET is FD001 if the data are found, else the simulated fleet. Each run has
# its own folder. Resume a stopped one with `.venv/bin/gaba train turbofan --resume RUN`.
SUBSET ?=
METHOD ?= gaba
RUN    ?= runs/$(shell date +%Y%m%d-%H%M%S)
ARGS   ?=
FIND_DATA := from gaba.turbofan.data import find_data_dir; find_data_dir()

RESULTS := benchmarks/turbofan.py
EVIDENCE := benchmarks/evidence.py
BENCHES := $(filter-out $(RESULTS) $(EVIDENCE) benchmarks/federated.py,$(sort $(wildcard benchmarks/[a-z]*.py)))

.DEFAULT_GOAL := help
.PHONY: help docs train test test-all test-flwr check format bench results evidence results-flwr zoo install clean dist test-extras test-oldest

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

train: $(STAMP) ## train the turbofan model on FD001 with the published balancer
	@subset="$(SUBSET)"; \
	if [ -z "$$subset" ] && $(BIN)/python -c "$(FIND_DATA)" 2>/dev/null; then subset=FD001; fi; \
	if [ -z "$$subset" ]; then subset=simulated; \
	  echo "No C-MAPSS data found: this trains on a SIMULATED fleet. To get the real data:"; \
	  echo "  $(BIN)/gaba data cmapss"; fi; \
	set -x; $(BIN)/gaba train turbofan --subset $$subset --method $(METHOD) --run-dir $(RUN) $(ARGS)

test: check ## lint, types, doctests, examples, README snippets and tests
	$(PYTEST) -n $(JOBS)

test-all: check ## the same with the slow tests
	$(PYTEST) -n $(JOBS) -m "slow or not slow"

check: $(STAMP) ## ruff and basedpyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

format: $(STAMP) ## put the code into its one layout
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## measure what docs/benchmarks and docs/results show (an hour; leave the machine alone)
	@set -e; for script in $(BENCHES); do echo "== $$script"; $(BIN)/python $$script; done

results: $(STAMP) ## train the 48 runs of the results table, or what is missing of them (an hour)
	OMP_NUM_THREADS=1 $(BIN)/python $(RESULTS) --jobs $(JOBS)

evidence: $(STAMP) ## run what is missing of the benchmark of methods, and write its report (four hours of one core, if all is)
	OMP_NUM_THREADS=1 $(BIN)/python $(EVIDENCE) --jobs $(JOBS)

docs: $(STAMP) ## the documentation as a site, in docs/_build/html; a warning or a dead link is an error
	rm -rf docs/_build
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -n -E -q docs docs/_build/html
	@echo "the site is docs/_build/html/index.html"

dist: $(STAMP) ## one wheel and one sdist, in dist/
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist

install: $(STAMP) ## only make .venv

test-extras: $(STAMP) ## each extra alone does what it is for (a part of test-all)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m "slow or not slow" tests/test_extras.py

# Old libraries warn about newer ones, so warnings are not errors in the second run.
test-oldest: $(OLDEST)/.installed $(TOGETHER)/.installed ## the core's tests, then all, with the oldest versions that are declared
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -q -n $(JOBS) $(CORE)
	OMP_NUM_THREADS=1 MPLBACKEND=Agg PYTHONWARNINGS=ignore $(TOGETHER)/bin/python -m pytest -q -n $(JOBS) -o filterwarnings=ignore $(WHOLE)

test-flwr: $(FLWR)/.installed ## the tests of the Flower strategy, in an environment of its own
	OMP_NUM_THREADS=1 $(FLWR)/bin/python -m pytest -q -W "ignore::DeprecationWarning" --doctest-modules src/gaba/domains/_flower.py tests/domains/test_federated.py tests/domains/test_federated_flower.py

zoo: $(ZOO)/.installed ## train public codes as they are and balanced, or what is missing of that (four hours of one core, if all is)
	OMP_NUM_THREADS=1 $(ZOO)/bin/python benchmarks/zoo/run.py --jobs $(JOBS)

results-flwr: $(FLWR)/.installed ## federated averaging on MNIST against clients weighted by inverse update norm
	OMP_NUM_THREADS=1 $(FLWR)/bin/python benchmarks/federated.py

clean: ## remove .venv and every cache, but no run and no data
	rm -rf $(VENV) $(OLDEST) $(TOGETHER) dist build docs/_build docs/reference .pytest_cache .ruff_cache .hypothesis
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# torch goes first, so that nothing else's wider range can choose another build of it.
# src/gaba/__init__.py holds the version, which an installation writes down.
$(STAMP): pyproject.toml src/gaba/__init__.py $(PINS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) hatchling editables
	$(PIP) --no-build-isolation -e ".[dev]"
	touch $@

# What the public codes of the zoo need, which is no part of the project's own environment.
$(ZOO)/.installed: pyproject.toml requirements/zoo.txt
	test -x $(ZOO)/bin/python || $(PYTHON) -m venv $(ZOO)
	$(ZOO)/bin/python $(INSTALL) torch==2.13.0
	$(ZOO)/bin/python $(INSTALL) -r requirements/zoo.txt
	$(ZOO)/bin/python $(INSTALL) --no-deps -e .
	touch $@

# Flower pins versions that conflict with the other extras, so it has its own environment.
$(FLWR)/.installed: pyproject.toml requirements/flwr-pins.txt
	test -x $(FLWR)/bin/python || $(PYTHON) -m venv $(FLWR)
	$(FLWR)/bin/python $(INSTALL) -c requirements/flwr-pins.txt torch
	$(FLWR)/bin/python $(INSTALL) -c requirements/flwr-pins.txt flwr matplotlib pytest hypothesis hatchling editables
	$(FLWR)/bin/python $(INSTALL) --no-deps --no-build-isolation -e .
	touch $@

# The oldest versions that the core declares, and what its tests need.
$(OLDEST)/.installed: pyproject.toml requirements/oldest.txt
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python $(INSTALL) -c requirements/oldest.txt torch numpy scipy torchjd pandas pyarrow jinja2
	$(OLDEST)/bin/python $(INSTALL) pytest pytest-xdist hypothesis hatchling editables
	$(OLDEST)/bin/python $(INSTALL) --no-deps --no-build-isolation -e .
	touch $@

# The oldest versions of everything that install together.
$(TOGETHER)/.installed: pyproject.toml requirements/oldest-together.txt
	test -x $(TOGETHER)/bin/python || $(PYTHON) -m venv $(TOGETHER)
	$(TOGETHER)/bin/python $(INSTALL) hatchling editables
	$(TOGETHER)/bin/python $(INSTALL) -c requirements/oldest-together.txt --no-build-isolation -e ".[dev]"
	touch $@
