"""The composition against the services' settings: what the documents list can be set there too."""

from pathlib import Path

import pytest
import yaml

from image_analysis_api.settings import ApiSettings, DelivererSettings
from image_analysis_common.settings import SharedSettings
from image_analysis_worker.settings import WorkerSettings

COMPOSE = Path(__file__).parents[3] / "infra" / "compose.yaml"
FIXED = {"REDIS_HOST", "REDIS_PORT", "API_HOST", "API_PORT", "METRICS_HOST", "API_METRICS_PORT"}
FIXED |= {"DELIVERER_METRICS_PORT", "WORKER_METRICS_PORT"}
"""The composition's own: where Redis is, and where the services listen in their containers."""


@pytest.mark.parametrize(
    ("service", "settings"), [("api", ApiSettings), ("deliverer", DelivererSettings), ("worker", WorkerSettings)]
)
def test_every_setting_of_a_service_is_passed_on(service: str, settings: type[SharedSettings]) -> None:
    environment = yaml.safe_load(COMPOSE.read_text())["services"][service]["environment"]

    assert {name.upper() for name in settings.model_fields} - FIXED <= environment.keys()
