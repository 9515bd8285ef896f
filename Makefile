# Lethe. `make` alone lists the targets.
PYTHON ?= python3
BIN    := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)# dvc and mlflow start the first `python` on PATH
LOCK   := $(BIN)/uv pip compile -q --system-certs --universal --python-version 3.11 --generate-hashes \
          --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(UPGRADE)

.PHONY: help env fuzz audit ray postgres server database demo demo-full test test-slow test-all lint docs docs-site ui lock bench faults compare
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z -]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: .venv/.ready ## the environment, .venv (a minute, about 3 GB of downloads the first time)
.venv/.ready: requirements-uv.txt requirements.txt requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "Lethe needs Python 3.11 to 3.13, this is %d.%d: make PYTHON=python3.12" % v)'
	@test -e $@ || rm -rf .venv# .ready is written last: without it, from nothing
	@rm -f $@
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-uv.txt
	$(BIN)/uv pip sync -q --system-certs --python $(BIN)/python --require-hashes --compile-bytecode requirements.txt requirements-dev.txt requirements-uv.txt
	$(BIN)/uv pip install -q --system-certs --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

ray postgres server: env ## install what clusters, a search on PostgreSQL and an MLflow server need in addition
	$(BIN)/uv pip install -q --system-certs --python $(BIN)/python --require-hashes --compile-bytecode -r requirements-$@.txt

lock: env ## the hashed locks from pyproject.toml (UPGRADE=--upgrade for newer versions)
	$(LOCK) --group uv -o requirements-uv.txt
	$(LOCK) pyproject.toml -o requirements.txt
	for group in dev ray postgres server; do $(LOCK) --group $$group -c requirements.txt -o requirements-$$group.txt || exit 1; done

demo: env ## the main job on bundled digits: original, retrained model and four methods side by side, with verdicts (under 3 minutes)
	python src/demo.py

demo-full: env ## the demo with a reference bank of 64, ten methods with 8 or 64 seeds, every measure, the report (half an hour)
	python src/demo.py --full

test: env lint ## lint, types, and the tests that are not marked slow (what cannot run on this machine is skipped and listed)
	python -m pytest -n 2 -m "not slow"

test-slow: env ## the tests marked slow: whole pages typed, kills, clusters, servers, the wheel
	python -m pytest -n 2 -m slow

test-all: env lint ## lint, types, every test
	python -m pytest -n 2

fuzz: env ## 5,000 configurations that nobody means in process, and 200 command lines (a quarter of an hour)
	python -m pytest --hypothesis-profile fuzz -m "slow or not slow" tests/unit/config/test_absurd.py tests/integration/cli/test_absurd_commands.py

audit: env ## every locked dependency against the advisories of PyPI (needs a network, so CI does not run it)
	for file in requirements*.txt; do $(BIN)/uvx --system-certs --from pip-audit pip-audit --strict --disable-pip --require-hashes -r $$file || exit 1; done

lint: env ## ruff, mypy, and who may import whom
	ruff check .
	ruff format --check .
	mypy
	lint-imports --no-cache

docs: env ## generate docs/keys.md, docs/methods.md and docs/measures.md from the code
	python docs/generate.py

docs-site: env ## build the documentation with the API reference as a site, site/ (offline)
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

bench: env ## speed compared with common ways to do it: a table, and every run in results/speed_cpu.json (minutes)
	python bench/speed.py --growth --write results/speed_cpu.json

faults: env ## kill, stop and starve commands in every way, and count how often all was right afterwards (an hour; as root: disks and users too)
	python bench/faults.py --write results/faults/faults.json

compare: env ## check that commit A and the working tree (or B) compute the same, to the last digit: make compare A=<commit>
	python bench/compare.py $(A) $(B)

PORT ?= 5000
ui: env ## MLflow's UI on this project's runs, at http://127.0.0.1:5000 (PORT=5001 for another port)
	@python -c 'import socket; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("127.0.0.1", $(PORT)))' \
	    2>/dev/null || { echo "port $(PORT) is not available: make ui PORT=<another>"; exit 2; }
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true mlflow ui --backend-store-uri sqlite:///$(CURDIR)/mlflow.db --workers 1 --port $(PORT)

database: postgres ## run a temporary PostgreSQL for a search's trials, until Ctrl-C (Debian: apt-get install postgresql)
	python tools/postgres.py
