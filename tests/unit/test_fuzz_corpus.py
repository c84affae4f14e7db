"""The inputs from which the fuzzer starts, and those that it once found to fail, pass without it."""

from pathlib import Path

import pytest

from fuzz.doors import DOORS

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"
MAX_BYTES = 8192


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # as in the decoding process
@pytest.mark.parametrize("door", DOORS)
def test_corpus_is_small_and_passes(door: str) -> None:
    inputs = sorted((CORPUS / door).iterdir())

    for path in inputs:
        DOORS[door](path.read_bytes())

    assert len(inputs) > 20
    assert all(path.stat().st_size <= MAX_BYTES for path in inputs)
