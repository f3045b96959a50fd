# SPDX-License-Identifier: MIT
#
#   make run      the example: the standard library measured under each start method
#   make test     C tests, then Python tests and every code block of the documentation
#   make test-dev the Python tests where each warning is an error; TESTS=tests/python/test_map.py a part of them
#   make build    the package, into .venv
#   make bench    how fast it is, beside others; CASE=5 one case, QUICK=1 small sizes
#   make check    formats, linters, types, sanitizers, models
#   make format   the same formats, applied
#   make storm    kills at random moments, the long forms
#   make soak MINUTES=20   a random mix of everything under random kills
#   make docs     the site in build/site, its pictures, and the documentation's code blocks
#   make clean
#
# Each works on a fresh machine. PYTHON=python3.12 VENV=.venv312 builds for another interpreter.

PYTHON ?= python3
VENV ?= .venv
BUILD ?= build

export PYTHON VENV
# So that build backends and tests find the pinned tools first, whatever else is installed.
export PATH := $(abspath $(VENV))/bin:$(PATH)
export TERCIO_BUILD := $(abspath $(BUILD)/c)

MESON = $(VENV)/bin/meson
PACKAGE = $(VENV)/.tercio-installed

C_FILES = $(shell git ls-files -co --exclude-standard '*.c' '*.h' 2>/dev/null || find . -name '*.[ch]' -not -path './build/*')
SOURCES = $(shell find engine include python -type f ! -name '*.py[co]') meson.build meson.options pyproject.toml
# Hangs are ended by pytest-timeout; this is for one that keeps the interpreter itself.
BOUND = timeout --signal=ABRT --kill-after=20 2400
LONG_BOUND = timeout --signal=ABRT --kill-after=20 5400

.PHONY: run test test-c test-python test-dev build bench check format docs storm soak clean setup
.DEFAULT_GOAL := build

setup:
	@tools/setup.sh build

# make compares times; a file that went away is seen in the list.
$(VENV)/.tercio-sources: FORCE | setup
	@printf '%s\n' $(sort $(SOURCES)) | cmp -s - $@ || printf '%s\n' $(sort $(SOURCES)) > $@
FORCE:

$(PACKAGE): $(SOURCES) $(VENV)/.tercio-sources | setup
	@mkdir -p $(BUILD)
	@$(VENV)/bin/python -m pip install -q --disable-pip-version-check --no-build-isolation --no-deps \
	    --force-reinstall --config-settings=build-dir=$(BUILD)/py-$(subst .,,$(notdir $(VENV))) \
	    --config-settings=setup-args=-Dwerror=true .
	@touch $@

build: $(PACKAGE)

run: build
	@$(VENV)/bin/python examples/python/stdlib_report.py

test:
	@tools/setup.sh build test
	@$(MAKE) --no-print-directory test-c
	@$(MAKE) --no-print-directory test-python

# A directory that meson knows is brought up to date; any other is set up.
define configure
	@if [ -e $(BUILD)/$(1)/build.ninja ]; then $(MESON) setup --reconfigure $(BUILD)/$(1) $(2) >$(BUILD)/$(1).log 2>&1 \
	    || { cat $(BUILD)/$(1).log; exit 1; }; \
	else mkdir -p $(BUILD); rm -rf $(BUILD)/$(1); $(MESON) setup $(BUILD)/$(1) -Dpython=disabled -Dwerror=true $(2) \
	    >$(BUILD)/$(1).log 2>&1 || { cat $(BUILD)/$(1).log; exit 1; }; fi
	@$(VENV)/bin/ninja -C $(BUILD)/$(1) --quiet
endef

test-c:
	$(call configure,c)
	@$(MESON) test -C $(BUILD)/c --no-rebuild --print-errorlogs

test-python: build
	@$(BOUND) $(VENV)/bin/python -m pytest -q

# By the environment, so that the programs that tests start and their workers have it too.
TESTS ?=
test-dev:
	@tools/setup.sh build test
	$(call configure,c)
	@$(MAKE) --no-print-directory build
	@PYTHONDEVMODE=1 PYTHONWARNINGS=error $(BOUND) $(VENV)/bin/python -X dev -W error -m pytest -q --timeout 180 \
	    -o faulthandler_timeout=170 $(TESTS)

docs:
	@tools/setup.sh build test docs
	$(call configure,c)
	@$(MAKE) --no-print-directory build
	@$(VENV)/bin/python tools/screenshots.py
	@$(VENV)/bin/python tools/terminal_pictures.py
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet --strict
	@$(BOUND) $(VENV)/bin/python -m pytest -q tests/python/test_documentation.py

storm:
	@tools/setup.sh build test
	@$(MAKE) --no-print-directory build
	$(call configure,c)
	@TERCIO_LONG=1 $(LONG_BOUND) $(VENV)/bin/python -m pytest -q --timeout 600 -o faulthandler_timeout=590 $(wildcard tests/python/test_faults_*.py)
	$(call configure,faults,-Dfault_points=true)
	@TERCIO_LONG=1 $(MESON) test -C $(BUILD)/faults --no-rebuild --print-errorlogs --quiet --timeout-multiplier 4 fault_points
	@$(VENV)/bin/python tests/storm/soak.py 60

MINUTES ?= 1
soak:
	@tools/setup.sh build test
	@$(MAKE) --no-print-directory build
	@$(VENV)/bin/python tests/storm/soak.py $$(( $(MINUTES) * 60 ))

bench:
	@tools/setup.sh build
	@bench/setup.sh
	@bench/.venv/bin/python bench/run.py $(if $(QUICK),--quick) $(if $(AGAIN),--again) $(CASE)

check:
	@tools/setup.sh build test check
	@echo '== format'
	@$(VENV)/bin/clang-format --dry-run -Werror $(C_FILES)
	@$(VENV)/bin/ruff format --check --quiet .
	@echo '== ruff'
	@$(VENV)/bin/ruff check --quiet .
	@echo '== mypy'
	@$(VENV)/bin/mypy --no-error-summary python/tercio
	@echo '== clang-tidy, cppcheck'
	$(call configure,c)
	@tools/analyse.sh $(BUILD)/c
	@echo '== directions'
	@$(VENV)/bin/python tools/directions.py $(BUILD)/c
	@echo '== address and undefined behaviour'
	$(call configure,asan,-Db_sanitize=address$(comma)undefined)
	@tools/c_tests.sh $(BUILD)/asan
	@tools/battery_sanitized.sh $(BUILD)/asan-py
	@echo '== warnings are errors'
	@$(MAKE) --no-print-directory test-dev TESTS="tests/python/test_shutdown.py tests/python/test_errors.py tests/python/test_apply.py"
	@echo '== valgrind'
	@tools/valgrind.sh $(BUILD)/c
	@echo '== threads'
	$(call configure,tsan,-Db_sanitize=thread)
	@tools/c_tests.sh $(BUILD)/tsan
	@echo '== a kill and a stop at every labelled point'
	$(call configure,faults,-Dfault_points=true)
	@$(MESON) test -C $(BUILD)/faults --no-rebuild --print-errorlogs --quiet fault_points
	@echo '== fuzz'
	@tools/fuzz.sh $(BUILD)/fuzz
	@if [ -e models/check.sh ]; then echo '== models'; models/check.sh; fi
	@echo '== instructions'
	@$(MAKE) --no-print-directory build
	@$(VENV)/bin/python tools/instructions.py $(VENV)/bin/python $(BUILD)
	@echo 'check: all is well'

format:
	@tools/setup.sh build check
	@$(VENV)/bin/clang-format -i $(C_FILES)
	@$(VENV)/bin/ruff format --quiet .
	@$(VENV)/bin/ruff check --quiet --fix .

clean:
	rm -rf $(BUILD) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f $(PACKAGE) $(VENV)/.tercio-sources
	find . -name __pycache__ -type d -not -path '*/.venv*' -prune -exec rm -rf {} +

comma := ,
