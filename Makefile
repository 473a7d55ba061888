# Everything happens in .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: help demo test test-neo4j check bench lock clean

help:            ## show this
	@grep -E '^[a-z0-9-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/user: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bgdeploy needs Python 3.11 or newer: make PYTHON=python3.12 demo")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/dev: $(VENV)/user requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.lock
	@touch $@

demo: $(VENV)/user      ## the whole job on made-up customers, with a crash in the middle
	@$(BIN)/bgdeploy demo

test: $(VENV)/dev       ## style, types and all tests but those that need a Neo4j server
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/python -m compileall -q bgdeploy tests  # where Python may not keep what it compiled, each process would anew
	$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder -m "not neo4j"

test-neo4j: $(VENV)/dev  ## the tests on Neo4j servers and a stand-in for Enterprise; needs Java and Maven
	$(BIN)/python -m compileall -q bgdeploy tests
	$(BIN)/python -m tests.neo4j.servers  # fetched, and made quick to start, once
	$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder -m neo4j

check: $(VENV)/dev      ## style and types only
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

bench: $(VENV)/user     ## speeds as ratios, written to the screen
	$(BIN)/python benchmarks/load.py
	$(BIN)/python -m benchmarks.proof
	$(BIN)/python benchmarks/disk.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/offenders.py
	$(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/switches.py
	$(BIN)/python -m benchmarks.jobs
	$(BIN)/python benchmarks/scan.py
	$(BIN)/python -m benchmarks.wide
	$(BIN)/python -m benchmarks.fuzz
	$(BIN)/python -m benchmarks.heartbeat
	$(BIN)/python benchmarks/commands.py
	$(BIN)/python benchmarks/neo4j_load.py
	$(BIN)/python benchmarks/neo4j_load.py memory
	$(BIN)/python benchmarks/neo4j_load.py proof
	$(BIN)/python benchmarks/arrow_load.py memory
	$(BIN)/python benchmarks/import_load.py

lock:            ## renew both lock files from pyproject.toml
	sh tools/lock.sh

clean:           ## remove what make made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache dist build
