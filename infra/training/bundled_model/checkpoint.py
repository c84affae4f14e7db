"""A trained network as a checkpoint of transformers' ViT.

The temperature goes into the classifier, the scales of a block into its matrices. Weights are stored in half precision:
transformers turns them into float32 when it loads them.
"""

import tempfile
from pathlib import Path
from typing import cast

from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import ViTConfig, ViTForImageClassification
from transformers.models.vit import ViTImageProcessorPil

from bundled_model.augmentation import MEAN, STD
from bundled_model.network import HEADS, NORM_EPS, PATCH_PX, Block, Network

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BICUBIC = 3
WEIGHTS = "model.safetensors"


def write_checkpoint(network: Network, temperature: float, folder: Path) -> None:
    """Write config.json, preprocessor_config.json and model.safetensors to a folder; leave its other files alone."""
    model = ViTForImageClassification(_config(network))
    model.load_state_dict(_to_vit(network, temperature))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        tensors = load_file(Path(scratch) / WEIGHTS)
        (folder / "config.json").write_bytes((Path(scratch) / "config.json").read_bytes())
    save_file({name: tensor.half() for name, tensor in tensors.items()}, folder / WEIGHTS, {"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)
    side = network.side_px
    ViTImageProcessorPil(
        size={"height": side, "width": side},
        resample=BICUBIC,
        image_mean=[round(value, 3) for value in MEAN.flatten().tolist()],
        image_std=[round(value, 3) for value in STD.flatten().tolist()],
    ).save_pretrained(folder)


def _config(network: Network) -> ViTConfig:
    return ViTConfig(
        architectures=["ViTForImageClassification"],
        hidden_size=network.cls.shape[-1],
        intermediate_size=4 * network.cls.shape[-1],
        num_hidden_layers=len(network.blocks),
        num_attention_heads=HEADS,
        hidden_act="gelu",
        image_size=network.side_px,
        patch_size=PATCH_PX,
        layer_norm_eps=NORM_EPS,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(LABELS)),
        label2id={label: number for number, label in enumerate(LABELS)},
    )


def _to_vit(network: Network, temperature: float) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {
        "vit.embeddings.cls_token": network.cls,
        "vit.embeddings.position_embeddings": network.positions,
        "vit.embeddings.patch_embeddings.projection.weight": network.embed.weight,
        "vit.embeddings.patch_embeddings.projection.bias": cast(Tensor, network.embed.bias),
        "vit.layernorm.weight": network.norm.weight,
        "vit.layernorm.bias": network.norm.bias,
        "classifier.weight": network.classifier.weight / temperature,
        "classifier.bias": network.classifier.bias / temperature,
    }
    for number, block in enumerate(network.blocks):
        for name, tensor in _block_to_vit(cast(Block, block)).items():
            state[f"vit.layers.{number}.{name}"] = tensor
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _block_to_vit(block: Block) -> dict[str, Tensor]:
    queries, keys, values = block.qkv.weight.chunk(3)
    query_bias, key_bias, value_bias = block.qkv.bias.chunk(3)
    parts = {
        "layernorm_before": (block.norm1.weight, block.norm1.bias),
        "attention.q_proj": (queries, query_bias),
        "attention.k_proj": (keys, key_bias),
        "attention.v_proj": (values, value_bias),
        "attention.o_proj": (block.scale1[:, None] * block.out.weight, block.scale1 * block.out.bias),
        "layernorm_after": (block.norm2.weight, block.norm2.bias),
        "mlp.fc1": (block.fc1.weight, block.fc1.bias),
        "mlp.fc2": (block.scale2[:, None] * block.fc2.weight, block.scale2 * block.fc2.bias),
    }
    weights = {f"{name}.weight": weight for name, (weight, _) in parts.items()}
    return weights | {f"{name}.bias": bias for name, (_, bias) in parts.items()}
