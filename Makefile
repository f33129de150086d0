# Two commands matter: `make demo` shows the product, `make test` proves it. All set up everything they need, once.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Byte code halves the start-up of every process below.
unexport PYTHONDONTWRITEBYTECODE

# Several files of tests at a time: most of it is one process after another that starts. Many tests have a bound in
# seconds that is theirs on a machine of their own: what fails beside others is told, and tried once more with nothing
# beside it.
AT_ONCE := --dist loadfile --no-loadscope-reorder
ALONE := --last-failed --last-failed-no-failures none

.PHONY: setup demo run test test-production drill loop dev serve simulate watch mlflow doctor images base-image up-production down-production lint lock clean

setup: $(VENV)/.ready

# A fresh Debian has Python without the module that makes environments; root may install it, others are told how.
$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: install it, or pass PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null; \
	  else echo "Python's venv module is missing; run: sudo apt-get install python3-venv"; exit 1; fi; }
	$(PYTHON) -m venv $(VENV)

# uv comes from the same lock as everything else, by hash, and then installs the rest of it.
$(VENV)/.ready: requirements.lock setup.cfg pyproject.toml | $(BIN)/python
	@echo "Setting up $(VENV) ..."
	@awk '/^uv==/ {found = 1} found && !/^(uv==|    )/ {exit} found' requirements.lock > $(VENV)/uv.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r $(VENV)/uv.lock
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip sync -q --require-hashes requirements.lock
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install -q --no-deps --no-build-isolation -e .
	@# Some vendors ship templates that are not Python; those files are not needed as byte code.
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib loan_assets bento >/dev/null 2>&1 || true
	@$(BIN)/loan-assets init
	@touch $@

demo: setup
	@$(BIN)/loan-assets demo

run: setup
	@$(BIN)/loan-assets run

test: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports && $(BIN)/mypy
	@$(BIN)/pytest -n 2 $(AT_ONCE) || { [ $$? = 1 ] && $(BIN)/pytest $(ALONE); }

# PySpark, on top of the rest: some hundred MB that only LOAN_ENGINE=spark needs, and its tests.
$(VENV)/.spark: deploy/spark.lock $(VENV)/.ready
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install -q --no-deps --no-build-isolation --require-hashes -r deploy/spark.lock
	@touch $@

# The lifecycle on Postgres, Redis and S3, on servers that the tests start and stop themselves; the graph on Spark. A file
# more at a time: these often wait for servers, queues and disks.
test-production: setup $(VENV)/.spark
	@$(BIN)/pytest -n 3 $(AT_ONCE) -m production -rs || { [ $$? = 1 ] && $(BIN)/pytest $(ALONE) -m production -rs; }

# The endpoint's tests of endurance at full length, about half an hour; `make test` runs them in short.
drill: setup
	@LOAN_DRILL=full $(BIN)/pytest -s loan_assets_tests/bento/test_drills.py

# The rule of succession on histories with a known answer, beside its rivals: half an hour, ten minutes when repeated.
loop: setup
	@$(BIN)/python benchmarks/loop/run.py

dev: setup
	@$(BIN)/loan-assets dev

serve: setup
	@$(BIN)/loan-assets serve

# make simulate SCENARIO=changed-world, or HISTORY=folder
simulate: setup
	@$(BIN)/loan-assets simulate $(SCENARIO) $(if $(HISTORY),--history "$(HISTORY)")

# make watch DAYS="2026-11-23 2026-11-24"
watch: setup
	@$(BIN)/loan-assets watch $(DAYS)

mlflow: setup
	@$(BIN)/loan-assets mlflow

doctor: setup
	@$(BIN)/loan-assets doctor

# Both images; make images BASE=localhost/python-stand-in:3.11 after `make base-image` where no registry is reached.
images: setup
	@deploy/images/build.sh code && deploy/images/build.sh bento

base-image:
	@deploy/images/base.sh localhost/python-stand-in:3.11

# The whole stack on this machine, from what kustomize renders, by podman; `make images` comes first. The last line is a
# score; Dagster's pages are at http://127.0.0.1:3080, MLflow's at :5000, figures at :3100, the endpoint at :3000.
up-production: setup
	@deploy/images/up.sh $$(deploy/images/build.sh code) $$(deploy/images/build.sh bento) $$(deploy/images/build.sh stand-ins)

down-production:
	@deploy/images/down.sh

lint: setup
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format . && $(BIN)/lint-imports && $(BIN)/mypy

# Resolve again from setup.cfg; review the diff like code.
# What images are built from is the same, without the tools of development; the box's has what the box runs on.
BOX = 'from loan_assets.resources.bento_store import PACKAGES; print(*PACKAGES, sep="\n")'
LOCKED = $(BIN)/uv pip compile setup.cfg --python-version 3.11 --generate-hashes --no-strip-extras \
  --no-emit-index-url --no-header --no-annotate -q
lock: setup
	@$(LOCKED) --extra dev --extra production -o requirements.lock
	@$(LOCKED) --extra production -c requirements.lock -o deploy/requirements.lock
	@$(BIN)/python -c $(BOX) | $(subst setup.cfg,-,$(LOCKED)) -c requirements.lock -o bento/requirements.lock
	@echo 'moto[s3,server]' | $(subst setup.cfg,-,$(LOCKED)) -c requirements.lock -o deploy/images/stand-ins.lock
	@$(LOCKED) --extra spark -c requirements.lock \
	  $$(awk -F '[[= ]' '/^[a-z]/ {print "--no-emit-package", $$1}' requirements.lock) -o deploy/spark.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist *.egg-info
