# Each target makes the environment that it needs from the pinned sets in requirements/ (scripts/make-venv).
#   PYTHON=python3.12   the interpreter to use, instead of the first suitable one
#   ARGS='...'          handed on to demo, test, test-measures, test-all, test-core, bench and guard
#   JOBS=2              how many test files run at once; 0: one after the other, in pytest's own process (for -s, --pdb)

.DEFAULT_GOAL := help
.PHONY: help demo demo-processes demo-dask test test-measures test-all test-core test-ray doctest bench guard lint format lock clean venv docs site notebook package dashboards grafana-schema

export PYTHON
export HAMILTON_TELEMETRY_ENABLED ?= false

VERSIONS ?= 3.10 3.11 3.12 3.13 3.14
ARGS ?=
JOBS ?= 2
# Files go out in the order in which tests/conftest.py puts them: those that take long first.
pytest := -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
python := .venv/bin/python
code := $(wildcard src examples benchmarks dashboards)

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | awk -F '\t' '{ printf "make %-15s %s\n", $$1, $$2 }'

venv:
	@scripts/make-venv .venv requirements/dev.txt editable

demo: venv ## run the example, a survey of the standard library
	@$(python) -m examples.stdlib_survey $(ARGS)

demo-processes: venv ## run the same with its parsing on two worker processes
	@$(python) -m examples.stdlib_survey --processes 2 $(ARGS)

demo-dask: venv ## run a pipeline of pandas and NumPy on a Dask cluster of two processes
	@$(python) -m examples.prices_on_dask $(ARGS)

test: venv ## run the tests
	@$(python) $(pytest) $(ARGS)

test-measures: venv ## run the tests that measure shares or durations, and repeat what fails until most of five runs agree
	@$(python) scripts/measure.py $(ARGS)

test-all: ## run the tests on each Python of VERSIONS that is installed (3.14t: a free-threaded one)
	@passed=; for version in $(VERSIONS); do \
		if ! found=$$(scripts/find-python $$version 2>/dev/null); then \
			echo "== Python $$version: not installed, skipped"; continue; fi; \
		echo "== Python $$version: $$found"; \
		case $$version in *t) set=free-threaded lock=0 ;; *) set=dev lock= ;; esac; \
		scripts/make-venv .venv-$$version requirements/$$set.txt editable $$version || exit 1; \
		env $${lock:+PYTHON_GIL=$$lock} .venv-$$version/bin/python $(pytest) $(ARGS) || exit 1; \
		passed="$$passed $$version"; \
	done; \
	if [ -z "$$passed" ]; then echo "none of Python $(VERSIONS) is installed" >&2; exit 1; fi; \
	echo "== passed on Python$$passed"

test-core: ## run the tests on the package as built, with its lowest dependencies and no extra
	@scripts/make-venv .venv-core requirements/core.txt copy
	@.venv-core/bin/python scripts/check_core.py
	@.venv-core/bin/python $(pytest) $(ARGS)

test-ray: ## run the tests of nodes on Ray, which is too large for everybody's environment
	@scripts/make-venv .venv-ray requirements/ray.txt editable
	@.venv-ray/bin/python -m pytest tests/backends/test_ray.py $(ARGS)

doctest: venv ## run the examples in docstrings and documents
	@$(python) -m pytest --doctest-modules --doctest-glob='*.md' src $(wildcard README.md docs)

bench: venv ## run the benchmarks, and write the tables of docs/performance.md unless ARGS say otherwise
	@$(python) -m benchmarks $(if $(ARGS),$(ARGS),--write docs/performance.md)

guard: venv ## count what a node costs against what was last accepted; ARGS=--accept accepts
	@$(python) -m benchmarks.guard $(ARGS)

docs: venv ## write what documents generate, and build them as a site into site/
	@$(python) -m scripts.module_map
	@$(python) -m scripts.states_table
	@$(python) -m scripts.readme_costs
	@$(python) -m scripts.outputs
	@$(MAKE) --no-print-directory site

site: ## build the documents as a site, strictly, and check all links in it
	@scripts/make-venv .venv-publish requirements/publish.txt editable
	@NO_MKDOCS_2_WARNING=1 .venv-publish/bin/python -m mkdocs build --quiet
	@.venv-publish/bin/python -m scripts.check_site site

notebook: ## execute the notebooks; ARGS=--write keeps their outputs
	@scripts/make-venv .venv-publish requirements/publish.txt editable
	@.venv-publish/bin/python -m scripts.notebooks $(ARGS)

package: ## build wheel and sdist into dist/, and check them in clean environments
	@scripts/make-venv .venv-publish requirements/publish.txt editable
	@.venv-publish/bin/python -m scripts.package

dashboards: venv ## write dashboards, rules and reference pages from dashboards/generate
	@$(python) -m dashboards.generate

grafana-schema: ## write the JSON schema of dashboards from Grafana's types (needs npm)
	cd dashboards/schema && npm install --ignore-scripts --no-package-lock --no-audit --no-fund && npm run --silent schema

lint: venv ## check style, format and types
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .
	@$(python) -m mypy $(code)

format: venv ## put the code into the form that lint asks for
	@$(python) -m ruff check --fix .
	@$(python) -m ruff format .

# Run on any Python: --universal solves for every version from 3.10 on and for every platform, with markers.
# Pins that still fit are kept; UPGRADE=1 moves them to the newest.
compile := uv pip compile --quiet --universal --custom-compile-command 'make lock' \
	--no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade)

extras := --extra otlp --extra report --extra demo --extra processes --extra dask

lock: ## pin the dependencies again (needs uv); UPGRADE=1 for the newest
	@command -v uv >/dev/null || { echo "make lock needs uv: pip install uv" >&2; exit 1; }
	$(compile) --python-version 3.10 $(extras) --group dev pyproject.toml --output-file requirements/dev.txt
	$(compile) --python-version 3.10 $(extras) --extra ray --group build --group test --constraint requirements/dev.txt pyproject.toml --output-file requirements/ray.txt
	$(compile) --python-version 3.13 --group free-threaded pyproject.toml --output-file requirements/free-threaded.txt
	$(compile) --python-version 3.10 --extra otlp --extra report --extra processes --group publish pyproject.toml --output-file requirements/publish.txt
	$(compile) --python-version 3.10 --resolution lowest-direct --group build --group test pyproject.toml --output-file requirements/core.txt

clean: ## remove environments, caches and builds
	rm -rf .venv .venv-* build dist site .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
