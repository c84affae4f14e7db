"""Numbers in requests are read, or are None; no text causes an exception."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image_analysis_api.deliverer.backoff import LONGEST_S, choose_delay_s
from image_analysis_api.server.counts import read_count

DATE = st.builds(
    "Wed, {} Jan {} {}:28:00 {}".format, *[st.integers(), st.integers(), st.integers(), st.text("+-0123456789GMT")]
)


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("007", 7), ("9" * 18, 10**18 - 1), ("9" * 19, None), ("9" * 5000, None)]
    + [(text, None) for text in ("", "-1", "+1", "1.0", " 1", "1\n", "1_0", "٣", "²")],
)
def test_only_plain_digits_of_a_sensible_number_are_a_count(text: str, count: int | None) -> None:
    assert read_count(text) == count


@given(st.text() | st.text("0123456789") | DATE)
@settings(max_examples=50)
def test_no_retry_after_is_an_exception_or_a_delay_of_over_an_hour(text: str) -> None:
    assert 0.8 <= choose_delay_s(1, text) <= 1.2 * LONGEST_S
