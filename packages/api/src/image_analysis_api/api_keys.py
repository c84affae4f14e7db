"""API keys: makes them, and finds the owner of a presented key. Knows neither HTTP nor Redis.

A key is 256 random bits. The environment holds only its SHA-256, so someone who reads the settings cannot call the
API. A fast hash is enough: slow, salted hashes protect passwords that can be guessed, and would take 50 ms for each
request. 256 random bits cannot be guessed, however fast each try is.
"""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from secrets import token_urlsafe
from typing import Self

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
DIGEST = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True)
class ApiKey:
    """An entry of `API_KEYS`. Two entries of the same name are two keys of one owner, to replace one by the other."""

    name: str
    digest: bytes

    @classmethod
    def parse(cls, entry: str) -> Self:
        """Read `name:digest`.

        Raises:
            ValueError: the entry is malformed. The message does not repeat it, because it may be a key.
        """
        name, _, digest = entry.partition(":")
        if not NAME.fullmatch(name) or not DIGEST.fullmatch(digest):
            raise ValueError(
                "each entry is a name (letters, digits, . _ -), a colon and the SHA-256 of a key in hexadecimal: "
                "make one with `just key NAME`"
            )
        return cls(name, bytes.fromhex(digest))


def find_owner(api_keys: Iterable[ApiKey], presented: str) -> str | None:
    """Return the owner of a key, None for a wrong one. The time taken does not depend on which key it is."""
    digest, owner = sha256(presented.encode()).digest(), None
    for api_key in api_keys:
        if compare_digest(api_key.digest, digest):
            owner = api_key.name
    return owner


def main() -> None:
    """Print a new key and its entry for `API_KEYS`: `python -m image_analysis_api.api_keys NAME`."""
    key = token_urlsafe(32)
    try:
        [name] = sys.argv[1:]
        entry = f"{name}:{sha256(key.encode()).hexdigest()}"
        ApiKey.parse(entry)
    except ValueError:
        sys.exit("Give one name, of letters, digits, and . _ - only: `just key alice`.")
    sys.stdout.write(
        f"The key, for its owner. It is shown only now and stored nowhere:\n\n  {key}\n\n"
        f"Its entry for API_KEYS, where commas separate the entries:\n\n  {entry}\n"
    )


if __name__ == "__main__":
    main()
