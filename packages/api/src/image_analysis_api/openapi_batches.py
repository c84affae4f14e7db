"""What the OpenAPI document says of batches: their bodies and headers."""

from typing import Any

from image_analysis_api.openapi import BINARY, describe_texts
from image_analysis_api.openapi_waiting import ACCEPTED_HEADERS
from image_analysis_api.requests import EXAMPLE_IMAGE, EXAMPLE_URL, FormFields, ImageSource, Options

BATCH_HEADERS: dict[str, Any] = {
    "Location": {"description": "Where the batch's status is", "schema": {"type": "string"}},
    "Retry-After": ACCEPTED_HEADERS["Retry-After"],
}


def _describe_source(field: str, *, other: str) -> dict[str, Any]:
    description = ImageSource.model_fields[field].description
    return {
        "type": "object",
        "required": [field],
        "properties": {field: {"type": "string", "description": description}, other: {"type": "null"}},
        "additionalProperties": False,
    }


ANALYZE_IMAGES_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "title": "AnalyzeImagesRequest",
                "type": "object",
                "required": ["images"],
                "properties": {
                    "images": {
                        "type": "array",
                        "minItems": 1,
                        "description": "Each by its bytes or by its address; at most 64, or what the operator set",
                        "items": {
                            "oneOf": [
                                _describe_source("image_data", other="image_url"),
                                _describe_source("image_url", other="image_data"),
                            ]
                        },
                    },
                    **Options.model_json_schema()["properties"],
                },
                "additionalProperties": False,
            },
            "example": {"images": [{"image_data": EXAMPLE_IMAGE}, {"image_url": EXAMPLE_URL}], "top_k": 3},
        },
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "file": {"type": "array", "minItems": 1, "items": BINARY, "description": "The images"},
                    "image_url": {
                        "type": "array",
                        "minItems": 1,
                        "items": describe_texts(FormFields)["image_url"],
                        "description": "The addresses of more images",
                    },
                    **describe_texts(Options),
                },
                "additionalProperties": False,
                "anyOf": [{"required": ["file"]}, {"required": ["image_url"]}],
            }
        },
    },
}
