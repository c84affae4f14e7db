"""Reads the alerts and the dashboard that the service ships for Prometheus and Grafana."""

import json
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[2] / "infra" / "observability"


def _rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _panels() -> list[dict[str, Any]]:
    dashboard = json.loads((FOLDER / "grafana" / "dashboards" / "image-analysis.json").read_text())
    return list(dashboard["panels"])


RULES = _rules()
ALERTS = {rule["alert"]: rule["expr"] for rule in RULES}
PANELS = {f"{panel['title']} {target['refId']}": target["expr"] for panel in _panels() for target in panel["targets"]}
