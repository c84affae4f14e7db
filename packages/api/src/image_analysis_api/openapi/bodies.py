"""The request bodies and options in the OpenAPI document."""

from typing import Any

from image_analysis_api.intake.schemas import (
    EXAMPLE_IMAGE,
    EXAMPLE_URL,
    EXAMPLE_WEBHOOK_URL,
    AnalyzeImageRequest,
    FormFields,
    Options,
)

SCHEMAS = "#/components/schemas/"
FORMATS = {"image_data": "byte", "image_url": "uri"}
OPTIONS = Options.model_json_schema(ref_template=SCHEMAS + "{model}")


def _describe_source(field: str, *, other: str, **rest: Any) -> dict[str, Any]:
    description = AnalyzeImageRequest.model_fields[field].description
    return {
        "type": "object",
        "required": [field],
        "properties": {
            field: {"type": "string", "format": FORMATS[field], "description": description},
            other: {"type": "null"},
            **rest,
        },
        "additionalProperties": False,
    }


BINARY = {"type": "string", "format": "binary"}


def describe_texts(model: type[Options]) -> dict[str, dict[str, Any]]:
    """Describe a model's fields where they come as text, which cannot say null."""
    properties = {}
    for name, schema in model.model_json_schema(ref_template=SCHEMAS + "{model}")["properties"].items():
        kind = next(part for part in schema["anyOf"] if part != {"type": "null"})
        properties[name] = kind | {"description": schema["description"]}
    return properties


BODIES: dict[str, Any] = {
    "AnalyzeImageByData": _describe_source("image_data", other="image_url", **OPTIONS["properties"]),
    "AnalyzeImageByUrl": _describe_source("image_url", other="image_data", **OPTIONS["properties"]),
    "AnalyzeImageRequest": {
        "description": "One image, as bytes or as a URL: exactly one of the two",
        "oneOf": [{"$ref": f"{SCHEMAS}AnalyzeImageByData"}, {"$ref": f"{SCHEMAS}AnalyzeImageByUrl"}],
    },
    "AnalyzeImageForm": {
        "description": "One image, as a file or as a URL: exactly one of the two",
        "type": "object",
        "properties": {
            "file": BINARY | {"description": "The image"},
            **describe_texts(FormFields),
            "image_url": describe_texts(FormFields)["image_url"] | {"format": "uri"},
        },
        "additionalProperties": False,
        # In allOf: some generators drop an object's fields if it has a oneOf of its own.
        "allOf": [{"oneOf": [{"required": ["file"]}, {"required": ["image_url"]}]}],
    },
    "ImageByData": _describe_source("image_data", other="image_url"),
    "ImageByUrl": _describe_source("image_url", other="image_data"),
    "AnalyzeImagesRequest": {
        "description": "Several images and how they are analyzed",
        "type": "object",
        "required": ["images"],
        "properties": {
            "images": {
                "type": "array",
                "minItems": 1,
                "items": {"oneOf": [{"$ref": f"{SCHEMAS}ImageByData"}, {"$ref": f"{SCHEMAS}ImageByUrl"}]},
                "description": "Each as bytes or as a URL; at most 64, unless the operator has set another limit",
            },
            **OPTIONS["properties"],
        },
        "additionalProperties": False,
    },
    "AnalyzeImagesForm": {
        "description": "Several images, as files, as URLs, or both; the files come first",
        "type": "object",
        "properties": {
            "file": {"type": "array", "minItems": 1, "items": BINARY, "description": "The images"},
            **describe_texts(Options),
            "image_url": {
                "type": "array",
                "minItems": 1,
                "items": describe_texts(FormFields)["image_url"] | {"format": "uri"},
                "description": "The URLs of more images",
            },
        },
        "additionalProperties": False,
        "allOf": [{"anyOf": [{"required": ["file"]}, {"required": ["image_url"]}]}],
    },
    **OPTIONS["$defs"],
}
"""What bodies of requests are made of, named for those who generate clients."""

ANALYZE_IMAGE_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"$ref": f"{SCHEMAS}AnalyzeImageRequest"},
            "examples": {
                "base64": {"summary": "As bytes in base64", "value": {"image_data": EXAMPLE_IMAGE}},
                "url": {"summary": "As a URL", "value": {"image_url": EXAMPLE_URL}},
                "options": {
                    "summary": "With options",
                    "value": {
                        "image_data": EXAMPLE_IMAGE,
                        "top_k": 3,
                        "min_confidence": 0.01,
                        "priority": "high",
                    },
                },
                "webhook": {
                    "summary": "With a webhook",
                    "value": {"image_data": EXAMPLE_IMAGE, "webhook_url": EXAMPLE_WEBHOOK_URL},
                },
            },
        },
        "multipart/form-data": {"schema": {"$ref": f"{SCHEMAS}AnalyzeImageForm"}},
        "image/*": {"schema": BINARY},
        "application/octet-stream": {"schema": BINARY},
    },
}

OPTION_PARAMETERS: list[dict[str, Any]] = [
    {
        "name": name,
        "in": "query",
        "required": False,
        "description": schema.pop("description", ""),
        "schema": schema,
    }
    for name, schema in describe_texts(Options).items()
]

ANALYZE_IMAGES_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"$ref": f"{SCHEMAS}AnalyzeImagesRequest"},
            "example": {"images": [{"image_data": EXAMPLE_IMAGE}, {"image_url": EXAMPLE_URL}], "top_k": 3},
        },
        "multipart/form-data": {"schema": {"$ref": f"{SCHEMAS}AnalyzeImagesForm"}},
    },
}
