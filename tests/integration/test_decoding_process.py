"""The decoders' processes make the same inputs, end before an image takes too much, and see no secret."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rq.timeouts import JobTimeoutException, UnixSignalDeathPenalty
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from image_analysis_common.job_errors import CorruptImage, JobTimeout
from image_analysis_common.startup import StartupError
from image_analysis_worker.decoding.decode import decode_image
from image_analysis_worker.decoding.decoder import Decoder, Decoders
from image_analysis_worker.decoding.process import Recipe
from support.bombs import LIMIT_PX, avif_of_size, jpeg_of_scans
from support.memory import family
from support.samples import CHELSEA, encode, make_image, make_jpeg, make_png
from support.waiting import PATIENCE_S, wait_until

PARAMETERS: dict[str, Any] = {"size": {"height": 224, "width": 224}}


def write_processor(folder: Path, **changes: Any) -> Path:
    """Write the configuration of an image processor, as a checkpoint holds it."""
    folder.mkdir()
    configuration = PARAMETERS | {"image_processor_type": "ViTImageProcessor"} | changes
    (folder / "preprocessor_config.json").write_text(json.dumps(configuration))
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    folder = write_processor(tmp_path / "processor")
    return Recipe(folder=str(folder), model_sides_px=[], max_image_pixels=LIMIT_PX, timeout_s=60)


PARENT = """
import json, os, signal, sys, threading
from support.bombs import jpeg_of_scans
from image_analysis_worker.decoding.decoder import Decoders
from image_analysis_worker.decoding.process import Recipe
from support.memory import family
from support.samples import make_png
os.setpgid(0, 0)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: None)  # a decoder would inherit SIG_IGN
decoders = Decoders(Recipe(**json.loads(sys.argv[1])))
decoder = decoders.open()
if sys.argv[2] == "starting":
    decoders.start()
else:
    decoder.decode(make_png())
    print(*family(os.getpid())[1:])
    for number in (signal.SIGTERM, signal.SIGINT):
        os.killpg(0, number)
    decoder.decode(make_png())
    print(*family(os.getpid())[1:], flush=True)
if sys.argv[2] == "decoding":
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGKILL)).start()
    decoder.decode(jpeg_of_scans(200))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def decoders(recipe: Recipe) -> Decoders:
    return Decoders(recipe)


@pytest.fixture
def decoder(decoders: Decoders) -> Iterator[Decoder]:
    with closing(decoders.open()) as decoder:
        yield decoder


def processes(before: set[int]) -> tuple[int, int]:
    """Return the new processes: the server from which decoders are forked, and the one decoder."""
    [template, fork] = [pid for pid in family(os.getpid()) if pid not in before]
    return template, fork


@pytest.mark.parametrize(
    "image",
    [CHELSEA.read_bytes(), make_png(size_px=(1, 1)), make_jpeg(2), encode(make_image(3, size_px=(4000, 3000)), "BMP")],
    ids=["photo", "one pixel", "small", "36 MB of pixels"],
)
def test_inputs_are_those_of_the_image_processor_here(decoders: Decoders, decoder: Decoder, image: bytes) -> None:
    here = ViTImageProcessorPil(**PARAMETERS)(
        images=decode_image(image, LIMIT_PX, reduced_px=224), return_tensors="np"
    )["pixel_values"][0]

    for _ in range(2):
        pixels = decoder.decode(image)

        assert pixels.shape == here.shape == (3, 224, 224)
        levels = np.frombuffer(pixels.values, np.uint8).reshape(1, *pixels.shape)
        assert decoders.preparation.normalize(levels)[0] == pytest.approx(here, abs=1e-5)


BOX = {"height": 224, "width": 224}


@pytest.mark.parametrize("size_px", [(90, 60), (60, 90), (64, 64)], ids=str)
def test_border_of_a_letterboxed_image_is_the_image_processors(
    recipe: Recipe, tmp_path: Path, size_px: tuple[int, int]
) -> None:
    changes = {"size": {"max_height": 224, "max_width": 224}, "do_pad": True, "pad_size": BOX}
    decoders = Decoders(replace(recipe, folder=str(write_processor(tmp_path / "letterbox", **changes))))
    picture = make_image(4, size_px=size_px)
    here = ViTImageProcessorPil(**PARAMETERS | changes)(images=picture, return_tensors="np")["pixel_values"][0]

    with closing(decoders.open()) as decoder:
        pixels = decoder.decode(encode(picture))

    batch = np.frombuffer(pixels.values, decoders.preparation.dtype).reshape(1, *pixels.shape)
    assert abs(decoders.preparation.normalize(batch)[0] - here).max() < 1e-5


@pytest.mark.parametrize(
    ("changes", "resize"),
    [
        ({}, [224, 224, 2]),
        ({"resample": 3}, [224, 224, 3]),
        ({"do_resize": False}, None),
        ({"image_processor_type": "DeiTImageProcessor", "do_center_crop": True, "crop_size": 200}, None),
        ({"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 224}}, None),
    ],
    ids=["bilinear", "bicubic", "no resize", "crop", "shortest edge"],
)
def test_only_a_resize_to_fixed_sides_is_done_without_the_image_processor(
    recipe: Recipe, tmp_path: Path, changes: dict[str, Any], resize: list[int] | None
) -> None:
    folder = write_processor(tmp_path / "changed", **changes)

    assert Decoders(replace(recipe, folder=str(folder))).preparation.resize == resize


def test_image_that_takes_too_long_is_given_up_and_the_next_one_is_decoded(recipe: Recipe) -> None:
    with closing(Decoders(replace(recipe, timeout_s=2)).open()) as decoder:
        with pytest.raises(JobTimeout, match="longer than 2 s"):
            decoder.decode(jpeg_of_scans(1000))

        assert decoder.decode(make_png()).shape == (3, 224, 224)


def cpu_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def test_image_whose_process_was_frozen_is_decoded_once_more(recipe: Recipe) -> None:
    before, limited = set(family(os.getpid())), replace(recipe, timeout_s=5)
    with closing(Decoders(limited).open()) as decoder, ThreadPoolExecutor(1) as thread:
        decoder.decode(make_png())
        _, frozen = processes(before)
        idle = cpu_ticks(frozen)

        decoding = thread.submit(decoder.decode, jpeg_of_scans(50))
        wait_until(lambda: cpu_ticks(frozen) > idle + 5, "the image is being decoded")
        os.kill(frozen, signal.SIGSTOP)
        thaws_s = time.monotonic() + limited.timeout_s + 2
        wait_until(lambda: time.monotonic() > thaws_s, "the process was frozen for longer than its limit")
        os.kill(frozen, signal.SIGCONT)

        assert decoding.result().shape == (3, 224, 224)
        assert processes(before)[1] != frozen


def test_image_after_an_interrupted_one_gets_its_own_input(decoder: Decoder) -> None:
    before = set(family(os.getpid()))
    expected = decoder.decode(make_png())
    _, interrupted = processes(before)

    with pytest.raises(JobTimeoutException), UnixSignalDeathPenalty(1, JobTimeoutException):
        decoder.decode(jpeg_of_scans(300))

    def has_ended() -> bool:
        assert decoder.decode(make_png()) == expected
        return not Path(f"/proc/{interrupted}").exists()

    wait_until(has_ended, "the interrupted process has ended")
    assert decoder.decode(make_png()) == expected


def test_image_that_takes_too_much_memory_is_given_up_and_the_next_one_is_decoded(recipe: Recipe) -> None:
    image = avif_of_size(8, 8, true_px=14_000)
    limited = replace(recipe, max_image_pixels=1_000_000)
    with closing(Decoders(limited).open()) as decoder:
        with pytest.raises(CorruptImage):
            decoder.decode(image)

        assert decoder.decode(make_png()).shape == (3, 224, 224)


def test_decoder_keeps_no_memory_of_a_large_image(decoder: Decoder) -> None:
    decoder.decode(encode(make_image(3, size_px=(4000, 3000)), "BMP"))

    open_files = [path for path in Path("/proc/self/fd").iterdir() if path.exists()]
    assert {path.stat().st_size for path in open_files if "memfd:images" in str(path.readlink())} == {0}


@pytest.mark.parametrize("which", ["template", "decoder"])
def test_process_that_was_killed_is_replaced(decoder: Decoder, which: str) -> None:
    before = set(family(os.getpid()))
    decoder.decode(make_png())
    template, fork = processes(before)

    os.kill(template, signal.SIGKILL)
    if which == "decoder":
        os.kill(fork, signal.SIGKILL)

    assert decoder.decode(make_png()).shape == (3, 224, 224)


def test_two_decoders_share_what_they_were_forked_from(decoders: Decoders) -> None:
    before = set(family(os.getpid()))
    with closing(decoders.open()) as first, closing(decoders.open()) as second:
        for decoder in (first, second):
            decoder.decode(make_png())

        assert len(set(family(os.getpid())) - before) == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image_processor_type": "NoProcessor"}, "ValueError: .*"),
        ({"size": {"depth": 3}}, "ValueError: .*depth"),
    ],
    ids=["unknown", "broken"],
)
def test_processor_that_does_not_start_is_reported_in_one_line(
    recipe: Recipe, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    broken = replace(recipe, folder=str(write_processor(tmp_path / "broken", **changes)))
    with (
        closing(Decoders(broken).open()) as decoder,
        pytest.raises(StartupError, match=f"^The image processor does not start: {reason}.*$"),
    ):
        decoder.decode(make_png())


def test_decoders_see_nothing_of_the_workers_environment(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(family(os.getpid()))
    for name in ("REDIS_URL", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "LANGSMITH_API_KEY"):
        monkeypatch.setenv(name, "secret")
    decoder.decode(make_png())

    template, fork = processes(before)
    for pid in (template, fork):
        variables = Path(f"/proc/{pid}/environ").read_bytes()
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert b"secret" not in variables
        assert b"MALLOC_ARENA_MAX=1" in variables
        assert "torch" not in Path(f"/proc/{pid}/maps").read_text()
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    held = [str(path.readlink()) for path in Path(f"/proc/{fork}/fd").iterdir()]
    assert not [file for file in held if file.startswith("socket:")]


@pytest.mark.parametrize("moment", ["starting", "idle", "decoding"])
def test_decoders_survive_a_signal_to_the_workers_group_and_end_quietly_with_the_worker(
    recipe: Recipe, moment: str
) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", PARENT, json.dumps(asdict(recipe)), moment]

    # `communicate` waits until every process has closed the pipes.
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S)

    first, second = killed.stdout.splitlines() or ("", "")
    assert (killed.returncode, killed.stderr, first) == (-signal.SIGKILL, "", second)
    pids = first.split()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the decoders have ended")
