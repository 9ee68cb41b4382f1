# make demo | make test | make check | make bench. Everything is installed into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The tests run in two processes, each file in one of them and all that needs the engine in one: PROCESSES= is one.
PROCESSES ?= -n 2 --dist loadgroup --no-loadscope-reorder

.PHONY: install demo test check bench docs clean

install: $(STAMP)

# torch comes first and as a CPU build: the engine's CPU build pins it, and pip would otherwise take the
# CUDA build with several GB of libraries. torchvision, torchaudio and torchcodec come along as CUDA builds,
# break transformers beside a CPU torch, and serve no text model: they go again.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet "torch==2.13.0+cpu" || { \
	  echo "pip found no CPU wheel of torch: point PIP_EXTRA_INDEX_URL at PyTorch's CPU wheel index (the address is on PyTorch's install page) and run make again." >&2; exit 1; }
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[cpu,tune,documents,semantic,calibrate,pii,dev]"
	$(BIN)/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

demo: install
	$(BIN)/synth demo

test: install
	$(BIN)/python -m pytest --cov $(PROCESSES)

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --cov $(PROCESSES)

bench: install
	$(BIN)/python bench/filter.py
	$(BIN)/python bench/client.py

docs: install
	$(BIN)/python docs/make_cli.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .coverage
