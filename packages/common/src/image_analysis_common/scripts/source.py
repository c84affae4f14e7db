"""Loads the Lua scripts, and represents calls of them.

The line `-- Uses: NAME, NAME.` in a header names libraries in `lib/`: their code is put before the script. `KEY.job`,
`TTL.worker` and `RQ.queue` stand for constants of `keys` and `rq_keys`. They are replaced when a script is loaded; an
unknown name raises KeyError then. Comments are not sent to Redis.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha1
from importlib.resources import files
from typing import Any, TypeAlias

from image_analysis_common import keys, rq_keys

Word: TypeAlias = str | bytes | int | float

_PREFIXES = (
    keys.answered,
    keys.batch,
    keys.delivery,
    keys.embedding,
    keys.followers,
    keys.followers_end,
    keys.image,
    keys.job,
    keys.jobs_of,
    keys.result,
)

_CONSTANTS: dict[str, dict[str, str | int]] = {
    "KEY": {
        **{name.lower(): key for name, key in vars(keys).items() if name.isupper() and isinstance(key, str)},
        **{prefix.__name__: prefix("") for prefix in _PREFIXES},
    },
    "TTL": {name.removesuffix("_TTL_S").lower(): ttl for name, ttl in vars(keys).items() if name.endswith("_TTL_S")},
    "RQ": {name.lower(): key for name, key in vars(rq_keys).items() if name.isupper() and isinstance(key, str)},
}

_CONSTANT = re.compile(r"\b(KEY|TTL|RQ)\.(\w+)")
_USES = re.compile(r"^-- Uses: (.+)\.$", re.MULTILINE)


@dataclass(frozen=True)
class Script:
    """The text of a script, as it is sent to Redis."""

    text: str

    @cached_property
    def digest(self) -> str:
        """The SHA-1 under which Redis caches the script."""
        return sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def call(self, keys: tuple[str, ...], *args: Word) -> "ScriptCall":
        return ScriptCall(self, keys, args)


@dataclass(frozen=True, slots=True)
class ScriptCall:
    """A script with its KEYS and ARGV."""

    script: Script
    keys: tuple[str, ...]
    args: tuple[Word, ...]

    @property
    def words(self) -> tuple[Any, ...]:
        """The arguments after the text in EVAL, or after the digest in EVALSHA."""
        return len(self.keys), *self.keys, *self.args


def load(name: str) -> Script:
    """Load a script after the libraries that it uses; each library comes once, after its own libraries."""
    return Script("\n".join(_read(name).values()))


def header(name: str) -> str:
    """Return the comment at the head of a file."""
    return _lua(name).partition("\n\n")[0]


def _lua(name: str) -> str:
    return (files(__package__) / f"{name}.lua").read_text(encoding="utf-8")


def _read(name: str) -> dict[str, str]:
    """Return the code of a file's libraries and of the file itself, by name and in this order."""
    parts: dict[str, str] = {}
    for uses in _USES.findall(header(name)):
        for library in uses.split(", "):
            parts |= {part: code for part, code in _read(f"lib/{library}").items() if part not in parts}
    lines = [line for line in _lua(name).splitlines() if line and not line.lstrip().startswith("--")]
    return parts | {name: _CONSTANT.sub(_literal, "\n".join(lines))}


def _literal(constant: re.Match[str]) -> str:
    value = _CONSTANTS[constant[1]][constant[2]]
    return str(value) if isinstance(value, int) else f"'{value}'"
