# Two commands matter: `make demo` does the main job on real data, `make test` passes the tests.
# Both make their own environment first, in .venv, from nothing but Python 3.11+.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/installed-to-run
STAMP := $(VENV)/installed-to-test
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test check bench docs sanitize clean

demo: $(RUN)
	$(BIN)/python examples/survey_data.py demo/randhie.parquet
	$(BIN)/steelyard compare demo/randhie.parquet --target health --varies doctor_visits --output demo

test: check
	$(BIN)/python -m pytest -n 2

check: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

$(RUN): pyproject.toml constraints.txt CMakeLists.txt $(wildcard src/steelyard/csrc/*)
	$(PYTHON) -c 'import sys; sys.exit("Steelyard needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[all]'
	touch $@

$(STAMP): $(RUN)
	$(INSTALL) -e '.[test]'
	touch $@

# An hour or less of a quiet machine: every loss beside PyTorch's, into benchmarks/results and docs/benchmarks.md.
bench: $(RUN)
	$(BIN)/python -m benchmarks.run
	$(BIN)/python -m benchmarks.table
	$(BIN)/python -m benchmarks.sampling
	$(BIN)/python -m benchmarks.linear
	$(BIN)/python -m benchmarks.counting

# Sanitizers watch the kernels at work, in every shape and any memory. Minutes to build; what is installed stays as it is.
sanitize:
	test -e $(STAMP) || $(MAKE) $(STAMP)
	$(INSTALL) cmake ninja nanobind
	$(BIN)/cmake -S . -B build/sanitize -G Ninja -DCMAKE_BUILD_TYPE=Debug -DSANITIZE=address,undefined \
	  -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python
	$(BIN)/cmake --build build/sanitize
	$(BIN)/python tests/sanitize/run.py build/sanitize

docs: $(STAMP)
	$(INSTALL) -e '.[docs]'
	$(BIN)/python docs/generate.py
	$(BIN)/sphinx-build -q -W docs site

clean:
	rm -rf $(VENV) site build dist demo .pytest_cache .hypothesis .mypy_cache .ruff_cache
