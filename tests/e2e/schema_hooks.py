"""What schemathesis has to know to send valid requests: images that are images, and where one can be fetched."""

import base64
import os
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis.transport.serialization import Binary

from support.samples import encode, make_image

IMAGE_URL = os.environ["IMAGE_URL"]
IMAGES = [encode(make_image(seed), form) for seed, form in enumerate(("PNG", "JPEG", "GIF"))]

schemathesis.openapi.format("byte", st.sampled_from([base64.b64encode(image).decode() for image in IMAGES]))
schemathesis.openapi.format("binary", st.sampled_from([Binary(image) for image in IMAGES]))
schemathesis.openapi.format("uri", st.just(IMAGE_URL))


@schemathesis.hook
def before_load_schema(_context: Any, raw_schema: dict[str, Any]) -> None:
    """The examples' hosts are none that the tests reach; a form's choice has to say what each side excludes."""
    one, several = (
        raw_schema["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        for path in ("/analyze-image", "/analyze-images")
    )
    one["examples"]["webhook"]["value"]["webhook_url"] = IMAGE_URL
    one["examples"]["url"]["value"]["image_url"] = several["example"]["images"][1]["image_url"] = IMAGE_URL
    by_file, by_url = raw_schema["components"]["schemas"]["AnalyzeImageForm"]["allOf"][0]["oneOf"]
    by_file["properties"], by_url["properties"] = {"image_url": False}, {"file": False}


@schemathesis.hook
def filter_case(_context: Any, case: schemathesis.Case[Any]) -> bool:
    """In a form everything is a text or a list of texts: whatever else comes as one cannot be told from it."""
    if case.path != "/analyze-images" or case.media_type != "multipart/form-data" or not isinstance(case.body, dict):
        return True
    lists = [case.body[name] for name in ("file", "image_url") if name in case.body]
    return all(
        isinstance(part, list) and all(isinstance(item, str | bytes | Binary) for item in part) for part in lists
    )
