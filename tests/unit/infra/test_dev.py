"""The settings of `just dev`."""

import pytest

from dev import choose_settings


def test_rate_limit_lets_a_developer_try_everything() -> None:
    settings = choose_settings({}, has_terminal=False)

    assert (settings["RATE_LIMIT_MAX_REQUESTS"], settings["RATE_LIMIT_INTERVAL_SECONDS"]) == ("1000", "60")


@pytest.mark.parametrize("variable", ["RATE_LIMIT_MAX_REQUESTS", "RATE_LIMIT_INTERVAL_SECONDS", "LOG_FORMAT"])
def test_variable_of_the_environment_wins(variable: str) -> None:
    default = choose_settings({}, has_terminal=True)

    assert choose_settings({variable: "7"}, has_terminal=True) == default | {variable: "7"}
