"""Runs an OpenVINO or ONNX model on the CPU, without torch; `convert` makes such models from torch's."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image_analysis_common.startup import StartupError
from image_analysis_worker.decoding.preparation import Preparation
from image_analysis_worker.engines.cores import count_usable_cores

# OpenVINO sends statistics of its use to its makers if it finds this package. A worker connects to Redis only.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino as openvino  # noqa: E402
from openvino.preprocess import PrePostProcessor  # noqa: E402

BATCH_SIZE = 8
INPUT, OUTPUT = "pixel_values", "logits"
_ARITHMETIC = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
"""What is not quantized is computed in this type. Without it, OpenVINO would choose bfloat16 by itself."""


class OpenVinoNetwork:
    """A compiled model."""

    engine = "openvino"
    device = "cpu"
    batch_size = BATCH_SIZE

    def __init__(self, model: openvino.Model | Path, preparation: Preparation, precision: str) -> None:
        """Compile a model, or the one in a file.

        Raises:
            StartupError: it takes several images at once only.
        """
        core = openvino.Core()
        if isinstance(model, Path):
            path, model = model, core.read_model(model)
            self.batch_size = _find_batch_size(model, path)
        self.precision = precision
        self._output = _find_output(model)
        entered = find_entered(model, self._output)
        self._entered = range(len(model.outputs), len(model.outputs) + len(entered))
        model.add_outputs(entered)
        self._request = core.compile_model(
            _bake(model, preparation),
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": count_usable_cores(),
                "INFERENCE_PRECISION_HINT": _ARITHMETIC[precision],
            },
        ).create_infer_request()

    def run(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Compute the logits of a batch."""
        self._request.infer([pixels])
        return self._fetch(self._output)

    def embed(self, pixels: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compute the logits of a batch, and what enters the classifier."""
        logits = self.run(pixels)
        entered = [self._fetch(output).reshape(len(logits), -1) for output in self._entered]
        return logits, np.concatenate(entered, axis=1) if entered else logits[:, :0]

    def _fetch(self, output: int) -> NDArray[np.float32]:
        values: NDArray[np.float32] = self._request.get_output_tensor(output).data.astype(np.float32)
        return values


def _find_batch_size(model: openvino.Model, path: Path) -> int:
    """Return the size of a model's batches: 1 if it was exported for one image at a time."""
    shape = model.inputs[0].get_partial_shape()
    if shape.rank.is_dynamic or shape[0].is_dynamic:
        return BATCH_SIZE
    if (size := shape[0].get_length()) != 1:
        raise StartupError(f"{path} takes batches of {size} images only: export it with a batch axis of any size.")
    return 1


def _find_output(model: openvino.Model) -> int:
    """Return the index of the logits: an output may have any name, and an embedding may stand next to it."""
    names = [output.get_names() for output in model.outputs]
    return next((index for index, known in enumerate(names) if OUTPUT in known), 0)


def find_entered(model: openvino.Model, output: int) -> list[openvino.Output]:
    """Find what enters the classifier, the last layer before an output: two values if the output is made of two layers.

    Returns an empty list if something else makes the output.
    """
    try:
        return _trace(model.outputs[output].get_node().input_value(0))
    except LookupError:
        return []


def _trace(value: openvino.Output) -> list[openvino.Output]:
    node = value.get_node()
    inputs = node.input_values()
    match node.get_type_name():
        case "Constant":
            return []
        case "Add" | "Multiply" | "Divide":
            return [found for source in inputs for found in _trace(source)]
        case "Convert" | "FakeQuantize" | "Reshape" | "Squeeze":
            return _trace(inputs[0])
        case "MatMul":
            return [_skip_rounding(inputs[0])]
        case "Convolution" if all(side == 1 for side in list(value.get_partial_shape())[2:]):
            return [_skip_rounding(inputs[0])]
    raise LookupError(node.get_type_name())


def _skip_rounding(value: openvino.Output) -> openvino.Output:
    """Return the exact value that an int8 model rounds, and that nncf scales before, or the value itself."""
    for kind, ending in (("FakeQuantize", ""), ("Multiply", "smooth_quant")):
        node = value.get_node()
        if node.get_type_name() == kind and node.get_friendly_name().endswith(ending):
            value = node.input_value(0)
    return value


def _bake(model: openvino.Model, preparation: Preparation) -> openvino.Model:
    """Make the model take what decoders give: uint8 is normalized as the image processor would."""
    if preparation.scale is None or preparation.offset is None:
        return model
    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NCHW"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    factors = zip(preparation.scale, preparation.offset, strict=True)
    means = [-offset / scale for scale, offset in factors]
    steps.input().preprocess().convert_element_type(openvino.Type.f32).mean(means).scale(
        [1 / scale for scale in preparation.scale]
    )
    return steps.build()
