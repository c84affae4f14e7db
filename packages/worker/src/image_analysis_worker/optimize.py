"""Makes a folder that a worker serves on OpenVINO, without torch: what `just optimize` does.

It converts the model, compares every engine with the reference on real images, and writes the report next to the model.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from image_analysis_common.models import EXACT
from image_analysis_common.startup import StartupError, refuse_to_start
from image_analysis_worker.engines.checkpoint import Checkpoint, find_checkpoint
from image_analysis_worker.engines.cores import has_bfloat16, has_vnni
from image_analysis_worker.engines.gate import Report, answer, compare, decode_all, judge
from image_analysis_worker.engines.images import BUNDLED, cut_photos, read_images
from image_analysis_worker.engines.inputs import Inputs
from image_analysis_worker.engines.load import Networks, open_inputs
from image_analysis_worker.engines.optimized import Converted, check_output, write_folder, write_report
from image_analysis_worker.settings import WorkerSettings

CALIBRATION_IMAGES = 300
"""How many images show nncf the ranges of a model's values."""


def main() -> None:
    """Optimize one model; print the report, and how to serve the folder."""
    parser = argparse.ArgumentParser(prog="just optimize", description=__doc__)
    parser.add_argument("model_id", metavar="MODEL_ID", help="a folder or an ID on the model hub")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="compare on your images, not on parts of photos")
    parser.add_argument("--int8", action="store_true", help="also make an int8 model (needs nncf)")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="default: optimized/ and the model's name")
    options = parser.parse_args()
    try:
        settings = WorkerSettings.from_environment()
        checkpoint = find_checkpoint(options.model_id, settings.model_revision)
        output = options.output or Path("optimized", checkpoint.name.replace("/", "--"))
        images = read_images(options.images) if options.images else None
        source = str(options.images) if options.images else "parts of the photos in the package"
        report = optimize(checkpoint, output, images, source=source, has_int8=options.int8)
    except StartupError as error:
        refuse_to_start("worker", error)
    sys.stdout.write(describe(report, settings.min_agreement))
    sys.stdout.write(f"Serve it: MODEL_ID=./{output} uv run just dev\n" if not output.is_absolute() else f"{output}\n")


def optimize(
    checkpoint: Checkpoint, output: Path, images: Iterable[bytes] | None, *, source: str, has_int8: bool
) -> Report:
    """Write the converted model, the files that it needs, and the report into `output`.

    Without `images`, the engines are compared on parts of the package's photos.

    Raises:
        StartupError: the model cannot be converted, the folder cannot be written, or the engines cannot be compared.
    """
    settings = WorkerSettings()
    if checkpoint.task != "image-classification":
        raise StartupError(f"{checkpoint.name} is a zero-shot model, which runs on torch only.")
    check_output(checkpoint, output)
    inputs = open_inputs(checkpoint, settings)
    networks = Networks(inputs, is_converted=not checkpoint.has_source)
    if not networks.choices:
        raise StartupError(f"{checkpoint.name}: optimizing needs torch and openvino, or onnx/model.onnx and openvino.")
    reference = networks.make(networks.reference)
    if images is None:
        images = cut_photos(BUNDLED, is_square=inputs.decoders.preparation.size is not None)
    pixels = decode_all(inputs, images)
    exact = answer(reference, inputs, pixels, is_timed=True)
    calibration = pixels[:: -(-len(pixels) // CALIBRATION_IMAGES)] if has_int8 else []
    write_folder(inputs, _make_models(inputs, calibration), output)
    candidates = [compare(reference, exact, exact)]
    written = _reopen(checkpoint, output)
    converted = Networks(Inputs(written, inputs.labels, inputs.decoders), is_converted=True)
    on_gpu = reference.device != "cpu"
    is_fast = on_gpu or has_bfloat16()
    choices = [(networks, choice) for choice in networks.choices if choice.engine == "torch" and is_fast]
    choices += [(converted, choice) for choice in converted.choices if choice.engine != "torch"]
    for source_networks, choice in choices:
        if str(choice) != candidates[0].name:
            network = source_networks.make(choice)
            candidates.append(compare(network, answer(network, inputs, pixels, is_timed=True), exact))
    report = Report(
        revision=written.revision,
        has_vnni=has_vnni(),
        has_gpu=on_gpu,
        images=len(pixels),
        source=source,
        candidates=candidates,
    )
    write_report(report, output)
    return report


def _reopen(checkpoint: Checkpoint, output: Path) -> Checkpoint:
    """Return what was written: in place, the labels of timm's models change the revision."""
    if checkpoint.folder.samefile(output):
        return find_checkpoint(str(output.absolute()), name=checkpoint.name)
    return Checkpoint(checkpoint.name, output, checkpoint.revision)


def _make_models(inputs: Inputs, calibration: Sequence[NDArray[Any]]) -> dict[str, Converted]:
    """Make the float32 model and, if there are images for calibration or the checkpoint has one, the int8 model."""
    from image_analysis_worker.engines.openvino import openvino

    checkpoint, preparation = inputs.checkpoint, inputs.decoders.preparation
    is_half = False
    quantized = None
    if checkpoint.has_weights and find_spec("torch"):
        from image_analysis_worker.engines.convert import convert, is_exact_in_float16
        from image_analysis_worker.engines.torch import load_model

        model = load_model(checkpoint)
        converted = convert(model, preparation, checkpoint.name)
        is_half = is_exact_in_float16(converted)
    else:
        is_converted = not checkpoint.has_source
        converted = openvino.Core().read_model(checkpoint.find_network(EXACT, is_converted=is_converted))
        if path := checkpoint.find_network("int8", is_converted=is_converted):
            quantized = openvino.Core().read_model(path)
    if calibration:
        from image_analysis_worker.engines.quantize import quantize

        quantized = quantize(converted, [preparation.normalize(batch) for batch in calibration], checkpoint.name)
    models = {EXACT: Converted(converted, is_half)}
    if quantized is not None:
        models["int8"] = Converted(quantized, is_half=False)
    return models


def describe(report: Report, min_agreement: float) -> str:
    """Write the report for people, fastest first."""
    lines = [f"Compared on {report.images} images ({report.source}):", ""]
    for found in sorted(report.candidates, key=lambda found: -found.images_per_s):
        verdict = "passes" if judge(found, min_agreement) is None else "refused"
        lines.append(
            f"  {found.name:<20} agrees {found.agreement:7.2%}   confidence off by {found.confidence_difference:.4f}   "
            f"{found.images_per_s:8.1f} images/s   {verdict}"
        )
    return "\n".join([*lines, "", ""])


if __name__ == "__main__":
    main()
