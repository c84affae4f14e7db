"""Tells schemathesis how to send valid requests: with real images, and with a URL that serves one."""

import base64
import os
from collections.abc import Mapping
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis.transport.serialization import Binary

from image_analysis_api.intake.labels import MAX_LABELS_BYTES
from support.samples import encode, make_image

IMAGE_URL = os.environ["IMAGE_URL"]
IS_UNANNOUNCED = "UNANNOUNCED" in os.environ
"""Whether no worker has announced the default model: then the service accepts every question."""

QUESTION = ("labels", "candidate_labels", "hypothesis_template")
IMAGES = [encode(make_image(seed), form) for seed, form in enumerate(("PNG", "JPEG", "GIF"))]

EXAMPLES = [
    {"label": label, "image": base64.b64encode(encode(make_image(seed))).decode()}
    for label, seeds in (("one", range(5)), ("other", range(5, 10)))
    for seed in seeds
]

schemathesis.openapi.format("byte", st.sampled_from([base64.b64encode(image).decode() for image in IMAGES]))
schemathesis.openapi.format("binary", st.sampled_from([Binary(image) for image in IMAGES]))
schemathesis.openapi.format("uri", st.just(IMAGE_URL))


@schemathesis.hook
def before_load_schema(_context: Any, raw_schema: dict[str, Any]) -> None:
    """Replace what schemathesis cannot use: hosts that the tests cannot reach, and keywords that it ignores.

    It ignores most conditions, and `x-itemSchema`. From the empty examples, which are for Swagger UI, it would make a
    form with every field.
    """
    one, several = (
        raw_schema["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        for path in ("/analyze-image", "/analyze-images")
    )
    one["examples"]["webhook"]["value"]["webhook_url"] = IMAGE_URL
    one["examples"]["url"]["value"]["image_url"] = several["example"]["images"][1]["image_url"] = IMAGE_URL
    schemas = raw_schema["components"]["schemas"]
    for name in ("AnalyzeImageJson", "ImageSource"):
        pairs = (("image_data", "image_url"), ("image_url", "image_data"))
        schemas[name] = {"oneOf": [require(schemas[name], field, without=other) for field, other in pairs]}
    by_file, by_url = {"required": ["file"]}, {"required": ["image_url"]}
    only_file, only_url = by_file | {"properties": {"image_url": False}}, by_url | {"properties": {"file": False}}
    choose(schemas["AnalyzeImageForm"], {"oneOf": [only_file, only_url]})
    choose(schemas["AnalyzeImagesForm"], {"anyOf": [by_file, by_url]})
    # Which labels can be sent depends on the model, and a classifier excludes them. Without a worker, no job ends, and
    # nothing should wait for one.
    unused = ("Prefer", "classifier") if IS_UNANNOUNCED else QUESTION
    for path in ("/analyze-image", "/analyze-images", "/models/{model_id}"):
        submission = raw_schema["paths"][path]["post"]
        submission["parameters"] = [named for named in submission["parameters"] if named["name"] not in unused]
    for name in ("AnalyzeImageJson", "AnalyzeImageForm", "AnalyzeImagesJson", "AnalyzeImagesForm"):
        forget(schemas[name], unused)
    if not IS_UNANNOUNCED:
        del one["examples"]["labels"]
        forget(schemas["InferenceParameters"], unused)
    # How many examples of how many labels are enough, a document cannot say. A form is sent by another test.
    schemas["TrainingJson"]["properties"]["examples"] = {"enum": [EXAMPLES]}
    for path, method in (("/classifiers/{name}", "put"), ("/classifiers/{name}/examples", "post")):
        content = raw_schema["paths"][path][method]["requestBody"]["content"]
        content["application/json"].pop("examples")
        del content["multipart/form-data"]
    events = raw_schema["paths"]["/analysis-status/{job_id}/events"]["get"]["responses"]["200"]["content"]
    events["text/event-stream"] = {"itemSchema": events["text/event-stream"]["x-itemSchema"]}


def forget(schema: dict[str, Any], names: tuple[str, ...]) -> None:
    """Remove options from an object's schema; in a choice, from each object."""
    for part in schema.get("oneOf", [schema]):
        for name in names:
            part["properties"].pop(name, None)


def require(schema: dict[str, Any], field: str, *, without: str) -> dict[str, Any]:
    """Return an object's schema with one of its fields required, and another excluded, in place of its condition."""
    properties = {name: described for name, described in schema["properties"].items() if name != without}
    properties[field] = properties[field]["anyOf"][0]
    kept = {key: value for key, value in schema.items() if key not in ("if", "then", "else")}
    return kept | {"required": [field], "properties": properties}


def choose(form: dict[str, Any], choice: dict[str, Any]) -> None:
    """Put a choice in the place of a form's condition."""
    for keyword in ("if", "then", "else"):
        form.pop(keyword, None)
    for described in form["properties"].values():
        described.pop("example", None)
    form["allOf"] = [choice]


def is_other_when_sent(fields: object) -> bool:
    """Whether a field is sent as an empty text, or as an object, or is a list with one.

    An empty list sends nothing. Of an object, a form and a query hold only the names: they may be valid, or empty.
    """
    values = fields.values() if isinstance(fields, Mapping) else ()
    parts = (part for value in values for part in (value if isinstance(value, list) else [value]))
    return any(part in ("", b"") or isinstance(part, Mapping) for part in parts)


def fits(case: schemathesis.Case[Any]) -> bool:
    """Whether the document can describe the answer to the labels of this case, if there are any.

    A classifier knows its model, and excludes another one.
    Spaces around labels are removed, and a form or a query can write a list as one text with commas.
    """
    places = [case.query or {}, case.body if isinstance(case.body, dict) else {}]
    if any("hypothesis_template" in place and not place.get("labels") for place in places):
        return False
    names_classifier = case.path.endswith("/examples") or any(place.get("classifier") for place in places)
    if names_classifier and any(place.get("model") for place in places):
        return False
    is_text = case.media_type == "multipart/form-data" or case.query
    for labels in [place["labels"] for place in places if place.get("labels") is not None]:
        texts = labels if isinstance(labels, list) else [labels]
        stripped = [text.strip() for text in texts if isinstance(text, str)]
        if is_text and (len(stripped) < len(texts) or len(texts) == 1):
            return False
        if (
            not all(stripped)
            or len(set(stripped)) < len(stripped)
            or len("".join(stripped).encode()) > MAX_LABELS_BYTES
        ):
            return False
    return True


@schemathesis.hook
def filter_case(_context: Any, case: schemathesis.Case[Any]) -> bool:
    """Skip cases that the document cannot describe.

    In a form, everything is a text or a list of texts, so a value of a wrong type may become valid. In a form, and in
    the query of a submission, an empty text counts as not set, even if the document describes a number. Which function
    can be applied depends on the model.
    """
    if case.method == "POST" and (is_other_when_sent(case.query) or not fits(case)):
        return False
    if case.media_type == "multipart/form-data" and is_other_when_sent(case.body):
        return False
    if case.path == "/models/{model_id}" and case.method == "POST":
        body = case.body if isinstance(case.body, dict) else {}
        parameters = body.get("parameters")
        given = [case.query or {}, parameters if isinstance(parameters, dict) else {}]
        return all(values.get("function_to_apply") not in ("sigmoid", "none") for values in given)
    if case.path != "/analyze-images" or case.media_type != "multipart/form-data" or not isinstance(case.body, dict):
        return True
    lists = [case.body[name] for name in ("file", "image_url") if name in case.body]
    return all(
        isinstance(part, list) and all(isinstance(item, str | bytes | Binary) for item in part) for part in lists
    )
