# `make predict`: set-up and the main job. `make test`: set-up, then lint, types and tests.
# `make docs`: the site, into site/.
# `make gpu`: on a machine with an NVIDIA GPU, set-up, engines, and the main job with them.
# `make gpu-check`: on a machine with an NVIDIA GPU, what installs there, the GPU tests, engines and benchmark.
PYTHON ?= python3
BIN := .venv/bin
# Before .venv has links to a Python that is too old.
CHECK_PYTHON := import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12")
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.PHONY: predict test docs gpu gpu-check clean

predict: .venv/base
	$(BIN)/cascade predict samples/ --out results/ --overwrite

test: .venv/all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict cascade build_engines
	$(BIN)/lint-imports --no-logo
	$(MKDOCS)
	$(BIN)/pytest -n 2 --dist loadfile --cov --cov-report=term

docs: .venv/all
	$(MKDOCS)

gpu: .venv/base
	$(BIN)/python -m build_engines.gpu_setup --out results/

gpu-check:
	PYTHONPATH=. $(PYTHON) tests/gpu_check.py

.venv/base: pyproject.toml
	@$(PYTHON) -c '$(CHECK_PYTHON)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/all: pyproject.toml .ci/constraints.txt
	@$(PYTHON) -c '$(CHECK_PYTHON)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint .ci/constraints.txt --editable '.[train,build,openvino,dev]'
	touch $@

clean:
	rm -rf .venv results gpu-check site
