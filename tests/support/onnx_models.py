"""Tiny checkpoints in ONNX: one matrix, and the labels and the image processor of the bundled model."""

from pathlib import Path
from shutil import copy

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from image_analysis_worker.engines.checkpoint import BUNDLED_FOLDER

LABELS = 10


def make_weights(seed: int = 5) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 0.02, (3 * 32 * 32, LABELS)).astype(np.float32)


def write_onnx(path: Path, weights: NDArray[np.float32], *, batch: str | int = "batch") -> None:
    """Write a classifier of 32 x 32 px that is one matrix (3 * 32 * 32, labels); `batch` is the size of its batches."""
    nodes = [
        helper.make_node("Flatten", ["pixel_values"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, [batch, 3, 32, 32])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, LABELS])]
    graph = helper.make_graph(nodes, "classifier", inputs, outputs, [numpy_helper.from_array(weights, "weights")])
    path.parent.mkdir(exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def make_onnx_checkpoint(folder: Path, weights: NDArray[np.float32], *, batch: str | int = "batch") -> Path:
    """Make a folder with a model in ONNX."""
    folder.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        copy(BUNDLED_FOLDER / name, folder)
    write_onnx(folder / "onnx" / "model.onnx", weights, batch=batch)
    return folder
