"""What a classifier may be called and how many examples it takes; what records keep of it."""

import pytest

from image_analysis_common.classifiers import ClassifierRef, Training, check_examples, is_classifier_name
from image_analysis_common.job_errors import NotEnoughExamples, TooManyExamples
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from support.classifiers import make_classifier

REF = ClassifierRef(name="pets", version="0123456789abcdef")


@pytest.mark.parametrize(
    ("name", "is_valid"),
    [("a", True), ("7", True), ("a-b_c", True), ("a" * 64, True), ("", False), ("a" * 65, False), ("-a", False)]
    + [(name, False) for name in ("A", "a b", "a/b", "ä", "a\n", "a:b", "..")],
)
def test_name_of_a_classifier(name: str, *, is_valid: bool) -> None:
    assert is_classifier_name(name) is is_valid


@pytest.mark.parametrize("counts", [(5, 5), (200, 200), (5,) * 50])
def test_enough_examples_of_enough_labels(counts: tuple[int, ...]) -> None:
    check_examples([f"label {number}" for number, count in enumerate(counts) for _ in range(count)])


@pytest.mark.parametrize(
    ("counts", "error", "sentence"),
    [
        ((10,), NotEnoughExamples, "A classifier needs at least 2 labels: send examples of another label."),
        ((5, 4), NotEnoughExamples, "The label 'l1' has 4 different examples, and needs 5: send more images of it."),
        ((201, 5), TooManyExamples, "The label 'l0' has 201 examples, and the limit is 200: send fewer."),
        ((5,) * 51, TooManyExamples, "There are 51 labels, and the limit is 50: send fewer."),
    ],
)
def test_too_few_or_too_many(counts: tuple[int, ...], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error) as raised:
        check_examples([f"l{number}" for number, count in enumerate(counts) for _ in range(count)])

    assert str(raised.value) == sentence


def test_record_keeps_what_it_is_answered_by_and_what_it_trains() -> None:
    record = JobRecord(
        status=JobStatus.COMPLETED,
        image_hash="0" * 64,
        classifier=REF,
        training=Training(name="pets", adds=True),
        trained=make_classifier().about,
    )

    assert JobRecord.from_hash({name.encode(): text.encode() for name, text in record.to_hash().items()}) == record


def test_each_version_has_its_own_results() -> None:
    def fields(classifier: ClassifierRef | None) -> tuple[str, str]:
        record = JobRecord(status=JobStatus.PENDING, image_hash="0" * 64, classifier=classifier)
        return record.cache_fields("m@1#1")

    newer = REF.model_copy(update={"version": "f" * 16})
    assert len({*fields(REF), *fields(newer), *fields(None)}) == 6
