# `make demo` and `make test` need Python 3.10 or newer and make, nothing else: each makes its environment in .venv first.
PYTHON ?= python3
# Pinned, because torch is gigabytes where it comes with CUDA, and is best fetched once; `make test-torch TORCH=torch` takes the newest.
TORCH ?= torch==2.13.0
TENSORFLOW ?= tensorflow
KERAS ?= keras
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --cov keras_ic --cov-branch --cov-report=

export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test test-torch lint test-oldest test-newest test-nightly suite docs release-check conformance faults clean

$(VENV)/demo: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(foreach each,$(TENSORFLOW) $(KERAS),'$(each)')
	$(BIN)/python -m pip install --quiet --editable '.[data,plot]'
	touch $@

$(VENV)/test: $(VENV)/demo
	$(BIN)/python -m pip install --quiet --editable '.[jax,data,plot,tune,docs,test]'
	touch $@

$(VENV)/torch: $(VENV)/test
	$(BIN)/python -m pip install --quiet $(TORCH)
	touch $@

demo: $(VENV)/demo
	$(BIN)/python examples/quickstart.py

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, into site/; a broken link or a reference to nothing is an error.
docs: $(VENV)/test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# All of the tests on TensorFlow, then the backend-agnostic part on JAX, and what is about float64 on JAX once more with float64.
test: lint docs release-check
	rm -f .coverage .coverage.*
	KERAS_BACKEND=tensorflow COVERAGE_FILE=.coverage.tensorflow $(PYTEST)
	KERAS_BACKEND=jax COVERAGE_FILE=.coverage.jax $(PYTEST)
	KERAS_BACKEND=jax COVERAGE_FILE=.coverage.jax64 JAX_ENABLE_X64=1 $(PYTEST) -k float64 tests/kernels tests/layers
	$(BIN)/python -m coverage combine --quiet --keep
	$(BIN)/python -m coverage report --fail-under=95 --omit='*/kernels/torch.py'

test-torch: $(VENV)/torch
	KERAS_BACKEND=torch COVERAGE_FILE=.coverage.torch $(PYTEST)
	$(BIN)/python -m coverage combine --quiet --keep
	$(BIN)/python -m coverage report --include='*/kernels/torch.py' --fail-under=95

# Every property on every model of the registry, on each backend, and the page that shows it: hours on two cores. ENTRIES='^layer' takes a part.
ENTRIES ?=
conformance: $(VENV)/torch
	for backend in tensorflow jax torch; do \
		KERAS_BACKEND=$$backend $(BIN)/python -m pytest tests/conformance --registry complete --entries '$(ENTRIES)' \
			--matrix docs/results/conformance/$$backend.json || exit; \
	done
	$(BIN)/python -m tests.conformance.matrix

# SIGKILL at 200 random moments of training, tuning, recalibrating and saving, and what else may go wrong with files and arguments.
faults: $(VENV)/test
	IC_KILLS=200 KERAS_BACKEND=tensorflow $(BIN)/python -m pytest tests/faults --outcome docs/results/runs/faults.json; status=$$?; \
		$(BIN)/python -m tests.outcome; exit $$status

# The tests on TensorFlow with the oldest Keras and TensorFlow that are supported, the newest, and the nightly Keras, each in an environment of
# its own, and the table of what they came to.
test-oldest test-newest test-nightly:
	$(MAKE) VENV=.venv-$@ $(VERSIONS_$@) OUTCOME=docs/results/runs/$@.json suite
# This TensorFlow's protobuf is too old for newer tensorflow-metadata, which tensorflow-datasets needs.
VERSIONS_test-oldest := TENSORFLOW='$(TENSORFLOW)==2.18.* tensorflow-metadata<1.18' KERAS='keras==3.12.*'
VERSIONS_test-newest :=
VERSIONS_test-nightly := NIGHTLY=1

suite: $(VENV)/test
	$(if $(NIGHTLY),$(BIN)/python -m pip uninstall --quiet --yes keras && $(BIN)/python -m pip install --quiet --force-reinstall --no-deps keras-nightly)
	KERAS_BACKEND=tensorflow $(PYTEST) --no-cov --outcome $(OUTCOME); status=$$?; $(BIN)/python -m tests.outcome; exit $$status

# A wheel and an sdist, their metadata, the smoke test of each in an empty environment, and how long the import takes beside Keras's own.
release-check: $(VENV)/test
	$(BIN)/python tests/packaging/check.py

clean:
	rm -rf .venv* build dist site runs *.egg-info .coverage* .pytest_cache .mypy_cache .ruff_cache
