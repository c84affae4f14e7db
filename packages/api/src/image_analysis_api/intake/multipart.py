"""Forms as browsers and curl send them (`multipart/form-data`), read as they come in; nothing touches a disk."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from image_analysis_common.errors import RequestError

FILE = "file"
"""The name of a part that is an image; every other part is a short text."""

FORM_OVERHEAD_BYTES = 64 * 1024
"""Room for everything in a form that is no image."""

MAX_FIELDS = 16
MAX_FIELD_BYTES = 4096
MAX_HEADERS = 8
MAX_HEADER_BYTES = 1024


@dataclass
class Form:
    """The texts by their names, in their order, and the images."""

    fields: list[tuple[str, str]] = field(default_factory=list)
    files: list[bytes] = field(default_factory=list)


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except (FormParserError, UnicodeError) as error:
        raise RequestError("The form cannot be read: send it as multipart/form-data (RFC 7578).") from error


class FormReader:
    """Puts a form together as it comes in, within limits; what bounds its bytes in all is for the caller to know.

    Every method raises RequestError where the form breaks the rules of RFC 7578 or holds more than it may.
    """

    def __init__(self, content_type: str, *, max_files: int, max_fields: int = 0) -> None:
        self._form = Form()
        self._has_ended = False
        self._max_files = max_files
        self._max_fields = max_fields + MAX_FIELDS
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        if not boundary:
            raise RequestError("The form cannot be read: its Content-Type has no boundary.")
        with _translate_errors():
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": self._add_header_name,
                    "on_header_value": self._add_header_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": self._add_bytes,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
                max_header_count=MAX_HEADERS,
                max_header_size=MAX_HEADER_BYTES,
            )
        self._header_name = b""
        self._header_value = b""
        self._name = ""
        self._part = bytearray()

    def write(self, chunk: bytes) -> None:
        """Take the next piece of the body."""
        with _translate_errors():
            self._parser.write(chunk)

    def close(self) -> Form:
        """Give the form, once the body has ended."""
        if not self._has_ended:
            raise RequestError("The form is cut short: its last boundary is missing.")
        return self._form

    def _begin_part(self) -> None:
        self._name, self._part = "", bytearray()

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._name = parse_options_header(self._header_value)[1].get(b"name", b"").decode()
        self._header_name = self._header_value = b""

    def _end_headers(self) -> None:
        if not self._name:
            raise RequestError("The form has a part without a name: name every part.")
        if self._name == FILE and len(self._form.files) == self._max_files:
            raise RequestError(f"The form has too many parts named {FILE}: send at most {self._max_files}.")
        if self._name != FILE and len(self._form.fields) == self._max_fields:
            raise RequestError(f"The form has too many fields: send at most {self._max_fields}.")

    def _add_bytes(self, data: bytes, start: int, end: int) -> None:
        if self._name != FILE and len(self._part) + end - start > MAX_FIELD_BYTES:
            raise RequestError(
                f"A field of the form has more than {MAX_FIELD_BYTES} bytes: send an image as the part {FILE}."
            )
        self._part += data[start:end]

    def _end_part(self) -> None:
        if self._name == FILE:
            self._form.files.append(bytes(self._part))
        else:
            self._form.fields.append((self._name, self._part.decode()))
        self._part = bytearray()

    def _end(self) -> None:
        self._has_ended = True
