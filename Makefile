# Two commands: `make demo` trains and audits a model, `make test` runs the whole suite.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test watched lint docs results bench gpu-bundle newcomers mutants soak oldest newest bom clean

# Stamps, so that a second call installs nothing.
$(VENV)/.uv:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; try: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	touch $@

$(VENV)/.installed: $(VENV)/.uv pyproject.toml
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable .
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable . --group test
	touch $@

demo: $(VENV)/.installed
	rm -rf runs/demo
	$(BIN)/stabdeq train digits --kind lyadeq-certified --set model.backbone=lipschitz-cnn --out runs/demo
	$(BIN)/stabdeq audit runs/demo/checkpoint.safetensors
	@echo "metrics of every epoch: runs/demo/metrics.jsonl"

# Each worker has one thread: the tests' tensors are small, and threads that wait for one another cost more than they bring.
# What was left out, for want of a browser, a compiler, a GPU or torchattacks, is listed at the end, and the slowest tests.
# worksteal: tests of one file stay in one worker, which so makes what they share once, and at the end none waits for another.
test: $(VENV)/.tested
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal -rs --durations=20

# The tests, whose lines come one by one even where make holds those of other targets back until each ends.
watched:
	@$(MAKE) --no-print-directory --output-sync=none test

# Three people's first hour, from the wheel in a fresh environment and offline.
newcomers: $(VENV)/.uv
	$(BIN)/python -m tools.newcomers --uv $(BIN)/uv

# Small faults planted in the product one at a time, to see which the tests notice: hours. What is known in runs/mutants.jsonl is kept.
MUTANTS ?= 2000
SEED ?= 0
mutants: $(VENV)/.tested
	$(BIN)/python -m tools.mutants --count $(MUTANTS) --seed $(SEED)

lint: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --doctest-modules stabdeq analysis train

# The documentation, into docs/_build/html. Nothing is fetched, in building it or in reading it; a warning fails.
$(VENV)/.documented: $(VENV)/.installed
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable . --group docs
	touch $@

docs: $(VENV)/.documented
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build -q -W --keep-going docs docs/_build/html
	@echo "the documentation: docs/_build/html/index.html"

# The tables of docs/results.md and docs/board.md, from what was measured.
results: $(VENV)/.installed
	$(BIN)/python -m benchmarks.results_page
	$(BIN)/python -m benchmarks.board

# Our solvers against TorchDEQ and SciPy, a quarter of an hour; `make bench DATA=DIR` takes MNIST from there as well.
# One thread: where a second one has to wait for other work on the machine, it is the scheduler that is measured.
$(VENV)/.benched: $(VENV)/.installed
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable . --group bench
	touch $@

BENCH_DIGITS := runs/digits-deq-seed0/checkpoint.safetensors
BENCH_MNIST := $(if $(DATA),runs/mnist-deq-seed0/checkpoint.safetensors)

$(BENCH_DIGITS): | $(VENV)/.benched
	$(BIN)/stabdeq train digits --kind deq --seed 0

runs/mnist-deq-seed0/checkpoint.safetensors: | $(VENV)/.benched
	$(BIN)/stabdeq train mnist --kind deq --seed 0 --data-dir $(DATA)

bench: $(VENV)/.benched $(BENCH_DIGITS) $(BENCH_MNIST)
	OMP_NUM_THREADS=1 KINETO_LOG_LEVEL=5 $(BIN)/python -m benchmarks --digits $(BENCH_DIGITS) $(if $(DATA),--mnist $(BENCH_MNIST) --data-dir $(DATA))

# One file for a machine with a GPU and no network: there, `tar -xf gpu-bundle.tar` and `sh run.sh` (nine minutes).
# IMAGES is a tar archive of CIFAR-10 as train/CLASS/* and test/CLASS/*; GPU_PYTHON the version of Python there.
GPU_PYTHON ?= 3.12
gpu-bundle: $(VENV)/.benched
	$(BIN)/python -m benchmarks.gpu.bundle --python $(GPU_PYTHON) $(if $(IMAGES),--images $(IMAGES))

# What docs/reliability.md tells of, an hour or more: damaged files through every reader, commands killed, memory watched.
soak: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.soak
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.soak.kills
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.soak.memory

# The quick tests with all that pyproject.toml requires at its lowest, or at its newest version, in an environment of its own.
QUICK := checkpoint model solvers compiled_solvers implicit lyapunov projection audit report reading files intervals onnx_files command_line

oldest newest: $(VENV)/.uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-$@
	$(BIN)/uv pip install --quiet --python .venv-$@/bin/python --editable . --group test \
		--resolution $(if $(filter oldest,$@),lowest-direct,highest) --upgrade
	OMP_NUM_THREADS=1 .venv-$@/bin/python -m pytest -n auto --maxprocesses 4 $(QUICK:%=tests/test_%.py)

# What is installed, as a CycloneDX bill of materials.
bom: $(VENV)/.tested
	$(BIN)/python -m tools.bom

clean:
	rm -rf $(VENV) $(VENV)-oldest $(VENV)-newest runs docs/_build docs/auto_gallery
