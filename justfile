# `uv run just` needs nothing but uv, and a just of your own works as well: so the recipes call `uv run` themselves.
# `exec`, because a shell between just and uv would die of a SIGTERM without passing it on.

set positional-arguments

# `uv run --python 3.12 just demo` runs a just of that environment: the recipes keep its Python. Without this, their own
# `uv run` would go back to .python-version and rebuild the environment.
environment := env("VIRTUAL_ENV", justfile_directory() / ".venv")
export UV_PYTHON := env("UV_PYTHON", if parent_directory(just_executable()) == environment / "bin" { environment / "bin/python" } else { "" })

uv_run := "exec uv run --locked"
compose := "docker compose --file infra/compose.yaml"

# List the recipes
@_default:
    "{{ just_executable() }}" --list --unsorted

# Analyze a photo on a stack of its own, show the answer, stop
[group('try')]
[no-exit-message]
@demo:
    {{ uv_run }} python infra/local/demo.py

# Run Redis, worker, API, deliverer and dashboard until Ctrl-C
[group('run')]
[no-exit-message]
@dev:
    {{ uv_run }} python infra/local/dev.py

# Run the API alone, against the Redis of REDIS_URL
[group('run')]
[no-exit-message]
@api:
    {{ uv_run }} python -m image_analysis_api

# Run one worker alone, against the Redis of REDIS_URL
[group('run')]
[no-exit-message]
@worker:
    {{ uv_run }} python -m image_analysis_worker

# Run the webhook deliverer alone, against the Redis of REDIS_URL
[group('run')]
[no-exit-message]
@deliverer:
    {{ uv_run }} python -m image_analysis_api.deliverer

# Run the dashboard alone, against the Redis of REDIS_URL
[group('run')]
[no-exit-message]
@dashboard:
    export RQ_DASHBOARD_REDIS_URL="${REDIS_URL:-redis://${REDIS_HOST:-localhost}:${REDIS_PORT:-6379}/0}" && \
    {{ uv_run }} python infra/dashboard/serve.py --bind 127.0.0.1 --port "${DASHBOARD_PORT:-9181}" --json

# Make an API key: print it once, with its entry for API_KEYS
[group('run')]
@key name:
    {{ uv_run }} python -m image_analysis_api.api_keys "$1"

# Print the secret with which a client verifies webhooks; with --new, make one for WEBHOOK_SECRET
[group('run')]
@webhook-secret *owner:
    {{ uv_run }} python -m image_analysis_api.webhook_secrets "$@"

# Receive webhooks on loopback, verify them with a client's secret and print them
[group('run')]
@webhook-receiver secret port="9000":
    {{ uv_run }} python infra/local/receiver.py "$1" "$2"

# Build the images and run the service in containers; takes compose's options
[group('deploy')]
@up *options:
    exec {{ compose }} up --build --detach --wait "$@"

# Follow the containers' logs; takes compose's options
[group('deploy')]
@logs *options:
    exec {{ compose }} logs --follow "$@"

# Run this many workers
[group('deploy')]
@scale workers:
    exec {{ compose }} up --no-build --no-recreate --detach --wait --scale "worker=$1"

# Stop the containers once they have finished their work, and keep Redis's data; takes compose's options
[group('deploy')]
@down *options:
    exec {{ compose }} down "$@"

# Run the unit, integration and end-to-end tests
[group('test')]
test: unit integration e2e

# Test each service's code without a socket, in seconds; takes pytest's options
[group('test')]
unit *options:
    {{ uv_run }} pytest tests/unit "$@"

# Test against a real Redis and the bundled model; takes pytest's options
[group('test')]
integration *options:
    {{ uv_run }} pytest tests/integration "$@"

# Test all processes together, as a user sees them; takes pytest's options
[group('test')]
e2e *options:
    {{ uv_run }} pytest tests/e2e "$@"

# Kill, freeze and hang workers, cut Redis off; CHAOS_KILLS, CHAOS_JOBS and CHAOS_OUTAGE_SECONDS make it shorter
[group('test')]
chaos *options:
    {{ uv_run }} pytest tests/chaos "$@"

# Test metrics, alerts and pages with Prometheus and a browser; needs Debian's packages prometheus and chromium
[group('test')]
operators-test *options:
    {{ uv_run }} --group browser pytest tests/operators "$@"

# Build the images and test them together; needs a docker client and a container engine
[group('test')]
images-test *options:
    {{ uv_run }} pytest tests/images "$@"

# Run at twice the capacity for ten minutes and check that nothing grows; SOAK_SECONDS makes it shorter
[group('test')]
@soak:
    export PYTHONPATH=infra/local:tests && {{ uv_run }} python -m perf.soak

# Compare the speed with other ways to serve the same model; writes bench.json and bench.svg
[group('test')]
@bench *options:
    export PYTHONPATH=infra/local:tests && {{ uv_run }} python -m perf.bench "$@"

# Make the bundled model again: hours on two cores; goes on where it stopped. Needs npm
[group('model')]
@train-bundled *options:
    export PYTHONPATH=infra/training && {{ uv_run }} --group training python -m bundled_model.train "$@"

# Measure the bundled model through the worker, and hold it to what its card claims. Needs npm
[group('model')]
@evaluate-bundled *options:
    export PYTHONPATH=infra/training && {{ uv_run }} --group training python -m bundled_model.evaluate "$@"

# Check everything that is not a test: lint, formatting, types, import contracts
[group('check')]
check: lint types contracts

# Find lint errors and unformatted files
[group('check')]
lint:
    uv run --locked ruff check
    uv run --locked ruff format --check

# Check the types
[group('check')]
types:
    uv run --locked mypy packages/*/src infra/local infra/dashboard infra/training tests

# Check the import contracts: imports go down only
[group('check')]
contracts:
    {{ uv_run }} lint-imports

# Import each package in an environment that holds only what it declares
[group('check')]
isolated:
    uv run --locked --isolated --no-default-groups --package image-analysis-common python tests/isolation.py image_analysis_common redis rq fastapi PIL torch
    uv run --locked --isolated --no-default-groups --package image-analysis-api python tests/isolation.py image_analysis_api torch transformers image_analysis_worker
    uv run --locked --isolated --no-default-groups --package image-analysis-worker --extra torch python tests/isolation.py image_analysis_worker fastapi starlette uvicorn image_analysis_api
    uv run --locked --isolated --no-default-groups --package image-analysis-client python tests/isolation.py image_analysis_client image_analysis_api image_analysis_worker fastapi redis rq PIL torch

# Format the code and fix what ruff can fix
[group('check')]
fmt:
    uv run --locked ruff check --fix
    uv run --locked ruff format

# Build the wheels of every package into dist/
[group('release')]
build:
    uv build --all-packages --wheel
