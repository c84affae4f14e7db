"""What schemathesis has to know to send valid requests: images that are images, and where one can be fetched."""

import base64
import os
from typing import Any

import schemathesis
from hypothesis import strategies as st

from samples import encode, make_image

IMAGE_URL = os.environ["IMAGE_URL"]
IMAGES = [base64.b64encode(encode(make_image(seed), form)).decode() for seed, form in enumerate(("PNG", "JPEG", "GIF"))]

schemathesis.openapi.format("byte", st.sampled_from(IMAGES))
schemathesis.openapi.format("uri", st.just(IMAGE_URL))


@schemathesis.hook
def before_load_schema(_context: Any, raw_schema: dict[str, Any]) -> None:
    """The example's host is one that the tests do not reach."""
    body = raw_schema["paths"]["/analyze-image"]["post"]["requestBody"]["content"]["application/json"]
    body["examples"]["url"]["value"]["image_url"] = IMAGE_URL
