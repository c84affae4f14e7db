"""OpenVINO gives the answers of the plain transformers pipeline, for every architecture, and needs no torch."""

import asyncio
import json
import os
import subprocess
import sys
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from PIL import Image
from redis import Redis
from transformers import AutoModelForImageClassification, pipeline

from image_analysis_api.jobs.queue import NewJob
from image_analysis_api.store.client import connect
from image_analysis_common import keys
from image_analysis_common.models import JobStatus, ModelAnnouncement
from image_analysis_common.records import JobRecord
from image_analysis_common.startup import StartupError
from image_analysis_worker.engines.checkpoint import BUNDLED_FOLDER, find_checkpoint
from image_analysis_worker.engines.gate import read_report
from image_analysis_worker.engines.images import cut_photos
from image_analysis_worker.optimize import optimize
from support.checkpoints import make_checkpoint
from support.direct import DirectQueue
from support.engines import classify, configure, load
from support.replies import raw, read_record
from support.samples import CHELSEA, encode, make_image
from support.waiting import PATIENCE_S, wait_until

IMAGES = [CHELSEA.read_bytes(), encode(make_image(1, size_px=(90, 700))), encode(make_image(2, size_px=(3, 3)))]
ARCHITECTURES = ("vit", "deit", "swin", "beit", "convnext", "resnet", "efficientnet", "dinov2", "clip")

LIGHT = "light"
"""A name of the bundled model that no other test's worker serves."""

WITHOUT_TORCH = """
import runpy, sys
for name in ("torch", "torchvision", "transformers"):
    sys.modules[name] = None
runpy.run_module("image_analysis_worker", run_name="__main__")
"""
"""The worker where nothing can import torch; only the decoding process, a program of its own, imports transformers."""


def ask_pipeline(folder: Path) -> list[dict[str, float]]:
    classifier = pipeline("image-classification", model=str(folder), dtype=torch.float32)
    pictures = [Image.open(BytesIO(image)).convert("RGB") for image in IMAGES]
    return [{entry["label"]: entry["score"] for entry in classifier(picture, top_k=1000)} for picture in pictures]


def check_equal(folder: Path, served: Path) -> None:
    answers = classify(load(served, engine="openvino", dtype="float32"), IMAGES)

    for answer, expected in zip(answers, ask_pipeline(folder), strict=True):
        assert answer == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_gets_the_pipelines_own_answer_on_openvino(architecture: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", architecture)

    check_equal(folder, folder)


def test_model_converted_for_squares_only_is_refused_if_inputs_have_any_sides(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "pets", "swin", size={"shortest_edge": 224})

    with pytest.raises(StartupError, match=r"^pets (cannot be served|does not pass the gate): "):
        load(folder, engine="openvino", dtype="float32")


def test_model_that_takes_any_sides_is_served_with_the_pipelines_own_answer(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "pets", "resnet", do_resize=False)

    check_equal(folder, folder)


@pytest.mark.parametrize("kind", ["multi-label", "float16", "float16 with normalizations", "sharded"])
def test_every_kind_of_checkpoint_is_optimized_and_served(kind: str, tmp_path: Path) -> None:
    architecture = "resnet" if kind == "float16 with normalizations" else "vit"
    folder, optimized = make_checkpoint(tmp_path / "model", architecture), tmp_path / "optimized"
    model = AutoModelForImageClassification.from_pretrained(folder)
    match kind:
        case "multi-label":
            configure(folder, problem_type="multi_label_classification")
        case "float16" | "float16 with normalizations":
            model.half().save_pretrained(folder)
        case "sharded":
            (folder / "model.safetensors").unlink()
            model.save_pretrained(folder, max_shard_size="20KB")
            assert len(list(folder.glob("*.safetensors"))) > 1

    report = optimize(find_checkpoint(str(folder)), optimized, cut_photos(10), source="photos", has_int8=False)

    assert report.find("openvino", "float32") is not None
    check_equal(folder, optimized)
    is_half = (optimized / "openvino" / "float32.bin").stat().st_size < 3 * model.num_parameters()
    assert is_half == (kind == "float16")  # normalizations are folded into weights, which are float32 then


def test_bundled_model_comes_with_a_report_and_runs_on_openvino() -> None:
    checkpoint = find_checkpoint("vit-tiny-cifar10")
    report = read_report(checkpoint)

    announced = load(BUNDLED_FOLDER).warm_up()

    assert report is not None
    assert report.revision == checkpoint.revision
    assert (announced.backend, announced.dtype) == ("openvino", "float32")
    assert announced.engines == report.candidates
    [exact] = [found for found in announced.engines if found.name == "openvino float32"]
    assert exact.agreement == 1
    assert exact.confidence_difference < 1e-3


def submit(redis: Redis, redis_url: str) -> str:
    job_id, image = uuid4(), CHELSEA.read_bytes()

    async def enqueue() -> None:
        record = JobRecord(status=JobStatus.PENDING, image_hash=sha256(image).hexdigest(), model=LIGHT)
        async with connect(redis_url) as client:
            await DirectQueue(client, LIGHT).enqueue(NewJob(job_id, image, record, request_id="r"))

    asyncio.run(enqueue())
    return str(job_id)


def test_worker_without_torch_answers_a_job(redis: Redis, redis_url: str) -> None:
    job_id = submit(redis, redis_url)
    worker = subprocess.Popen(
        [sys.executable, "-c", WITHOUT_TORCH],
        env=os.environ | {"REDIS_URL": redis_url, "MODEL_NAME": LIGHT, "LOG_FORMAT": "json"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: redis.hget(keys.job(job_id), "result") or worker.poll() is not None, "the job ends")
        record = read_record(redis.hgetall(keys.job(job_id)))
        announced = redis.get(keys.announcement(LIGHT))
    finally:
        worker.terminate()
        output, errors = worker.communicate(timeout=PATIENCE_S)

    assert (worker.returncode, errors) == (0, "")
    assert record.result is not None
    assert record.result.label == "cat"
    model = ModelAnnouncement.model_validate_json(raw(announced))
    assert (model.backend, model.dtype) == ("openvino", "float32")
    assert json.loads(output.splitlines()[0])["backend"] == "openvino"
