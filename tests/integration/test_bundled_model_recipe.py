"""The training recipe writes what it trained, and the worker loads it like any other checkpoint."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import AutoModelForImageClassification, MobileNetV2ForImageClassification

from bundled_model.augmentation import mirror, shift
from bundled_model.backbone import Convolution
from bundled_model.checkpoint import write_checkpoint
from bundled_model.network import CONFIG, LABELS, SIDE_PX, build_network, convolution_layers
from bundled_model.outliers import shuffle_tiles
from bundled_model.training import PARTS, Batch, Plan, Training, enlarge


def make_convolutions() -> list[Convolution]:
    """Convolutions as a detector's file has them: kernels of any length, biases, and no normalizations."""
    shapes = [layer.convolution.weight.shape for layer in convolution_layers(MobileNetV2ForImageClassification(CONFIG))]
    return [
        (torch.randn(shape) * torch.rand(shape[0], 1, 1, 1) / shape[1:].numel() ** 0.5, torch.randn(shape[0]) / 10)
        for shape in shapes
    ]


def make_network() -> MobileNetV2ForImageClassification:
    torch.manual_seed(1)
    return build_network(make_convolutions(), torch.randn(4, 3, SIDE_PX, SIDE_PX))


def make_images(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)


def test_a_checkpoint_answers_as_the_network(tmp_path: Path) -> None:
    network, pixels = make_network().eval(), torch.randn(3, 3, SIDE_PX, SIDE_PX)

    write_checkpoint(network, 2.0, tmp_path)

    model = AutoModelForImageClassification.from_pretrained(tmp_path, dtype=torch.float32, local_files_only=True)
    with torch.inference_mode():
        logits, expected = model.eval()(pixel_values=pixels).logits, network(pixels).logits / 2
    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-3)
    assert tuple(model.config.id2label.values()) == LABELS


def test_normalizations_begin_by_changing_nothing() -> None:
    torch.manual_seed(1)
    convolutions, pixels = make_convolutions(), torch.randn(4, 3, SIDE_PX, SIDE_PX)
    plain = MobileNetV2ForImageClassification(CONFIG).eval()
    for layer, (kernels, biases) in zip(convolution_layers(plain), convolutions, strict=True):
        layer.convolution.weight.data.copy_(kernels)
        layer.convolution.bias, layer.normalization = nn.Parameter(biases), nn.Identity()  # type: ignore[assignment]

    network = build_network(convolutions, pixels)

    others = torch.randn(2, 3, SIDE_PX, SIDE_PX)
    with torch.inference_mode():
        expected = plain.mobilenet_v2(others).last_hidden_state
        assert expected.std() > 0.01
        torch.testing.assert_close(network.mobilenet_v2(others).last_hidden_state, expected, rtol=1e-3, atol=1e-3)


def test_shifted_images_are_parts_of_their_reflections() -> None:
    torch.manual_seed(1)
    images = make_images(40)

    shifted = shift(images)

    padded = functional.pad(images.float(), [2] * 4, mode="reflect").to(torch.uint8)
    places = [
        [(y, x) for y in range(5) for x in range(5) if torch.equal(whole[:, y : y + 32, x : x + 32], image)]
        for whole, image in zip(padded, shifted, strict=True)
    ]
    assert all(places)
    assert len({found[0] for found in places}) > 10


def test_mirrored_images_are_mirrored_from_left_to_right() -> None:
    images = make_images(2)

    first, second = mirror(images, torch.tensor([True, False]))

    assert torch.equal(first[:, :, 0], images[0, :, :, 31])
    assert torch.equal(second, images[1])


def test_shuffled_tiles_keep_every_pixel() -> None:
    images = torch.arange(2 * 3 * 32 * 32, dtype=torch.int32).view(2, 3, 32, 32)

    shuffled = shuffle_tiles(images)

    assert not torch.equal(shuffled, images)
    assert torch.equal(shuffled.flatten(2).sort().values, images.flatten(2).sort().values)


def test_rates_rise_and_fall_to_nothing() -> None:
    plan = Plan(rate=2.0, warmup_steps=10)

    rates = [plan.rate_at(step, 100) for step in range(100)]

    assert max(rates) == 2
    assert rates.index(2) == plan.warmup_steps - 1
    assert rates[-1] == pytest.approx(2 / 90)


def train(folder: Path, until: int) -> Training:
    training = Training(make_network(), Plan(), 4, folder)
    training.resume()
    while training.step < until:
        torch.manual_seed(training.step)
        labels = torch.arange(2 * PARTS) % 10
        labels[:PARTS] = -1
        training.advance(Batch(enlarge(torch.rand(2 * PARTS, 3, 32, 32)), labels))
        training.save()
    return training


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread of torch adds in one order."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


@pytest.mark.usefixtures("one_thread")
def test_resumed_training_ends_where_training_without_a_break_does(tmp_path: Path) -> None:
    (tmp_path / "once").mkdir()
    (tmp_path / "twice").mkdir()
    without_break = train(tmp_path / "once", 4)

    train(tmp_path / "twice", 2)
    resumed = train(tmp_path / "twice", 4)

    torch.testing.assert_close(resumed.network.state_dict(), without_break.network.state_dict())
