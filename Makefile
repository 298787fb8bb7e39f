# make demo    the main job, on the development server
# make test    everything that pytest finds; tests that need a missing program are skipped
# make test-long  the enumerations that take longer
# make lint    format, lint, types, import directions
# make bench   start-up and per-invocation cost, as ratios
#
# Each of these sets up all it needs in .venv; nothing is installed elsewhere, but for python3-venv where Debian
# lacks it.
#
# make install    what a device needs, with Python's own libraries from the distribution: no pip, no network
# make uninstall  takes it away again; first disable what you have enabled (docs/install.md)
# make deb        a package for Debian 12, in dist/, with Debian's own tools (debhelper, dh-python)
#
# make sbom       what a device gets from us and from PyPI, in dist/, as CycloneDX
#
# The first two keep to DESTDIR, PREFIX, SYSCONFDIR, UNITDIR, ZSHDIR and PYTHON (the interpreter on the device). COMPILE is the
# interpreter that byte-compiles here and now; COMPILE=no leaves that to the packager. Nothing is enabled or started.

VENV := .venv
BIN := $(VENV)/bin
# One worker for each core.
PYTEST_OPTIONS ?= -n auto

PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
UNITDIR ?= $(PREFIX)/lib/systemd/system
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
DEVICE_PYTHON = $(or $(PYTHON),/usr/bin/python3)
COMPILE ?= $(DEVICE_PYTHON)

.PHONY: demo test test-long lint bench install uninstall deb sbom clean
# What they do is long to read, and make says where it fails.
.SILENT: install uninstall

demo: $(VENV)/runtime
	@$(BIN)/python tests/demo.py

test: $(VENV)/dev
	@echo "Running the tests; this takes about 15 minutes on two cores."
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
	@$(BIN)/python tests/bench_terminal.py

$(VENV)/runtime: pyproject.toml
	@sh .ci/venv "$(or $(PYTHON),python3)" $(VENV) .
	@touch $@

$(VENV)/dev: pyproject.toml
	@sh .ci/venv "$(or $(PYTHON),python3)" $(VENV) ".[dev]"
	@touch $@ $(VENV)/runtime

# The files of an installation: where from, and where to.
MODULES := $(filter-out mender_oneshot/devserver/%,$(wildcard mender_oneshot/*.py mender_oneshot/*/*.py))
UNITS := $(wildcard systemd-timers/*.service systemd-timers/*.timer)
CRON_EXAMPLES := $(filter-out cron/README.md cron/mender-oneshot,$(wildcard cron/*))
MAN_PAGES := $(wildcard docs/man/*.[157])
EXAMPLES := $(wildcard docs/examples/*)

SHARE = $(PREFIX)/share/mender-oneshot
DOC = $(PREFIX)/share/doc/mender-oneshot
LAUNCHER = $(PREFIX)/bin/mender-oneshot
CRON_FILE = $(SYSCONFDIR)/cron.d/mender-oneshot
BASH_COMPLETION = $(PREFIX)/share/bash-completion/completions/mender-oneshot
ZSH_COMPLETION = $(ZSHDIR)/_mender-oneshot
FISH_COMPLETION = $(PREFIX)/share/fish/vendor_completions.d/mender-oneshot.fish

# `install -D` makes the directories that are missing, and leaves the mode of those that are there alone.
INSTALL_FILE = install -D -m 644
WITH_PREFIX = sed 's|/usr/local/bin/|$(PREFIX)/bin/|g'

# What comes in becomes a file whole or not at all, for a timer may tick meanwhile: $(call write,MODE,FILE).
write = { install -D -m $(1) /dev/null "$(2).new" && cat > "$(2).new" && mv -f "$(2).new" "$(2)"; }

# Where the package goes: into an image always here. A device that installs over itself has two places and takes the
# one that its launcher does not lead to.
install: PLACE := $(SHARE)$(if $(DESTDIR),,$(shell grep -qs '"$(SHARE)"' "$(LAUNCHER)" && echo /other))

NEW_ENOUGH = import sys; \
	sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with PYTHON= and COMPILE=.")

install:
	[ "$(COMPILE)" = no ] || "$(COMPILE)" -I -c '$(NEW_ENOUGH)'
	rm -rf "$(DESTDIR)$(PLACE)/mender_oneshot"
	for file in $(MODULES); do $(INSTALL_FILE) $$file "$(DESTDIR)$(PLACE)/$$file" || exit; done
	[ "$(COMPILE)" = no ] || { umask 022 && \
		"$(COMPILE)" -I -m compileall -q -f --invalidation-mode unchecked-hash \
		-s "$(DESTDIR)$(PLACE)" -p "$(PLACE)" "$(DESTDIR)$(PLACE)/mender_oneshot"; }
	@# Complete, and only now led to. A run that is at work keeps its own until the next installation.
	@# -I: nothing of the caller's; -S: a tick with nothing due needs no libraries; -Xutf8: nor has a locale a say.
	printf '%s\n' '#!$(DEVICE_PYTHON) -ISXutf8' 'import sys' 'sys.path.insert(0, "$(PLACE)")' \
		'from mender_oneshot.__main__ import main' 'sys.exit(main())' | $(call write,755,$(DESTDIR)$(LAUNCHER))
	for unit in $(notdir $(UNITS)); do \
		$(WITH_PREFIX) systemd-timers/$$unit | $(call write,644,$(DESTDIR)$(UNITDIR)/$$unit) || exit; done
	for file in $(notdir $(CRON_EXAMPLES)); do \
		$(WITH_PREFIX) cron/$$file | $(call write,644,$(DESTDIR)$(SHARE)/cron/$$file) || exit; done
	@# A line that somebody has enabled stays enabled.
	if [ -e "$(DESTDIR)$(CRON_FILE)" ]; then echo "$(DESTDIR)$(CRON_FILE) is there already, and left as it is."; \
		else $(WITH_PREFIX) cron/mender-oneshot | $(call write,644,$(DESTDIR)$(CRON_FILE)); fi
	for page in $(notdir $(MAN_PAGES)); do $(WITH_PREFIX) docs/man/$$page | \
		$(call write,644,$(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$$page) || exit; done
	$(INSTALL_FILE) docs/completions/mender-oneshot.bash "$(DESTDIR)$(BASH_COMPLETION)"
	$(INSTALL_FILE) docs/completions/mender-oneshot.zsh "$(DESTDIR)$(ZSH_COMPLETION)"
	$(INSTALL_FILE) docs/completions/mender-oneshot.fish "$(DESTDIR)$(FISH_COMPLETION)"
	for file in README.md LICENSE; do $(INSTALL_FILE) $$file "$(DESTDIR)$(DOC)/$$file" || exit; done
	for file in $(notdir $(EXAMPLES)); do \
		$(INSTALL_FILE) docs/examples/$$file "$(DESTDIR)$(DOC)/examples/$$file" || exit; done

uninstall:
	rm -f "$(DESTDIR)$(LAUNCHER)" "$(DESTDIR)$(CRON_FILE)" "$(DESTDIR)$(BASH_COMPLETION)" \
		"$(DESTDIR)$(ZSH_COMPLETION)" "$(DESTDIR)$(FISH_COMPLETION)"
	rm -rf "$(DESTDIR)$(SHARE)" "$(DESTDIR)$(DOC)"
	for unit in $(notdir $(UNITS)); do rm -f "$(DESTDIR)$(UNITDIR)/$$unit"; done
	for page in $(notdir $(MAN_PAGES)); do rm -f "$(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$$page"; done

# Debian wants debian/ at the top, we do not: the package is built in a copy of the tree.
DEB_TREE := build/deb/mender-oneshot

deb:
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
sbom:
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

clean:
	rm -rf $(VENV) build dist *.egg-info
