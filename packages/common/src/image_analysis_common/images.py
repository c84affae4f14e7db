"""What both services hold an image to: its identity and the formats it may come in."""

import hashlib

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP")
"""By content, never by name; of an animation the first frame counts."""


def image_digest(body: bytes) -> str:
    """Return the SHA-256 of an image's bytes as 64 hex digits."""
    return hashlib.sha256(body).hexdigest()
