SHELL := /bin/bash
PY ?= python3
VENV := .venv
BIN := $(VENV)/bin
T ?=

.PHONY: help setup clean lint format test bench chaos build demo

help:  ## say what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

setup: $(VENV)/.ready  ## make the virtual environment, and install ffmpeg where it is missing

$(VENV)/.ready: pyproject.toml scripts/setup.sh
	bash scripts/setup.sh "$(PY)" "$(VENV)"
	touch $@

clean:  ## remove what the build and the tests made
	rm -rf dist build demo-out .mypy_cache .ruff_cache .pytest_cache .hypothesis benchmarks/out

lint: setup  ## ruff, mypy strict, import-linter, budgets
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/budgets.py

format: setup  ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: setup  ## every test that belongs to a change (T="-k words" for some)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" $(T)
