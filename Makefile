# Two commands: `make demo` shows the main job, `make test` runs every check. Both make their own environment in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test quick lint clean
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	$(BIN)/spadework demo

test: $(VENV)/installed-dev lint
	$(BIN)/python -m pytest -n 2

quick: $(VENV)/installed-dev lint
	$(BIN)/python -m pytest -n 2 -m "not slow and not real"

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	@echo "installing Spadework and what it needs into $(VENV)"
	$(PIP) install --editable .
	@touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing Spadework, its test tools and PyTorch (for the export tests) into $(VENV)"
	$(PIP) install --constraint constraints.txt torch==2.13.0
	$(PIP) install --constraint constraints.txt --editable '.[dev,timm,server,postgresql]'
	@touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) build spadework-demo .mypy_cache .pytest_cache .ruff_cache
