# The two commands a newcomer needs: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

INTEROP ?= .venv-interop

.PHONY: demo test test-interop gpu lint clean help

help:
	@echo "make demo   install into $(VENV) and compress a network on the embedded digits (about 3 minutes)"
	@echo "make test   install into $(VENV) and run linters, type checks and tests on every core (minutes)"
	@echo "make test-interop  install into $(INTEROP) and run the flavours in OpenVINO, OpenCV, the reference evaluator, Node"
	@echo "make gpu DATA=DIR CHECKPOINT=FILE [TEACHER=FILE]  a slice of nine minutes of the trainings, on a CUDA machine"
	@echo "make clean  remove $(VENV) and the demo's results"

demo: $(VENV)/.installed
	@echo "== Running the main job on the embedded digits: modelpress run -o demo --overwrite"
	@$(BIN)/modelpress run -o demo --overwrite

test: $(VENV)/.installed-dev lint
	@echo "== Tests, on every core"
	@$(BIN)/python -m pytest -n auto --dist worksteal

# An environment of its own: the engines bring versions of NumPy along. Node's part is skipped where there is no npm.
test-interop: $(INTEROP)/.installed
	@echo "== Every flavour in other engines"
	@MODELPRESS_INTEROP=1 MODELPRESS_NODE_MODULES=$(abspath $(INTEROP))/node_modules $(INTEROP)/bin/python -m pytest tests/interop

# Uses the Python that is there: torch with CUDA is not to be installed twice. The same command goes on with the next slice.
gpu:
	@PYTHONPATH=$(CURDIR)/src$${PYTHONPATH:+:$$PYTHONPATH} $(PYTHON) -m modelpress.toolkit.studies.gpu --data-dir $(DATA) --checkpoint $(CHECKPOINT) $(if $(TEACHER),--teacher $(TEACHER))

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

$(INTEROP)/.installed: pyproject.toml
	@echo "== Installing modelpress with other engines"
	@$(PYTHON) -m venv $(INTEROP)
	@$(INTEROP)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[interop]' pytest pytest-timeout hypothesis
	@if command -v npm >/dev/null; then npm install --silent --no-save --ignore-scripts --prefix $(INTEROP) onnxruntime-web; fi
	@touch $@

clean:
	rm -rf $(VENV) $(INTEROP) demo
