"""The header of each script lists what its typed function passes, and the state-machine page names all scripts."""

import re
from importlib.resources import files

import pytest

from image_analysis_common import scripts
from image_analysis_common.models import JobFailure, JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_common.scripts import deliveries, jobs, limits, queues, runs
from image_analysis_common.scripts.source import ScriptCall, header, load

RECORD = JobRecord(status=JobStatus.PENDING, image_hash="0" * 64, owner="ann", webhook_url="https://hook.test/")
ERROR = JobFailure(code="queue_full", detail="")
COMMANDS = [("SADD", "rq:queues", "rq:queue:pets"), ("LPUSH", "rq:queue:pets", "1")]
RQ_WORDS = (3, "SADD", "rq:queues", "rq:queue:pets")
NEW_RUN = runs.NewRun(job_id="1", model="pets", record=RECORD, image_bytes=100, rq_words=RQ_WORDS)
QUEUE_LIMITS = runs.QueueLimits(depth=1000, image_bytes=1_000_000, followers=1000, deliveries=1000, waiting_s=60)
RQ_WORKER = runs.RqWorker(key="rq:worker:1", name="1", queue="analysis-pets", now="", now_s=0)
STEP = runs.Step("1", RECORD, {"status": "PROCESSING"}, rq=runs.RqStep("start", "2", 0))

CALLS = {
    "enqueue": runs.enqueue(NEW_RUN, QUEUE_LIMITS),
    "step": runs.step("pets", [STEP], cache_ttl_s=60, worker=RQ_WORKER),
    "sweep": runs.sweep(check_s=10, confirm_s=5, pause_ms=15, expired="{}", lost="{}"),
    "cancel": runs.cancel("1", "ann"),
    "find_result": jobs.find_result("pets", "0" * 64),
    "add_ended": jobs.add_ended("1", RECORD),
    "settle_batch": jobs.settle_batch("1", {"1": RECORD}, jobs.BatchErrors(ERROR, ERROR, max_deliveries=1000)),
    "find_position": jobs.find_position("1"),
    "list_jobs": jobs.list_jobs("ann", limit=20),
    "read_queues": queues.read_queues(["pets", "birds"]),
    "pop": queues.pop("analysis-pets", 8, ["1", "2"]),
    "requeue_popped": queues.requeue_popped("analysis-pets", after_s=2),
    "join": queues.join("pets", known=b"", live=0, commands=COMMANDS),
    "run_commands": queues.run_commands(COMMANDS),
    "rate_limit": limits.rate_limit("rate_limit:::1", limit=5, window_s=60, cost=1, instead_us=0),
    "claim_key": limits.claim_key("key", fingerprint="0", work_id="1", work="analysis_job:", busy_s=60),
    "release_key": limits.release_key("key", work_id="1", work="analysis_job:"),
    "claim_deliveries": deliveries.claim_deliveries(10, {"hook.test:443": 2}, retries=5, lease_s=30, aside_s=2),
    "retry_delivery": deliveries.retry_delivery("1", 2, delay_s=1),
}

LIBRARIES = sorted(path.name.removesuffix(".lua") for path in (files(scripts) / "lib").iterdir())


def code(name: str) -> str:
    """Return the code after a file's header."""
    return (files(scripts) / f"{name}.lua").read_text().partition("\n\n")[2]


def entries(name: str, part: str) -> tuple[list[int], bool]:
    """Return the numbers of a header's KEYS or ARGV, and whether the last entry stands for any number of them."""
    section = re.search(rf"^-- {part}(?:: none.*)?\n((?:--   .*\n)*)", header(name) + "\n", re.MULTILINE)
    assert section, f"{name}.lua names no {part}"
    found = re.findall(r"^--   (\d+)(\.\.\.)?(?= |$)", section[1], re.MULTILINE)
    return [int(number) for number, _ in found], any(dots for _, dots in found)


def test_every_script_has_a_typed_function() -> None:
    names = {path.name.removesuffix(".lua") for path in files(scripts).iterdir() if path.name.endswith(".lua")}

    assert CALLS.keys() == names
    assert [name for name in names if CALLS[name].script != load(name)] == []


@pytest.mark.parametrize(("name", "call"), CALLS.items(), ids=CALLS)
def test_header_names_as_many_keys_and_arguments_as_are_passed(name: str, call: ScriptCall) -> None:
    key_numbers, _ = entries(name, "KEYS")
    argument_numbers, is_open = entries(name, "ARGV")

    assert key_numbers == list(range(1, len(call.keys) + 1))
    assert argument_numbers == list(range(1, len(argument_numbers) + 1))
    assert len(call.args) > len(argument_numbers) if is_open else len(call.args) == len(argument_numbers)


@pytest.mark.parametrize("name", CALLS)
def test_header_says_what_is_written_and_answered(name: str) -> None:
    assert re.search(r"^-- Writes: ", header(name), re.MULTILINE)
    assert re.search(r"^-- Answers: ", header(name), re.MULTILINE)


@pytest.mark.parametrize("name", [*CALLS, *(f"lib/{library}" for library in LIBRARIES)])
def test_no_line_is_longer_than_in_python(name: str) -> None:
    lines = (files(scripts) / f"{name}.lua").read_text().splitlines()

    assert [line for line in lines if len(line) > 120] == []


@pytest.mark.parametrize("name", LIBRARIES)
def test_library_is_headed_by_the_functions_that_it_offers(name: str) -> None:
    offered = re.findall(r"^-- (\w+\([\w, ]*\)): ", header(f"lib/{name}"), re.MULTILINE)

    assert offered
    assert offered == re.findall(r"^local function (\w+\(.*?\))$", code(f"lib/{name}"), re.MULTILINE)


@pytest.mark.parametrize("name", [*CALLS, *(f"lib/{library}" for library in LIBRARIES)])
def test_file_names_exactly_the_libraries_that_it_calls(name: str) -> None:
    functions = {library: re.findall(r"^-- (\w+)\(", header(f"lib/{library}"), re.MULTILINE) for library in LIBRARIES}
    called = {
        library
        for library in LIBRARIES
        if f"lib/{library}" != name and re.search(rf"(?<![\w.])({'|'.join(functions[library])})\(", code(name))
    }
    uses = re.findall(r"^-- Uses: (.+)\.$", header(name), re.MULTILINE)

    assert set(", ".join(uses).split(", ")) - {""} == called


@pytest.mark.parametrize("name", CALLS)
def test_function_is_defined_once_and_before_its_first_call(name: str) -> None:
    text = load(name).text

    for function in re.findall(r"^local function (\w+)\(", text, re.MULTILINE):
        first, *others = re.finditer(rf"(?<![\w.])(local function )?{function}\(", text)
        assert first[1]
        assert not any(other[1] for other in others)


@pytest.mark.parametrize("name", CALLS)
def test_constants_and_comments_do_not_reach_redis(name: str) -> None:
    assert not re.search(r"\b(KEY|TTL|RQ)\.\w|--", load(name).text)


def test_page_names_every_state_field_and_script() -> None:
    words = set(re.findall(r"\w+", scripts.__doc__ or ""))

    assert {*JobStatus, *JobRecord.model_fields, *CALLS} - words == set()
