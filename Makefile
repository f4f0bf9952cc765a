# One line a task. `make demo` and `make test` set everything up themselves, given Python and pip.

# The first Python that is new enough and can make an environment; `make PYTHON=... demo` overrides.
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(shell \
	$(p) -c 'import sys, pip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(p))))
WORKERS ?= 2
ENV := .venv
BIN := $(ENV)/bin
PEERS := var/peers-env

.PHONY: install demo demo-fleet test test-attacks test-conformance test-faults test-postgres lint check fmt test-aarch64 bench-ablation bench-auto bench-coders bench-edge bench-live bench-layers bench-lift bench-paper bench-load bench-peers bench-refine bench-wire soak-edge clean

install: $(ENV)/installed

$(ENV)/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later with pip is needed: make PYTHON=/path/to/python"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv --without-pip $(ENV)
	@echo "installing into $(ENV)"
	@$(PYTHON) -m pip --python $(BIN)/python install -q -c constraints.txt pip -e '.[dev]'
	@touch $@

demo: install
	@$(BIN)/python -m demo

demo-fleet: install
	@$(BIN)/python -m demo.fleet

test: install
	$(BIN)/pytest -q -n $(WORKERS) --dist worksteal

# The table of attacks (docs/security.md), each with its defence and without; part of `make test`.
test-attacks: install
	$(BIN)/pytest -q -n $(WORKERS) --dist worksteal tests/attacks

# Each point at which an agent can be killed, the power fail or its disk go wrong; `make test` tries
# a sample. It says how many points were tried. About 6 minutes.
test-faults: install
	WEFT_FAULTS=full $(BIN)/pytest -q -n $(WORKERS) --dist worksteal tests/faults

# The agent's trust code by the conformance suite of the TUF project: `make test-conformance
# SUITE=FOLDER`, with a copy of theupdateframework/tuf-conformance in the folder. About 15 minutes.
test-conformance: install
	$(BIN)/python tests/conformance/run.py $(SUITE)

# Those tests that use a database, on a private PostgreSQL: it is started for them, and ended.
# `make test-postgres TESTS=tests/rollouts` runs those of a room.
test-postgres: install
	WEFT_TEST_DATABASE=postgres $(BIN)/pytest -q -n $(WORKERS) --dist worksteal $(TESTS)

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(BIN)/python .ci/audit.py

# What a change to code or words breaks first: seconds, where `make test` takes minutes.
check: lint
	$(BIN)/pytest -q tests/docs tests/migrations

fmt: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-aarch64: install
	tests/aarch64/run

# `auto` against a grid, on a small task: under an hour on one core; it goes on after an interruption.
bench-auto: install
	$(BIN)/python -m benchmarks.auto $(ARGS)

# Our coders, DeepCABAC (of the peers' environment) and zstd on the same integers; about 5 minutes.
bench-coders: $(PEERS)/installed
	$(BIN)/python -m benchmarks.coders

bench-edge: install
	$(BIN)/python -m benchmarks.edge

bench-live: install
	$(BIN)/python -m benchmarks.live

# Tuned on held-out rows, paired seeds; it goes on after an interruption. Hours: see the page.
# ARGS="--settings vgg_small --families control ka-3 sparse-1200 --models 1 --seeds 1" for a look.
bench-lift: install
	$(BIN)/python -m benchmarks.lift $(ARGS)

# What pays in `sparse`: each part left out or done otherwise; a training takes seconds.
# ARGS="--models 0 --only refit" for one.
bench-ablation: install
	$(BIN)/python -m benchmarks.ablation $(ARGS)

# The paper's Table 1 and figures. ARGS=--plan says what is left and its hours; on a GPU the same
# command in pieces: ARGS="--only table1 --settings resnet18 --models 1 --minutes 8".
bench-paper: install
	$(BIN)/python -m benchmarks.paper $(ARGS)

# An LSTM and a transformer, with LoRA as the peer; ARGS="--models 3 --seeds 2" for more runs.
bench-layers: install
	$(BIN)/python -m benchmarks.layers $(ARGS)

# About 7 minutes; on a machine that does nothing else. ARGS=--resume goes on after an interruption.
bench-load: install
	$(BIN)/python -m benchmarks.load $(ARGS)

# NNCodec, PEFT, zstd and bsdiff4 on the models and data of bench-lift, in an environment of their
# own; needs a compiler and the zstd command. It goes on after an interruption. Hours: see the page.
bench-peers: $(PEERS)/installed
	$(BIN)/python -m benchmarks.peers $(ARGS)

# It stands on the main environment, by a path file: the same numpy and torch for all.
$(PEERS)/installed: benchmarks/peers/requirements.txt | install
	@test -x $(PEERS)/bin/python || $(BIN)/python -m venv --without-pip $(PEERS)
	@cd $(PEERS)/lib/python*/site-packages && echo $(CURDIR)/$(ENV)/lib/$$(basename $$(dirname $$PWD))/site-packages > main.pth
	@$(PYTHON) -m pip --python $(PEERS)/bin/python install -q --no-deps -r $<
	@touch $@

# A step of each method against a dense one; it goes on after an interruption. Half an hour.
# ARGS="--models vgg_medium --methods ka" for a look.
bench-refine: install
	$(BIN)/python -m benchmarks.refine $(ARGS)

# Bytes of polls, enrolment and updates; half a minute, and the same on any machine.
bench-wire: install
	$(BIN)/python -m benchmarks.wire

# About 9 minutes; ARGS="--updates 2 --kills 20" for a sample, which is only printed.
soak-edge: install
	$(BIN)/python -m benchmarks.soak $(ARGS)

clean:
	rm -rf $(ENV) build dist var
