"""The request bodies and options in the OpenAPI document."""

from typing import Any

from pydantic import BaseModel

from image_analysis_api.intake.schemas import (
    EXAMPLE_IMAGE,
    EXAMPLE_URL,
    EXAMPLE_WEBHOOK_URL,
    EXAMPLE_ZERO_SHOT,
    AnalyzeImageRequest,
    FormFields,
    InferenceParameters,
    InferenceRequest,
    Options,
)

SCHEMAS = "#/components/schemas/"
FORMATS = {"image_data": "byte", "image_url": "uri"}
OPTIONS = Options.model_json_schema(ref_template=SCHEMAS + "{model}")
INFERENCE = InferenceRequest.model_json_schema(ref_template=SCHEMAS + "{model}")
NULL = {"type": "null"}
BINARY = {"type": "string", "format": "binary"}
# The default, but without it OpenAPI Generator joins a list with commas.
SEVERAL_FIELDS = {"style": "form", "explode": True}


def describe_source(**options: Any) -> dict[str, Any]:
    """Describe an object with one image and options. Generators make a plain class of it and ignore the condition."""
    fields = AnalyzeImageRequest.model_fields
    return {
        "description": "One image, as bytes or as a URL: exactly one of the two",
        "type": "object",
        "properties": {
            **{
                name: {
                    "anyOf": [{"type": "string", "format": kind}, NULL],
                    "description": fields[name].description,
                }
                for name, kind in FORMATS.items()
            },
            **options,
        },
        "additionalProperties": False,
        # With `not`, because ReDoc merges a condition's types with those above.
        "if": {"required": ["image_data"], "properties": {"image_data": {"not": NULL}}},
        "then": {"properties": {"image_url": {"not": {"type": "string"}}}},
        "else": {"required": ["image_url"], "properties": {"image_url": {"not": NULL}}},
    }


def describe_texts(model: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """Describe the fields of a model in a form or a query. Text cannot say null: there, an empty field is not set.

    A list is a name that is given more than once; given once, it may be a text with commas.
    """
    properties = {}
    for name, schema in model.model_json_schema(ref_template=SCHEMAS + "{model}")["properties"].items():
        kind = next(part for part in schema["anyOf"] if part != NULL)
        for part in (kind, kind.get("items", {})):
            part.pop("minLength", None)
            part.pop("minItems", None)
        properties[name] = kind | {"description": schema["description"]}
    return properties


def describe_form(files: dict[str, Any], image_url: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Describe the fields of a form with images. Swagger UI fills a field in with its example, or invents a value."""
    texts = describe_texts(Options) | {"image_url": image_url}
    empty = {name: [] if schema.get("type") == "array" else "" for name, schema in texts.items()}
    return {"file": files, **{name: schema | {"example": empty[name]} for name, schema in texts.items()}}


IMAGE_URL = describe_texts(FormFields)["image_url"] | {"format": "uri"}
BODIES: dict[str, Any] = {
    "AnalyzeImageJson": describe_source(**OPTIONS["properties"]),
    "AnalyzeImageForm": {
        "description": "One image, as a file or as a URL: exactly one of the two. An empty field counts as not set",
        "type": "object",
        "properties": describe_form(BINARY | {"description": "The image"}, IMAGE_URL),
        "additionalProperties": False,
        "if": {"required": ["image_url"]},
        "then": {"properties": {"file": False}},
        "else": {"required": ["file"]},
    },
    "ImageSource": describe_source(),
    "AnalyzeImagesJson": {
        "description": "Several images and how they are analyzed",
        "type": "object",
        "required": ["images"],
        "properties": {
            "images": {
                "type": "array",
                "minItems": 1,
                "items": {"$ref": f"{SCHEMAS}ImageSource"},
                "description": "Each as bytes or as a URL; at most 64, unless the operator has set another limit",
            },
            **OPTIONS["properties"],
        },
        "additionalProperties": False,
    },
    "AnalyzeImagesForm": {
        "description": "Several images, as files, as URLs, or both, files first. An empty field counts as not set",
        "type": "object",
        "properties": describe_form(
            {"type": "array", "minItems": 1, "items": BINARY, "description": "The images"},
            {"type": "array", "minItems": 1, "items": IMAGE_URL, "description": "The URLs of more images"},
        ),
        "additionalProperties": False,
        "if": {"required": ["image_url"]},
        "else": {"required": ["file"]},
    },
    **OPTIONS["$defs"],
    **INFERENCE.pop("$defs"),
    "InferenceJson": INFERENCE,
}
"""The schemas of bodies by the names of the generated classes.

None ends in Request: OpenAPI Generator names the parameters of an operation so.
"""

ANALYZE_IMAGE_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        # First, because generators and Swagger UI take the first: it sends a file as it is.
        "multipart/form-data": {
            "schema": {"$ref": f"{SCHEMAS}AnalyzeImageForm"},
            "encoding": {"labels": SEVERAL_FIELDS},
        },
        "application/json": {
            "schema": {"$ref": f"{SCHEMAS}AnalyzeImageJson"},
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
                "labels": {
                    "summary": "With labels, for a zero-shot model",
                    "value": {
                        "image_data": EXAMPLE_IMAGE,
                        "model": EXAMPLE_ZERO_SHOT,
                        "labels": ["a receipt", "a passport", "a selfie"],
                    },
                },
                "embedding": {
                    "summary": "With the image's embedding in the result",
                    "value": {"image_data": EXAMPLE_IMAGE, "embedding": True},
                },
                "webhook": {
                    "summary": "With a webhook",
                    "value": {"image_data": EXAMPLE_IMAGE, "webhook_url": EXAMPLE_WEBHOOK_URL},
                },
            },
        },
        "image/*": {"schema": BINARY},
        "application/octet-stream": {"schema": BINARY},
    },
}


def describe_query(model: type[BaseModel]) -> list[dict[str, Any]]:
    """Describe the fields of a model as parameters of the query."""
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": schema.pop("description", ""),
            "schema": schema,
        }
        for name, schema in describe_texts(model).items()
    ]


OPTION_PARAMETERS = describe_query(Options)
INFERENCE_PARAMETERS = describe_query(InferenceParameters)

INFERENCE_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"$ref": f"{SCHEMAS}InferenceJson"},
            "example": {"inputs": EXAMPLE_IMAGE, "parameters": {"top_k": 3}},
        },
        "image/*": {"schema": BINARY},
        "application/octet-stream": {"schema": BINARY},
    },
}

ANALYZE_IMAGES_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {"$ref": f"{SCHEMAS}AnalyzeImagesForm"},
            "encoding": {"image_url": SEVERAL_FIELDS, "labels": SEVERAL_FIELDS},
        },
        "application/json": {
            "schema": {"$ref": f"{SCHEMAS}AnalyzeImagesJson"},
            "example": {"images": [{"image_data": EXAMPLE_IMAGE}, {"image_url": EXAMPLE_URL}], "top_k": 3},
        },
    },
}
