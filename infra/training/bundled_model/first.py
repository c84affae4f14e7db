"""The model that this one grew out of: the first that was bundled. The repository's history holds it."""

import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor
from transformers import ViTForImageClassification

from bundled_model.augmentation import MEAN, STD
from bundled_model.network import Network

BLOBS = {
    "config.json": "08a970185e6e150ded7fbf7d162e223cea5557c2",
    "model.safetensors": "150df657503a8f550428dee61a0e92b40fd45fd9",
}
"""Files of the first checkpoint, by git's own names for their content."""

FIRST_MEAN = torch.tensor([0.4914, 0.4822, 0.4465]).view(1, 3, 1, 1)
FIRST_STD = torch.tensor([0.247, 0.2434, 0.2616]).view(1, 3, 1, 1)


def read_first() -> Network:
    """Build the network from the first bundled checkpoint, with inputs normalized as this recipe does it.

    Raises:
        CalledProcessError: git does not have it: the clone is a shallow one.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, blob in BLOBS.items():
            command = ["git", "-C", str(Path(__file__).parent), "cat-file", "blob", blob]
            Path(folder, name).write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
        model = ViTForImageClassification.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    weights = model.state_dict()
    size_px = model.config.image_size
    assert isinstance(size_px, int)  # noqa: S101  (a checkpoint of our own: square)
    network = Network(size_px)
    network.load_state_dict(_from_vit(weights, len(network.blocks)))
    return network


def _from_vit(weights: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    kernels = weights["vit.embeddings.patch_embeddings.projection.weight"]
    state = {
        "embed.weight": kernels * STD / FIRST_STD,
        "embed.bias": weights["vit.embeddings.patch_embeddings.projection.bias"]
        + (kernels * (MEAN - FIRST_MEAN) / FIRST_STD).sum((1, 2, 3)),
        "cls": weights["vit.embeddings.cls_token"],
        "positions": weights["vit.embeddings.position_embeddings"],
        "norm.weight": weights["vit.layernorm.weight"],
        "norm.bias": weights["vit.layernorm.bias"],
        "classifier.weight": weights["classifier.weight"],
        "classifier.bias": weights["classifier.bias"],
    }
    for number in range(depth):
        old, new = f"vit.layers.{number}.", f"blocks.{number}."
        for kind in ("weight", "bias"):
            parts = [weights[f"{old}attention.{part}_proj.{kind}"] for part in ("q", "k", "v")]
            state[f"{new}qkv.{kind}"] = torch.cat(parts)
            state[f"{new}out.{kind}"] = weights[f"{old}attention.o_proj.{kind}"]
            state[f"{new}norm1.{kind}"] = weights[f"{old}layernorm_before.{kind}"]
            state[f"{new}norm2.{kind}"] = weights[f"{old}layernorm_after.{kind}"]
            state[f"{new}fc1.{kind}"] = weights[f"{old}mlp.fc1.{kind}"]
            state[f"{new}fc2.{kind}"] = weights[f"{old}mlp.fc2.{kind}"]
    return state
