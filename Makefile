# Every target sets up what it needs in .venv, from nothing but a Python and pip.
SHELL := /bin/bash
BIN := .venv/bin
# Two processes of tests share the machine: BLAS threads on top of them only get in each other's way.
ONE_THREAD := OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
JOBS ?= 2
# What was compiled once is read by every process after it, also where the environment keeps Python from writing it.
unexport PYTHONDONTWRITEBYTECODE
PYTEST := $(ONE_THREAD) $(BIN)/python -m pytest

# The laws that take a minute: kernels against the definition, the optimum, names, invariance.
QUICK := tests/contract tests/laws/test_kernel_is_the_definition.py tests/laws/test_optimum.py tests/laws/test_residual_names.py

# What most sessions use: the command line, tables of fits, prediction, files, tests and means, and columns of every library.
CORE := tests/cli tests/results tests/data/test_short_and_long.py tests/inference/test_contrast.py tests/inference/test_emmeans.py \
	tests/inference/test_adjust.py tests/inference/test_anova.py tests/inference/test_lrt.py tests/inputs/test_kinds_of_columns.py \
	tests/inputs/test_fits_of_columns.py tests/inputs/test_degenerate_fits.py tests/model/test_sklearn.py tests/plots/test_plots.py

.PHONY: help demo check test lowest lint format verify bench bench-scale bench-trials bench-verbs posteriors docs notebooks coverage sbc fuzz hostile slow optimum clean

help:
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/.demo: pyproject.toml
	@.ci/setup $@ --editable .

.venv/.dev: pyproject.toml
	@.ci/setup $@ --editable '.[bayes,datasets,pymc,scale,sklearn]' --group dev

.venv/.docs: pyproject.toml .venv/.dev
	@.ci/setup $@ --group docs

demo: .venv/.demo ## the trial example: fit, tables, figure and report in the folder demo/
	@$(BIN)/bayeslmm demo --out demo

check: .venv/.dev ## in two minutes: ruff, mypy, the contract tests and the laws of a minute
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(BIN)/mypy & types=$$!; $(PYTEST) -n $(JOBS) -q $(QUICK); laws=$$?; wait $$types && exit $$laws

test: .venv/.dev ## the tests
	$(PYTEST) -n $(JOBS)

lint: .venv/.dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.dev ## let ruff lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

verify: .venv/.dev ## every published figure of the gallery against ours
	$(BIN)/bayeslmm verify models

# What a lower bound promises: the tests of the core verbs with the least Python and the least of every dependency. The tools of the tests
# come second, as they are now: what is there stays.
.venv-lowest/.lowest: pyproject.toml
	@rm -rf .venv-lowest
	@VENV=.venv-lowest VENV_PYTHON=3.12 .ci/setup $@ --resolution lowest-direct --editable '.[bayes,datasets,scale,sklearn]' 'polars>=1.18'
	@VENV=.venv-lowest .ci/setup $@ pytest pytest-xdist hypothesis statsmodels

lowest: .venv-lowest/.lowest ## the core verbs with Python 3.12 and the lowest version of every dependency (four minutes)
	$(ONE_THREAD) .venv-lowest/bin/python -m pytest -n $(JOBS) -q $(CORE)

# In an environment of its own: the other libraries must not decide which versions the tests run with.
.venv-bench/.peers: pyproject.toml benchmarks/peers_setup.py
	@VENV=.venv-bench .ci/setup $@ --editable .
	@.venv-bench/bin/python -m benchmarks.peers_setup

bench: .venv-bench/.peers ## whole fits against the other libraries on this machine
	.venv-bench/bin/bayeslmm bench
	.venv-bench/bin/python -m benchmarks.visits

bench-scale: .venv/.dev ## large designs: time, memory and Monte Carlo errors (ten minutes, 4 GB)
	$(BIN)/python -m benchmarks.scale --write

bench-verbs: .venv/.dev ## what every public verb costs after a fit, as its work grows (three quarters of an hour)
	$(BIN)/python -m benchmarks.verbs --write

bench-trials: .venv/.dev ## imputation, power and checks of inference: the time of whole tasks (half a minute)
	$(BIN)/python -m benchmarks.trials --write

posteriors: .venv/.dev ## effective draws a second against PyMC, nutpie and Bambi (25 minutes)
	$(BIN)/python -m benchmarks.posterior --again

docs: .venv/.docs ## the site, in site/
	$(BIN)/mkdocs build --strict

notebooks: .venv/.docs ## run the notebooks in place
	$(BIN)/python -m docs.tools.notebooks notebooks/*.ipynb

slow: .venv/.dev ## the tests that take minutes
	$(PYTEST) -n $(JOBS) -m slow

optimum: .venv/.dev ## 2,300 random designs against many starts, and lme4 where R is at hand (an hour)
	.venv/bin/python -m benchmarks.optimum --write

coverage: .venv/.dev ## simulated coverage of intervals and size of tests
	$(PYTEST) -n $(JOBS) -m coverage

sbc: .venv/.dev ## simulation-based calibration of the samplers
	$(PYTEST) -n $(JOBS) -m sbc

fuzz: .venv/.dev ## long runs of generated input
	HYPOTHESIS_PROFILE=long $(PYTEST) -n $(JOBS) -m hypothesis

hostile: .venv/.dev ## every argument of every public callable given every odd value, and random pairs (three minutes)
	$(PYTEST) -m hostile

clean: ## remove what the targets made
	rm -rf .venv .uv .venv-bench .venv-lowest site demo build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
