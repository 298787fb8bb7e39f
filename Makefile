# make demo    the main job, on the development server
# make test    everything that pytest finds
# make test-long  the enumerations that take longer
# make lint    format, lint, types, import directions
# make bench   start-up and per-invocation cost, as ratios
#
# Each sets up all it needs in .venv; nothing is installed elsewhere, but for python3-venv where Debian lacks it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-long lint bench clean

demo: $(VENV)/runtime
	@$(BIN)/python tests/demo.py

test: $(VENV)/dev
	@$(BIN)/python -m pytest $(PYTEST_OPTIONS)

test-long: $(VENV)/dev
	@$(BIN)/python -m pytest -m long $(PYTEST_OPTIONS)

lint: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(VENV)/dev
	@$(BIN)/python tests/bench.py

$(VENV)/runtime: pyproject.toml
	@sh .ci/venv "$(PYTHON)" $(VENV) .
	@touch $@

$(VENV)/dev: pyproject.toml
	@sh .ci/venv "$(PYTHON)" $(VENV) ".[dev]"
	@touch $@ $(VENV)/runtime

clean:
	rm -rf $(VENV) build dist *.egg-info
