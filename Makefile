# make run    run the job on the bundled samples, rules and model
# make test   run lint, type checks and all tests
# make search   run the tests that search for counterexamples, 100,000 examples each: EXAMPLES=20000,
#   ARGS="-k watching" for some of them (docs/testing.md)
# make bench, bench-stream, bench-scale, bench-backtest, bench-listing   measure speed and memory: of the batch
#   job, of the stream on Flink, of fleets of cameras on Flink, of a backtest, and of watching a large input
# make soak   feed and disturb a stream on Flink, then recount its output: ARGS="--minutes 60 --seed 1"
# make fuzz   check 100,000 mutated JPEGs against a slow reference decoder (docs/validation.md)
# make mutants   list small changes of the code that no test notices (docs/testing.md);
#   ARGS="--sample 200 --seed 1" for some of them
# make docs   write docs/options.md from the parsers of the command line
# make prism   build Prism, which runs a stream on one machine without Java; it needs Go
# make flink-up, flink-args, flink-down   a Flink session cluster on this machine (docs/flink.md)
# Each target first creates .venv, if it is missing, from the pinned versions in constraints.txt;
#   VENV=.venv-3.13 PYTHON=python3.13 for another one next to it.

FITS := import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	command -v $$p >/dev/null && $$p -c '$(FITS)' 2>/dev/null && { echo $$p; break; }; done)
NEEDED := install Python 3.10, 3.11, 3.12 or 3.13, or name one: make PYTHON=/path/to/python3.13
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# COMPILE= leaves it to Python to compile what it imports.
COMPILE := --compile-bytecode
ARGS ?=
PRISM_VERSION := 2.77.0
PRISM := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/beam_pipeline/prism-$(PRISM_VERSION)
# Tests run in three or four processes, even on two processors, because many of them wait for servers.
# Each process takes 2 GB, and the servers some: ARGS="-n 2" for less; "-n 0" runs them in one process.
PROCESSES := $(shell awk '$$1 == "MemTotal:" && $$2 > 14e6 {n = 1} END {print 3 + n}' /proc/meminfo 2>/dev/null || echo 3)
TOGETHER := -n $(PROCESSES) --dist loadscope
# A test that fails runs once more, and is listed with its traceback (docs/testing.md).
AGAIN := --reruns 1 --rerun-show-tracebacks

.PHONY: run test search fuzz lint docs mutants bench bench-stream bench-scale bench-backtest bench-listing soak prism lock clean flink-up flink-args flink-down

run: $(READY)
	$(BIN)/python -m beam_pipeline --runner DirectRunner $(ARGS)

test: lint
	$(BIN)/python -m pytest $(TOGETHER) $(AGAIN) $(ARGS)

search: $(READY)
	SEARCH_EXAMPLES=$(or $(EXAMPLES),100000) $(BIN)/python -m pytest -m search --timeout 0 $(ARGS)

fuzz: $(READY)
	$(BIN)/python -m tests.fuzz_jpeg $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python -m tests.options_page

mutants: $(READY)
	$(BIN)/python -m tests.mutants $(ARGS)

bench: $(READY)
	$(BIN)/python -m benchmarks $(ARGS)

bench-stream: $(READY)
	$(BIN)/python -m benchmarks.stream $(ARGS)

bench-scale: $(READY)
	$(BIN)/python -m benchmarks.scale $(ARGS)

bench-backtest: $(READY)
	$(BIN)/python -m benchmarks.backtest $(ARGS)

bench-listing: $(READY)
	$(BIN)/python -m benchmarks.listing $(ARGS)

soak: $(READY)
	$(BIN)/python -m soak $(ARGS)

# Without C, as Beam builds its boot program: the packages that both have are compiled once.
prism:
	@command -v go >/dev/null || { echo "install Go 1.26 or newer: https://go.dev/doc/install" >&2; exit 1; }
	CGO_ENABLED=0 GOBIN="$(PRISM)" go install github.com/apache/beam/sdks/v2/go/cmd/prism@v$(PRISM_VERSION)

flink-up flink-args flink-down: flink-%: $(READY)
	@$(BIN)/python deploy/flink/cluster.py $* $(ARGS)

lock: $(READY)
	$(BIN)/uv pip compile --universal --python-version 3.10 --extra dev pyproject.toml \
		--no-header --no-annotate --upgrade --output-file constraints.txt

$(READY): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing the dependencies into $(VENV): about 4 GB, a few minutes"
	$(PIP) uv
# uv takes a third of pip's time. If it fails, pip tries, because uv does not read a pip.conf.
	$(BIN)/uv pip install --quiet --python $(BIN)/python $(COMPILE) \
		--constraint constraints.txt --editable '.[dev]' || $(PIP) --editable '.[dev]'
	@touch $@

$(BIN)/python:
ifneq ($(PYTHON),)
	@$(PYTHON) -c '$(FITS)' || \
		{ echo "$(PYTHON) is $$($(PYTHON) --version 2>&1), which does not fit: $(NEEDED)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
else
	@echo "found no Python 3.10 to 3.13: fetching Python 3.13 with uv"
	@uv=uv; command -v uv >/dev/null || { uv=$(VENV)-uv/bin/uv; \
		python3 -m venv $(VENV)-uv && $(VENV)-uv/bin/python -m pip install --quiet uv; } >/dev/null 2>&1; \
	why=$$($$uv venv --seed --python 3.13 $(VENV) 2>&1) || { echo "uv could not fetch Python 3.13" \
		"($$(echo "$$why" | tail -n 1 | sed 's/^ *//')): $(NEEDED)" >&2; exit 1; }
endif

clean:
	rm -rf $(VENV) $(VENV)-uv build *.egg-info .mypy_cache .pytest_cache .ruff_cache
