"""Reading an image and its parameters as Hugging Face's inference clients send them."""

from starlette.requests import Request

from image_analysis_api.intake.reading import BodyLimits, read_body
from image_analysis_api.intake.schemas import InferenceParameters, InferenceRequest, Options
from image_analysis_api.intake.submissions import Submission, content_type, parse_fields, read_json
from image_analysis_common.errors import RequestError, UnsupportedMediaType
from image_analysis_common.models import MAX_TOP_K

EMPTY_BODY = "The body is empty: send an image, or JSON with inputs (base64)."
NO_FORM = "Send the image itself as the body, or JSON (application/json): this call reads no form."


async def read_inference(request: Request, model: str, limits: BodyLimits) -> tuple[Submission, str | None]:
    """Read a body that is one image, or JSON with one; return it with the function to apply, if one is named.

    The clients name the type of an image after its file or its server, or not at all. So any body that is neither JSON
    nor a form is the image. Parameters come in JSON or in the query; in JSON, they win.

    Raises:
        ImageTooLarge: the body is longer; no more of it is read.
        UnsupportedMediaType: it is a form.
        RequestError: something else is wrong with it.
    """
    _, kind = content_type(request)
    if kind == "multipart/form-data":
        raise UnsupportedMediaType(NO_FORM)
    named = [pair for pair in request.query_params.multi_items() if pair[0] in InferenceParameters.model_fields]
    parameters, image, inputs = parse_fields(InferenceParameters, named), None, None
    if kind == "application/json":
        asked = await read_json(request, InferenceRequest, limits, kind=kind, max_images=1, empty=EMPTY_BODY)
        given = asked.parameters.model_dump(exclude_none=True) if asked.parameters else {}
        parameters, inputs = parameters.model_copy(update=given), asked.inputs
    else:
        chunks = list[bytes]()
        await read_body(request, chunks.append, limits.max_images_bytes, limits)
        image = b"".join(chunks)
        if not image:
            raise RequestError(EMPTY_BODY)
    labels, top_k = parameters.candidate_labels, parameters.top_k
    if labels is not None and top_k is None:
        top_k = min(len(labels), MAX_TOP_K)  # as Hugging Face's pipeline, which answers with all of them
    template = parameters.hypothesis_template
    options = Options.model_construct(model=model, top_k=top_k, labels=labels, hypothesis_template=template)
    if template is not None and labels is None:
        raise RequestError("hypothesis_template needs candidate_labels: send both, or leave it out.")
    return Submission(options, image=image, image_data=inputs), parameters.function_to_apply
