"""What keeps the answers to different questions about one image apart."""

from typing import Any

import pytest

from image_analysis_common.models import JobStatus, Question
from image_analysis_common.records import JobRecord

CATS = Question(labels=("a cat", "a dog"))


def make_record(**fields: Any) -> JobRecord:
    return JobRecord(status=JobStatus.PENDING, image_hash="0" * 64, **fields)


@pytest.mark.parametrize(
    "other",
    [
        Question(labels=("a dog", "a cat")),
        Question(labels=("a cata dog",)),
        Question(labels=("a cat", "a dog"), hypothesis_template="{}"),
    ],
)
def test_other_questions_have_other_cache_fields(other: Question) -> None:
    fields = make_record(question=CATS).cache_fields("m@1#1")

    assert set(fields).isdisjoint(make_record(question=other).cache_fields("m@1#1"))
    assert set(fields).isdisjoint(make_record().cache_fields("m@1#1"))


def test_deep_answer_to_a_question_also_answers_it() -> None:
    field, other = make_record(question=CATS).cache_fields("m@1#1")

    assert make_record(question=CATS, top_k=50).cache_fields("m@1#1") == (other, "")
    assert field != other


def test_record_keeps_its_question() -> None:
    record = make_record(question=Question(labels=("Ā", 'a "b"', "🐈")))

    fields = {name.encode(): value.encode() for name, value in record.to_hash().items()}

    assert JobRecord.from_hash(fields) == record


def test_answers_with_and_without_an_embedding_are_kept_apart() -> None:
    kinds = [make_record(question=question, embedding=asks) for question in (None, CATS) for asks in (False, True)]

    fields = [field for record in kinds for field in record.cache_fields("m@1#1")]

    assert len(set(fields)) == 2 * len(kinds)


@pytest.mark.parametrize("asks", [False, True])
def test_record_keeps_whether_it_asks_for_an_embedding(asks: bool) -> None:
    record = make_record(embedding=asks)

    fields = {name.encode(): value.encode() for name, value in record.to_hash().items()}

    assert JobRecord.from_hash(fields) == record
    assert (b"embedding" in fields) == asks
