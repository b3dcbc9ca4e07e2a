# Needs only make and Python 3.11 or newer: everything else goes into .venv, so .venv/bin/secateurs works afterwards.
#
# pip's own settings hold (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS, pip.conf, ...). Choose the build of torch with
#   make demo PIP_EXTRA_INDEX_URL=<index of CPU builds> TORCH=torch==2.13.0+cpu
# or any other line pip understands (another version, +cu126, the path of a wheel). The choice is remembered in .venv.

# All of these can be set on make's command line; the environment does not change them.
PYTHON = $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV = .venv
LOWEST = .venv-lowest
TORCH = $(or $(shell cat $(VENV)/torch-choice 2>/dev/null),$(shell grep '^torch==' constraints.txt))
LOWEST_TORCH = $(shell grep '^torch==' constraints-lowest.txt)
JOBS = auto
OUT = demo-out
PYTEST := -m pytest -n $(JOBS) --maxprocesses=8

export PIP_DISABLE_PIP_VERSION_CHECK := 1
test test-slow lowest: export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-slow lint types format lowest results clean FORCE

help: ## list what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1 \2/p' $(MAKEFILE_LIST) | awk '{ t = $$2; $$1 = $$2 = ""; printf "  make %-10s %s\n", t, $$0 }'

setup: $(VENV)/installed ## build .venv, once, and again when the requirements change

demo: $(VENV)/installed ## prune a digits network while it trains and compare it with small dense ones (minutes)
	$(VENV)/bin/secateurs demo --out $(OUT)

test: lint types ## style, types and every test but the slow ones
	$(VENV)/bin/python $(PYTEST) -m "not slow"

test-slow: $(VENV)/installed ## the slow tests
	$(VENV)/bin/python $(PYTEST) -m slow

lint: $(VENV)/installed ## ruff
	$(VENV)/bin/ruff check .

types: $(VENV)/installed ## mypy
	$(VENV)/bin/mypy

format: $(VENV)/installed ## ruff's repairs, in place
	$(VENV)/bin/ruff check --fix .

# The oldest torch has no CPU-only build on the usual index: expect a download of about 3 GB, once. A CPU build of your own:
#   make lowest PIP_EXTRA_INDEX_URL=<index of CPU builds> LOWEST_TORCH=torch==2.6.0+cpu
lowest: $(LOWEST)/installed ## every test but the slow ones, with the oldest supported versions (downloads about 3 GB once)
	$(LOWEST)/bin/python $(PYTEST) -m "not slow"

results: $(VENV)/installed ## write docs/results.md, docs/methods, the README's table and their pictures anew from the committed measurements
	$(VENV)/bin/python -m benchmarks.page
	$(VENV)/bin/python -m benchmarks.methods.page
	$(VENV)/bin/python -m benchmarks.readme

clean: ## remove the environments and everything generated
	rm -rf .venv .venv-lowest demo-out build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# $(call install,folder,torch requirement,constraints): torch first and alone; what pip then chose holds for all the rest.
define install
	$(1)/bin/python -m pip install "$(2)" "$$(grep '^numpy==' $(3))"
	{ grep -v '^torch==' $(3); $(1)/bin/python -m pip list --format=freeze | grep '^torch=='; } > $(1)/constraints.txt
	$(1)/bin/python -m pip install --constraint $(1)/constraints.txt --editable '.[all,dev]'
	touch $(1)/installed
endef

$(VENV)/installed: pyproject.toml constraints.txt $(VENV)/torch-choice
	$(call install,$(VENV),$(TORCH),constraints.txt)

$(LOWEST)/installed: pyproject.toml constraints-lowest.txt | $(LOWEST)/bin/python
	$(call install,$(LOWEST),$(LOWEST_TORCH),constraints-lowest.txt)

# Touched only when the choice differs from the last one, so that setup runs once.
$(VENV)/torch-choice: FORCE | $(VENV)/bin/python
	@test "$$(cat $@ 2>/dev/null)" = "$(TORCH)" || echo "$(TORCH)" > $@

%/bin/python:
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Secateurs needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $* || { rm -f $@; exit 1; }

FORCE:
