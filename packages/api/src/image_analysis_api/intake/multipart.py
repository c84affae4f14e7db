"""Parses forms (`multipart/form-data`) while they arrive; nothing is written to disk."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from image_analysis_api.intake.labels import LABELS, MAX_LABELS
from image_analysis_api.intake.schemas import FILE, FORM_FIELDS, PLAIN_NAME
from image_analysis_common.errors import RequestError

FORM_OVERHEAD_BYTES = 128 * 1024
"""Bytes allowed for everything in a form except the images."""

MAX_FIELDS = 16
MAX_FIELD_BYTES = 4096
MAX_LABELS_FIELD_BYTES = 16 * 1024
"""The limit for a field with labels: all of them, separated by commas."""

MAX_HEADERS = 8
MAX_HEADER_BYTES = 4096
"""The limit for one header of a part; .NET writes a long file name twice into it, once percent-encoded."""


@dataclass
class Form:
    """The names and values of the fields, in their order, and the images with the names of their parts."""

    fields: list[tuple[str, str]] = field(default_factory=list)
    files: list[bytes] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except (FormParserError, UnicodeError) as error:
        raise RequestError("The form cannot be read: send it as multipart/form-data (RFC 7578).") from error


class FormReader:
    """Parses a form piece by piece, with limits on its parts; the caller limits its total bytes.

    Every method raises RequestError if the form violates RFC 7578 or exceeds a limit. With `is_labeled`, every part is
    an image, and its name is a label.
    """

    def __init__(self, content_type: str, *, max_files: int, max_fields: int = 0, is_labeled: bool = False) -> None:
        self._form = Form()
        self._is_labeled = is_labeled
        self._is_file = False
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
        self._has_filename = False
        self._parts = self._labels = 0
        self._part = bytearray()

    def write(self, chunk: bytes) -> None:
        """Parse the next piece of the body."""
        with _translate_errors():
            self._parser.write(chunk)

    def close(self) -> Form:
        """Return the form; call it at the end of the body."""
        del self._parser  # a cycle with its callbacks
        if not self._has_ended:
            raise RequestError("The form is cut short: its last boundary is missing.")
        return self._form

    def _begin_part(self) -> None:
        self._name, self._has_filename, self._part = "", False, bytearray()
        self._parts += 1

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            options = parse_options_header(self._header_value)[1]
            self._name, self._has_filename = options.get(b"name", b"").decode(), bool(options.get(b"filename"))
        self._header_name = self._header_value = b""

    def _end_headers(self) -> None:
        if not self._name:
            raise RequestError("The form has a part without a name: name every part.")
        self._is_file = self._is_labeled or self._name == FILE
        if self._is_labeled and not self._has_filename:
            raise RequestError(
                "The form has a part that is no file: name each file by its label, and put the options into the query."
            )
        if not self._is_file and self._has_filename and self._name not in FORM_FIELDS:
            place = f"its part {self._name}" if PLAIN_NAME.fullmatch(self._name) else "a part with another name"
            raise RequestError(f"The form has a file in {place}: send an image as the part {FILE}.")
        if self._is_file and len(self._form.files) == self._max_files:
            kind = "files" if self._is_labeled else f"parts named {FILE}"
            raise RequestError(f"The form has too many {kind}: send at most {self._max_files}.")
        if self._name == LABELS and not self._is_file:
            self._labels += 1
            if self._labels > MAX_LABELS:
                raise RequestError(f"The form has too many fields named {LABELS}: send at most {MAX_LABELS}.")
            return
        if self._parts - self._labels > self._max_files + self._max_fields:  # empty files are not kept, but take time
            raise RequestError(f"The form has too many parts: send at most {self._max_files + self._max_fields}.")
        if not self._is_file and len(self._form.fields) - self._labels == self._max_fields:
            raise RequestError(f"The form has too many fields: send at most {self._max_fields}.")

    def _add_bytes(self, data: bytes, start: int, end: int) -> None:
        limit_bytes = MAX_LABELS_FIELD_BYTES if self._name == LABELS else MAX_FIELD_BYTES
        if not self._is_file and len(self._part) + end - start > limit_bytes:
            raise RequestError(
                f"A field of the form has more than {limit_bytes} bytes: send an image as the part {FILE}."
            )
        self._part += data[start:end]

    def _end_part(self) -> None:
        if self._is_file:
            if self._part and not self._has_filename and self._part.isascii():
                raise RequestError(f"The part {FILE} is a text: send the bytes of a file, with curl -F {FILE}=@PATH.")
            # A browser sends an empty part without a filename where no file was chosen.
            if self._part or self._has_filename:
                self._form.files.append(bytes(self._part))
                self._form.names.append(self._name)
        else:
            self._form.fields.append((self._name, self._part.decode()))
        self._part = bytearray()

    def _end(self) -> None:
        self._has_ended = True
