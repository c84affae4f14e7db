"""Alerts and dashboard use the documented metrics; the integration tests compare those with real processes."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from image_analysis_common.job_errors import JobError
from support.documents import INFRA
from support.observability import ALERTS, FOLDER, PANELS, RULES

ROOT = Path(__file__).parents[3]
ROW = re.compile(r"^\| `(image_analysis_\w+)` \|([^|]*)\| (?:API|worker|deliverer) \| (Histogram)?", re.MULTILINE)
# Labels that Prometheus adds to every series of a target.
TARGET_LABELS = {"job", "instance"}


def documented() -> dict[str, set[str]]:
    """The labels of every series that the service exposes; a histogram has three series."""
    series = dict.fromkeys(("up", "process_start_time_seconds"), TARGET_LABELS)  # Prometheus's, and its client's
    for name, cell, histogram in ROW.findall(INFRA.read_text()):
        labels = set(re.findall(r"`(\w+)`", cell)) | TARGET_LABELS
        if histogram:
            series |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}
        else:
            series[name] = labels
    return series


def parts(node: Any) -> Iterator[Any]:
    """Walk a query's syntax tree."""
    yield node
    for name in ("lhs", "rhs", "expr", "args", "vector_selector"):
        below = getattr(node, name, None) or []
        for part in below if isinstance(below, list) else [below]:
            yield from parts(part)


def used(query: str) -> dict[str, set[str]]:
    """The series in a query, each with the labels by which it is selected and grouped."""
    tree = list(parts(promql_parser.parse(query)))
    grouped = {
        label
        for node in tree
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier
        for label in node.modifier.labels
    }
    return {
        node.name or "": grouped | {matcher.name for matcher in node.matchers.matchers}
        for node in tree
        if isinstance(node, promql_parser.VectorSelector)
    }


@pytest.mark.parametrize("query", [*ALERTS.values(), *PANELS.values()], ids=[*ALERTS, *PANELS])
def test_query_reads_what_is_exposed_by_labels_that_are_there(query: str) -> None:
    series = documented()

    found = used(query)

    assert found
    assert found.keys() <= series.keys()
    assert {name: labels - series[name] for name, labels in found.items()} == {name: set() for name in found}


def test_every_metric_of_ours_is_on_the_dashboard() -> None:
    shown = {name for query in PANELS.values() for name in used(query)}

    metrics = {name for name, *_ in ROW.findall(INFRA.read_text())}

    assert {name for name in metrics if not any(series.startswith(name) for series in shown)} == set()


def test_every_alert_says_what_to_do_and_is_played_in_the_tests() -> None:
    played = {
        test["alertname"]
        for case in yaml.safe_load((ROOT / "tests" / "operators" / "alerts.yml").read_text())["tests"]
        for test in case["alert_rule_test"]
        if test.get("exp_alerts")
    }

    assert all(rule["annotations"].keys() == {"summary", "action"} for rule in RULES)
    assert played == set(ALERTS)


def test_failing_jobs_alert_the_operator_only_if_the_operator_can_act() -> None:
    expression = promql_parser.parse(ALERTS["JobsFail"])
    matchers = [node.matchers for node in parts(expression) if isinstance(node, promql_parser.VectorSelector)]
    [pattern] = [matcher.value for one in matchers for matcher in one.matchers if matcher.name == "code"]
    codes = [JobError.code, *(error.code for error in JobError.__subclasses__())]

    alerted = {code for code in codes if not re.fullmatch(pattern, code)}

    assert alerted == {
        "internal_error",
        "image_expired",
        "job_lost",
        "job_timeout",
        "training_not_supported",
        "worker_lost",
    }


def test_prometheus_scrapes_the_ports_of_the_images() -> None:
    jobs = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    services = yaml.safe_load((ROOT / "infra" / "compose.yaml").read_text())["services"]
    image_ports = dict(re.findall(r"(\w+)_METRICS_PORT=(\d+)", (ROOT / "infra" / "Dockerfile").read_text()))

    targets = {name: dns["port"] for job in jobs for dns in job["dns_sd_configs"] for name in dns["names"]}

    assert targets == {name: int(image_ports[name.partition("-")[0].upper()]) for name in targets}
    assert targets.keys() == {"api", "deliverer", "worker", "worker-gpu"}
    assert targets.keys() <= services.keys()
    assert not {
        service for service in targets if any(str(targets[service]) in p for p in services[service].get("ports", []))
    }
