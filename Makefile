# `make` lists the targets. Everything is installed into the cache ($DPE_CACHE, or dpe in the user's cache folder).
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

SYSTEM_PYTHON ?= python3
PY = $(shell $(SYSTEM_PYTHON) -m dev.setup --print-python)
SOURCES = crds operator jobs dev examples tests
export PYTHONPATH := $(CURDIR)/crds:$(CURDIR)/operator:$(CURDIR)/jobs:$(CURDIR)
GPU_PYTHON ?= python3
KUBE_CONTEXT ?=
export KUBE_CONTEXT

.PHONY: help setup setup-python cluster-up cluster-down env demo demo-clean verify test test-unit test-cluster test-e2e test-gpu lint format generate lock

help: ## this list
	@sed -n 's/\$$\$$/$$/g; s/^\([a-z0-9-]*\):.*## /  \1\t/p' Makefile | expand -t 18

# what the machine is to run then: setup says what it lacks for that before it installs anything
cluster-up: PURPOSES += --for=cluster
demo test test-cluster test-e2e: PURPOSES += --for=turn

setup: ## install Debian packages, Python packages and the cluster's binaries; quick when they are there
	@$(SYSTEM_PYTHON) -m dev.setup $(PURPOSES)

setup-python: ## install the Python packages only (no root)
	@$(SYSTEM_PYTHON) -m dev.setup --python-only

cluster-up: setup ## start or repair the embedded cluster: two nodes, MinIO, pretended GPUs (root)
	@$(PY) -m dev.cluster up

cluster-down: ## stop it and remove its data; KEEP=1 keeps the data
	@$(SYSTEM_PYTHON) -m dev.cluster down $(if $(KEEP),--keep)

env: ## shell exports of the embedded cluster: eval "$$(make -s env)"
	@$(PY) -m dev.cluster env

ifeq ($(KUBE_CONTEXT),)
# the words are taken first: eval of what a failed command did not say succeeds, with whatever cluster the shell has
IN_CLUSTER = exports="$$($(PY) -m dev.cluster env)" && eval "$$exports"

demo: cluster-up ## one whole turn on real data; KUBE_CONTEXT=name uses a cluster of yours
	@$(IN_CLUSTER) && DPE_IMAGE="$$($(PY) -m dev.image)" && export DPE_IMAGE && exec $(PY) -m examples.shapes.demo $(if $(SECOND),--second)

verify: ## check one iteration's artifacts: checksums, table, answers; NAME=shapes-2 for another
	@$(IN_CLUSTER) && exec $(PY) -m examples.shapes.verify $(NAME)

demo-clean: ## remove what the demo made, so that the next one starts over
	@$(IN_CLUSTER) && exec $(PY) -m examples.shapes.demo --clean
else
verify:
	@exec $(PY) -m examples.shapes.verify $(NAME)

demo: setup-python
	@exec $(PY) -m examples.shapes.demo $(if $(SECOND),--second)

demo-clean:
	@exec $(PY) -m examples.shapes.demo --clean
endif

test: setup lint ## everything: lint, then unit, cluster and e2e tests in one run (root)
	@exec $(PY) -m dev.test

test-unit: setup-python ## unit tests: seconds, no root
	@exec $(PY) -m pytest -n 2 --dist loadscope tests/unit

test-cluster: setup ## tests against a real API server and MinIO (root)
	@exec $(PY) -m dev.test tests/cluster tests/images

test-e2e: setup ## the whole turn on two real nodes (root)
	@exec $(PY) -m dev.test tests/e2e

test-gpu: ## training and serving on a real GPU, with the Python that has CUDA (GPU_PYTHON) and MinIO in PATH
	@exec $(GPU_PYTHON) -m pytest -s tests/gpu

lint: setup-python ## ruff, mypy, import-linter, and whether generated files are up to date
	@$(PY) -m ruff check $(SOURCES)
	@$(PY) -m ruff format --check $(SOURCES)
	@$(PY) -m mypy
	@$(PY) -m mypy --strict -p dev -p examples -p tests.bench
	@$(PY) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'
	@$(PY) -m dpe_api.crd --check
	@$(PY) -m dpe_api.reference --check
	@$(PY) -m dev.chart_docs --check
	@$(PY) -m dev.dashboards --check

format: setup-python ## rewrite the code as ruff formats it
	@$(PY) -m ruff check --fix $(SOURCES)
	@$(PY) -m ruff format $(SOURCES)

generate: setup-python ## write the CRD, docs/reference.md, the chart's README and its dashboards from their sources
	@$(PY) -m dpe_api.crd
	@$(PY) -m dpe_api.reference
	@$(PY) -m dev.chart_docs
	@$(PY) -m dev.dashboards

lock: ## pin every package by hash: pyproject.toml -> requirements.txt
	@$(SYSTEM_PYTHON) -m dev.setup --lock
