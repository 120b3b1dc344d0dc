# make setup   creates .venv from the pinned requirements, then builds with colcon into install/
# make demo    plays a camera bag through the real node and shows its answers
# make test    runs the whole test suite
# make test-app   tests the pages in a browser; installs requirements-app.txt, needs chromium
# make docs    builds the documentation site in site/; installs requirements-docs.txt
# make report  renders the test scenes of every world, scores gsva-mini on them and on the demo's bag
# make finetune-demo   fine-tunes gsva-mini on a table that it gets wrong, and compares before and after
# make soak    puts the node under load for ten minutes
# make lint    checks style and types
# make clean-install   runs pip install in a fresh environment, then each command with and without its extra
#
# Everything stays inside this folder. Finished steps leave a stamp file and are not repeated.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: setup demo test test-app docs report finetune-demo soak lint clean-install clean
.DEFAULT_GOAL := setup

PYTHON ?= python3
VENV   := $(CURDIR)/.venv
PIP    := $(VENV)/bin/python -m pip --disable-pip-version-check

VENV_STAMP  := $(VENV)/.requirements.stamp
BUILD_STAMP := install/.build.stamp

REQUIREMENTS := requirements.txt requirements-ros.txt requirements-dev.txt
SOURCES := CMakeLists.txt package.xml entry_points.cfg $(wildcard cmake/*) \
	$(shell find gsva_ros msg srv action launch config demo examples -type f -not -path '*/__pycache__/*' | sed 's/ /\\ /g')

# A venv with the ROS wheels is an ament prefix, like /opt/ros/DISTRO.
ENVIRONMENT := source $(VENV)/bin/activate && export AMENT_PREFIX_PATH=$(VENV) CMAKE_PREFIX_PATH=$(VENV)
# setup.bash reads variables that may be unset.
OVERLAY := $(ENVIRONMENT) && set +u && source install/setup.bash && set -u

setup: $(BUILD_STAMP)

# The editable install provides .venv/bin/gsva, which runs from this tree without ROS. Compat: a plain path,
# found before a folder of the same name, as this clone is to a script beside it.
$(VENV_STAMP): $(REQUIREMENTS) setup.py entry_points.cfg
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 13) else "gsva_ros needs Python 3.10 to 3.13, this is %d.%d: make PYTHON=python3.12 ..." % v)'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install $(addprefix -r ,$(REQUIREMENTS))
	$(PIP) install --no-deps --no-build-isolation --config-settings editable_mode=compat -e .
	touch $@

# BUILD_TESTING=OFF: otherwise ament looks for lint programs that the wheels do not include.
$(BUILD_STAMP): $(VENV_STAMP) $(SOURCES)
	$(ENVIRONMENT) && colcon --log-base log build --merge-install --paths . \
		--event-handlers console_direct- \
		--cmake-args -DBUILD_TESTING=OFF -DPython3_EXECUTABLE=$(VENV)/bin/python
	touch $@

demo: $(BUILD_STAMP)
	$(OVERLAY) && install/lib/gsva_ros/gsva_demo --output demo_output

test: $(BUILD_STAMP)
	$(OVERLAY) && pytest

test-app: $(BUILD_STAMP)
	$(PIP) install -r requirements.txt -r requirements-app.txt
	$(OVERLAY) && pytest test/programs/test_app.py test/programs/test_app_session.py test/programs/test_view.py

docs: $(VENV_STAMP)
	$(PIP) install -r requirements.txt -r requirements-docs.txt
	$(VENV)/bin/python docs/interfaces.py
	$(VENV)/bin/python -m sphinx -W --keep-going -q -b html -d build/doctrees docs site
	@echo "written: site/index.html"

# One report page and one file of numbers for each world's test scenes and for the bag. Scenes that are
# rendered already are not rendered again. A copy of the model is calibrated on the validation scenes, so
# that the bundled one stays unchanged.
report: $(VENV_STAMP)
	$(VENV)/bin/gsva sim render --split test --count 1000 --out report/test
	$(VENV)/bin/gsva sim render --split val --count 1000 --out report/val
	$(VENV)/bin/gsva eval scenes --data report/test --out report/scenes.json --report report/scenes.html
	for world in household shifted; do \
		$(VENV)/bin/gsva sim render --world $$world --split test \
			--count 300 --width 320 --height 240 --out report/$$world; \
		$(VENV)/bin/gsva eval scenes --data report/$$world \
			--out report/$$world.json --report report/$$world.html; \
	done
	$(VENV)/bin/gsva eval bag demo/tabletop --truth demo/tabletop_truth.json \
		--out report/bag.json --report report/bag.html
	rm -rf report/calibrated && cp -r gsva_ros/checkpoints/gsva-mini report/calibrated
	$(VENV)/bin/gsva calibrate --equal-t-acc --data report/val --model report/calibrated
	$(VENV)/bin/gsva eval scenes --no-blind --data report/test --model report/calibrated \
		--out report/calibrated.json --report report/calibrated.html
	$(VENV)/bin/gsva eval compare report/scenes.json report/calibrated.json

# A table with other light and other shapes: 40 labelled frames for training; 40 frames of other
# arrangements and the old test scenes for evaluation.
finetune-demo: $(VENV_STAMP)
	mkdir -p runs/table
	test -e runs/table/teach || ( \
		$(VENV)/bin/gsva sim bag --look workshop --seeds $$(seq 10500001 10500020) --frames 2 \
			--out runs/table/teach.bare --truth runs/table/teach.json && \
		$(VENV)/bin/gsva record-truth runs/table/teach.bare runs/table/teach.json runs/table/teach )
	test -e runs/table/asked || ( \
		$(VENV)/bin/gsva sim bag --look workshop --seeds $$(seq 20500001 20500020) --frames 2 \
			--out runs/table/asked.bare --truth runs/table/asked.json && \
		$(VENV)/bin/gsva record-truth runs/table/asked.bare runs/table/asked.json runs/table/asked )
	$(VENV)/bin/gsva sim render --split train --count 400 --width 320 --height 240 --out runs/table/scenes
	$(VENV)/bin/gsva sim render --split test --count 200 --out runs/table/old
	$(VENV)/bin/gsva train config/train/correct.yaml
	for model in gsva-mini runs/correct/model; do \
		name=$$(basename $$(dirname $$model/.)); \
		$(VENV)/bin/gsva eval bag runs/table/asked --no-blind --model $$model --out runs/table/asked.$$name.json; \
		$(VENV)/bin/gsva eval scenes --data runs/table/old --no-blind --model $$model --out runs/table/old.$$name.json; \
	done
	@echo "the table that it was taught, before (a) and after (b):"
	@$(VENV)/bin/gsva eval compare runs/table/asked.gsva-mini.json runs/table/asked.model.json
	@echo "the old test scenes, before (a) and after (b):"
	@$(VENV)/bin/gsva eval compare runs/table/old.gsva-mini.json runs/table/old.model.json

# Ten minutes of frames and instructions, with the bundled model.
soak: $(BUILD_STAMP)
	$(OVERLAY) && python test/support/soak.py

lint: $(VENV_STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean-install:
	$(PYTHON) test/support/clean_install.py

clean:
	rm -rf build install log
