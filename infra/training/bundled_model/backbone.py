"""Where training starts: the convolutions of an object detector, from the TensorFlow Lite file of an npm package.

`@mediapipe/objectron` (Apache-2.0) ships an SSD with a MobileNetV2 of full width, trained on photos of Open Images V4.
Its normalizations are folded into the convolutions.
"""

import re
import tempfile
from pathlib import Path

import numpy as np
import openvino as ov
import torch
from torch import Tensor

ASSETS = "objectron_solution_packed_assets"
DETECTOR = "object_detection_ssd_mobilenetv2_oidv4_fp16.tflite"
LAST_CHANNELS = 1280

Convolution = tuple[Tensor, Tensor]
"""Kernels (channels, channels of the input in a group, height, width), and biases (channels,)."""


def read_convolutions(package: Path) -> list[Convolution]:
    """Read the 52 convolutions of the MobileNetV2, in the order in which they see an image."""
    core = ov.Core()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / DETECTOR
        file.write_bytes(_unpack(package))
        model = core.read_model(file)
    layers = [op for op in model.get_ordered_ops() if op.get_type_name() in {"Convolution", "GroupConvolution"}]
    convolutions = []
    for layer in layers:
        (following,) = (edge.get_node() for edge in layer.output(0).get_target_inputs())
        # The detector's heads are not followed by another layer, but by a change of their shape.
        if any(edge.get_node().get_type_name() == "Transpose" for edge in following.output(0).get_target_inputs()):
            continue
        kernels, biases = (torch.from_numpy(_compute(core, node, 1)) for node in (layer, following))
        convolutions.append((kernels.view(len(kernels), -1, *kernels.shape[-2:]), biases.flatten()))
        if len(kernels) == LAST_CHANNELS:
            return convolutions
    raise ValueError(f"{DETECTOR} has no convolution of {LAST_CHANNELS} channels")


def _unpack(package: Path) -> bytes:
    """Cut the detector out of the file that holds the package's assets one after another; its loader knows where."""
    place = re.search(
        rf'{re.escape(DETECTOR)}", "start": (\d+), "end": (\d+)', (package / f"{ASSETS}_loader.js").read_text()
    )
    if place is None:
        raise ValueError(f"{package} does not say where {DETECTOR} is")
    start, end = map(int, place.groups())
    return (package / f"{ASSETS}.data").read_bytes()[start:end]


def _compute(core: ov.Core, node: ov.Node, number: int) -> np.ndarray:
    """Compute an input that depends on nothing but constants, as float32."""
    constant = ov.Model([ov.opset13.convert(node.input_value(number), "f32")], [])
    result: np.ndarray = core.compile_model(constant, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({})[0].copy()
    return result
