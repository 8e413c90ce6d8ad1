# Needs Python 3.11 or newer and make. Everything else goes into .venv, from requirements.lock.
# ARGS is passed on: make up ARGS="--port 9000"    make test ARGS="tests/contracts -x"

.DEFAULT_GOAL := help
.PHONY: help up test test-containers check bench fmt docs lock

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && exit; done; true)
BIN := .venv/bin
READY := .venv/ready

up: $(READY) ## run the whole system here until Ctrl-C
	@exec $(BIN)/python -m millrace up $(ARGS)

test: $(READY) ## run the tests; COVERAGE=1 also fails under 90 % coverage, of all processes
ifdef COVERAGE
	@$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report >covered.txt || { cat covered.txt; exit 1; }
else
	$(BIN)/python -m pytest $(ARGS)
endif

test-containers: $(READY) ## run the tests of the whole system with a broker in a container
	$(BIN)/python -m pytest tests/pipeline --broker=container $(ARGS)

check: $(READY) ## look at style, types, imports and file sizes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m scripts.check_sizes

bench: $(READY) ## measure Millrace beside a bare nats-server
	$(BIN)/python -m bench $(ARGS)

fmt: $(READY) ## format, and mend what ruff can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: $(READY) ## generate anew what is generated of the documents
	$(BIN)/python -m scripts.docs

lock: ## resolve requirements.lock anew (needs uv)
	@command -v uv >/dev/null || { echo "make lock needs uv: https://docs.astral.sh/uv" >&2; exit 2; }
	uv pip compile -q --no-header --generate-hashes --universal --no-emit-index-url \
	  --all-extras --group dev pyproject.toml -o requirements.lock

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The virtual environment: what the lock names and nothing newer, this folder importable, the command `millrace`.
$(READY): requirements.lock
	@test -n "$(PYTHON)" || { echo "Millrace needs Python 3.11 or newer: make PYTHON=/where/it/is" >&2; exit 2; }
	@echo "Installing the dependencies into .venv; this is done once."
	@$(PYTHON) -m venv .venv || { echo "No venv: on Debian and Ubuntu, apt install python3-venv" >&2; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -c 'import os, site; open(site.getsitepackages()[0] + "/millrace.pth", "w").write(os.getcwd())'
	@printf '#!/bin/sh\nexec "$${0%%/*}/python" -m millrace "$$@"\n' >$(BIN)/millrace && chmod +x $(BIN)/millrace
	@touch $(READY)
