# `make demo` and `make test` need Python 3.11+ and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
GLYPHS := results/glyphs

.PHONY: demo study glyphs test pytest lint gpu-check clean

# Train the demo study, draw its figures, judge the paper's claims in a report.
demo: $(READY)
	$(BIN)/study run demo
	$(BIN)/study report demo --figures figures

# Run our own study (three to four hours on two cores) and keep its snapshot in results/glyphs.
study: $(READY)
	$(BIN)/study run glyphs
	$(BIN)/study pull glyphs --out $(GLYPHS)/snapshot --items eval/zero_shot/test_font/top1
	$(MAKE) glyphs

# Redraw results/glyphs from its snapshot.
glyphs: $(READY)
	$(BIN)/study claims glyphs --root $(GLYPHS)/snapshot --json > $(GLYPHS)/claims.json
	$(BIN)/study report glyphs --root $(GLYPHS)/snapshot --finding $(GLYPHS)/finding.md \
	  --figures $(GLYPHS)/figures --out $(GLYPHS)/report.html

# Run lint, types and every test, slow ones included. Types are checked beside the first tests.
test: $(READY)
	$(MAKE) --no-print-directory --jobs=2 lint pytest

pytest: $(READY)
	$(BIN)/python -m pytest -n 3 --dist worksteal

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
