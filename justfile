# The recipes call `uv run`, so they work with `uv run just`, which needs only uv, and with any other just.
# `exec`, because a shell between just and uv would end on a SIGTERM without passing it on.

set positional-arguments

# `uv run --python 3.12 just demo` runs the just of that environment, and the recipes keep its Python. Without this,
# their own `uv run` would use .python-version and rebuild the environment.
environment := env("VIRTUAL_ENV", justfile_directory() / ".venv")
export UV_PYTHON := env("UV_PYTHON", if parent_directory(just_executable()) == environment / "bin" { environment / "bin/python" } else { "" })

uv_run := "exec uv run --locked"
compose := "docker compose --file infra/compose.yaml"

# Two processes run the tests, each the tests of one file at a time, in order; `-n 0` runs all in one, as a debugger needs.
in_two := "--numprocesses 2 --dist loadfile --no-loadscope-reorder"

# While it trains, glibc keeps the memory of tensors for the next step, in huge pages: a step takes two thirds of the time.
malloc := "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=8000000000:glibc.malloc.trim_threshold=16000000000"

# List the recipes
@_default:
    "{{ just_executable() }}" --list --unsorted

# Start a separate stack, analyze a photo, show the answer, stop
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

# Run this many workers, now and after the next `just up`: sets WORKERS in infra/.env
[group('deploy')]
@scale workers:
    {{ compose }} up --no-build --no-recreate --detach --wait --scale "worker=$1"
    others="$(grep -v '^WORKERS=' infra/.env || true)" && printf '%s\n' "$others" "WORKERS=$1" >infra/.env

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
    {{ uv_run }} pytest {{ in_two }} tests/unit "$@"

# Test against a real Redis and the bundled model; takes pytest's options
[group('test')]
integration *options:
    {{ uv_run }} pytest {{ in_two }} tests/integration "$@"

# Test all processes together, as a user sees them; takes pytest's options
[group('test')]
e2e *options:
    {{ uv_run }} pytest {{ in_two }} tests/e2e --ignore=tests/e2e/javascript "$@"

# Run these three suites and print how much of the packages' code ran, in any process; half as slow again
[group('test')]
coverage:
    uv run --locked coverage erase
    uv run --locked coverage run -m pytest {{ in_two }} tests/unit
    uv run --locked coverage run -m pytest {{ in_two }} tests/integration
    uv run --locked coverage run -m pytest {{ in_two }} tests/e2e --ignore=tests/e2e/javascript
    uv run --locked coverage combine --quiet
    uv run --locked coverage report

# Run the tests of the Redis scripts, of RQ and of the main job on Redis 6.2; needs Linux x86-64 and Python 3.11 or 3.12
[group('test')]
oldest-redis:
    export PYTHONPATH=infra/local:tests && {{ uv_run }} --isolated --group oldest-redis pytest -p support.oldest_redis {{ in_two }} -k "not fake" \
        tests/e2e/test_main_job.py tests/integration/test_batches.py tests/integration/test_cancellation.py tests/integration/test_contracts.py \
        tests/integration/test_followers.py tests/integration/test_idempotency.py tests/integration/test_late_workers.py \
        tests/integration/test_positions.py tests/integration/test_previous_release.py tests/integration/test_shared_ends.py \
        tests/integration/test_sweep.py tests/integration/test_webhooks.py

# Test timm's checkpoints with timm, in an environment of their own
[group('test')]
timm-test *options:
    {{ uv_run }} --isolated --group timm pytest tests/timm_models "$@"

# Test clients in JavaScript; needs Debian's package npm
[group('test')]
javascript-test *options:
    {{ uv_run }} pytest tests/e2e/javascript "$@"

# Kill, freeze and hang workers, cut Redis off; CHAOS_KILLS, CHAOS_JOBS and CHAOS_OUTAGE_SECONDS make it shorter
[group('test')]
chaos *options:
    {{ uv_run }} pytest {{ in_two }} tests/chaos "$@"

# Test metrics, alerts and pages with Prometheus and a browser; needs Debian's packages: tests/README.md
[group('test')]
operators-test *options:
    {{ uv_run }} --group browser pytest {{ in_two }} tests/operators "$@"

# Build the images and test them together; needs a docker client and a container engine
[group('test')]
images-test *options:
    {{ uv_run }} pytest tests/images "$@"

# Fuzz what reads strangers' bytes, guided by coverage; FUZZ_SECONDS for each of the two. Needs Linux x86-64
[group('test')]
fuzz *options:
    export PYTHONPATH=infra/local:tests && {{ uv_run }} --group fuzz python -m fuzz.run submissions "$@"
    export PYTHONPATH=infra/local:tests && {{ uv_run }} --group fuzz python -m fuzz.run decode "$@"

# Run at twice the capacity for ten minutes and check that nothing grows; SOAK_SECONDS makes it shorter
[group('test')]
@soak:
    export PYTHONPATH=infra/local:tests && {{ uv_run }} python -m perf.soak

# Compare the speed with other ways to serve the same model; writes bench.json and bench.svg
[group('test')]
@bench *options:
    export PYTHONPATH=infra/local:tests && {{ uv_run }} python -m perf.bench "$@"

# Convert a model for OpenVINO, and compare the engines' answers and speeds: MODEL_ID [--images FOLDER] [--int8]
[group('model')]
[no-exit-message]
@optimize *options:
    {{ uv_run }} python -m image_analysis_worker.optimize "$@"

# Train a model to bundle, for almost two hours on two cores; continues where it stopped. Needs npm
[group('model')]
@train-bundled *options:
    export PYTHONPATH=infra/training GLIBC_TUNABLES={{ malloc }} && {{ uv_run }} --group training python -m bundled_model.train "$@"

# Measure the bundled model through the worker, and compare it with its card's claims. Needs npm
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

# Import each package in an environment with only the dependencies that it declares
[group('check')]
isolated:
    uv run --locked --isolated --no-default-groups --package image-analysis-common python tests/isolation.py image_analysis_common redis rq fastapi PIL torch
    uv run --locked --isolated --no-default-groups --package image-analysis-api python tests/isolation.py image_analysis_api torch transformers image_analysis_worker
    uv run --locked --isolated --no-default-groups --package image-analysis-worker --extra openvino --extra teach --extra torch python tests/isolation.py image_analysis_worker fastapi starlette uvicorn image_analysis_api
    uv run --locked --isolated --no-default-groups --package image-analysis-client python tests/isolation.py image_analysis_client image_analysis_api image_analysis_worker fastapi redis rq PIL torch

# Look up known vulnerabilities of the locked packages at osv.dev; ends with 2 if it cannot be reached
[group('check')]
@audit:
    exec uv audit --locked --preview-features audit-command

# Format the code and fix what ruff can fix
[group('check')]
fmt:
    uv run --locked ruff check --fix
    uv run --locked ruff format

# Build the wheels of every package into dist/
[group('release')]
build:
    uv build --all-packages --wheel

# Write the list of each image's Python packages and licenses (CycloneDX) to dist/; fails on a license that is not allowed
[group('release')]
@sbom:
    {{ uv_run }} python infra/local/sbom.py
