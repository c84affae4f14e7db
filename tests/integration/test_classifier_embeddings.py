"""The embedding of a classification model is what enters its classifier, on every engine and for every architecture."""

from base64 import b64decode
from contextlib import closing
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    ViTConfig,
)

from image_analysis_common.job_errors import EmbeddingsNotSupported
from image_analysis_common.models import MAX_DIMENSION
from image_analysis_worker.engines.checkpoint import BUNDLED_FOLDER, find_checkpoint
from image_analysis_worker.engines.convert import convert
from image_analysis_worker.engines.load import open_inputs
from image_analysis_worker.engines.openvino import OpenVinoNetwork
from image_analysis_worker.engines.torch import TorchNetwork, load_model
from image_analysis_worker.jobs.outcomes import make_result
from image_analysis_worker.settings import WorkerSettings
from support.checkpoints import LAYERS, make_checkpoint
from support.engines import answer, embed, load, make_job, read_embedding
from support.samples import CHELSEA, encode, make_image

IMAGES = [CHELSEA.read_bytes(), encode(make_image(1, size_px=(90, 700))), encode(make_image(2, size_px=(3, 3)))]
DIMENSIONS = {
    "vit": 32,
    "deit": 32,
    "swin": 16,
    "beit": 32,
    "convnext": 16,
    "resnet": 16,
    "efficientnet": 128,
    "dinov2": 64,
    "clip": 32,
    "mobilevit": 8,
}

CONSTANT = {"efficientnet", "mobilevit"}
"""With random weights, they have the same embedding for every image."""


def normalized(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vector / np.linalg.norm(vector))


def open_pixels(folder: Path) -> torch.Tensor:
    processor = AutoImageProcessor.from_pretrained(folder, use_fast=False)
    pictures = [Image.open(BytesIO(image)).convert("RGB") for image in IMAGES]
    return torch.cat([processor(picture, return_tensors="pt")["pixel_values"] for picture in pictures])


def ask_transformers(folder: Path) -> NDArray[np.float32]:
    """Compute what the base model, without its classifier, gives to the classifier."""
    model, pixels = AutoModelForImageClassification.from_pretrained(folder).eval(), open_pixels(folder)
    with torch.inference_mode():
        base = model.base_model
        if model.config.model_type == "clip":
            states = model.vision_model(pixels).last_hidden_state
            return np.stack([normalized(state[1:].mean(0).numpy()) for state in states])
        output = base(pixels)
        match model.config.model_type:
            case "vit" | "deit":
                states = output.last_hidden_state[:, 0]
            case "dinov2":
                hidden = output.last_hidden_state
                states = torch.cat([hidden[:, 0], hidden[:, 1:].mean(dim=1)], dim=1)
            case _:
                states = output.pooler_output.flatten(1)
    return np.stack([normalized(state.numpy()) for state in states])


@pytest.mark.parametrize("architecture", DIMENSIONS)
def test_embedding_is_the_hidden_state_before_the_classifier(architecture: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", architecture)
    expected = ask_transformers(folder)

    by_torch = embed(load(folder, engine="torch", dtype="float32"), IMAGES)
    by_openvino = embed(load(folder, engine="openvino", dtype="float32", min_agreement=0), IMAGES)

    assert by_torch.shape == (len(IMAGES), DIMENSIONS[architecture])
    assert np.linalg.norm(by_torch, axis=1) == pytest.approx([1] * len(IMAGES), abs=1e-6)
    assert by_torch == pytest.approx(expected, abs=1e-4)
    assert by_openvino == pytest.approx(expected, abs=1e-4)
    assert abs(expected[0] - expected[1]).max() > 0.005 or architecture in CONSTANT


def test_two_classifiers_of_a_distilled_model_have_their_inputs_joined(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", "deit")
    torch.manual_seed(7)
    model = DeiTForImageClassificationWithTeacher(
        DeiTConfig(image_size=224, id2label=dict.fromkeys(range(3), ""), **LAYERS)
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    with torch.inference_mode():
        states = model.eval().deit(open_pixels(folder)).last_hidden_state[:, :2].flatten(1)
    expected = np.stack([normalized(state.numpy()) for state in states])

    by_torch = embed(load(folder, engine="torch", dtype="float32"), IMAGES)
    by_openvino = embed(load(folder, engine="openvino", dtype="float32", min_agreement=0), IMAGES)

    assert by_torch == pytest.approx(expected, abs=1e-4)
    assert by_openvino == pytest.approx(expected, abs=1e-4)


def test_only_the_jobs_of_a_batch_that_ask_get_an_embedding_and_all_get_the_same_answers() -> None:
    model = load(BUNDLED_FOLDER, engine="torch", dtype="float32")
    jobs = [make_job(image, embedding=asks) for image, asks in zip(IMAGES, (False, True, False), strict=True)]

    answers = answer(model, jobs)

    plain = answer(model, [make_job(image, embedding=False) for image in IMAGES])
    assert [job.embedding is not None for job in jobs] == [False, True, False]
    for found, expected in zip(answers, plain, strict=True):
        assert found == pytest.approx(expected, abs=1e-6)
    assert read_embedding(jobs[1]) == pytest.approx(embed(model, IMAGES)[1], abs=1e-6)


def test_batch_without_such_a_job_takes_no_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    for network in (TorchNetwork, OpenVinoNetwork):
        monkeypatch.setattr(network, "embed", None)

    for engine in ("torch", "openvino"):
        model = load(BUNDLED_FOLDER, engine=engine, dtype="float32", min_agreement=0)
        assert len(answer(model, [make_job(image, embedding=False) for image in IMAGES])) == len(IMAGES)


def test_compiled_model_gives_the_same_embeddings() -> None:
    checkpoint = find_checkpoint(str(BUNDLED_FOLDER))
    preparation = open_inputs(checkpoint, WorkerSettings()).decoders.preparation
    plain, compiled = (
        TorchNetwork(load_model(checkpoint), preparation, "float32", compiler=compiler) for compiler in (None, "eager")
    )

    for size in (8, 1, 5):
        batch = np.random.default_rng(size).integers(0, 256, (size, 3, 32, 32), dtype=np.uint8)
        for found, expected in zip(compiled.embed(batch), plain.embed(batch), strict=True):
            assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("dimension", [0, MAX_DIMENSION + 1])
def test_model_without_a_usable_embedding_says_so(dimension: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(BUNDLED_FOLDER, engine="openvino", dtype="float32", min_agreement=0)
    assert model.warm_up().embeds
    monkeypatch.setattr(
        OpenVinoNetwork,
        "embed",
        lambda self, pixels: (self.run(pixels), np.zeros((len(pixels), dimension), np.float32)),
    )

    assert not model.warm_up().embeds
    with pytest.raises(EmbeddingsNotSupported, match="vit-tiny-cifar10 gives no embeddings"):
        answer(model, [make_job(IMAGES[0])])


def test_classifier_before_the_pool_is_not_taken_for_one() -> None:
    """Each place of the image has logits, and the answer is their mean: no vector enters a classifier."""

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = torch.nn.Conv2d(3, 10, 1)
            self.config = ViTConfig(id2label=dict.fromkeys(range(10), ""))

        def num_parameters(self) -> int:
            return 40

        def forward(self, pixel_values: torch.Tensor) -> Any:
            logits = self.classifier(pixel_values).mean(dim=(2, 3))
            return SimpleNamespace(logits=logits)

    checkpoint = find_checkpoint(str(BUNDLED_FOLDER))
    preparation = open_inputs(checkpoint, WorkerSettings()).decoders.preparation
    model: Any = Pooled()
    batch = np.zeros((2, 3, 32, 32), np.uint8)

    for network in (
        TorchNetwork(model, preparation, "float32"),
        OpenVinoNetwork(convert(model, preparation, "pooled"), preparation, "float32"),
    ):
        logits, entered = network.embed(batch)
        assert (logits.shape, entered.shape) == ((2, 10), (2, 0))


def test_result_of_a_job_that_asks_holds_the_vector() -> None:
    model = load(BUNDLED_FOLDER, engine="openvino", dtype="float32", min_agreement=0)
    jobs = [make_job(IMAGES[0], embedding=asks) for asks in (True, False)]
    with closing(model.open_decoder()) as decoder:
        answers = model.classify([model.prepare(job, decoder) for job in jobs])

    asked, plain = (make_result(job, found, model.ref) for job, found in zip(jobs, answers, strict=True))

    assert asked.embedding is not None
    assert asked.embedding.dimension == 192
    assert np.frombuffer(b64decode(asked.embedding.values), "<f4") == pytest.approx(read_embedding(jobs[0]), abs=0)
    assert "embedding" not in plain.model_dump()
