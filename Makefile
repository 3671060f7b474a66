# make demo   the main job on this machine: train, convert, run, compare        make test   the tests
# make lint   ruff and mypy                                                      make wheel  build the package
# make soak   the long counts of docs/reliability.md, most of an hour
PYTHON ?= python3
TORCH ?= torch>=2.13,<2.14
DEMO ?= demo
JOBS ?= 2
BIN := .venv/bin

.PHONY: demo test lint soak wheel clean

demo: .venv/all
	$(BIN)/python examples/demo.py --output $(DEMO)

test: .venv/dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy tfpose_edge runtime training converters

soak: .venv/dev
	$(BIN)/python -m benchmarks.soak --output build/soak.log

wheel: .venv/dev
	$(BIN)/python -m build --wheel --outdir dist .

# torch first and by name: an open requirement would bring several GB of CUDA packages
.venv/all .venv/dev: .venv/%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	touch $@

clean:
	rm -rf .venv build dist *.egg-info $(DEMO)
