# Needs make and Python 3.11, 3.12 or 3.13; everything else is installed into .venv.

# Pythons to try, the first that will do is used. To choose one: make PYTHON=/path/to/python3.12
PYTHON ?= python3.13 python3.12 python3.11 python3

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WEB := examples/serving/browser

# The tests of what depends on the backend most, in few minutes; `make test-jax` runs all.
BACKEND_TESTS := $(addprefix tests/,callbacks comparison compilation/test_memory.py exporters/test_other_backends.py graph \
	serializable/test_batch_normalization.py serializable/test_synchronized.py statistics/test_calibration.py \
	statistics/test_processes.py test_conversions.py test_copies.py test_freezing.py)

# Of make mutants: which code, see tools/mutants.py, and how many changes of it.
PART ?= folding
SAMPLE ?= 60

export TF_CPP_MIN_LOG_LEVEL := 3
export JAX_DISABLE_MOST_OPTIMIZATIONS := 1

# A shim may be on the path and still not run; Debian's Python may come without ensurepip.
WILL_DO := import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
NO_PYTHON := kerasbn needs Python 3.11, 3.12 or 3.13 with its venv module, as Keras >= 3.14 needs Python 3.11 or newer; \
	none found among: $(PYTHON). Choose one with: make PYTHON=/path/to/python3.12

.DELETE_ON_ERROR:
.PHONY: help demo docs test lint types unit web unit-jax test-slow test-browser test-corpus test-lowest test-versions test-package test-jax test-torch coverage mutants bench reproduce reproduce-paper clean

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' Makefile

demo: $(INSTALLED) ## Train with and without batch normalization, export, compare
	@$(BIN)/python examples/demo.py

docs: $(INSTALLED) ## The documentation as a site to be opened from the disk, its tutorials run (but with TUTORIALS=off)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build/html
	@echo 'Open docs/_build/html/index.html'

test: lint types unit unit-jax ## Everything that has to pass: lint, types, unit, unit-jax

lint: $(INSTALLED) ## Style, format and layers of imports
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/lint-imports --no-logo

types: $(INSTALLED) ## Types
	@$(BIN)/mypy

unit: $(INSTALLED) web ## Tests, but for the slow ones
	@$(BIN)/pytest -n 2

web: ## What the tests in JavaScript need, where there is Node
	@if ! command -v npm >/dev/null || ! $(MAKE) --no-print-directory $(WEB)/node_modules/.installed; \
	then echo 'No onnxruntime-web here: the tests in JavaScript are skipped'; fi

unit-jax: $(INSTALLED) ## Tests of what depends on the backend, under JAX
	@KERAS_BACKEND=jax $(BIN)/pytest -n 2 $(BACKEND_TESTS)

test-slow: $(INSTALLED) ## The tests that take minutes
	@$(BIN)/pytest -n 2 -m slow

test-browser: $(INSTALLED) web ## The tests of pages in Chromium, where there is one
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[browser]'
	@$(BIN)/pytest -m browser

test-corpus: $(INSTALLED) ## Over a thousand bad files, and writers that are killed
	@$(BIN)/pytest -m corpus

test-lowest: $(INSTALLED) ## The tests on the oldest packages that pyproject.toml admits (Python 3.11)
	@$(BIN)/nox -s lowest

test-versions: $(INSTALLED) ## Part of the tests on each version of Python, Keras and TensorFlow, as far as they are there
	@$(BIN)/nox -s versions --no-error-on-missing-interpreters; status=$$?; $(BIN)/python tools/tested_versions.py; exit $$status

test-package: $(INSTALLED) ## The wheel in environments with nothing else, and its types seen from outside
	@$(BIN)/nox -s package types_outside --no-error-on-missing-interpreters

test-jax: $(INSTALLED) ## The tests under JAX, but for those that need TensorFlow
	@KERAS_BACKEND=jax $(BIN)/pytest -n 2

test-torch: $(INSTALLED) ## The tests under torch, but for those that need TensorFlow (its wheel brings 5 GB)
	@$(BIN)/nox -s torch

coverage: $(INSTALLED) ## Which lines and branches the tests run, those in processes of their own too
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -n 2
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

mutants: $(INSTALLED) ## Change the code in places, one at a time, and see what the tests do not notice
	@$(BIN)/python tools/mutants.py $(PART) --sample $(SAMPLE)

bench: $(INSTALLED) ## Measure speed
	@for script in tools/bench_*.py; do $(BIN)/python "$$script" || exit; done

reproduce: $(INSTALLED) ## Reproduce the claims behind batch normalization
	@$(BIN)/python tools/reproduce.py all

reproduce-paper: $(INSTALLED) ## The same at the size of the papers: hours; what is cut goes on where it was
	@$(BIN)/python tools/reproduce.py paper

clean: ## Remove what was made, but for .venv
	rm -rf build dist demo-output docs/_build .nox .coverage* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# pip is the last that venv makes: where it is missing, making the environment was cut short.
$(BIN)/pip:
	@for python in $(PYTHON); do \
		if "$$python" -c '$(WILL_DO)' 2>/dev/null; then \
			echo "Making $(VENV) with $$("$$python" --version)"; \
			exec "$$python" -m venv --clear $(VENV); \
		fi; \
	done; \
	echo '$(NO_PYTHON)' >&2; exit 1

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing kerasbn and its tools into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(WEB)/node_modules/.installed: $(WEB)/package.json
	@npm install --prefix $(WEB) --silent --no-audit --no-fund --no-package-lock
	@touch $@
