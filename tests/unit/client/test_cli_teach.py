"""The commands that teach, list and delete classifiers, and `classify --classifier`."""

import json
import sys
from pathlib import Path

import httpx
import pytest

from support.fake_service import FakeService, Run, make_classifier, problem

BATCH = ("POST", "analyze-images")
MAY_BE_TRAINED = (
    "Stopped, but pets may have been trained: the training was over already, or the service did not answer in time."
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folders of cats, dogs and foxes, and what is no label."""
    folder = tmp_path / "pets"
    for label, count in (("fox", 5), ("cat", 6), ("dog", 5)):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            (folder / label / f"{number}.png").write_bytes(f"{label} {number}".encode())
    (folder / ".hidden").mkdir()
    (folder / "readme.md").touch()
    return folder


@pytest.fixture
def show(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line with a terminal as its standard output, as far as the program can see."""

    def show(*arguments: str | Path) -> tuple[int, str, str]:
        with monkeypatch.context() as patches:
            patches.setattr(sys.stdout, "isatty", lambda: True)
            patches.setenv("TERM", "dumb")
            return run(*arguments)

    return show


def labels_of(request: httpx.Request) -> list[str]:
    return [example["label"] for example in json.loads(request.read())["examples"]]


def test_folders_are_the_labels(service: FakeService, run: Run, folder: Path) -> None:
    code, out, said = run("teach", "pets", folder, "--model", "m")

    [training] = service.trainings
    assert (training.method, training.url.path, training.url.query) == ("PUT", "/classifiers/pets", b"model=m")
    assert labels_of(training) == ["cat"] * 6 + ["dog"] * 5 + ["fox"] * 5
    assert (code, service.batches) == (0, [16])
    assert said.splitlines() == ["16 images: cat 6, dog 5, fox 5.", "All images are analyzed. Training."]
    assert json.loads(out) == make_classifier("pets", {"cat": 6, "dog": 5, "fox": 5})


def test_terminal_says_how_good_the_classifier_is_and_how_to_use_it(
    service: FakeService, show: Run, folder: Path
) -> None:
    _, out, _ = show("teach", "pets", folder, "--url", "http://service.test:80")

    assert out.splitlines() == [
        "pets is trained. In cross-validation, 87.5% of 16 images were right.",
        "Most confused: cat and dog, in 1 of 11 images.",
        "Use it: image-analysis classify --classifier pets --url http://service.test:80 IMAGE...",
    ]


def test_json_on_a_terminal_is_one_document(service: FakeService, show: Run, folder: Path) -> None:
    _, out, _ = show("teach", "pets", folder, "--json", "--quiet")

    assert json.loads(out)["accuracy"] == 0.875


def test_few_images_can_be_added(service: FakeService, run: Run, folder: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    (more / "cat").mkdir(parents=True)
    (more / "cat" / "new.jpg").write_bytes(b"new")
    run("teach", "pets", folder)

    code, out, said = run("teach", "pets", more, "--add")

    assert (code, said.splitlines()[0]) == (0, "1 images: cat 1.")
    assert (service.trainings[1].method, service.trainings[1].url.path) == ("POST", "/classifiers/pets/examples")
    assert json.loads(out)["examples"] == {"cat": 7, "dog": 5, "fox": 5}


def test_images_that_cannot_be_used_are_all_named(service: FakeService, run: Run, folder: Path) -> None:
    service.refused_images.append("corrupt_image")
    (folder / "fox" / "gone.png").symlink_to("nowhere")

    code, out, said = run("teach", "pets", folder)

    assert (code, out, service.trainings) == (1, "", [])
    assert f"failed  {folder}/cat/0.png: It failed.\n" in said
    assert f"failed  {folder}/fox/gone.png: No such file or directory.\n" in said
    assert said.splitlines()[-1] == "Nothing is trained: 2 of 17 images cannot be used. Remove them and try again."


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            ["{folder}/cat"],
            "{folder}/cat: A classifier needs 2 to 50 labels, not 0. Make a folder in it for each label.",
        ),
        (["{folder}/few"], "{folder}/few: The label 'a' needs 5 to 200 examples, not 1."),
        (["{folder}/missing"], "{folder}/missing cannot be read: No such file or directory."),
        (["{folder}/strange"], r"The folder's name a\x1b[31m cannot be a label: rename the folder."),
    ],
)
def test_folder_that_cannot_be_learned_from_is_wrong_usage(
    service: FakeService, run: Run, folder: Path, arguments: list[str], reason: str
) -> None:
    for path in (folder / "few" / "a", folder / "few" / "b", folder / "strange" / "a\x1b[31m"):
        path.mkdir(parents=True)
    for name in ("1.png", "2.heic"):
        (folder / "few" / "a" / name).touch()

    code, _, said = run("teach", "pets", *(argument.format(folder=folder) for argument in arguments))

    assert (code, service.requests) == (2, [])
    assert f"{reason.format(folder=folder)}\n" in said
    assert ("Files skipped, as they are not named like images: 1.\n" in said) == arguments[0].endswith("few")


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (("GET", "classifiers", problem(400, "invalid_classifier_name")), 2),
        (("GET", "classifiers", problem(401, "invalid_api_key")), 2),
        ((*BATCH, problem(400, "embeddings_not_supported")), 2),
        (("PUT", "classifiers", problem(400, "training_not_supported")), 2),
        (("PUT", "classifiers", problem(409, "too_many_classifiers")), 1),
        (("PUT", "classifiers", problem(500, "internal_error")), 3),
    ],
)
def test_refusal_ends_with_its_reason(
    service: FakeService, run: Run, folder: Path, fault: tuple[str, str, httpx.Response], code: int
) -> None:
    service.fail(*fault)

    ended, _, said = run("teach", "pets", folder)

    assert ended == code
    assert said.splitlines()[-1] == f"image-analysis: The detail of {json.loads(fault[2].content)['code']}."


def test_interrupt_cancels_what_waits_and_trains_nothing(
    service: FakeService, run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    service.is_working = False
    service.fail("GET", "analysis-batches", interrupt)

    code, _, said = run("teach", "pets", folder)

    assert (code, service.trainings, set(service.statuses.values())) == (130, [], {"CANCELLED"})
    assert said.splitlines()[-1] == "Stopped: nothing is trained. What still waited is cancelled."


@pytest.mark.parametrize(
    ("fault", "status", "last"),
    [
        ([], "CANCELLED", "Stopped: nothing is trained. What still waited is cancelled."),
        (
            [httpx.Response(204)],
            "PENDING",
            f"{MAY_BE_TRAINED} To see when it was trained: image-analysis classifiers --url http://service.test:80",
        ),
    ],
)
def test_interrupt_of_the_training_says_whether_it_was_cancelled(
    service: FakeService, run: Run, folder: Path, fault: list[httpx.Response], status: str, last: str
) -> None:
    def interrupt(_: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    service.fail("GET", "analysis-status", interrupt)
    service.fail("DELETE", "analysis", *fault)

    code, _, said = run("teach", "pets", folder, "--url", "http://service.test:80")

    assert (code, [*service.statuses.values()][-1], said.splitlines()[-1]) == (130, status, last)


def test_classifiers_are_listed_and_deleted(service: FakeService, run: Run) -> None:
    service.classifiers = {name: make_classifier(name, {"a": 5, "b": 5}) for name in ("one", "two")}

    _, listed, _ = run("classifiers")
    code, out, said = run("classifiers", "--delete", "one")
    again, _, missing = run("classifiers", "--delete", "one")

    assert [json.loads(line)["name"] for line in listed.splitlines()] == ["one", "two"]
    assert (code, out, said) == (0, "", "The classifier one is deleted.\n")
    assert (again, missing) == (2, "image-analysis: The detail of classifier_not_found.\n")
    assert [*service.classifiers] == ["two"]


def test_terminal_gets_a_table_of_classifiers(service: FakeService, show: Run) -> None:
    service.classifiers["pets"] = make_classifier("pets", {"[b]a": 5, "\x1bb": 5})

    _, out, _ = show("classifiers")

    heads, row = (line for line in out.splitlines() if line.strip(" ─"))
    assert heads.split() == ["Classifier", "Labels", "Examples", "Accuracy", "Model", "Trained"]
    assert row.split()[0] == "pets"
    assert r"\x1bb, [b]a" in out
    assert "90.0%" in out


def test_images_are_asked_of_a_classifier(service: FakeService, run: Run, folder: Path) -> None:
    service.classifiers["pets"] = make_classifier("pets", {"a": 5, "b": 5})

    code, _, _ = run("classify", folder / "cat", "--classifier", "pets")
    missing, _, said = run("classify", folder / "cat", "--classifier", "none")
    both, _, reason = run("classify", folder / "cat", "--classifier", "pets", "--labels", "a,b")

    [form] = service.forms
    assert b'name="classifier"\r\n\r\npets\r\n' in form.content
    assert (code, missing, said) == (0, 2, "image-analysis: The detail of classifier_not_found.\n")
    assert (both, reason) == (2, "image-analysis: Invalid value: Choose one of --classifier and --labels.\n")


def test_command_to_go_on_has_the_classifier(service: FakeService, run: Run, folder: Path, tmp_path: Path) -> None:
    service.classifiers["pets"] = make_classifier("pets", {"a": 5, "b": 5})
    service.fail(*BATCH, problem(500, "internal_error"))

    _, _, said = run("classify", folder / "cat", "--classifier", "pets", "--csv", tmp_path / "out.csv")

    assert f"--classifier pets --resume {tmp_path / 'out.csv'} {folder / 'cat'}\n" in said


def test_status_of_a_training_names_its_classifier(service: FakeService, show: Run) -> None:
    body = {
        "job_id": "00000000-0000-0000-0000-000000000001",
        "status": "COMPLETED",
        "classifier": make_classifier("pets", {"a": 5, "b": 5}),
    }
    service.fail("GET", "analysis-status", httpx.Response(200, json=body))

    _, out, _ = show("status", body["job_id"])

    assert out == "COMPLETED   pets 90.0%\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("image-analysis tea", "teach"),
        ("image-analysis classify --cl", "--classifier"),
        ("image-analysis teach --a", "--add --api-key"),
    ],
)
def test_completion_knows_the_commands_and_options(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: str, expected: str
) -> None:
    monkeypatch.setenv("_IMAGE_ANALYSIS_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))

    _, said, _ = run()

    assert said.split() == expected.split()
