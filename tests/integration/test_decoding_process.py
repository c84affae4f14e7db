"""The decoder's process: it gives the same pixels, and ends before an image costs too much."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from image_analysis_common.errors import CorruptImage, JobTimeout
from image_analysis_worker.decoding.decode import decode_image
from image_analysis_worker.decoding.process import Decoder
from support.bombs import LIMIT_PX, avif_of_size, jpeg_of_scans
from support.samples import CHELSEA, encode, make_image, make_jpeg, make_png
from support.waiting import wait_until

PARENT = """
import os, signal
from image_analysis_worker.decoding.process import Decoder
from support.samples import make_png
os.setpgid(0, 0)
signal.signal(signal.SIGTERM, lambda *_: None)  # a decoder would inherit SIG_IGN
decoder = Decoder(1000000, input_px=32, timeout_s=5)
decoder.decode(make_png())
print(decoder._process.pid)
os.killpg(0, signal.SIGTERM)
decoder.decode(make_png())
print(decoder._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    with closing(Decoder(LIMIT_PX, input_px=224, timeout_s=2)) as decoder:
        yield decoder


def children() -> set[int]:
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


@pytest.mark.parametrize(
    "image",
    [CHELSEA.read_bytes(), make_png(size_px=(1, 1)), make_jpeg(2), encode(make_image(3, size_px=(4000, 3000)), "BMP")],
    ids=["photo", "one pixel", "small", "36 MB of pixels"],
)
def test_pixels_are_those_of_decoding_here(decoder: Decoder, image: bytes) -> None:
    for _ in range(2):
        decoded, here = decoder.decode(image), decode_image(image, LIMIT_PX, input_px=224)

        assert (decoded.mode, decoded.size, decoded.tobytes()) == (here.mode, here.size, here.tobytes())


def test_image_that_takes_too_long_is_given_up_and_the_next_one_is_decoded(decoder: Decoder) -> None:
    with pytest.raises(JobTimeout, match="longer than 2 s"):
        decoder.decode(jpeg_of_scans(1000))

    assert decoder.decode(make_png()).size == (48, 32)


def test_image_that_takes_too_much_memory_is_given_up_and_the_next_one_is_decoded() -> None:
    image = avif_of_size(8, 8, true_px=12_000)
    with closing(Decoder(1_000_000, input_px=224, timeout_s=10)) as decoder:
        with pytest.raises(CorruptImage):
            decoder.decode(image)

        assert decoder.decode(make_png()).size == (48, 32)


def test_decoder_that_was_killed_is_replaced(decoder: Decoder) -> None:
    before = children()
    decoder.decode(make_png())
    [killed] = children() - before

    os.kill(killed, signal.SIGKILL)

    assert decoder.decode(make_png()).size == (48, 32)
    assert killed not in children()


def test_decoder_outlives_a_signal_to_the_workers_group_but_not_the_worker() -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", PARENT]

    killed = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False, timeout=30)

    before, after = map(int, killed.stdout.split())
    assert (killed.returncode, before) == (-signal.SIGKILL, after)
    wait_until(lambda: not Path(f"/proc/{after}").exists(), "the decoder has ended")
