# `make demo` and `make test` are all one needs; both make the environment first.
#
#   VENV=DIR        where the environment goes (.venv)
#   PYTHON=PROGRAM  Python 3.11, 3.12 or 3.13 to make it with (the first that fits)
#   ARGS=...        for `motorcade demo`, for pytest, or for the crash test
#   ARCH=MACHINE PYTHON=VERSION   what `wheelhouse`, `deb` and `test-aarch64` are for: aarch64 or
#                   x86_64; 3.11 (Debian 12), 3.12 or 3.13 (Debian 13)

VENV ?= .venv
PYTHON ?=
ARGS ?=
ARCH ?= aarch64
UV ?= uv

# A bare version names the Python of a Raspberry Pi, not a program of this machine.
PI_PYTHON := $(or $(filter 3.11 3.12 3.13,$(PYTHON)),3.11)
MAKER_PYTHON := $(filter-out 3.11 3.12 3.13,$(PYTHON))

BIN := $(VENV)/bin
STAMP := $(VENV)/.motorcade-installed
EXTRAS := simulator edge cloud tracing stack bench

.DEFAULT_GOAL := help
.PHONY: help venv jars demo test crash-test lint format lock lock-jars docs clean wheelhouse deb test-aarch64

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile
	@echo '  VENV=DIR where the environment goes; PYTHON=PROGRAM; ARGS="..." for demo, test and crash-test'

# The stamp makes a second run do nothing, and ask the network for nothing.
$(STAMP): requirements/dev.txt requirements/make_environment.sh pyproject.toml
	@sh requirements/make_environment.sh "$(VENV)" requirements/dev.txt $(MAKER_PYTHON)
	@touch $@

venv: $(STAMP) ## Make the environment

jars: $(STAMP) ## Fetch Apache Kafka and the MQTT broker (nothing if they are there)
	@$(BIN)/python -m deploy.artifacts fetch

demo: jars ## Show the whole mission: make demo ARGS="--vehicles 50"
	@$(BIN)/python -m motorcade demo $(ARGS)

# Two at a time, whole files, because each of the two has brokers of its own and most tests wait.
test: lint jars ## Run every check and test: make test ARGS="-k codec"
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 2 --dist loadfile \
		--no-loadscope-reorder $(ARGS)

# Needs no broker; see docs/power-cut.md.
crash-test: $(STAMP) ## Cut the spool's power at many points: make crash-test ARGS="--points 10000"
	@PYTHONPATH=. $(BIN)/python tests/power_cut/crash_test.py $(ARGS)

lint: $(STAMP) ## Run the checks alone: ruff, mypy, import-linter, docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m motorcade.docs check

format: $(STAMP) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP) ## Write the reference pages anew
	$(BIN)/python -m motorcade.docs write

# One resolution for every Python and platform; the extras take their versions from dev.txt.
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --custom-compile-command "make lock" --constraints requirements/constraints.in \
	pyproject.toml requirements/build.in

lock: ## Lock the requirements anew (needs uv)
	@command -v $(UV) >/dev/null || { echo 'motorcade: make lock needs uv on the PATH, or UV=PATH' >&2; exit 1; }
	$(COMPILE) --upgrade --all-extras --output-file requirements/dev.txt
	set -e; for extra in $(EXTRAS); do \
	  $(COMPILE) --upgrade --extra $$extra --constraints requirements/dev.txt \
	    --output-file requirements/$$extra.txt; done
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	  --custom-compile-command "make lock" --constraints requirements/constraints.in --upgrade \
	  requirements/mlserver.in --output-file requirements/mlserver.txt

lock-jars: $(STAMP) ## Hash the Java artifacts of the stack anew
	$(BIN)/python -m deploy.artifacts relock

wheelhouse: $(STAMP) ## All that a Raspberry Pi installs offline: make wheelhouse ARCH=aarch64 PYTHON=3.11
	@$(BIN)/python -m deploy.wheelhouse --machine $(ARCH) --python $(PI_PYTHON)

deb: $(STAMP) ## The same as a Debian package: make deb ARCH=aarch64 PYTHON=3.11
	@$(BIN)/python -m deploy.debian_package --machine $(ARCH) --python $(PI_PYTHON)

# Not part of `make test`: minutes under emulation, and root.
test-aarch64: $(STAMP) ## Run the aarch64 wheels in a Debian arm64 userland: make test-aarch64 PYTHON=3.11
	@$(BIN)/python -m deploy.aarch64_trial --python $(PI_PYTHON)

clean: ## Remove caches and the demo's data, not the environment
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .motorcade build *.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
