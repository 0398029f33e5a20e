# Two commands do everything on a fresh machine with Python 3.11+ and make:
#   make demo    the main job          make test    format, types and tests, exactly as in CI
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow lint types setup lock clean
demo: setup
	$(BIN)/pbrl demo

# The wait policy: torch's threads spin for each other, which on a busy machine makes a run many times slower.
test: setup lint types
	OMP_WAIT_POLICY=passive $(BIN)/pytest

test-slow: setup
	$(BIN)/pytest -m slow

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

setup: .venv/complete

# The lock is used as constraints, so that on a machine with a GPU pip is free to add what its build of torch needs.
.venv/complete: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "pbrl needs Python 3.11 or newer, found %s; name another with: make PYTHON=python3.12 ..." % sys.version.split()[0])'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev]'
	@touch $@

# Makes the lock anew from the newest versions that pyproject.toml admits. Run the tests before committing it.
lock:
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]' 'torch==2.13.0'
	(echo '# The versions that the tests ran with (make lock). torch: any build of this version, with or without CUDA.'; \
	 $(BIN)/python -m pip freeze --exclude-editable --exclude pip --exclude setuptools | sed 's/+cpu$$//; s/^torch @.*/torch==2.13.0/' | grep -v '^nvidia\|^triton') > requirements.lock
	@touch .venv/complete

clean:
	rm -rf .venv runs build dist .mypy_cache .pytest_cache .ruff_cache
