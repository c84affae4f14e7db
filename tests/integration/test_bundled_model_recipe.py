"""What the training recipe writes is what it trained; the worker loads it like any other checkpoint."""

from pathlib import Path

import torch
from transformers import AutoModelForImageClassification

from bundled_model.checkpoint import LABELS, write_checkpoint
from bundled_model.network import Network
from bundled_model.outliers import shuffle_tiles


def make_network() -> Network:
    torch.manual_seed(1)
    network = Network(side_px=8, depth=2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return network


def test_a_checkpoint_answers_as_the_network(tmp_path: Path) -> None:
    network, pixels = make_network(), torch.randn(3, 3, 8, 8)

    write_checkpoint(network, 2.0, tmp_path)

    model = AutoModelForImageClassification.from_pretrained(tmp_path, dtype=torch.float32, local_files_only=True)
    with torch.inference_mode():
        logits, expected = model.eval()(pixel_values=pixels).logits, network(pixels) / 2
    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-3)
    assert tuple(model.config.id2label.values()) == LABELS


def test_leaving_no_patch_out_changes_nothing() -> None:
    network, pixels = make_network(), torch.randn(2, 3, 8, 8)

    with torch.inference_mode():
        shuffled = network(pixels, torch.tensor([[3, 0, 2, 1], [0, 1, 2, 3]]))
        whole = network(pixels)

    torch.testing.assert_close(shuffled, whole)


def test_shuffled_tiles_keep_every_pixel() -> None:
    images = torch.arange(2 * 3 * 32 * 32, dtype=torch.int32).view(2, 3, 32, 32)

    shuffled = shuffle_tiles(images)

    assert not torch.equal(shuffled, images)
    assert torch.equal(shuffled.flatten(2).sort().values, images.flatten(2).sort().values)
