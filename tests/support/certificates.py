"""A key and a self-signed certificate for tests, made with the standard library: the repository contains no key."""

import base64
import hashlib
import secrets

Point = tuple[int, int] | None

# NIST P-256 (FIPS 186-4, D.1.2.3): the field, the order and the base point.
_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)

_INTEGER, _BITS, _OCTETS, _TIME, _TEXT, _SEQUENCE, _SET = 0x02, 0x03, 0x04, 0x17, 0x0C, 0x30, 0x31
_ECDSA_WITH_SHA256 = bytes.fromhex("06082a8648ce3d040302")
_EC_PUBLIC_KEY = bytes.fromhex("06072a8648ce3d0201")
_PRIME256V1 = bytes.fromhex("06082a8648ce3d030107")
_COMMON_NAME = bytes.fromhex("0603550403")
_SUBJECT_ALT_NAME = bytes.fromhex("0603551d11")


def make_certificate(name: str) -> tuple[str, str]:
    """Make a key and a certificate for one DNS name, valid until 2049; return both as PEM."""
    private = secrets.randbelow(_N - 1) + 1
    public = b"\x00\x04" + _coordinates(_multiply(private, _G))
    subject = _der(_SEQUENCE, _der(_SET, _der(_SEQUENCE, _COMMON_NAME, _der(_TEXT, name.encode()))))
    alternative = _der(_SEQUENCE, _der(0x82, name.encode()))
    body = _der(
        _SEQUENCE,
        _der(0xA0, _integer(2)),  # version 3
        _integer(secrets.randbits(64)),
        _der(_SEQUENCE, _ECDSA_WITH_SHA256),
        subject,
        _der(_SEQUENCE, _der(_TIME, b"000101000000Z"), _der(_TIME, b"491231235959Z")),
        subject,
        _der(_SEQUENCE, _der(_SEQUENCE, _EC_PUBLIC_KEY, _PRIME256V1), _der(_BITS, public)),
        _der(0xA3, _der(_SEQUENCE, _der(_SEQUENCE, _SUBJECT_ALT_NAME, _der(_OCTETS, alternative)))),
    )
    certificate = _der(_SEQUENCE, body, _der(_SEQUENCE, _ECDSA_WITH_SHA256), _der(_BITS, b"\x00", _sign(private, body)))
    key = _der(
        _SEQUENCE,
        _integer(1),
        _der(_OCTETS, private.to_bytes(32, "big")),
        _der(0xA0, _PRIME256V1),
        _der(0xA1, _der(_BITS, public)),
    )
    return _pem("EC PRIVATE KEY", key), _pem("CERTIFICATE", certificate)


def _sign(private: int, message: bytes) -> bytes:
    """Sign with ECDSA (FIPS 186-4, 6)."""
    once = secrets.randbelow(_N - 1) + 1
    point = _multiply(once, _G)
    r = (point[0] if point else 0) % _N
    digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
    s = pow(once, -1, _N) * (digest + r * private) % _N
    return _der(_SEQUENCE, _integer(r), _integer(s))


def _multiply(factor: int, point: Point) -> Point:
    product: Point = None
    while factor:
        if factor & 1:
            product = _add(product, point)
        point = _add(point, point)
        factor >>= 1
    return product


def _add(left: Point, right: Point) -> Point:
    if left is None or right is None:
        return left or right
    if left[0] == right[0] and (left[1] + right[1]) % _P == 0:
        return None
    if left == right:
        slope = 3 * (left[0] ** 2 - 1) * pow(2 * left[1], -1, _P)
    else:
        slope = (right[1] - left[1]) * pow(right[0] - left[0], -1, _P)
    x = (slope**2 - left[0] - right[0]) % _P
    return x, (slope * (left[0] - x) - left[1]) % _P


def _coordinates(point: Point) -> bytes:
    return b"".join(coordinate.to_bytes(32, "big") for coordinate in point or ())


def _der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    if len(body) < 0x80:
        return bytes([tag, len(body)]) + body
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + body


def _integer(value: int) -> bytes:
    return _der(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _pem(label: str, body: bytes) -> str:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(body).decode()}-----END {label}-----\n"
