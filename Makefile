# Sets up its own .venv on first use; `make` alone lists what there is.

# The first Python here that is new enough; `make PYTHON=/path/to/python …` takes another.
CANDIDATES = python3 python python3.11 python3.12 python3.13
NEW_ENOUGH = -c 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for p in $(CANDIDATES); do $$p $(NEW_ENOUGH) 2>/dev/null && echo $$p && break; done)

VENV_PYTHON = .venv/bin/python
READY = .venv/ready

# mypy and mkdocstrings look for a folder called fisa: one of links to what the package is made of.
LINK_NAMESPACE = rm -rf build/namespace && mkdir -p build/namespace/fisa && \
	for part in *.py */__init__.py; do ln -s "../../../$${part%/__init__.py}" build/namespace/fisa/; done

.PHONY: help demo app test fuzz test-gpu test-kills test-matrix test-transformers transformers-archive test-importers \
	lint docs clean
help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  make \1\t\2/p' Makefile
	@echo "A Python other than the first one found: make PYTHON=/path/to/python ..."

demo: $(READY)  ## set up, then segment a picture with your own words
	@$(VENV_PYTHON) -m fisa.commands.demo

app: $(READY)  ## set up, then serve a page in the browser: photos, words, segments
	@$(VENV_PYTHON) -m fisa.app --open

test: $(READY)  ## set up, then run the tests
	@OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -n auto --dist loadscope tests

fuzz: $(READY)  ## set up, then try fifty times as many damaged files as the tests do
	@OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -n auto tests -k fuzz --hypothesis-profile fuzz

test-gpu: $(READY)  ## set up, then compare CUDA with the CPU, or say that there is no CUDA
	@OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -rs tests/devices

test-kills: $(READY)  ## set up, then kill commands 110 times, and see that nothing is lost: half an hour
	@OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -rP -m large tests/roads/test_kills.py

test-matrix:  ## run the tests with the oldest and the newest supported libraries, on each Python here: hours, 30 GB
	@"$(PYTHON)" tests/matrix.py $(MATRIX)

TRANSFORMERS_ARCHIVE = .cache/transformers-5.23.0.tar.gz

test-transformers: $(READY) $(TRANSFORMERS_ARCHIVE)  ## set up, then run transformers' own common tests
	@OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -q -rs -n auto --disable-warnings tests/transformers_common -m transformers_common

transformers-archive: $(READY) $(TRANSFORMERS_ARCHIVE)

$(TRANSFORMERS_ARCHIVE): tests/transformers_common/requirements.txt | $(READY)
	@$(VENV_PYTHON) -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --require-hashes \
		--requirement tests/transformers_common/requirements.txt --dest .cache
	@tar -xzf $@ -C .cache
	@touch $@

IMPORTERS = .cache/importers

test-importers: $(READY) $(IMPORTERS)/ready  ## set up, then let Label Studio's and CVAT's own libraries read results
	@rm -rf $(IMPORTERS)/results
	@$(VENV_PYTHON) -m fisa.commands.segment pretrained/scenes --labels "bird, fish, tiger, water [stuff]" --others none \
		--quiet --format label-studio cvat --output $(IMPORTERS)/results
	@$(IMPORTERS)/bin/python tests/formats/importers.py $(IMPORTERS)/results

$(IMPORTERS)/ready: tests/formats/importers.txt
	@"$(PYTHON)" -m venv $(IMPORTERS)
	@$(IMPORTERS)/bin/python -m pip install -qq --disable-pip-version-check --requirement tests/formats/importers.txt
	@touch $@

lint: $(READY)  ## set up, then check style, format, spelling and types
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m ruff format --check .
	@.venv/bin/typos
	@$(LINK_NAMESPACE)
	@$(VENV_PYTHON) -m mypy

docs: $(READY)  ## set up, then build the documentation in site/
	@$(LINK_NAMESPACE)
	@NO_MKDOCS_2_WARNING=1 $(VENV_PYTHON) -m mkdocs build --strict --quiet
	@echo "Open site/index.html"

clean:  ## remove .venv and everything else that was built
	rm -rf .venv build dist demo_output site *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# The installed package is a link to this folder: set up anew where the folder has moved.
ifneq "$(shell cat $(READY) 2>/dev/null)" "$(CURDIR)"
.PHONY: $(READY)
endif

$(READY): setup.cfg pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer found: install one, or name it: make PYTHON=/path/to/python ..."; exit 1; }
	@"$(PYTHON)" $(NEW_ENOUGH) || { echo "$(PYTHON) is not a Python 3.11 or newer: name another: make PYTHON=/path/to/python ..."; exit 1; }
	@echo "Setting up .venv with $$("$(PYTHON)" -V): PyTorch, transformers and the rest, a few minutes the first time ..."
	@"$(PYTHON)" -m venv .venv
	@$(VENV_PYTHON) -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable ".[dev,train]"
	@pwd -P > $(READY)
