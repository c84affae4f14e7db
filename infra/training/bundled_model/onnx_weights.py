"""Reads weights from an ONNX file: the one place here that knows ONNX, which only the training group installs."""

from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read weights by name. A matrix, which has a number for a name, also gets its node's: `encoder.fc1.weight`."""
    graph = onnx.load(path).graph
    weights = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights:
            name = node.name.strip("/").replace("/MatMul", ".weight").replace("/", ".")
            weights[name] = weights[node.input[1]].T.contiguous()
    return weights
