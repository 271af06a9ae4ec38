# Two commands are all that a newcomer needs: `make up` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
PY := .venv/bin/python
STAMP := .venv/.graftline-setup
export PYTHONUNBUFFERED := 1
# Without byte code vLLM's imports take twice their time, at every start.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup dev up test check fix engine-check latency kill restart swap thousand stall hostile experiment bench loop resume recipes trainspeed picture stats base reference clean

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: ## Install what `make up` needs into .venv; instant when nothing changed.
	@bash deploy/setup.sh

dev: ## Install what the tests need besides.
	@bash deploy/setup.sh --dev

up: setup ## Engine, worker and gateway on :8000 with the embedded base; Ctrl-C stops them.
	@.venv/bin/graftline up

SHARED := --dist loadgroup --no-loadscope-reorder

# First what needs no vLLM, in three processes, for they often wait. Then what does, by itself: an engine stands back for
# every other session, and starves beside a busy one. tests/sharing.py says which tests go together. Temporary files are in
# memory where there is room: tests write much, and wait for the disk.
test: dev ## Everything, real vLLM included; the long claims have targets of their own.
	@room=$$(df --output=avail -k /dev/shm 2>/dev/null | tail -n 1); \
	folder=$$(mktemp -d -p "$$([ "$${room:-0}" -gt 6000000 ] && echo /dev/shm || echo "$${TMPDIR:-/tmp}")" graftline.XXXXXX); \
	trap 'rm -rf "$$folder"' EXIT; export TMPDIR=$$folder; \
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -m "not claim and not vllm" -n 3 $(SHARED); first=$$?; \
	$(PY) -m pytest -q -m "vllm and not claim" -n 2 $(SHARED); exit $$((first | $$?))

check: dev ## Lint, types, import contracts and the fast tests.
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache
	$(PY) -m pytest -q -m "not slow and not vllm and not postgres and not claim and not gpu" tests

fix: dev ## Format, and mend what the linter can.
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

engine-check: dev ## Replay every engine behaviour that we rely on against the installed vLLM.
	$(PY) -m gateway.engines.conformance

latency: dev ## The gateway's added latency over a fast mock, sequential and streaming.
	$(PY) -m loadtests.latency

kill: dev ## Kill the engine and the gateway under load; nothing answered is lost.
	$(PY) -m loadtests.kill

restart: dev ## Kill an engine that holds 1 000 adapters; time until all are back.
	$(PY) -m loadtests.restart

swap: dev ## Move an alias 200 times under running streams; nobody notices but by the words.
	$(PY) -m loadtests.swap

thousand: dev ## 1 000 adapters on one engine, asked for as people do; about 20 minutes.
	$(PY) -m loadtests.thousand

stall: dev ## Adapters loaded from a slow disk, and two slots for ten adapters; what others feel of it.
	@$(PY) -m loadtests.stall; stall=$$?; $(PY) -m loadtests.starvation && exit $$stall

hostile: dev ## Send every broken adapter that we know of to a running installation; nobody else may feel it.
	$(PY) -m loadtests.hostile

experiment: dev ## A/B tests on real vLLM through a restart and a kill; every count held against the clients' ledger.
	$(PY) -m loadtests.experiment

bench: dev ## What experiments and their records cost, and how that grows; LARGE=1 adds ten million rows.
	@$(PY) -m adapters.experiments.bench; experiments=$$?; \
	$(PY) -m monitoring.records.bench --exposures 10000 --exposures 100000 --exposures 1000000 \
		$(if $(LARGE),--exposures 10000000) && exit $$experiments

loop: dev ## From a file or feedback to what is served, on real vLLM; the better part of an hour.
	$(PY) -m pytest -v -m claim tests/e2e/test_jobs.py tests/e2e/test_fine_tuning.py tests/e2e/test_algebra.py \
		tests/e2e/test_lm_eval.py tests/integration/test_gate_served.py tests/integration/training \
		tests/docs/test_readme.py

resume: dev ## Kill a job's worker and training at ten random points; its adapter is the undisturbed one, bit by bit.
	$(PY) -m loadtests.resume

recipes: dev ## Train each method on the embedded base, three seeds; what vLLM then answers, and what was forgotten.
	$(PY) -m training.recipes.bench

trainspeed: dev ## Our training against a plain TRL script, packing, the dataset compiler; LARGE=1 adds a million records.
	OMP_NUM_THREADS=1 $(PY) -m training.speed $(if $(LARGE),--large)

picture: dev ## Train two small runs, about a CPU-minute, and draw the README's picture of how they went.
	rm -rf .graftline/picture
	for run in sft grpo; do OMP_NUM_THREADS=1 .venv/bin/graftline train training/publishing/picture/$$run.yaml \
		--out .graftline/picture/$$run || exit; done
	$(PY) -m training.publishing.picture .graftline/picture/sft .graftline/picture/grpo

stats: dev ## The simulation study: do the statistics of experiments keep their promises?
	$(PY) -m monitoring.statistics.study

base: dev ## Train and quantize the embedded base again from its seed; prints the scores.
	$(PY) -m training.base.ship --out .graftline/tidewell

reference: dev ## Write deploy/REFERENCE.md from the code.
	.venv/bin/graftline reference > deploy/REFERENCE.md

clean: ## Remove local state (not the environment).
	rm -rf .graftline .pytest_cache .mypy_cache .ruff_cache
