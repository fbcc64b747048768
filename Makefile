# Two verbs for everybody: `make quickstart` runs the main job on this machine, `make test` passes the tests.
# The work is in scripts/, because make itself cannot work in a path with spaces.

.PHONY: help quickstart test setup lint types cluster soak bench clean
.DEFAULT_GOAL := help

help: ## Show the targets
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

quickstart: ## Deploy, run and show a two-stage experiment on this machine (ENGINE=spark: on Spark, needs Java 17)
	@scripts/quickstart $(ENGINE)

test: ## Pass all tests
	@scripts/test

setup: ## Make .venv with replayctl and the developers' tools
	@scripts/setup dev

lint: setup ## Check style and layers
	@scripts/test lint

types: setup ## Check types
	@scripts/test types

cluster: setup ## Run the experiment on a cluster, from the image to the leaderboard (part of the tests; 5 minutes, 15 the first time)
	@scripts/test cluster

soak: setup ## Repeat publishes, kills and rollbacks as often as the documented figures say (6 minutes)
	@scripts/test soak

bench: setup ## Print the benchmarks' ratios
	@.venv/bin/python -m benchmarks

clean: ## Remove .venv and build results (environments stay in the cache)
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
