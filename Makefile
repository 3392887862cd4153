# Two commands matter: `make demo` and `make test`. Both build their own environment in .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint bench clean help

help:
	@echo "make demo   train, judge and upscale on real photos, on a CPU, in minutes"
	@echo "make test   lint, type check and test"
	@echo "make bench  time and memory of the operators and of a training step"
	@echo "make clean  remove the environment and the demo's output"

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("selfsr needs Python 3.11 or later, this is " + sys.version.split()[0] + "; name another with make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable ".[train,metrics,track,demo]" --group dev
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/selfsr demo --out demo

test: $(STAMP) lint
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: $(STAMP)
	$(BIN)/python bench/ops.py
	$(BIN)/python bench/steps.py

clean:
	rm -rf $(VENV) demo
