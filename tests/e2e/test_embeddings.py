"""The embedding of an image through every process: the hidden state of the model, cached, and in the clients."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from redis import Redis
from transformers import AutoModelForImageClassification

from image_analysis_client import Client
from image_analysis_common import keys
from image_analysis_common.images import image_digest
from image_analysis_worker.engines.checkpoint import BUNDLED_FOLDER, find_checkpoint
from image_analysis_worker.engines.load import open_inputs
from image_analysis_worker.settings import WorkerSettings
from stack import Stack
from support.samples import CHELSEA, base64_body, make_png

Ask = Callable[[str], dict[str, Any]]
DIMENSION = 192


def read(result: dict[str, Any]) -> NDArray[np.float32]:
    embedding = result["embedding"]
    vector = np.frombuffer(base64.b64decode(embedding["values"]), "<f4")
    assert embedding["dimension"] == len(vector) == DIMENSION
    return vector


@pytest.fixture(scope="module")
def hidden_state() -> Callable[[bytes], NDArray[np.float32]]:
    """Compute what the bundled model gives to its classifier, of length 1."""
    inputs = open_inputs(find_checkpoint(str(BUNDLED_FOLDER)), WorkerSettings())
    model = AutoModelForImageClassification.from_pretrained(BUNDLED_FOLDER).eval()

    def compute(image: bytes) -> NDArray[np.float32]:
        with closing(inputs.decoders.open()) as decoder, torch.inference_mode():
            pixels = inputs.decoders.preparation.normalize(inputs.stack([decoder.decode(image)]))
            state = model.base_model(torch.from_numpy(pixels)).last_hidden_state[0, 0].numpy()
        return np.asarray(state / np.linalg.norm(state))

    return compute


def test_embedding_is_the_models_own_and_of_length_1(
    client: httpx.Client, hidden_state: Callable[[bytes], NDArray[np.float32]]
) -> None:
    images = [CHELSEA.read_bytes(), make_png(901), make_png(902)]
    sent = [("file", image) for image in images]
    batch = client.post("/analyze-images", files=sent, data={"embedding": "true"}).json()

    jobs = client.get(f"/analysis-batches/{batch['batch_id']}", params={"wait": 60}).json()["jobs"]

    for image, job in zip(images, jobs, strict=True):
        vector = read(job["result"])
        assert vector == pytest.approx(hidden_state(image), abs=1e-4)
        assert float(np.linalg.norm(vector)) == pytest.approx(1, abs=1e-6)


def test_image_without_the_option_is_cached_apart(stack: Stack, client: httpx.Client, ask: Ask) -> None:
    image = make_png(903)
    plain = ask(client.post("/analyze-image", json=base64_body(image)).json()["job_id"])

    asked = base64_body(image) | {"embedding": True}
    first = ask(client.post("/analyze-image", json=asked).json()["job_id"])
    again = client.post("/analyze-image", json=asked)
    still = client.post("/analyze-image", json=base64_body(image))

    assert "embedding" not in plain["result"]
    assert (first["cached"], again.status_code, again.json()["cached"]) == (False, 200, True)
    assert again.json()["result"] == first["result"]
    assert first["result"] == plain["result"] | {"embedding": first["result"]["embedding"]}
    assert (still.json()["cached"], still.json()["result"]) == (True, plain["result"])
    with Redis.from_url(stack.redis_url) as redis:
        [kept] = redis.hvals(keys.embedding(image_digest(image)))
        assert isinstance(kept, bytes)
        assert kept == read(first["result"]).tobytes()
        assert 0 < int(redis.ttl(keys.embedding(image_digest(image)))) <= 3600


def test_python_client_and_command_line_get_the_vector(stack: Stack) -> None:
    with Client(stack.api_url) as client:
        [model] = [model for model in client.models() if model.is_default]
        result = client.classify(CHELSEA, embedding=True)
        [outcome] = client.classify_many([CHELSEA], embedding=True)
    command = [str(Path(sys.prefix, "bin", "image-analysis")), "classify", str(CHELSEA), "--embedding", "--jsonl"]
    said = subprocess.run([*command, "--url", stack.api_url], capture_output=True, check=True, timeout=60).stdout

    assert model.embeds
    assert result.embedding is not None
    assert len(result.embedding.vector) == DIMENSION
    assert outcome.result == result
    assert json.loads(said)["result"]["embedding"] == result.embedding.model_dump()
