"""Types the replies of Redis to a client that decodes nothing: redis-py's own types also allow text."""

from collections.abc import Mapping

from image_analysis_common.records import JobRecord


def raw(reply: object) -> bytes:
    """Return a reply; fail if it is missing."""
    assert isinstance(reply, bytes), reply
    return reply


def decoded(reply: object) -> str:
    return raw(reply).decode()


def read_record(fields: Mapping[bytes | str, bytes | str]) -> JobRecord:
    """Read the answer of HGETALL."""
    return JobRecord.from_hash({raw(name): raw(value) for name, value in fields.items()})
