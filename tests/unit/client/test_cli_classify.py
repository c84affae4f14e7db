"""The command line against a service that answers as each test says."""

import csv
import os
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from image_analysis_client import submissions
from support.fake_service import URL, FakeService, Run, problem

KEY = "not-printed-anywhere"
CLASSIFY = ("POST", "analyze-images")
ASK = ("GET", "analysis-batches")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(b"image %d" % number)
    return folder


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (httpx.ConnectError("[Errno 111] Connection refused"), "Connection refused"),
        (httpx.RemoteProtocolError("Server disconnected."), "Server disconnected"),
        (httpx.ReadTimeout(""), "ReadTimeout"),
    ],
)
def test_service_that_does_not_answer_is_named_with_what_to_do(
    service: FakeService, run: Run, fault: httpx.TransportError, reason: str
) -> None:
    service.fail("GET", "models", fault)

    code, out, said = run("models")

    assert (code, out) == (3, "")
    what_to_do = "Is the service running? --url or IMAGE_ANALYSIS_URL sets its address."
    assert said == f"image-analysis: No answer from {URL}: {reason}. {what_to_do}\n"


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ((*ASK, problem(500, "internal_error")), 3),
        ((*ASK, problem(503, "store_unavailable", Retry_After="3600")), 3),
        ((*CLASSIFY, problem(503, "store_unavailable", Retry_After="3600")), 3),
        ((*ASK, problem(401, "invalid_api_key")), 2),
    ],
)
def test_error_of_the_service_stops_the_run_and_the_images_stay_for_the_next_one(
    service: FakeService,
    run: Run,
    photos: Path,
    tmp_path: Path,
    fault: tuple[str, str, httpx.Response],
    code: int,
) -> None:
    out = tmp_path / "out.csv"
    service.fail(*fault)

    first, _, said = run("classify", photos, "--csv", out)
    early = read_rows(out)
    second, _, _ = run("classify", "--resume", out, photos)

    assert (first, early, second) == (code, [], 0)
    assert f"To go on: image-analysis classify --resume {out} {photos}\n" in said
    assert said.splitlines()[-1].startswith("image-analysis: The detail of")
    assert [row["status"] for row in read_rows(out)] == ["COMPLETED"] * 3


def test_job_that_the_service_has_no_room_for_is_no_failure_of_its_image(
    service: FakeService, run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submissions, "RESUBMIT_PAUSE_S", 0.1)
    out = tmp_path / "out.csv"
    service.refused_images.append("queue_full")

    assert run("classify", photos, "--csv", out)[0] == 0
    assert (len(read_rows(out)), service.batches) == (3, [3, 1])


def test_image_that_takes_too_long_to_send_fails_alone(
    service: FakeService, run: Run, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    service.fail(*CLASSIFY, *[problem(408, "request_timeout")] * 2)

    assert run("classify", photos, "--csv", out)[0] == 1
    assert sorted((row["status"], row["error_code"]) for row in read_rows(out)) == [
        ("COMPLETED", ""),
        ("COMPLETED", ""),
        ("FAILED", "request_timeout"),
    ]


def test_quiet_run_still_shows_failures_and_how_to_go_on(
    service: FakeService, run: Run, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    service.refused_images.append("corrupt_image")

    code, _, failures = run("classify", photos, "--csv", out, "--quiet")
    service.fail(*CLASSIFY, problem(500, "internal_error"))
    _, _, stop = run("classify", photos, "--resume", out, "--quiet")

    assert (code, failures) == (1, f" failed  {photos}/0.png: It failed.\n")
    assert f"To go on: image-analysis classify --resume {out} {photos}\n" in stop


@pytest.mark.parametrize(
    ("key", "how"),
    [
        ("", "Only with an API key could they be listed and cancelled."),
        (KEY, "GET /analyses?status=PENDING lists them, and image-analysis cancel ID cancels one."),
    ],
)
def test_interrupted_run_says_what_may_still_wait(
    service: FakeService, run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch, key: str, how: str
) -> None:
    def accept(request: httpx.Request) -> httpx.Response:
        service._take(request)
        raise KeyboardInterrupt

    monkeypatch.setenv("IMAGE_ANALYSIS_API_KEY", key)
    service.is_working = False
    service.fail(*CLASSIFY, accept, problem(500, "internal_error"), accept)

    first, _, lost = run("classify", photos)
    second, _, cancelled = run("classify", photos)

    assert (first, second) == (130, 130)
    assert "Up to 3 may still wait in the service, which did not answer in time to cancel them." in lost
    assert how in lost
    assert "Stopped: 0 of 3 images are done. What still waited is cancelled.\n" in cancelled
    assert list(service.statuses.values()) == ["PENDING"] * 3 + ["CANCELLED"] * 3


def test_command_to_go_on_keeps_the_options_and_never_the_key(
    service: FakeService, run: Run, photos: Path, tmp_path: Path
) -> None:
    out, url = tmp_path / "out.csv", "HTTP://service.test:80"
    service.fail(*CLASSIFY, problem(500, "internal_error"))

    _, _, said = run("classify", photos, "-r", "--top-k", "2", "--url", url, "--api-key", KEY, "--csv", out)

    command = f"image-analysis classify --recursive --top-k 2 --url {url} --resume {out} {photos}"
    assert f"To go on (set IMAGE_ANALYSIS_API_KEY first): {command}\n" in said
    assert KEY not in said


def test_key_of_the_environment_needs_no_word(
    service: FakeService, run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGE_ANALYSIS_API_KEY", KEY)
    service.fail(*CLASSIFY, problem(500, "internal_error"))

    _, _, said = run("classify", photos, "--csv", tmp_path / "out.csv")

    assert "To go on: image-analysis" in said
    assert KEY not in said


def test_refused_options_are_no_reason_to_go_on(service: FakeService, run: Run, photos: Path) -> None:
    service.fail(*CLASSIFY, problem(422, "invalid_top_k"))

    code, _, said = run("classify", photos)

    assert (code, said) == (1, "image-analysis: The detail of invalid_top_k.\n")


def test_file_named_like_standard_input_is_a_file(
    service: FakeService, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-").write_bytes(b"image")

    code, rows, _ = run("classify", "./-", "--csv", "-")

    assert (code, rows.splitlines()[1].split(",")[0]) == (0, "./-")


def test_folder_named_like_standard_input_is_a_folder(
    service: FakeService, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.chdir(tmp_path)
    Path("-").mkdir()
    monkeypatch.setattr("os.scandir", refuse)

    code, rows, _ = run("classify", "./-", "--csv", "-")

    assert (code, rows.splitlines()[1].split(",")[:2]) == (1, ["./-", "FAILED"])


def test_path_that_cannot_be_one_is_a_failure_of_its_own(service: FakeService, run: Run, photo: Path) -> None:
    strange = ["x" * 300, f"data:image/png;base64,{'A' * 5000}"]

    code, rows, _ = run("classify", *strange, photo, "--csv", "-")

    cells = sorted((row["source"], row["status"], row["error"]) for row in csv.DictReader(rows.splitlines()))
    failed = [(name.replace("//", "/"), "FAILED", "File name too long.") for name in strange]
    assert (code, cells) == (1, sorted([*failed, (str(photo), "COMPLETED", "")]))


@pytest.mark.parametrize("command", [["classify"], ["teach", "pets"]])
def test_empty_path_is_wrong_usage(service: FakeService, run: Run, command: list[str]) -> None:
    code, _, said = run(*command, "")

    assert (code, service.requests) == (2, [])
    what_to_do = "is a variable unset? The working directory is a dot (.)."
    assert said == f"image-analysis: Invalid value: A path is empty: {what_to_do}\n"


def test_scheme_of_a_url_may_be_in_capitals(service: FakeService, run: Run) -> None:
    code, rows, _ = run("classify", "HTTP://example.com/a.png", "--csv", "-")

    assert (code, rows.splitlines()[1].split(",")[:2]) == (0, ["HTTP://example.com/a.png", "COMPLETED"])


@pytest.mark.parametrize(
    "arguments",
    [["--url", "ftp://x"], ["--url", "http://x:y"], ["--url", "http://[x"], ["--api-key", "k\u00efy"]],
)
@pytest.mark.parametrize("command", [["models"], ["status", str(uuid4())], ["classify", os.devnull]])
def test_malformed_address_or_key_is_wrong_usage(
    service: FakeService, run: Run, command: list[str], arguments: list[str]
) -> None:
    code, _, said = run(*command, *arguments)

    assert (code, said.count("\n")) == (2, 1)
    assert arguments[1] not in said


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (200, "CANCELLED", "The job is cancelled.\n"),
        (
            202,
            "PROCESSING",
            "A worker has the job. It is cancelled when the worker is done, and its result is dropped.\n",
        ),
        (204, None, "The job had ended. It is forgotten.\n"),
    ],
)
def test_cancel_is_one_call_and_says_what_it_did(
    service: FakeService, run: Run, status: int, answer: str | None, said: str
) -> None:
    job_id = str(uuid4())
    body = {"job_id": job_id, "status": answer} if answer else None
    service.fail("DELETE", "analysis", httpx.Response(status, json=body) if body else httpx.Response(status))

    assert run("cancel", job_id) == (0, "", said)
    assert service.requests == [("DELETE", "analysis")]
