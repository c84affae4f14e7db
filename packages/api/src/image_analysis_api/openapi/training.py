"""The request body and the options of a training in the OpenAPI document."""

from typing import Any

from image_analysis_api.intake.examples import TrainingOptions, TrainingRequest
from image_analysis_api.intake.schemas import EXAMPLE_IMAGE, EXAMPLE_URL
from image_analysis_api.openapi.bodies import BINARY, SCHEMAS, describe_query

_FORMATS = {"image": "byte", "image_url": "uri"}
_TRAINING = TrainingRequest.model_json_schema(ref_template=SCHEMAS + "{model}")
_SCHEMAS = _TRAINING.pop("$defs")
for _name, _format in _FORMATS.items():
    _SCHEMAS["ExampleSource"]["properties"][_name]["anyOf"][0]["format"] = _format

TRAINING_SCHEMAS: dict[str, Any] = {
    **_SCHEMAS,
    "TrainingJson": _TRAINING,
    "TrainingForm": {
        "description": "Images. The name of a part is the label of its image, so each name comes several times. "
        "Options go into the query",
        "type": "object",
        # A list of files, one for each part of the same name: generators write code for it that does not run.
        "additionalProperties": BINARY,
    },
}
"""The schemas of bodies by the names of the generated classes."""

TRAINING_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"$ref": f"{SCHEMAS}TrainingJson"},
            "examples": {
                "sources": {
                    "summary": "The four ways to name an image; a label needs five of them",
                    "value": {
                        "examples": [
                            {"label": "cat", "image": EXAMPLE_IMAGE},
                            {"label": "cat", "image_url": EXAMPLE_URL},
                            {"label": "dog", "image_hash": "0" * 64},
                            {"label": "dog", "job_id": "5f0c1a52-7a3e-4b5c-9d3e-2f1b0a9c8d7e"},
                        ]
                    },
                }
            },
        },
        "multipart/form-data": {"schema": {"$ref": f"{SCHEMAS}TrainingForm"}},
    },
}
TRAINING_PARAMETERS = describe_query(TrainingOptions)
