# `make demo` and `make test` make the environment that they need in $(VENV); nothing has to be activated.
# Variables: PYTHON (an interpreter from 3.10 to 3.12), VENV, PYTEST_ARGS (for example PYTEST_ARGS="-k body"),
# GPU_WORKERS (processes of test-gpu).

VENV ?= .venv
PYTEST_ARGS ?=
DEMO_OUTPUT ?= outputs/demo
GPU_WORKERS ?= 8

BIN := $(abspath $(VENV))/bin
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --prefer-binary --constraint constraints.txt
IN_RANGE := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 13))
PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3 python; do \
	$$p -c '$(IN_RANGE)' 2>/dev/null && echo $$p && break; done)

# ns-render looks for `ffmpeg` on PATH, and pyright for the environment's python.
export PATH := $(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help demo test test-gpu coverage lint format types docs build clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 12

demo: $(VENV)/.installed ## generate a subject, train, evaluate, render and animate it (CPU, minutes)
	instant-avatar demo --output $(DEMO_OUTPUT)

# Two workers of one thread each: torch's own threads gain little at the sizes of the tests, and wait for each other.
test: $(VENV)/.installed-dev ## run the tests, but for those that are run each night
	OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# The workers share the GPU.
test-gpu: $(VENV)/.installed-dev ## run all tests, the nightly ones too, on a GPU
	@python -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "PyTorch finds no CUDA GPU: see nvidia-smi, and whether a CUDA build of torch is installed")'
	OMP_NUM_THREADS=1 python -m pytest -n $(GPU_WORKERS) --dist loadfile --no-loadscope-reorder -m "nightly or not nightly" $(PYTEST_ARGS)

# nightly tests too; the commands that tests run are measured with them
coverage: $(VENV)/.installed-dev ## run all tests and print how much of the package they run
	OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "nightly or not nightly" \
		--cov --cov-report=term:skip-covered --cov-report=xml $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev ## check style and import layers
	ruff check .
	ruff format --check .
	lint-imports --no-cache
	python tools/room_table.py --check

format: $(VENV)/.installed-dev ## correct style, and the table of import layers in the docs
	ruff check --fix .
	ruff format .
	python tools/room_table.py

types: $(VENV)/.installed-dev ## check types
	pyright

docs: $(VENV)/.installed-dev ## build the documentation into site/
	mkdocs build --strict

build: $(VENV)/.installed-release ## build sdist and wheel into dist/, and check them for PyPI
	rm -rf dist
	python -m build
	twine check --strict dist/*

clean: ## remove what the other targets made, except $(VENV)
	rm -rf site dist build outputs/demo .pytest_cache .ruff_cache .coverage .coverage.* coverage.xml

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.10, 3.11 or 3.12 found: install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c '$(IN_RANGE)' || { echo "$(PYTHON) is not Python 3.10, 3.11 or 3.12: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || $(PYTHON) -m virtualenv --quiet $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) can make no virtual environment: install python3-venv, or 'pip install virtualenv'" >&2; exit 1; }

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP_INSTALL) --editable .
	@command -v ffmpeg >/dev/null || \
		ln -sf "$$(python -c 'import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())')" $(BIN)/ffmpeg
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP_INSTALL) --editable ".[dev]"
	@touch $@

$(VENV)/.installed-release: | $(VENV)/bin/python
	$(PIP_INSTALL) "build>=1.2" "twine>=6.1"
	@touch $@
