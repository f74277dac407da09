# Everything runs from a fresh clone: each target first prepares .venv by itself.

PYTHON ?= $(firstword $(foreach p,python3.11 python3 python3.12 python3.13 python,\
	$(shell $(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(p))))
VENV := .venv
READY := $(VENV)/.ready
IN_VENV := PYTHONPATH=src $(VENV)/bin/python

.PHONY: help env setup requirements demo stop run test test-compose simnet bench bench-quick lint format \
	clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env:  ## Write .env with random passwords and a new Nostr keypair (SECRETS=1: them into secrets/)
	@sh src/standalone/new_env.sh $(if $(SECRETS),secrets)

setup: $(READY)  ## Create .venv with everything the demo and the tests need

$(READY): requirements.txt requirements-dev.txt src/standalone/environment.py
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer found; install it or set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) src/standalone/environment.py $(VENV) requirements-dev.txt
	@touch $@

# The --hash lines of all they need, for every Python from 3.11 on.
LOCK := UV_CUSTOM_COMPILE_COMMAND="make requirements" $(VENV)/bin/uv pip compile --quiet --no-config \
	--universal --python-version 3.11 --generate-hashes

requirements: $(READY)  ## Write requirements*.txt, with hashes, from requirements*.in
	@$(VENV)/bin/python -m pip install --quiet uv==0.13.9
	@$(LOCK) --only-binary :all: --output-file requirements.txt requirements.in
	@$(LOCK) --constraint requirements.txt --output-file requirements-dev.txt requirements-dev.in

demo: $(READY)  ## Archive three local relays and prove it complete (KEEP=1 leaves it running)
	@$(IN_VENV) -m standalone.demo $(if $(KEEP),--keep)

stop: $(READY)  ## End what `make demo KEEP=1` left running
	@$(IN_VENV) -m standalone.kept

run: $(READY)  ## Run the suite on the real network with .env, until Ctrl-C (DATA=folder)
	@$(IN_VENV) -m standalone.run $(if $(DATA),--data "$(DATA)")

test: $(READY)  ## Run all tests that need no Docker, on a real PostgreSQL and relays (ARGS="-k name")
	@$(VENV)/bin/python -m pytest $(ARGS)

test-compose: $(READY)  ## Build and run the suite in Docker, break it, and see it heal (ARGS="-x")
	@$(VENV)/bin/python -m pytest tests/compose $(ARGS)

simnet: $(READY)  ## Archive a hostile simulated network (SEEDS=200; SEED=, FAULT=, REPLAY= for one)
	@SEEDS="$(SEEDS)" FROM="$(FROM)" SEED="$(SEED)" FAULT="$(FAULT)" REPLAY="$(REPLAY)" \
		ECONOMY="$(ECONOMY)" PYTHONPATH=src:tests $(VENV)/bin/python -m simnet

bench: $(READY)  ## Measure beside peers and limits, 25 minutes; writes docs/benchmarks (PARTS="check write")
	@PYTHONPATH=src:tests:. $(VENV)/bin/python -m bench $(PARTS)

bench-quick: $(READY)  ## The same in 3 minutes, less exact; writes nothing
	@PYTHONPATH=src:tests:. $(VENV)/bin/python -m bench --quick $(PARTS)

lint: $(READY)  ## Check style and types
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

format: $(READY)  ## Rewrite the code in the house style
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

clean:  ## Remove .venv and caches; the archive of `make run` stays in .run
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
