# Every target sets up what it needs in .venv. PYTHON names the interpreter to build it with (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python

# Where PyTorch's build comes from. On a machine without an NVIDIA card: the CPU build, instead of gigabytes of CUDA. Empty: PyPI.
# `make setup TORCH_INDEX=https://download.pytorch.org/whl/cu126` takes the build for another version of CUDA.
TORCH_INDEX ?= $(if $(wildcard /proc/driver/nvidia/version /dev/nvidia0),,https://download.pytorch.org/whl/cpu)
export TORCH_INDEX
PIP_INSTALL := $(RUN) -m pip install --quiet --constraint constraints.txt
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs

.PHONY: setup demo demo-train demo-model test test-slow test-all check docs bench bench-detection chaos ablation clean

setup: $(VENV)/.installed

# PyTorch comes first and alone, so that its index is asked for nothing else and is left out quickly where it cannot be reached.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "microaction needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	@echo "installing into $(VENV): a few minutes"
	@$(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --upgrade pip
	@test -z "$(TORCH_INDEX)" \
		|| $(PIP_INSTALL) --no-deps --retries 1 --timeout 15 --index-url $(TORCH_INDEX) torch 2>/dev/null \
		|| echo "no PyTorch from $(TORCH_INDEX): installing the build of PyPI (TORCH_INDEX= skips this attempt)"
	@PYTHONWARNINGS=ignore $(PIP_INSTALL) --editable '.[dev,docs]'  # setuptools warns of every editable installation
	@touch $@

# Interviews labeled with the network that the package ships: at most 3 minutes on 2 cores. Results are in demo/.
demo: setup
	$(BIN)/microaction demo

# The whole story: draws clips, trains a network on them, evaluates it and labels with it. At most 10 minutes on 2 cores.
demo-train: setup
	$(BIN)/microaction demo --train

# Makes the networks that the package ships (microaction/models/demo, demo_detector): about an hour on 2 cores.
demo-model: setup
	$(RUN) -m microaction.cli.demo_model demo-model

# Everything that protects a change: at most 10 minutes on 2 cores. Three processes, since tests of clusters mostly wait.
test: setup
	$(RUN) -m pytest -m "not slow" --numprocesses 3

# End to end, kills, nodes, scale, the whole codec matrix and fuzz: about 35 minutes on 2 cores.
test-slow: setup
	$(RUN) -m pytest -m slow --numprocesses 2

test-all: test test-slow

check: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell
	$(RUN) -m mypy
	$(BIN)/lint-imports
	$(RUN) -m docs.scripts.check_links
	$(RUN) -m docs.scripts.generate_reference --check
	$(MKDOCS) build --strict --quiet

docs: setup
	$(RUN) -m docs.scripts.generate_reference
	$(MKDOCS) build --strict

# CLIPS=folder compares on the clips in it too.
bench: setup
	$(RUN) -m tests.benchmarks.decoding $(CLIPS)
	$(RUN) -m tests.benchmarks.clips
	$(RUN) -m tests.benchmarks.bytes
	$(RUN) -m tests.benchmarks.chunk_cost
	$(RUN) -m tests.benchmarks.memory
	$(RUN) -m tests.benchmarks.exactness
	$(RUN) -m tests.benchmarks.model
	$(RUN) -m tests.benchmarks.presets
	$(RUN) -m tests.benchmarks.people
	$(RUN) -m tests.benchmarks.detection_speed
	$(RUN) -m tests.benchmarks.page
	$(RUN) -m tests.benchmarks.training
	$(RUN) -m tests.benchmarks.labeling
	$(RUN) -m tests.benchmarks.labeling_memory
	$(RUN) -m tests.benchmarks.labeling_driver
	$(RUN) -m tests.benchmarks.labeling_scale
	$(RUN) -m tests.benchmarks.export

# The long versions of kills and fuzz: 20 kills of a training and 50 of a labeling, with the same results as without; 500 damaged
# copies of each video.
chaos: setup
	CHAOS_KILLS=20 $(RUN) -m pytest tests/training/test_chaos.py
	FUZZ_CASES=500 $(RUN) -m pytest tests/video/test_fuzz.py
	$(RUN) -m tests.benchmarks.labeling_chaos

# What each part of the network and of the recipe is worth, and each network: two hours and a half on 2 cores; started again it
# continues.
ablation: setup
	OMP_NUM_THREADS=1 $(RUN) -m tests.benchmarks.ablation
	OMP_NUM_THREADS=1 $(RUN) -m tests.benchmarks.families

# Ways to find actions in untrimmed video, with the same time for each: about 45 minutes on 2 cores.
bench-detection: setup
	OMP_NUM_THREADS=1 $(RUN) -m tests.benchmarks.detection ablation/detection

clean:
	rm -rf $(VENV) demo demo-model people runs ablation site
