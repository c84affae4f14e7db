"""The API refuses image bombs, or accepts them without decoding them."""

import time
import tracemalloc

import pytest

from image_analysis_api.intake.image import bound_pillow, check_image
from image_analysis_common.errors import RequestError
from support.bombs import BOMBS, LIMIT_PX

COST_BYTES = 16_000_000
COST_S = 0.5
"""CPU time, because the machine may be busy with other programs."""


def examine(image: bytes) -> str | None:
    try:
        check_image(image, LIMIT_PX)
    except RequestError as error:
        return error.code
    return None


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_costs_the_api_nothing(name: str, recwarn: pytest.WarningsRecorder) -> None:
    bound_pillow(LIMIT_PX)
    image = BOMBS[name].make()

    started_s = time.process_time()
    refusal = examine(image)
    took_s = time.process_time() - started_s
    tracemalloc.start()
    examine(image)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert refusal == BOMBS[name].refusal
    assert took_s < COST_S
    assert peak_bytes < len(image) * 3 + COST_BYTES
    assert not recwarn.list
