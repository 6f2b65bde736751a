# Two commands for a fresh clone: `make demo` and `make test`. Both need only Python 3.11+, make and git.
# `make check` is for every change: it leaves out what takes a second or more. `make nightly` leaves out nothing.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
# One thread for each of the parallel test workers: threads that wait for each other are slower than one.
TEST_ENV := OMP_NUM_THREADS=1
# A file stays with one worker, which makes its models once; files with slow tests begin (tests/conftest.py).
PYTEST := $(TEST_ENV) $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
# For example COVERAGE="--cov --cov-report=term:skip-covered", which makes the tests slower.
COVERAGE ?=

.PHONY: demo lint check test nightly site format clean

demo: $(INSTALLED)
	rm -rf demo
	$(BIN)/vaeguard unpack digits --split test -o demo/digits
	$(BIN)/vaeguard fit --normal-classes 0-8 -o demo/run
	$(BIN)/vaeguard score demo/digits -m demo/run -o demo/scores.csv
	$(BIN)/vaeguard evaluate demo/digits -m demo/run -o demo/evaluation
	$(BIN)/vaeguard reconstruct demo/digits -m demo/run -o demo/reconstructions.png

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

check: lint
	$(PYTEST) -m "not slow"

test: lint
	$(PYTEST) -m "not nightly" $(COVERAGE)

nightly: lint site
	$(PYTEST) $(COVERAGE)

# The documentation, for a browser: build/site/index.html.
site: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/site

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv demo build dist *.egg-info

# The full install with PyTorch's CUDA packages is about 5.5 GB and takes minutes on the first run.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "vaeguard needs Python 3.11 or newer; run: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
