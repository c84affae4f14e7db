"""When traces are sent, and which values of the variables are accepted."""

import os

import pytest

from image_analysis_common.startup import StartupError
from image_analysis_common.tracing import is_wanted, start_tracing, traceparent

COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("variables", "answer"),
    [
        ({}, False),
        (COLLECTOR, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({**COLLECTOR, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({**COLLECTOR, "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
    ],
)
def test_traces_are_sent_if_the_standard_variables_enable_them(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], answer: bool
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert is_wanted() is answer


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]
)
def test_unsupported_value_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    for variable in (*COLLECTOR.items(), (name, value)):
        monkeypatch.setenv(*variable)

    with pytest.raises(StartupError, match=f"^{name}: "):
        start_tracing("image-analysis-api")


def test_job_carries_no_trace_if_tracing_is_off() -> None:
    start_tracing("image-analysis-api")

    assert traceparent() == {}
