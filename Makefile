# `make demo`, `make check` and `make test` need Python 3.11 or newer and make, nothing else: each
# makes its environment in .venv first.
PYTHON ?= python3
# Pinned, because torch is gigabytes where it comes with CUDA, and is best fetched once; `make test-torch TORCH=torch` takes the newest.
TORCH ?= torch==2.13.0
TENSORFLOW ?= tensorflow
KERAS ?= keras
VENV ?= .venv
BIN := $(VENV)/bin
# Processes that share the tests, file by file; each takes 1 to 2 GiB of memory.
JOBS ?= 2
PYTEST := $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile
COVERED := --cov keras_ic --cov-branch --cov-report=
# The layer, and some of what is pure Python.
QUICK := tests/layers tests/kernels tests/utils tests/test_cli.py tests/test_selection.py tests/distribution/test_cluster.py \
	tests/training/test_record.py tests/training/test_config.py tests/training/test_arguments.py tests/independence/test_estimators.py tests/tuning/test_space.py

export TF_CPP_MIN_LOG_LEVEL ?= 3
# Much of what JAX compiles is the same in many tests and from run to run.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0

.PHONY: demo check lint test test-jax test-torch test-all docs release-check conformance faults clean
.PHONY: test-oldest test-newest test-nightly suite

# One command, so that pip resolves all requirements at once, and a new pip, since that of an old Python may not find the solution.
$(VENV)/demo: EXTRAS := data,plot
$(VENV)/test: EXTRAS := jax,data,plot,tune,docs,test
$(VENV)/demo $(VENV)/test: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]' $(foreach each,$(TENSORFLOW) $(KERAS),'$(each)')
	touch $@

$(VENV)/torch: $(VENV)/test
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	touch $@

demo: $(VENV)/demo
	$(BIN)/python examples/quickstart.py

# While you work, in under two minutes.
check: lint
	KERAS_BACKEND=tensorflow $(PYTEST) $(QUICK)

lint: $(VENV)/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Before a change goes in: every module on TensorFlow, without the tests that are marked slow.
test: lint
	KERAS_BACKEND=tensorflow $(PYTEST)

# The backend-agnostic tests, and those about float64 on JAX once more with float64.
test-jax: $(VENV)/test
	KERAS_BACKEND=jax $(PYTEST)
	KERAS_BACKEND=jax JAX_ENABLE_X64=1 $(PYTEST) -k float64 tests/kernels tests/layers

test-torch: $(VENV)/torch
	KERAS_BACKEND=torch $(PYTEST)

# All there is, on every backend, with what is marked slow, and how much of the package it covers.
test-all: lint docs release-check $(VENV)/torch
	rm -f .coverage*
	COVERAGE_FILE=.coverage.tensorflow KERAS_BACKEND=tensorflow $(PYTEST) $(COVERED) --slow
	COVERAGE_FILE=.coverage.jax KERAS_BACKEND=jax $(PYTEST) $(COVERED) --slow
	COVERAGE_FILE=.coverage.jax64 KERAS_BACKEND=jax JAX_ENABLE_X64=1 $(PYTEST) $(COVERED) -k float64 tests/kernels tests/layers
	COVERAGE_FILE=.coverage.torch KERAS_BACKEND=torch $(PYTEST) $(COVERED) --slow
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --fail-under=95

# The site, into site/, where a broken link or a reference to nothing is an error; and every example in it and in the docstrings.
docs: $(VENV)/test
	PYTHONPATH=docs NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	KERAS_BACKEND=tensorflow $(BIN)/python -m pytest --numprocesses $(JOBS) --slow tests/test_documentation.py

# A wheel and an sdist, their metadata, the smoke test of each in an empty environment, and how long the import takes beside Keras's own.
release-check: $(VENV)/test
	$(BIN)/python tests/packaging/check.py

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
	KERAS_BACKEND=tensorflow $(PYTEST) --slow --outcome $(OUTCOME); status=$$?; $(BIN)/python -m tests.outcome; exit $$status

clean:
	rm -rf .venv* build dist site runs *.egg-info .coverage* .pytest_cache .mypy_cache .ruff_cache .cache
