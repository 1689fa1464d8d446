# Everything a newcomer needs. Needs Python 3.11+ and make, nothing else;
# `make test` also wants Java 17 and Maven for a real Kafka, Go for a real S3 server (it skips those tests without).

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready
RUNS   := $(VENV)/.runs

.PHONY: setup demo test test-long lint bench kafka s3 wheel mutants clean lock

# Make the virtual environment from the hash-locked requirements. The lock is the whole answer, so
# pip resolves nothing (asked for `coverage[toml]` it would take the newest, which has no hash here).
setup: $(STAMP)

$(STAMP): requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip check --disable-pip-version-check >/dev/null
	@touch $(STAMP) $(RUNS)

# Only what runs, which takes half the time; `setup` adds the rest.
$(RUNS): requirements-run.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-run.txt
	@touch $(RUNS)

# The whole thing, with nothing installed but the package: thirty seconds of seven towns.
demo: $(RUNS)
	$(BIN)/python -m streamproc demo

# A real S3 server on localhost:7070 until Ctrl-C.
s3: $(STAMP)
	$(BIN)/python -m streamproc.testing.s3_server --port 7070

# All tests but the long ones, in two processes: one computes while the other waits for brokers.
test: $(STAMP)
	$(BIN)/python .ci/run_tests.py build

# About two hours, in two processes: kill tests, big simulations, long fuzzing, kernels with their indices
# checked, real data through Kafka.
test-long: $(STAMP)
	$(BIN)/python .ci/run_tests.py build --long

# Style, types, architecture, security, containers, and that the wheel works.
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/lint-imports
	$(BIN)/bandit -q -c pyproject.toml -r streamproc
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/python .ci/check_tree.py
	$(MAKE) --no-print-directory wheel

# Build the wheel and run it from an environment that does not see this checkout.
wheel: $(STAMP)
	rm -rf build/wheel build/wheel-venv
	$(BIN)/python -m build --quiet --wheel --no-isolation --outdir build/wheel .
	$(BIN)/python .ci/smoke_wheel.py build/wheel build/wheel-venv

# Measure stages, windows, memory, the start, and the service against a real Kafka: tables, and JSON
# under .benchmarks/. `python -m bench.chart` draws some of it, `python -m bench.compare A.json B.json` tells noise from change.
bench: $(STAMP)
	@mkdir -p .benchmarks
	$(BIN)/python -m pytest bench --benchmark-only --benchmark-columns=min,median,iqr,rounds \
	  --benchmark-json=.benchmarks/stages.json
	$(BIN)/python -m bench.windows
	$(BIN)/python -m bench.memory --series 100000
	$(BIN)/python -m bench.startup
	$(BIN)/python -m bench.commit_cost
	$(BIN)/python -m bench.endtoend --profile core --rows 4000000
	$(BIN)/python -m bench.endtoend --profile full --rows 2000000

# A real Apache Kafka on localhost:9092 until Ctrl-C.
kafka: $(STAMP)
	$(BIN)/python -m streamproc.testing.kafka_broker --port 9092

# Break the protocol on purpose and see the simulation notice.
mutants: $(STAMP)
	$(BIN)/python -m pytest -s -m "long or not long" tests/simulation -k mutant

# Renew the hash-locked requirements from pyproject.toml: all, what runs, what builds.
# The latter two are held to the versions of the first.
LOCK = $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-header --quiet
lock: $(STAMP)
	$(LOCK) pyproject.toml --group dev -o requirements.txt
	$(LOCK) pyproject.toml -c requirements.txt -o requirements-run.txt
	$(LOCK) --group pyproject.toml:build -c requirements.txt -o requirements-build.txt

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks .cache demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
