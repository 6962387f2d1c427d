# Everything runs inside .venv, which the first target that needs it creates from requirements.lock.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready
# Most tests wait for other processes most of the time: twice as many as the smallest machine of CI has processors.
TEST_PROCESSES ?= 4

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Headrace needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: setup
setup: $(STAMP) ## Create .venv with everything in it

# The JavaScript clients of the tests. npm is that of the machine, or comes as a wheel.
JS := $(VENV)/js/.ready

$(JS): tests/support/js/package-lock.json tests/support/js/node.lock | $(STAMP)
	$(BIN)/python -m tests.support.javascript

.PHONY: js
js: $(JS) ## Install the JavaScript clients that tests use

.PHONY: demo
demo: $(STAMP) ## Start a fresh cluster, run real tasks of every type, show them live, stop
	$(BIN)/headrace demo

.PHONY: up
up: $(STAMP) ## Start a cluster on this machine (Ctrl-C stops it)
	$(BIN)/headrace up

.PHONY: test
test: $(STAMP) $(JS) ## Run all tests but the long ones and those of containers
	$(BIN)/pytest --numprocesses $(TEST_PROCESSES) --dist loadscope --no-loadscope-reorder -m "not alone and not long" --ignore tests/faults --ignore tests/compose
	$(BIN)/pytest -m "alone or quick" --ignore tests/compose

.PHONY: faults
faults: $(STAMP) ## Break everything on purpose: crash points and fault scenarios (about 30 minutes)
	$(BIN)/pytest tests/faults
	$(BIN)/pytest -m long tests/acceptance

.PHONY: chaos
chaos: $(STAMP) ## Break a cluster at random for minutes, and count what that cost (SEED=n replays a run)
	$(BIN)/python -m tests.faults.chaos $(if $(SEED),--seed $(SEED))

SEEDS ?= 10000
FIRST ?= 0
.PHONY: simulate
simulate: $(STAMP) ## Play SEEDS stories of crashes and delays in virtual time, from seed FIRST on
	$(BIN)/python -m tests.simulation --first $(FIRST) --seeds $(SEEDS)

.PHONY: check
check: $(STAMP) ## Lint, types, contract: everything that needs no running server
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/python tools/generate_protos.py --check
	$(BIN)/python -m tools.draw_state_machine --check
	$(BIN)/python -m tools.write_task_docs --check
	$(BIN)/python -m tools.write_operations_docs --check

.PHONY: format
format: $(STAMP) ## Format code and protos, apply safe lint fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/buf format --write

.PHONY: docs
docs: $(STAMP) ## Write the documents that follow from the code
	$(BIN)/python -m tools.draw_state_machine
	$(BIN)/python -m tools.write_task_docs
	$(BIN)/python -m tools.write_operations_docs

.PHONY: protos
protos: $(STAMP) ## Generate headrace/v1 from protos/
	$(BIN)/python tools/generate_protos.py

.PHONY: lock
lock: $(STAMP) ## Resolve requirements.lock and the lock files of the images anew
	$(RESOLVE) --all-extras --upgrade pyproject.toml -o requirements.lock
	for service in gateway management execution; do \
		$(RESOLVE) --extra $$service -c requirements.lock pyproject.toml -o deploy/docker/$$service.lock || exit 1; done
	$(RESOLVE) --extra gateway --extra management --extra execution --extra reload -c requirements.lock pyproject.toml \
		-o deploy/docker/development.lock

RESOLVE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate

.PHONY: bench
bench: $(STAMP) ## Measure throughput, latency, CPU and memory of a whole cluster
	$(BIN)/python -m bench

.PHONY: bench-live
bench-live: $(STAMP) ## Measure what thousands of WebSocket clients cost a gateway
	$(BIN)/python -m bench.live

.PHONY: secrets
secrets: ## Make the passwords of docker-compose.yml, those that are not there yet
	$(PYTHON) -m deploy.make_secrets

.PHONY: compose-roll
compose-roll: ## Replace the containers of SERVICE (management, execution, gateway) one after the other
	$(PYTHON) -m deploy.roll $(SERVICE)

.PHONY: compose-test
compose-test: $(STAMP) $(JS) ## Build the images, start the containers, and break, scale and roll them (needs Docker)
	$(BIN)/pytest tests/compose

.PHONY: compose-backup
compose-backup: ## Back up both databases of docker-compose.yml, into deploy/backups/TIME (or BACKUP=folder)
	$(PYTHON) -m deploy.backup $(if $(BACKUP),"$(BACKUP)")

.PHONY: compose-restore-check
compose-restore-check: ## Find out whether BACKUP=folder can be restored, by doing it beside the databases in use
	$(PYTHON) -m deploy.restore_check "$(or $(BACKUP),$(error which one? BACKUP=folder))"

.PHONY: compose-restore
compose-restore: ## Restore BACKUP=folder; CONFIRM=yes puts aside what is there now
	$(PYTHON) -m deploy.restore "$(or $(BACKUP),$(error which one? BACKUP=folder))" $(if $(filter yes,$(CONFIRM)),--replace)
