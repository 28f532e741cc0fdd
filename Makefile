# The two commands a newcomer needs: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint clean help

help:
	@echo "make demo   install into $(VENV) and compress a network on the embedded digits (about 3 minutes)"
	@echo "make test   install into $(VENV) and run linters, type checks and tests on every core (minutes)"
	@echo "make clean  remove $(VENV) and the demo's results"

demo: $(VENV)/.installed
	@echo "== Running the main job on the embedded digits: modelpress run -o demo --overwrite"
	@$(BIN)/modelpress run -o demo --overwrite

test: $(VENV)/.installed-dev lint
	@echo "== Tests, on every core"
	@$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(VENV)/.installed-dev
	@echo "== Lint, types, import rules"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else "Python 3.11 or newer is needed, this is %d.%d: make PYTHON=python3.12 ..." % v[:2])'
	@echo "== Making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "== Installing modelpress with everything a user may want (PyTorch is large: several minutes, about 5 GB)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[all]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	@echo "== Installing modelpress with its test tools (PyTorch is large: several minutes, about 5 GB)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[all,dev]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) demo
