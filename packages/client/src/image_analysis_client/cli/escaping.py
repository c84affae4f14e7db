"""Text from outside, made harmless: on a terminal, in a spreadsheet, in JSON and in a shell."""

import json
import re
import shlex
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

_HARMFUL = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of control characters, of what hides or reorders text, of bytes that are not UTF-8, of line ends."""

_JOINERS = "\u200c\u200d"
"""Format characters that scripts and emoji need."""

_FORMULA_STARTS = tuple("=+-@\uff1d\uff0b\uff0d\uff20'")
"""How a spreadsheet's formula begins; and the apostrophe, so that `=1` and `'=1` do not make the same cell."""

_ESCAPE_START = re.compile(r"\\(?=[nrtxuU\W])")
"""A backslash before a letter of an escape, or before a character that may become an escape."""


def visible(text: str) -> str:
    r"""Replace what a terminal would act on by an escape such as `\x1b`, and a byte that is not UTF-8 by `\xff`."""
    return _replace(text, _escape)


def guarded(text: str) -> str:
    """Return a text for a CSV cell that is one line, harmless on a terminal, and no formula in a spreadsheet."""
    text = visible(text)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def guarded_name(name: str) -> str:
    """Return a file's name for a CSV cell, like `guarded`, but no two names make the same cell.

    A backslash that could be read as the start of an escape is doubled.
    """
    return guarded(_ESCAPE_START.sub(r"\\\\", name))


def to_json(value: Any) -> str:
    """Write JSON on one line that a terminal shows and UTF-8 can hold; loading it gives the exact value."""
    return _replace(json.dumps(value, ensure_ascii=False), lambda character: json.dumps(character)[1:-1])


def shell_command(words: Sequence[str]) -> str:
    """Write a command that a shell reads as these words."""
    return " ".join(shlex.quote(word) if visible(word) == word else _ansi_quote(word) for word in words)


def _replace(text: str, escape: Callable[[str], str]) -> str:
    if text.isprintable():
        return text
    return "".join(escape(character) if _is_harmful(character) else character for character in text)


def _is_harmful(character: str) -> bool:
    return unicodedata.category(character) in _HARMFUL and character not in _JOINERS


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python stands for a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _ansi_quote(word: str) -> str:
    """Quote as `$'...'`, which bash, zsh and ksh read."""
    return "$'" + "".join(_escape(c) if _is_harmful(c) else f"\\{c}" if c in "\\'" else c for c in word) + "'"
