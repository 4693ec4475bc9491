# Commands on a new clone: `make demo` and `make test`. Each installs what it needs; a second run starts at once.
# Requires only python3 (3.11 or newer, with venv) and make.

PYTHON ?= python3
# Use the machine's CA certificates: uv's own bundle fails behind a proxy that inspects TLS.
UV := UV_NATIVE_TLS=1 UV_LINK_MODE=copy .venv-uv/bin/uv --quiet
NEWEST := .venv
WITH_AIOBOTO3 := .venv-aioboto3
BENCH := .venv-bench
PYTEST_ARGS ?=
# Processes that run the tests, each file in one of them; 0: none but pytest's own, for a debugger. One more than two
# cores: a quarter of the time tests wait, for servers and programs.
PYTEST_WORKERS ?= 3
# In the order of the files: the longest have few tests, and would come last.
IN_PARALLEL = -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder
BENCH_ARGS ?=
SWEEP_ARGS ?=
SOAK_ARGS ?=
KILLS_ARGS ?=
ENGINE_ARGS ?=

.PHONY: demo test test-newest test-aioboto3 coverage check format bench sweep soak kills engine clean

demo: $(NEWEST)/.demo ## inventory, metrics and report of a simulated fleet, global and China; again: a later day
	$(NEWEST)/bin/python examples/demo.py

test: test-newest test-aioboto3 ## all tests on the newest aiobotocore, then what uses AWS on the one that aioboto3 requires

test-newest: $(NEWEST)/.test .venv-awscli/.ready
	$(NEWEST)/bin/python -m pytest $(IN_PARALLEL) $(PYTEST_ARGS)

test-aioboto3: $(WITH_AIOBOTO3)/.test .venv-awscli/.ready
	$(WITH_AIOBOTO3)/bin/python -m pytest $(IN_PARALLEL) -m botocore $(PYTEST_ARGS)

# Apart from `make test`: on Python 3.11 the tracer doubles the CPU time of the suite.
coverage: $(NEWEST)/.test .venv-awscli/.ready ## lines and branches that the tests reach, on the newest stack
	$(NEWEST)/bin/coverage erase
	$(NEWEST)/bin/python -m pytest $(IN_PARALLEL) --cov --cov-report= $(PYTEST_ARGS)
	$(NEWEST)/bin/coverage report

check: $(NEWEST)/.check ## lint, format, types, layers of imports
	$(NEWEST)/bin/ruff check .
	$(NEWEST)/bin/ruff format --check .
	$(NEWEST)/bin/mypy
	$(NEWEST)/bin/mypy --config-file= --strict --follow-imports=silent tests/typing_examples.py
	$(NEWEST)/bin/basedpyright
	$(NEWEST)/bin/lint-imports

bench: $(BENCH)/.ready $(BENCH)-aioboto3/.ready ## asyncauth compared with its peers; writes benchmarks/results/
	$(BENCH)/bin/python -m benchmarks $(BENCH_ARGS)

sweep: $(BENCH)/.ready ## accounts per second by max_at_once; SWEEP_ARGS="--endpoint-url ..." for your own endpoint
	$(BENCH)/bin/python -m benchmarks.sweep $(SWEEP_ARGS)

soak: $(NEWEST)/.test ## 20 minutes with every kind of fault, outside of the suite; SOAK_ARGS="--minutes 2 --minimum 0" for a trial
	$(NEWEST)/bin/python -W error -m tests.soak $(SOAK_ARGS)

kills: $(NEWEST)/.test ## 200 kills of a sync at random instants, outside of the suite; KILLS_ARGS="--kills 20" for a trial
	$(NEWEST)/bin/python -m tests.support.store_kills $(KILLS_ARGS)

engine: $(NEWEST)/.test ## 10 kills of a worker of a Dask cluster at random instants, outside of the suite; ENGINE_ARGS="--kills 2"
	$(NEWEST)/bin/python -m tests.support.engine_kills $(ENGINE_ARGS)

format: $(NEWEST)/.check
	$(NEWEST)/bin/ruff check --fix .
	$(NEWEST)/bin/ruff format .

clean:
	rm -rf .venv* .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* build dist asyncauth-demo.*

.venv-uv/.ready:
	$(PYTHON) -m venv .venv-uv
	.venv-uv/bin/pip --quiet --disable-pip-version-check install 'uv>=0.8'
	@touch $@

$(NEWEST)/.made $(WITH_AIOBOTO3)/.made $(BENCH)/.made $(BENCH)-aioboto3/.made: .venv-uv/.ready
	$(UV) venv --allow-existing --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(@D)
	@touch $@

$(NEWEST)/.demo: $(NEWEST)/.made pyproject.toml
	$(UV) pip install --python $(NEWEST)/bin/python --editable '.[cli,report,simulate]'
	@touch $@

# aioboto3 requires an older aiobotocore, but works on the newest as well; it is installed without its dependencies.
$(NEWEST)/.test: $(NEWEST)/.made pyproject.toml
	$(UV) pip install --python $(NEWEST)/bin/python --editable '.[cli,simulate]' --group test
	$(UV) pip install --python $(NEWEST)/bin/python --no-deps 'aioboto3>=15.5,<16' aiofiles
	@touch $@ $(NEWEST)/.demo

$(NEWEST)/.check: $(NEWEST)/.test
	$(UV) pip install --python $(NEWEST)/bin/python --editable '.[cli,simulate]' --group check
	@touch $@

$(WITH_AIOBOTO3)/.test: $(WITH_AIOBOTO3)/.made pyproject.toml
	$(UV) pip install --python $(WITH_AIOBOTO3)/bin/python --editable '.[aioboto3,cli,simulate]' --group test
	@touch $@

# The AWS CLI requires one version of botocore, so it has its own environment.
.venv-awscli/.ready: .venv-uv/.ready
	$(UV) venv --allow-existing --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(@D)
	$(UV) pip install --python $(@D)/bin/python awscli
	@touch $@

$(BENCH)/.ready: $(BENCH)/.made pyproject.toml
	$(UV) pip install --python $(BENCH)/bin/python --editable . --group bench
	@touch $@

# aioboto3 requires an older aiobotocore, so it has its own environment.
$(BENCH)-aioboto3/.ready: $(BENCH)-aioboto3/.made pyproject.toml
	$(UV) pip install --python $(BENCH)-aioboto3/bin/python --editable '.[aioboto3]'
	@touch $@
