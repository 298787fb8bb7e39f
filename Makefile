# `make` lists the targets. Each sets up all it needs in .venv or build/; nothing is installed elsewhere, except for
# python3-venv on a Debian that lacks it.

VENV := .venv
BIN := $(VENV)/bin
# One worker for each core.
PYTEST_OPTIONS ?= -n auto

.PHONY: help demo test test-long coverage mutants lint bench bench-day bench-fleet board board-cut board-fail board-poor-network board-picture install uninstall install-devserver uninstall-devserver deb sbom clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-19s %s\n", $$1, $$2 }' Makefile
	@echo "How to work on the code: docs/contributing.md. How to install it on a device: docs/install.md."

demo: $(VENV)/runtime ## run a device through a whole update against the development server
	@$(BIN)/python tests/demo.py

test: $(VENV)/dev ## run the tests; those that need a missing program are skipped
	@echo "Running the tests; this takes about 40 minutes on two cores."
	@$(BIN)/python -m pytest $(PYTEST_OPTIONS)

test-long: $(VENV)/dev ## run the enumerations that take longer
	@$(BIN)/python -m pytest -m long -o faulthandler_timeout=3600 $(PYTEST_OPTIONS)

coverage: $(VENV)/dev ## run the tests and list the lines and branches of the client that none of them reached
	@sh .ci/coverage $(PYTEST_OPTIONS)

mutants: $(VENV)/mutants ## change one thing of the core at a time and count the changes that no test finds; SAMPLE=20 ONLY=plan,tar
	@nice $(BIN)/python .ci/mutation/run.py --sample $(or $(SAMPLE),0) --seed $(or $(SEED),1) --only "$(ONLY)"

lint: $(VENV)/dev ## check format, lint, types, import directions, spelling and phrases
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell
	$(BIN)/python .ci/words.py

bench: $(VENV)/dev ## measure what an invocation, an installation and the terminal cost; ONLY=download for one row
	@ONLY="$(ONLY)" $(BIN)/python tests/bench.py
ifneq ($(filter $(or $(ONLY),installation),installation),)
	@$(BIN)/python tests/bench_installing.py
endif
ifneq ($(filter $(or $(ONLY),terminal),terminal),)
	@$(BIN)/python tests/bench_terminal.py
endif

bench-day: $(VENV)/dev ## measure what a day in the field costs, beside mender-client's daemon where it is installed; MENDER_PYTHON_CLIENT=/path/to/checkout adds mender-python-client
	@$(BIN)/python tests/bench_day.py

bench-fleet: $(VENV)/dev ## count the requests of 10 000 simulated devices in a week; DEVICES=1000 OF=1000000 samples a larger fleet
	@DEVICES=$(DEVICES) OF=$(OF) $(BIN)/python tests/bench_fleet.py

# A virtual machine of Debian's packages; docs/board.md lists them.
board: $(VENV)/dev ## run one update on a virtual board with GRUB and two root file systems; the console is shown
	@cd tests && ../$(BIN)/python -m board update

board-cut: $(VENV)/dev ## cut the power of that board at writes of an update: SAMPLE=24 SEED=1 JOBS=1, ALL=1 for each one
	@cd tests && ../$(BIN)/python -m board cut $(if $(ALL),--all) --sample $(or $(SAMPLE),24) --seed $(or $(SEED),1) \
		--jobs $(or $(JOBS),1) $(if $(ONLY),--only $(ONLY)) $(if $(PHASE),--phase $(PHASE)) $(if $(BROKEN),--broken $(BROKEN))

board-fail: $(VENV)/dev ## deploy releases that must fail to that board: ONLY=kernel, halt, hang, idle, server or check; CUTS=6 cuts the power in a return
	@cd tests && ../$(BIN)/python -m board fail $(if $(ONLY),--only $(ONLY)) $(if $(CUTS),--cuts $(CUTS)) --seed $(or $(SEED),1)

board-poor-network: $(VENV)/dev ## run one update on that board in 1970, over a slow network that is cut, with a power cut in the download
	@cd tests && ../$(BIN)/python -m board poor-network

board-picture: $(VENV)/dev ## draw the writes of one update of that board, for docs/board.md
	@cd tests && ../$(BIN)/python -m board picture

$(VENV)/runtime: pyproject.toml
	@sh .ci/venv "$(or $(PYTHON),python3)" $(VENV) .
	@touch $@

$(VENV)/dev: pyproject.toml
	@sh .ci/venv "$(or $(PYTHON),python3)" $(VENV) ".[dev]"
	@touch $@ $(VENV)/runtime

$(VENV)/mutants: pyproject.toml
	@sh .ci/venv "$(or $(PYTHON),python3)" $(VENV) ".[dev,mutants]"
	@touch $@ $(VENV)/dev $(VENV)/runtime

# make hands down the variables that were given to it: DESTDIR, PREFIX, PYTHON and the others that the script names.
install: ## install what a device needs, without pip or network; enables nothing
	@sh docs/packaging/install.sh install

uninstall: ## remove it; first disable what you have enabled (docs/install.md)
	@sh docs/packaging/install.sh uninstall

install-devserver: ## install the development server on a desk; the client is not needed for it
	@sh docs/packaging/install.sh install-devserver

uninstall-devserver: ## remove the development server
	@sh docs/packaging/install.sh uninstall-devserver

# Debian wants debian/ at the top, we do not: the package is built in a copy of the tree.
DEB_TREE := build/deb/mender-oneshot

deb: ## build a package for Debian 12 in dist/, with Debian's own tools
	rm -rf build/deb
	mkdir -p $(DEB_TREE) dist
	cp -R Makefile README.md LICENSE cron docs mender_oneshot systemd-timers $(DEB_TREE)
	cp -R docs/packaging/debian $(DEB_TREE)
	cd $(DEB_TREE) && dpkg-buildpackage --build=binary --no-sign --ignore-builtin-builddeps
	mv build/deb/*.deb dist

VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' mender_oneshot/__init__.py)
SBOM := build/sbom

# The tool has an environment of its own, so that the other holds nothing but what is to be listed. It does not look up
# a version that pyproject.toml leaves to the package.
sbom: ## list what a device gets, from here and from PyPI, as CycloneDX in dist/
	rm -rf $(SBOM)
	mkdir -p $(SBOM) dist
	"$(or $(PYTHON),python3)" -m venv $(SBOM)/tool
	"$(or $(PYTHON),python3)" -m venv --without-pip $(SBOM)/device
	$(SBOM)/tool/bin/pip install --quiet --disable-pip-version-check "cyclonedx-bom>=7,<8"
	$(SBOM)/tool/bin/pip --python $(SBOM)/device/bin/python install --quiet --disable-pip-version-check ".[terminal]"
	rm -rf build/lib build/bdist.*
	sed 's/^dynamic = .*/version = "$(VERSION)"/' pyproject.toml > $(SBOM)/pyproject.toml
	$(SBOM)/tool/bin/cyclonedx-py environment --validate --output-reproducible --pyproject $(SBOM)/pyproject.toml \
		--output-file dist/mender-oneshot-$(VERSION).cdx.json $(SBOM)/device/bin/python

clean: ## remove .venv, build/ and dist/
	rm -rf $(VENV) build dist *.egg-info
