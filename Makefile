# make run    the job on the bundled samples, rules and model
# make test   lint, types and all tests
# make bench, bench-stream, bench-backtest: measured speed and memory; of the stream on Flink; of an
#   archive that is judged again
# make flink-up, flink-args, flink-down: a Flink session cluster on this machine (docs/flink.md)
# Each makes .venv first where it is missing, from the pinned versions in constraints.txt.

PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.10; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' \
	2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=

.PHONY: run test lint bench bench-stream bench-backtest lock clean flink-up flink-args flink-down

run: $(READY)
	$(BIN)/python -m beam_pipeline --runner DirectRunner $(ARGS)

test: lint
	$(BIN)/python -m pytest $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m benchmarks $(ARGS)

bench-stream: $(READY)
	$(BIN)/python -m benchmarks.stream $(ARGS)

bench-backtest: $(READY)
	$(BIN)/python -m benchmarks.backtest $(ARGS)

flink-up flink-args flink-down: flink-%: $(READY)
	@$(BIN)/python deploy/flink/cluster.py $* $(ARGS)

lock: $(READY)
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.10 --extra dev setup.py \
		--no-header --no-annotate --upgrade --output-file constraints.txt

$(READY): setup.py constraints.txt
	@$(or $(PYTHON),python3) -c 'import sys; v = sys.version_info; (3, 10) <= v < (3, 13) or \
	sys.exit("Python %d.%d does not fit: TensorFlow 2.16 needs Python 3.10, 3.11 or 3.12; give one by make PYTHON=/path/to/python3.11" % v[:2])'
	@echo "installing what it needs into $(VENV): about 3 GB, some minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache
