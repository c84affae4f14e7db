"""Base64 is decoded as Python's strict decoder does it, but surplus padding is refused."""

import base64
import binascii

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from image_analysis_api.intake.image import decode_base64
from image_analysis_api.intake.schemas import AnalyzeImagesRequest, parse_json
from image_analysis_api.intake.structure import MAX_STRUCTURE
from image_analysis_common.errors import InvalidBase64, RequestError

MAX_BYTES = 10_000

encoded = st.binary(min_size=1, max_size=300).map(lambda image: base64.b64encode(image).decode())
parts = encoded | st.text("AQg09+/=-_ \r\n.%é\0", max_size=6) | st.sampled_from(["=", "==", "====", "A===", "\ud800"])
texts = encoded | st.lists(parts, min_size=1, max_size=4).map("".join)


def decode_strictly(text: str) -> bytes | None:
    """Decode by the standard library; None if it refuses the text, or if an encoder would write less padding."""
    try:
        image = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except ValueError:
        return None
    return image if len(text) == len(base64.b64encode(image)) else None


@given(texts)
@example("QUJDRA==")
@example("QUJDRB==")  # bits that no encoder sets
@example("QUJD=")
@example("QUJD====")
@example("QUJDRA===")
@example("QUJDRA=")
@example("QUJDR===")
@example("QU=DRA==")
@example("QUJD\nQUJD")
@example("QUJDé")
def test_any_text_is_decoded_as_by_the_standard_library(text: str) -> None:
    expected = decode_strictly(text)

    try:
        found: bytes | None = decode_base64(text, MAX_BYTES)
    except InvalidBase64:
        found = None

    assert found == (expected or None)


@given(st.binary(min_size=1, max_size=MAX_BYTES))
def test_every_image_is_decoded_to_its_bytes(image: bytes) -> None:
    assert decode_base64(base64.b64encode(image).decode(), MAX_BYTES) == image


@pytest.mark.parametrize("mark", [b",", b"[", b"{"])
def test_body_with_too_many_values_is_refused_before_it_is_parsed(mark: bytes) -> None:
    with pytest.raises(RequestError, match="more than 20000 values"):
        parse_json(AnalyzeImagesRequest, b"{" + mark * MAX_STRUCTURE)
    with pytest.raises(RequestError, match="not valid JSON"):
        parse_json(AnalyzeImagesRequest, b"{" + mark * (MAX_STRUCTURE - 1))
