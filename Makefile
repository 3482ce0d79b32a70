# `make demo` and `make test` need Python 3.11+ and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PARTS := glyphs emoji beyond
# The metrics whose evaluated examples a snapshot keeps; all are too large for a repository.
ITEMS_glyphs := eval/zero_shot/test_font/top1
ITEMS_beyond := $(ITEMS_glyphs)
ITEMS_emoji := eval/zero_shot/test_artist/top1

.PHONY: demo study results test pytest lint gpu-check clean

# Train the demo study, draw its figures, judge the paper's claims in a report.
demo: $(READY)
	$(BIN)/study run demo
	$(BIN)/study report demo --figures figures

# Run our own study, all parts or one (make study-glyphs), keep its snapshots and make its pages. An
# interrupted run continues.
study: $(PARTS:%=study-%)
	$(MAKE) results

study-%: $(READY)
	$(BIN)/study run $*
	$(BIN)/study pull $* --out results/$*/snapshot $(addprefix --items ,$(ITEMS_$*))

# Make all of results/ that comes from snapshots, and the README's summary. The pages take numbers
# from figures and verdicts, and the report shows the finding: hence the order. A figure that the
# records no longer allow goes.
results: $(READY)
	@for part in $(PARTS); do \
	  if [ -e results/$$part/snapshot/manifest.json ]; \
	  then $(MAKE) --no-print-directory draw-$$part || exit; \
	  else echo "results/$$part: skipped, there is no snapshot (make study-$$part)"; fi; done
	$(BIN)/python -m analysis.publish results README.md
	@for part in $(PARTS); do \
	  if [ -e results/$$part/snapshot/manifest.json ]; \
	  then $(MAKE) --no-print-directory report-$$part || exit; fi; done

draw-%: $(READY)
	$(BIN)/study claims $* --root results/$*/snapshot --json > results/$*/claims.json.part
	mv results/$*/claims.json.part results/$*/claims.json
	rm -rf results/$*/figures.part
	$(BIN)/study figures $* --root results/$*/snapshot --out results/$*/figures.part
	rm -rf results/$*/figures
	mv results/$*/figures.part results/$*/figures

report-%: $(READY)
	$(BIN)/study report $* --root results/$*/snapshot --out results/$*/report.html \
	  $(addprefix --finding ,$(wildcard results/$*/finding.md))

# Run lint, types and every test, slow ones included. Types are checked beside the first tests.
test: $(READY)
	$(MAKE) --no-print-directory --jobs=2 lint pytest

pytest: $(READY)
	$(BIN)/python -m pytest -n 3 --dist worksteal --durations 20

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# Measure a GPU in under seven minutes: losses beside others, a SigLIP step, glyphs against the CPU.
# GPU_PYTHON has JAX for the card. WHEELS is a folder with what it lacks (siglip-kernel too): nothing
# else is installed, and nothing is fetched.
GPU_PYTHON ?= python3
gpu-check:
	$(GPU_PYTHON) -m study.bench.gpu $(if $(WHEELS),--wheels $(WHEELS))

# Install once, and again when a dependency changes.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "study: needs Python 3.11 or later, found $$($(PYTHON) --version); set PYTHON=..."; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo "study: $(PYTHON) has no ensurepip; install its venv package (python3-venv)"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "study: installing into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
