"""The network: a MobileNetV2 of transformers, whose convolutions come from a detector."""

import math
from typing import cast

import torch
from torch import Tensor, nn
from transformers import MobileNetV2Config, MobileNetV2ForImageClassification
from transformers.models.mobilenet_v2.modeling_mobilenet_v2 import MobileNetV2ConvLayer

from bundled_model.backbone import Convolution

SIDE_PX = 97
"""One more than a multiple of 32: then padding on both sides, as torch does it, equals TensorFlow's."""
LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MOMENTUM = 0.01
"""How much of a normalization's statistics each part of a batch replaces."""
CONFIG = MobileNetV2Config(
    architectures=["MobileNetV2ForImageClassification"],
    image_size=SIDE_PX,
    tf_padding=False,
    classifier_dropout_prob=0.0,
    id2label=dict(enumerate(LABELS)),
    label2id={label: number for number, label in enumerate(LABELS)},
)


def build_network(convolutions: list[Convolution], pixels: Tensor) -> MobileNetV2ForImageClassification:
    """Build the network with given convolutions, and a classifier that knows nothing yet.

    Each convolution is followed by a normalization again, which begins with the statistics of `pixels` (N, 3, H, W)
    and changes nothing.
    """
    network = MobileNetV2ForImageClassification(CONFIG)
    hooks = [
        layer.register_forward_pre_hook(_Start(*convolution))
        for layer, convolution in zip(convolution_layers(network), convolutions, strict=True)
    ]
    nn.init.zeros_(cast(nn.Linear, network.classifier).weight)
    with torch.inference_mode():
        network.eval()(pixels)
    for hook in hooks:
        hook.remove()
    for module in network.modules():
        if isinstance(module, nn.ReLU6):
            # A fifth faster to train.
            module.inplace = True
    return network


def convolution_layers(network: MobileNetV2ForImageClassification) -> list[MobileNetV2ConvLayer]:
    """Return the convolutions with their normalizations and activations, in the order in which they see an image."""
    return [module for module in network.modules() if isinstance(module, MobileNetV2ConvLayer)]


class _Start:
    """Gives a layer its convolution right before its first input."""

    def __init__(self, kernels: Tensor, biases: Tensor) -> None:
        self.kernels, self.biases = kernels, biases

    def __call__(self, layer: MobileNetV2ConvLayer, inputs: tuple[Tensor]) -> None:
        norms = self.kernels.flatten(1).norm(dim=1).clamp(min=1e-4)
        # Kernels of one length learn at one rate.
        layer.convolution.weight.copy_(self.kernels * (math.sqrt(2) / norms).view(-1, 1, 1, 1))
        outputs = layer.convolution(inputs[0])
        variances, means = torch.var_mean(outputs, (0, 2, 3))
        normalization = layer.normalization
        # transformers has TensorFlow's 0.997, which in torch means that only the last batch counts.
        normalization.momentum = MOMENTUM
        cast(Tensor, normalization.running_mean).copy_(means)
        cast(Tensor, normalization.running_var).copy_(variances)
        normalization.weight.copy_((variances + normalization.eps).sqrt() * norms / math.sqrt(2))
        normalization.bias.copy_(self.biases + means * norms / math.sqrt(2))
