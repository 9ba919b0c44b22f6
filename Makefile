# demo: all three stages on small labelled clips (or VIDEOS=folder of class folders)
# test: the test suite        test-long: the long fault runs        lint: ruff, mypy and codespell        bench: the benchmarks

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := setup.cfg pyproject.toml constraints.txt tools/install.py
INSTALL = $(PYTHON) tools/install.py $(VENV) -c constraints.txt

.PHONY: demo test test-long lint bench clean
.NOTPARALLEL:  # two installations at once would spoil .venv

demo: $(VENV)/installed
	$(BIN)/python -m hazard demo $(if $(VIDEOS),--videos "$(VIDEOS)")

test: $(VENV)/installed-test
	$(BIN)/python -m pytest

test-long: $(VENV)/installed-test
	$(BIN)/python -m pytest -m long

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell $$(git ls-files)

bench: $(VENV)/installed
	$(BIN)/python benchmarks/extract.py $(if $(VIDEOS),--videos "$(VIDEOS)")
	$(BIN)/python benchmarks/infer.py $(if $(VIDEOS),--videos "$(VIDEOS)")
	$(BIN)/python benchmarks/train.py

clean:
	rm -rf $(VENV) demo build *.egg-info

$(VENV)/installed: $(SOURCES)
	@echo "installing into $(VENV) (PyTorch is large: a few minutes the first time)"
	@$(INSTALL) -e '.[cpu,serve]'
	@touch $@

$(VENV)/installed-%: $(VENV)/installed
	@echo "installing the extra '$*'"
	@$(INSTALL) -e '.[$*]'
	@touch $@
