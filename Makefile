# `make predict`: set-up and the main job. `make test`: set-up, then lint, types and tests.
# `make gpu-check`: on a machine with an NVIDIA GPU, what installs there, the GPU tests, engines and benchmark.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: predict test gpu-check clean

predict: .venv/base
	$(BIN)/cascade predict samples/ --out results/ --overwrite

# A process for each file: TensorRT, OpenVINO, PyTorch and the DICOM decoders in one end in a segmentation fault at times.
test: .venv/all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict cascade build_engines
	$(BIN)/lint-imports --no-logo
	find tests -name 'test_*.py' | sort | xargs -n 1 -P 2 $(BIN)/pytest -q

gpu-check:
	PYTHONPATH=. $(PYTHON) tests/gpu_check.py

.venv/base: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/all: pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint .ci/constraints.txt --editable '.[train,build,openvino,dev]'
	touch $@

clean:
	rm -rf .venv results gpu-check
