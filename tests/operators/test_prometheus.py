"""A real Prometheus scrapes the running service: its counts, its alerts, and the dashboard's queries."""

import time
from math import isfinite

import pytest

from operators.conftest import Made
from operators.prometheus import Prometheus
from support.observability import ALERTS, PANELS
from support.waiting import wait_until

SOON_S = 60
"""The dashboard's rates are of five minutes: later, the requests made are no longer among them."""

COUNTED = {
    'sum by (status) (image_analysis_http_requests_total{route="/analyze-image"})': {
        ("200",): 2,
        ("202",): 4,
        ("400",): 4,
        ("429",): 2,
    },
    'sum(image_analysis_http_request_duration_seconds_count{route="/analyze-image"})': {(): 12},
    "sum by (outcome) (image_analysis_submissions_total)": {("queued",): 4, ("cached",): 2},
    "sum by (verdict) (image_analysis_rate_limit_verdicts_total)": {("admitted",): 10, ("refused",): 2},
    "sum by (outcome) (image_analysis_fetches_total)": {("url_refused",): 2},
    'sum by (code) (image_analysis_http_problems_total{code!="no_worker"})': {
        ("url_refused",): 2,
        ("invalid_base64",): 2,
        ("rate_limited",): 2,
    },
    "sum by (outcome, code) (image_analysis_jobs_total) > 0": {("completed",): 2, ("corrupt_image", "failed"): 2},
    'sum by (outcome) (image_analysis_jobs_total{code=~"image_expired|internal_error|job_.+|worker_lost"})': {
        ("failed",): 0,
        ("retried",): 0,
    },
    "sum(image_analysis_batch_jobs_sum)": {(): 2},
}


def test_services_are_found_as_the_jobs_that_the_alerts_name(prometheus: Prometheus, made: Made) -> None:
    # A scrape that is late once counts as down until the next one.
    expected = {("api",): 1, ("deliverer",): 1, ("worker",): 1}
    wait_until(lambda: prometheus.query("sum by (job) (up)") == expected, "every service is up")


@pytest.mark.parametrize("expression", COUNTED)
def test_counters_add_up_to_the_requests_made(prometheus: Prometheus, made: Made, expression: str) -> None:
    assert prometheus.query(expression, at_s=made.seen_s) == COUNTED[expression]


def test_every_alert_is_evaluated_and_leaves_a_service_that_does_well_alone(prometheus: Prometheus, made: Made) -> None:
    def states() -> dict[str, tuple[str, str]]:
        groups = prometheus.ask("rules")["groups"]
        return {rule["name"]: (rule["health"], rule["state"]) for group in groups for rule in group["rules"]}

    wait_until(lambda: states() == dict.fromkeys(ALERTS, ("ok", "inactive")), "every alert is well")


@pytest.mark.parametrize("panel", PANELS)
def test_every_query_of_the_dashboard_has_a_value(prometheus: Prometheus, made: Made, panel: str) -> None:
    def read() -> list[float]:
        found = prometheus.query(PANELS[panel], at_s=min(time.time(), made.seen_s + SOON_S))
        return [value for value in found.values() if isfinite(value)]

    assert wait_until(read, "every process is scraped twice")
