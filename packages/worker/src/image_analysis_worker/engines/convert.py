"""Makes OpenVINO models from torch models; with `torch`, the only module that imports torch."""

import warnings

import numpy as np
import torch
from transformers.modeling_utils import PreTrainedModel

from image_analysis_common.startup import StartupError
from image_analysis_worker.decoding.preparation import USUAL_INPUT_PX, Preparation
from image_analysis_worker.engines.engine import find_reason
from image_analysis_worker.engines.openvino import INPUT, OUTPUT, openvino


class _Logits(torch.nn.Module):
    """A classifier whose forward pass takes and returns one tensor."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self._model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._model(pixel_values=pixel_values).logits
        return logits


def convert(model: PreTrainedModel, preparation: Preparation, name: str) -> openvino.Model:
    """Make an OpenVINO model, float32, of batches of any size.

    Raises:
        StartupError: OpenVINO cannot convert it.
    """
    size = preparation.size or (USUAL_INPUT_PX, USUAL_INPUT_PX)
    sides = list(preparation.size or (-1, -1))
    _replace_global_pools(model, max(size))
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing warns of each shape that it takes for a constant
            converted = openvino.convert_model(
                _Logits(model.eval()), example_input=torch.zeros(2, 3, *size), input=[-1, 3, *sides]
            )
    except Exception as error:
        # The last line of defense: a model can hold any operation, and the converter can raise anything.
        raise StartupError(f"{name} cannot be converted for OpenVINO: {find_reason(error)}") from error
    converted.inputs[0].set_names({INPUT})
    converted.outputs[0].set_names({OUTPUT})
    return converted


def _replace_global_pools(module: torch.nn.Module, size_px: int) -> None:
    """Replace pools whose window is larger than any map by the global pools that they are; OpenVINO refuses the former.

    EfficientNet's is 2560 wide for maps of 7 x 7: with `ceil_mode`, torch averages what is there.
    """
    for name, child in module.named_children():
        kernel = child.kernel_size if isinstance(child, torch.nn.AvgPool2d) and child.ceil_mode else 0
        if isinstance(kernel, int) and kernel > size_px // 4:
            setattr(module, name, torch.nn.AdaptiveAvgPool2d(1))
        _replace_global_pools(child, size_px)


def is_exact_in_float16(model: openvino.Model) -> bool:
    """Return whether float16 holds every weight exactly, so that it can be stored in half the size.

    Weights of a checkpoint in float16 are no such weights any more where a normalization was folded into them.
    """
    constants = (node.data for node in model.get_ops() if node.get_type_name() == "Constant" and node.data.size > 1)
    weights = (constant for constant in constants if constant.dtype == np.float32)
    with np.errstate(over="ignore"):
        return all(np.array_equal(tensor.astype(np.float16), tensor) for tensor in weights)
