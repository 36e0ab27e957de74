# Every target sets up the venv .venv by itself: a fresh machine needs Python 3.11 or newer, and no more.
PYTHON ?= python3
# Not taken from the environment, where ENV names a start-up file of sh.
ENV     = default
MODEL  ?=
BUNDLE ?=
DEST   ?=
ARGS   ?=
MINUTES ?= 5

VENV    := .venv
STAMP   := $(VENV)/.installed
BUNDLER := $(VENV)/bin/bundler

.PHONY: help demo test lint bench fuzz pack unpack serve smoke clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "bundler needs Python 3.11 or newer; name one with: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) what pyproject.toml names; the first time that is a minute"
	$(VENV)/bin/python -m pip install --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(STAMP) ## pack, verify, unpack and install a small bundle, all real, in ./demo
	$(VENV)/bin/python -m tests.demo $(ARGS)

test: $(STAMP) ## the whole test suite
	$(VENV)/bin/python -m pytest -n 2 --dist loadgroup $(ARGS)

lint: $(STAMP) ## ruff and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(STAMP) ## bundler against stock tools, both in the same run
	$(VENV)/bin/python -m benchmarks $(ARGS)

fuzz: $(STAMP) ## alter what readers read for MINUTES=5: by coverage, where atheris installs
	-$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev,fuzz]'
	$(VENV)/bin/python -m tests.hostile --minutes $(MINUTES) $(ARGS)

pack: $(STAMP) ## write a bundle: make pack ENV=cu128 MODEL=GLM-4.7
	$(BUNDLER) pack $(foreach name,$(ENV),--env $(name)) $(if $(MODEL),--model "$(MODEL)") $(ARGS)

unpack: $(STAMP) ## check, unpack and install it: make unpack [BUNDLE=DIR] [DEST=DIR]
	$(BUNDLER) unpack $(BUNDLE) $(if $(DEST),"$(DEST)") $(ARGS)

serve: $(STAMP) ## launch the server: make serve [DEST=DIR]
	$(BUNDLER) serve $(if $(DEST),-C "$(DEST)") $(if $(MODEL),--model "$(MODEL)") $(ARGS)

smoke: $(STAMP) ## ask the server and check its answers
	$(BUNDLER) smoke $(if $(DEST),-C "$(DEST)") $(if $(MODEL),--model "$(MODEL)") $(ARGS)

clean: ## remove the venv, the caches and the demo
	rm -rf $(VENV) demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .fuzz
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
