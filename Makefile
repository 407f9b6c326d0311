# Every target sets up what it needs in .venv by itself. PYTHON names the interpreter to build it with (3.11 or newer).
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: setup demo test check bench chaos ablation clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "microaction needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

# The whole story on this machine: about 10 minutes on 2 cores. Results are under demo/.
demo: setup
	$(RUN) -m jobs.demo

# Two processes: one for what uses a cluster, one for the rest and for what makes several machines.
test: setup
	$(RUN) -m pytest --numprocesses 2

check: setup
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

# CLIPS=folder compares on the clips in it too.
bench: setup
	$(RUN) -m tests.benchmarks.decoding $(CLIPS)
	$(RUN) -m tests.benchmarks.clips
	$(RUN) -m tests.benchmarks.bytes
	$(RUN) -m tests.benchmarks.memory
	$(RUN) -m tests.benchmarks.exactness
	$(RUN) -m tests.benchmarks.model
	$(RUN) -m tests.benchmarks.training
	$(RUN) -m tests.benchmarks.labeling
	$(RUN) -m tests.benchmarks.labeling_memory
	$(RUN) -m tests.benchmarks.labeling_driver
	$(RUN) -m tests.benchmarks.labeling_scale

# The long versions of what the tests do in short: kills, and the same results as without.
chaos: setup
	CHAOS_KILLS=20 $(RUN) -m pytest tests/training/test_chaos.py
	$(RUN) -m tests.benchmarks.labeling_chaos

# What each part of the model and the recipe is worth: an hour and a half on 2 cores; started again it goes on.
ablation: setup
	OMP_NUM_THREADS=1 $(RUN) -m tests.benchmarks.ablation

clean:
	rm -rf $(VENV) demo runs ablation
