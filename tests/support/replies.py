"""What Redis replies to a client that decodes nothing. The types of redis-py allow text too, which never comes."""

from collections.abc import Mapping

from image_analysis_common.records import JobRecord


def raw(reply: object) -> bytes:
    """Return a reply that must not be missing."""
    assert isinstance(reply, bytes), reply
    return reply


def decoded(reply: object) -> str:
    return raw(reply).decode()


def read_record(fields: Mapping[bytes | str, bytes | str]) -> JobRecord:
    """Read the answer of HGETALL."""
    return JobRecord.from_hash({raw(name): raw(value) for name, value in fields.items()})
