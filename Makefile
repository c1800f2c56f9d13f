# make study: everything from a fresh clone to the table and the figure. `make help` lists the rest.

STUDY ?= conv_gmlp_rate
RUNG ?= cpu
PORT ?= 8888
MLFLOW_PORT ?= 5000

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# A worker for each core, each on one thread (two that wait for each other spin, and take the core from the other worker);
# a worker's own memory grows to about 2 GB.
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist worksteal
MLRUNS := $(or $(OMNI_LAB_MLRUNS),mlruns)

# Looked for only when the environment has to be made: `make PYTHON=/path/to/python3.12 study` settles it.
PYTHON ?=
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11 python

.DEFAULT_GOAL := help
.PHONY: help study smoke check test test-all test-browser lab mlflow docs clean
# A study runs its own workers; two targets at once would share one environment half installed.
.NOTPARALLEL:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "  variables: STUDY=$(STUDY) RUNG=$(RUNG) PYTHON=<python 3.11 or later>"

$(INSTALLED): pyproject.toml constraints.txt
	@python="$(PYTHON)"; \
	if [ -z "$$python" ]; then \
	  for candidate in $(CANDIDATES); do \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	      python="$$candidate"; break; \
	    fi; \
	  done; \
	fi; \
	if [ -z "$$python" ]; then \
	  echo "error: omni-lab needs Python 3.11 or later; none of $(CANDIDATES) is. Install one, or name it:" \
	    "make PYTHON=/path/to/python3.12 $(or $(MAKECMDGOALS),study)" >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  found="$$("$$python" --version 2>/dev/null)"; \
	  echo "error: omni-lab needs Python 3.11 or later; $$python is $${found:-no Python that runs}" >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "error: $$python has no venv module; install it (on Debian and Ubuntu: apt install python3-venv)" >&2; \
	  exit 1; \
	fi; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  echo "making $(VENV) with $$python"; "$$python" -m venv --clear $(VENV); \
	fi
	@echo "installing omni-lab and what it needs into $(VENV) (some minutes and gigabytes the first time)"
	$(BIN)/pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev]'
	@touch $@

study: $(INSTALLED) ## train and measure the study, write its table and draw its figure
	@$(BIN)/lab reproduce $(STUDY) --rung $(RUNG)
	@$(BIN)/lab tables $(STUDY) --rung $(RUNG)
	@$(BIN)/lab figures $(STUDY) --rung $(RUNG)
	@echo "runs and executed notebooks: $(MLRUNS)/ (look at them with: make mlflow)"

smoke: ## the same path with tiny parameters, in minutes; its results stay in mlruns/
	@$(MAKE) --no-print-directory study RUNG=smoke

check: $(INSTALLED) ## ruff, mypy and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check ## ruff, mypy, import-linter, and the tests of at most five seconds
	$(PYTEST) -m "not slow and not browser"

# Apart, as Playwright leaves an event loop running in its process.
test-all: check ## the same with every test: slow ones, and those in a headless Chromium where there is one
	$(PYTEST) -m "not browser"
	$(BIN)/pytest tests/browser

test-browser: $(INSTALLED) ## JupyterLab and MLflow's page in a headless Chromium; screenshots in test-results/
	$(BIN)/pytest tests/browser

lab: $(INSTALLED) ## JupyterLab on this machine alone
	JUPYTER_CONFIG_PATH=$(CURDIR)/.jupyter $(BIN)/jupyter lab --ip=127.0.0.1 --port=$(PORT) --notebook-dir=. \
	  --LabApp.default_url=/lab/tree/notebooks/README.md

mlflow: $(INSTALLED) ## MLflow's page of the tracked runs, on this machine alone
	@test -f "$(MLRUNS)/mlflow.db" || { echo "error: $(MLRUNS)/mlflow.db is not there yet; run make study or make smoke first" >&2; exit 1; }
	@echo "the runs: http://127.0.0.1:$(MLFLOW_PORT)/#/experiments/1/runs?workflowType=machine_learning"
	@MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow ui --workers 1 --backend-store-uri \
	  "$$(OMNI_LAB_MLRUNS="$(MLRUNS)" $(BIN)/python -c 'from lab.study.store import *; ensure_store(); print(store_uri())')" --host 127.0.0.1 --port $(MLFLOW_PORT)

docs: $(INSTALLED) ## the documentation as pages that open from files: site/index.html
	OMNI_LAB_CHECKOUT="$(CURDIR)" PYTHONPATH="$(CURDIR)" NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean: ## remove the environment and the caches of this checkout; never results, runs or downloads
	rm -rf $(VENV) build site *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find lab standins tests ablations figures notebooks \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
