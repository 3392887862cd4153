# Two commands matter: `make demo` and `make test`. Both build their own environment in .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Further requirements for the environment, such as make test WITH="torch==2.6.* torchvision==0.21.*".
WITH ?=
# Options for pytest, such as make unit PYTEST="-k pacing -x".
PYTEST ?=
# Test processes; auto is one for each core.
JOBS ?= auto

# Compiled kernels are kept here and shared by all processes, so that only the first one compiles.
NUMBA_CACHE_DIR ?= $(CURDIR)/.cache/numba
export NUMBA_CACHE_DIR

.PHONY: demo test unit lint docs bench gpu clean help

help:
	@echo "make demo   train, evaluate and upscale on real photos, on a CPU, in minutes"
	@echo "make test   lint, type check and test: what continuous integration runs"
	@echo "make lint   lint, spelling and type check only"
	@echo "make unit   tests only, for example: make unit PYTEST='tests/pacing -x' JOBS=2"
	@echo "make docs   build the documentation site into site/"
	@echo "make gpu    measure the GPU of this machine in nine minutes; results in gpu-results/"
	@echo "make bench  time and memory of the operators and of a training step"
	@echo "make clean  remove the environment, caches, the site and the demo's output"

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("selfsr needs Python 3.11 or later, this is " + sys.version.split()[0] + "; name another with make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable ".[train,metrics,track,demo,diffusion,export,exr]" --group dev $(foreach package,$(WITH),"$(package)")
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/selfsr demo --out demo

test: lint unit

# One thread for each test process: several processes with several threads each would compete for the cores.
TESTS = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

# Triton decides at its import whether to interpret its kernels, so they need a session of their own. Status 5 means
# that Triton is not installed here.
unit: $(STAMP)
	$(TESTS) $(PYTEST)
ifeq ($(strip $(PYTEST)),)
	TRITON_INTERPRET=1 $(TESTS) tests/selfsim/triton_kernels || test $$? -eq 5
endif

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/pyright

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(STAMP)
	$(BIN)/python bench/ops.py
	$(BIN)/python bench/steps.py

gpu: $(STAMP)
	$(BIN)/python bench/gpu.py

clean:
	rm -rf $(VENV) .cache site demo
