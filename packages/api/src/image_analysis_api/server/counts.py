"""Parses whole numbers in headers, queries and the answers of other web servers."""

import re


def read_count(text: str) -> int | None:
    """Read 1 to 18 ASCII digits; None for anything else.

    `int` accepts the digits of every script, and raises an error on more than 4,300 of them.
    """
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None
