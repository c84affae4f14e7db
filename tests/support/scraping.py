"""Reads the metrics of a process."""

from collections.abc import Iterable

import httpx
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

PREFIX = "image_analysis_"


def scrape(url: str) -> list[Metric]:
    """Read the service's own metrics from a process."""
    text = httpx.get(url, trust_env=False).raise_for_status().text
    return [family for family in text_string_to_metric_families(text) if family.name.startswith(PREFIX)]


def full_name(family: Metric) -> str:
    """Return a family's name as the documents and PromQL have it; the parser removes the suffix of counters."""
    return f"{family.name}_total" if family.type == "counter" else family.name


def values(families: Iterable[Metric], name: str) -> dict[tuple[str, ...], float]:
    """Return the values of all samples with a name, keyed by the values of their labels in the labels' order."""
    samples = [sample for family in families for sample in family.samples if sample.name == PREFIX + name]
    return {tuple(value for _, value in sorted(sample.labels.items())): sample.value for sample in samples}
