# Everything runs in .venv, which `make setup` makes and keeps up to date. Nothing outside this directory is touched, but for the
# distribution's RabbitMQ, Chromium, shellcheck and systemd-analyze, installed when they are absent; promtool is taken out of its Prometheus.
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench lock clean
.SILENT:
MAKEFLAGS += --no-print-directory

bin := .venv/bin
# More than there are cores: tests mostly wait, for brokers, disks and daemons.
TEST_PROCESSES ?= 3
benchmarks := $(patsubst tests/benchmarks/%.py,%,$(filter-out %/__init__.py,$(wildcard tests/benchmarks/*.py)))

help: ## show these targets
	grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

setup: ## virtual environment, locked dependencies, RabbitMQ, Chromium, promtool
	sh deploy/dev-setup.sh

demo: setup ## the main job from end to end, with real parts on this machine alone
	$(bin)/azaion-daemon demo

test: setup ## every test; PYTEST_ARGS='-k name' for some
	$(bin)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: setup ## ruff, mypy --strict, import contracts, dependencies
	echo "lint: ruff"; $(bin)/ruff check . && $(bin)/ruff format --check .
	echo "lint: mypy"; $(bin)/mypy
	echo "lint: import contracts"; $(bin)/lint-imports
	echo "lint: dependencies"; $(bin)/python -m tests.dependencies

bench: setup ## the benchmarks, one after the other; BENCH_ARGS=--quick for short ones
	set -e; for name in $(filter-out _%,$(benchmarks)); do echo "benchmark: $$name"; $(bin)/python -m tests.benchmarks.$$name $(BENCH_ARGS); done

lock: setup ## write the lock files anew from pyproject.toml
	$(bin)/pip-compile --quiet --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --allow-unsafe --output-file requirements/server.txt --extra train pyproject.toml
	$(bin)/pip-compile --quiet --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file requirements/dev.txt --constraint requirements/server.txt --extra train --extra sandbox --extra dev pyproject.toml

clean: ## remove what was built, .venv included
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist demo *.egg-info
	find azaion_daemon tests -name __pycache__ -type d -prune -exec rm -rf {} +
