# `make` alone lists the commands. Every command installs what it needs first.

SHELL := /bin/bash
PY := .venv/bin/python
PINS := requirements/bootstrap.txt pyproject.toml scripts/bootstrap
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run up doctor test test-long unit check format sizes bench bench-ota chaos chaos-ota conformance scenario-3.1 scenario-3.2 scenario-3.3 attack attack-planted vectors pins test-containers clean

help: ## this list
	@grep -hE '^[a-z0-9. -]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-16s %s\n", $$1, $$2}'

.venv/.runtime: requirements/runtime.txt $(PINS)
	@scripts/bootstrap runtime

.venv/.dev: requirements/dev.txt $(PINS)
	@scripts/bootstrap dev

run: .venv/.runtime ## the whole system with a demo utility and its simulated fleet
	@.venv/bin/gnomon demo $(ARGS)

up: .venv/.runtime ## the service alone
	@.venv/bin/gnomon up $(ARGS)

doctor: .venv/.runtime ## what is wrong with this machine, and the remedy
	@.venv/bin/gnomon doctor $(ARGS)

test: .venv/.dev ## every test but the long ones, starting the servers it needs
	@$(PY) -m pytest -q -n 2 --dist loadfile --strict-backends --backends=process -m "not long" $(PYTEST_ARGS)

test-long: .venv/.dev ## the long ones: whole walks that play for a minute or more
	@$(PY) -m pytest -q -n 2 --dist loadfile --strict-backends --backends=process -m long $(PYTEST_ARGS)

unit: .venv/.dev ## only what needs no server
	@$(PY) -m pytest -q -n 2 $(wildcard tests/unit tests/properties) $(PYTEST_ARGS)

check: .venv/.dev ## format, lint, types, imports
	@.venv/bin/ruff format --check . && .venv/bin/ruff check . && .venv/bin/mypy && .venv/bin/lint-imports

format: .venv/.dev ## format and mend what can be mended by itself
	@.venv/bin/ruff check --fix-only -q . ; .venv/bin/ruff format .

sizes: .venv/.dev ## long and winding functions, for the eye; never fails
	@.venv/bin/ruff check --select C901,PLR09 --exit-zero .

bench: .venv/.dev ## every figure, one a line as JSON
	@$(PY) -m bench $(ARGS)

bench-ota: .venv/.dev ## firmware for 1,000, 3,000 and 10,000 devices over mutual TLS (ARGS="--devices 1000")
	@$(PY) -m bench.ota $(ARGS)

chaos: .venv/.dev ## kill cycles under load, judged by a separate checker (CYCLES=20)
	@$(PY) -m tests.chaos --cycles $(or $(CYCLES),20) $(ARGS)

chaos-ota: .venv/.dev ## 1,000 devices upgraded while everything fails, judged by a separate checker (ARGS="--planted" for known bugs)
	@$(PY) -m tests.chaos_ota $(ARGS)

conformance: .venv/.dev ## unmodified outside clients against a running Gnomon
	@$(PY) -m tests.conformance $(ARGS)

scenario-3.1 scenario-3.2 scenario-3.3: .venv/.dev ## a scenario of the use case, step by step, against a running Gnomon
	@$(PY) -m tests.scenarios $(@:scenario-%=%)

attack: .venv/.dev ## the Bad Actor against a running Gnomon (ARGS="--only B5")
	@$(PY) -m tests.attack $(ARGS)

attack-planted: .venv/.dev ## take one defence away at a time: the attacks must notice each
	@$(PY) -m tests.attack --planted $(ARGS)

vectors: .venv/.dev ## rebuild golden files and generated pages; fails if one was not current
	@$(PY) -m scripts.generate
	@git diff --exit-code -- tests/vectors docs
	@new=$$(git ls-files --others --exclude-standard tests/vectors docs); \
	if [ -n "$$new" ]; then echo "not committed: $$new"; exit 1; fi

pins: .venv/.dev ## rewrite the pins
	@scripts/pins

test-containers: .venv/.dev ## the same tests over containers; NOT RUN where no engine answers
	@scripts/test-containers $(PYTEST_ARGS)

clean: ## remove what was built; keeps ./var
	@rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
