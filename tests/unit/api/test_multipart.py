"""Forms are parsed while they arrive, in pieces of any size, within limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_analysis_api.intake.multipart import MAX_FIELD_BYTES, MAX_FIELDS, MAX_HEADERS, Form, FormReader
from image_analysis_common.errors import RequestError

KIND = "multipart/form-data; boundary=edge"


def part(name: str, content: bytes, *more: str) -> bytes:
    head = [f'Content-Disposition: form-data; name="{name}"; filename="cat.png"', *more]
    return b"--edge\r\n" + "\r\n".join(head).encode() + b"\r\n\r\n" + content + b"\r\n"


def read(body: bytes, kind: str = KIND, *, size_bytes: int = 1000) -> Form:
    reader = FormReader(kind, max_files=2)
    for at in range(0, len(body), size_bytes):
        reader.write(body[at : at + size_bytes])
    return reader.close()


@given(st.binary(max_size=200), st.integers(1, 50))
def test_any_bytes_come_out_as_they_went_in(image: bytes, size_bytes: int) -> None:
    body = part("file", image) + part("top_k", b"3") + part("file", b"\r\n--edg\r\n") + b"--edge--\r\n"

    form = read(body, size_bytes=size_bytes)

    assert form == Form(fields=[("top_k", "3")], files=[image, b"\r\n--edg\r\n"], names=["file"] * 2)


@given(st.binary(max_size=300))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    try:
        read(b"--edge\r\n" + body)
    except RequestError:
        return
    assert b"--edge--" in body


def test_long_file_name_that_is_written_twice_is_read() -> None:
    name = "%C3%BC" * 300
    disposition = f"form-data; name=file; filename=\"{name}\"; filename*=utf-8''{name}"
    body = f"--edge\r\nContent-Disposition: {disposition}\r\n\r\nimage\r\n--edge--\r\n"

    assert read(body.encode()).files == [b"image"]


LONG = "X: " + "x" * 4096
BROKEN = {
    "nothing": (b"", KIND),
    "no boundary named": (part("file", b"x") + b"--edge--", "multipart/form-data"),
    "another boundary": (part("file", b"x") + b"--edge--", "multipart/form-data; boundary=other"),
    "a boundary that is too long": (b"", "multipart/form-data; boundary=" + "b" * 300),
    "cut short": (part("file", b"x"), KIND),
    "a part without a name": (b"--edge\r\nX: y\r\n\r\nx\r\n--edge--", KIND),
    "a name that is no UTF-8": (b'--edge\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nx\r\n--edge--', KIND),
    "a text that is no UTF-8": (part("top_k", b"\xff") + b"--edge--", KIND),
    "a text that is too long": (part("top_k", b"1" * (MAX_FIELD_BYTES + 1)) + b"--edge--", KIND),
    "too many fields": (part("x", b"") * (MAX_FIELDS + 1) + b"--edge--", KIND),
    "too many files": (part("file", b"") * 3 + b"--edge--", KIND),
    "too many headers": (part("file", b"", *["X: y"] * MAX_HEADERS) + b"--edge--", KIND),
    "a header that is too long": (part("file", b"", LONG) + b"--edge--", KIND),
}


@pytest.mark.parametrize("case", BROKEN)
def test_form_that_breaks_a_rule_is_refused(case: str) -> None:
    with pytest.raises(RequestError):
        read(*BROKEN[case])


def test_reading_stops_at_the_first_part_too_many() -> None:
    reader = FormReader(KIND, max_files=2)
    reader.write(part("file", b"") * 2)

    with pytest.raises(RequestError, match="too many parts named file: send at most 2"):
        reader.write(part("file", b""))
