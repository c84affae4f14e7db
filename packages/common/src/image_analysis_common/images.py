"""What both services know about images: the digest that identifies one, and the supported formats."""

import hashlib

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP")
"""Recognized by content, never by name. Only the first frame of an animation is used."""


def image_digest(body: bytes) -> str:
    """Return the SHA-256 of an image's bytes as 64 hex digits."""
    return hashlib.sha256(body).hexdigest()
