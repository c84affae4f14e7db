"""The training recipe writes what it trained, and the worker loads it like any other checkpoint."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForImageClassification

from bundled_model.backbone import DINO_PATCH_PX, shrink_kernels
from bundled_model.checkpoint import LABELS, write_checkpoint
from bundled_model.network import PATCH_PX, Network
from bundled_model.outliers import shuffle_tiles
from bundled_model.training import Batch, Plan, Training


def make_network() -> Network:
    torch.manual_seed(1)
    network = Network(side_px=2 * PATCH_PX, depth=2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return network


def test_a_checkpoint_answers_as_the_network(tmp_path: Path) -> None:
    network, pixels = make_network(), torch.randn(3, 3, 2 * PATCH_PX, 2 * PATCH_PX)

    write_checkpoint(network, 2.0, tmp_path)

    model = AutoModelForImageClassification.from_pretrained(tmp_path, dtype=torch.float32, local_files_only=True)
    with torch.inference_mode():
        logits, expected = model.eval()(pixel_values=pixels).logits, network(pixels) / 2
    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-3)
    assert tuple(model.config.id2label.values()) == LABELS


def test_leaving_no_patch_out_changes_nothing() -> None:
    network, pixels = make_network(), torch.randn(2, 3, 2 * PATCH_PX, 2 * PATCH_PX)

    with torch.inference_mode():
        shuffled = network(pixels, torch.tensor([[3, 0, 2, 1], [0, 1, 2, 3]]))
        whole = network(pixels)

    torch.testing.assert_close(shuffled, whole)


def test_shuffled_tiles_keep_every_pixel() -> None:
    images = torch.arange(2 * 3 * 32 * 32, dtype=torch.int32).view(2, 3, 32, 32)

    shuffled = shuffle_tiles(images)

    assert not torch.equal(shuffled, images)
    assert torch.equal(shuffled.flatten(2).sort().values, images.flatten(2).sort().values)


def test_shrunken_kernels_see_in_a_patch_what_the_large_ones_see_in_it_enlarged() -> None:
    torch.manual_seed(1)
    kernels, patches = torch.randn(5, 3, DINO_PATCH_PX, DINO_PATCH_PX), torch.rand(4, 3, PATCH_PX, PATCH_PX)

    enlarged = functional.interpolate(patches, (DINO_PATCH_PX, DINO_PATCH_PX), mode="bicubic", align_corners=False)

    torch.testing.assert_close(
        functional.conv2d(patches, shrink_kernels(kernels)), functional.conv2d(enlarged, kernels)
    )


def train(folder: Path, plan: Plan, until: int) -> Training:
    training = Training(make_network(), plan, folder)
    training.resume()
    while training.step < until:
        torch.manual_seed(training.step)
        pixels, labels = torch.rand(8, 3, 2 * PATCH_PX, 2 * PATCH_PX), torch.tensor([0, 1, 2, 3, 4, 5, -1, -1])
        training.advance(Batch(pixels, labels, None))
        training.save()
    return training


@pytest.fixture
def threads() -> Iterator[None]:
    count = torch.get_num_threads()
    yield
    torch.set_num_threads(count)


@pytest.mark.usefixtures("threads")
def test_resumed_training_ends_where_training_without_a_break_does(tmp_path: Path) -> None:
    plan = Plan(steps=6, falling_steps=3)
    (tmp_path / "once").mkdir()
    (tmp_path / "twice").mkdir()
    without_break = train(tmp_path / "once", plan, 6)

    train(tmp_path / "twice", plan, 4)
    resumed = train(tmp_path / "twice", plan, 6)

    torch.testing.assert_close(resumed.average, without_break.average)


@pytest.mark.usefixtures("threads")
def test_a_longer_plan_goes_on_from_where_the_rate_began_to_fall(tmp_path: Path) -> None:
    train(tmp_path, Plan(steps=6, falling_steps=2), 6)

    longer = Training(make_network(), Plan(steps=20, falling_steps=2), tmp_path)
    longer.resume()

    assert longer.step == 4
