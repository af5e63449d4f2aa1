# Everything that is done with this folder, one word each. `make help` lists them.
#
#   PYTHON=/path/to/python3   build .venv on this interpreter
#   VENV=folder               another folder than .venv
#   MODEL=name                the model that `make run` installs first
#   WORKERS=n                 test processes
#   ARGS='…'                  more arguments for `corral serve`, pytest or a benchmark

VENV ?= .venv
MODEL ?= smollm2
WORKERS ?= 2
ARGS ?=
BIN := $(VENV)/bin
SETUP := VENV='$(VENV)' PYTHON='$(PYTHON)' scripts/setup.sh
CODE := src tests benchmarks examples

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install dev web engines run test lint types fmt bench bench-gateway bench-engine bench-load bench-switch bench-threads bench-startup bench-install bench-catalog bench-capabilities bench-footprint bench-scheduler bench-ledger bench-resident bench-usage bench-alternate bench-stream bench-memory bench-translate bench-containers bench-pipelines bench-preview bench-workspace model lock clean

help:  ## List these words
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' $(MAKEFILE_LIST) | column -t -s @ 2> /dev/null \
	  || sed -n 's/^\([a-z-]*\):.*## /  make \1  /p' $(MAKEFILE_LIST)

install:  ## Make .venv with the locked dependencies and Corral in it; nothing is done when it is there
	@$(SETUP) base

dev:  ## The same, with what tests and checks need
	@$(SETUP) dev
	@VENV='$(VENV)' scripts/web.sh

web:  ## Build the pages for browsers, where there is a Node; nothing is done when they are there
	@VENV='$(VENV)' scripts/web.sh

engines: dev  ## Make what tests need of transformers and vLLM, in the user's cache folder; 4 GB
	@for what in transformers model vllm; do scripts/engines.sh $$what > /dev/null || exit 1; done

model: install  ## Install a small model, if it is not there
	@$(BIN)/corral pull $(MODEL)

run: model web  ## Serve it until Ctrl-C
	@exec $(BIN)/corral serve $(ARGS)

test: dev  ## All tests, with the import contracts, warnings as errors and 90 % branch coverage
	@$(BIN)/lint-imports
	@$(BIN)/python -m coverage erase
	@$(BIN)/python -m pytest -p tests.plugins.skips -p tests.plugins.leaks -n $(WORKERS) --dist loadfile \
	  --cov --cov-branch --cov-report=term --cov-fail-under=90 $(ARGS)

lint: dev  ## Style, common mistakes, formatting, import contracts
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/lint-imports

types: dev  ## Types, strictly
	@$(BIN)/mypy

fmt: dev  ## Put formatting and imports right
	@$(BIN)/ruff format $(CODE)
	@$(BIN)/ruff check --fix $(CODE)

bench: bench-startup bench-install bench-catalog bench-capabilities bench-gateway bench-engine bench-load bench-switch bench-footprint bench-scheduler bench-ledger bench-resident bench-usage bench-alternate bench-stream bench-memory bench-translate bench-containers bench-pipelines bench-preview bench-workspace  ## Every benchmark, one after the other

bench-gateway: dev  ## Requests a second and latency through Corral, beside nginx, vllm-router, LiteLLM and Portkey
	@$(BIN)/python -m benchmarks.gateway $(ARGS)

bench-engine: dev model  ## Tokens a second through Corral, over the same engine asked directly
	@$(BIN)/python -m benchmarks.engine $(ARGS)

bench-load: dev model  ## From a cold model to its first token, over the library used directly
	@$(BIN)/python -m benchmarks.load $(ARGS)

bench-switch: dev model  ## From a cold model to another's first token, over loading that directly
	@$(BIN)/python -m benchmarks.switch $(ARGS)

bench-threads: dev model  ## Tokens a second of one engine and of two, by how their threads wait
	@$(BIN)/python -m benchmarks.threads $(ARGS)

bench-startup: dev  ## Start of the command line over an empty Python, and the server's memory
	@$(BIN)/python -m benchmarks.startup $(ARGS)

bench-install: dev  ## Install of a gigabyte from loopback, verified, over curl and sha256sum
	@$(BIN)/python -m benchmarks.install $(ARGS)

bench-catalog: dev  ## Lists, pages, starts and installs with ten thousand revisions, over the same with few
	@$(BIN)/python -m benchmarks.catalog $(ARGS)

bench-resident: dev  ## What the scheduler adds to a request for a model in memory
	@$(BIN)/python -m benchmarks.resident $(ARGS)

bench-alternate: dev model  ## Requests in turn to three models of which two fit, over the best order by hand
	@$(BIN)/python -m benchmarks.alternate $(ARGS)

bench-footprint: dev model  ## The memory that an engine is expected to take, over what it takes
	@$(BIN)/python -m benchmarks.footprint $(ARGS)

bench-scheduler: dev  ## A decision about 1,000 models and 10,000 waiting requests, over sorting the requests
	@$(BIN)/python -m benchmarks.scheduler $(ARGS)

bench-ledger: dev  ## What money costs a request: a hold and its settlement, over a plain dictionary
	@$(BIN)/python -m benchmarks.ledger $(ARGS)

bench-usage: dev  ## What the usage page asks of a year's sums, over the same asked of single rows
	@$(BIN)/python -m benchmarks.usage $(ARGS)

bench-capabilities: dev  ## Reading a GGUF header with a vocabulary of 256,000, over reading all of its values
	@$(BIN)/python -m benchmarks.capabilities $(ARGS)

bench-stream: dev  ## Streams through Corral, over the same through nginx
	@$(BIN)/python -m benchmarks.stream $(ARGS)

bench-memory: dev  ## The server's memory after a million requests, over the same after ten thousand
	@$(BIN)/python -m benchmarks.memory $(ARGS)

bench-translate: dev  ## Requests a second in dialects that are translated, over the one that is relayed
	@$(BIN)/python -m benchmarks.translate $(ARGS)

bench-containers: dev  ## What is done to containers, over the bare calls of the Docker engine
	@$(BIN)/python -m benchmarks.containers $(ARGS)

bench-pipelines: dev  ## What a pipeline takes beside the same calls made by hand
	@$(BIN)/python -m benchmarks.pipelines $(ARGS)

bench-preview: dev  ## From an edit to its picture in the preview: of a prop, and of code
	@$(BIN)/python -m benchmarks.preview $(ARGS)

bench-workspace: dev  ## Pages of a project of 10,000 runs and 50,000 artifacts, over those of a small one
	@$(BIN)/python -m benchmarks.workspace $(ARGS)

lock:  ## Resolve pyproject.toml anew into requirements/ (needs uv)
	@PYTHON="$(PYTHON)" scripts/lock.sh $(ARGS)

clean:  ## Remove everything that was made here; models are not touched
	rm -rf web/node_modules web/.build-*
	find src/corral/ui -mindepth 1 ! -name .gitignore -delete
	rm -rf $(VENV) .cache .coverage .coverage.* coverage.xml dist build
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
