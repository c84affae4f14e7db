"""The ScaledObject agrees with KEDA's documentation, and with the keys where RQ keeps jobs.

No Python package contains KEDA's schema: this checks the fields that we use, as its reference describes them.
"""

from typing import Literal

import pytest
from fakeredis import FakeRedis
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from rq.queue import Queue
from rq.registry import StartedJobRegistry

from image_analysis_common.tasks import MAX_ATTEMPTS, queue_name
from image_analysis_worker.settings import WorkerSettings
from support.manifests import Manifest


class Documented(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True)


class RedisList(Documented):
    """The metadata of the trigger `redis`; all values are strings."""

    address: str = Field(pattern=r"^[a-z0-9.-]+:\d+$")
    password_from_env: str
    list_name: str
    list_length: str = Field(pattern=r"^[1-9]\d*$")


class Trigger(Documented):
    type: Literal["redis"]
    name: str
    metadata: RedisList


class ScaleTarget(Documented):
    name: str


class Spec(Documented):
    scale_target_ref: ScaleTarget
    min_replica_count: int = Field(ge=0)
    max_replica_count: int = Field(ge=1)
    polling_interval: int = Field(ge=1)
    cooldown_period: int = Field(ge=1)
    triggers: list[Trigger]


class Metadata(Documented):
    name: str
    namespace: str


class ScaledObject(Documented):
    api_version: Literal["keda.sh/v1alpha1"]
    kind: Literal["ScaledObject"]
    metadata: Metadata
    spec: Spec


@pytest.fixture(scope="session")
def scaled_objects(manifests: list[Manifest]) -> list[ScaledObject]:
    """One ScaledObject with KEDA, none without."""
    return [ScaledObject.model_validate(manifest) for manifest in manifests if manifest["kind"] == "ScaledObject"]


def find(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    [found] = [m for m in manifests if m["kind"] == kind and m["metadata"]["name"].startswith(name)]
    return found


def test_only_keda_scales_workers_if_it_is_installed(
    manifests: list[Manifest], scaled_objects: list[ScaledObject]
) -> None:
    worker = find(manifests, "Deployment", "worker")

    assert [scaled.spec.scale_target_ref.name for scaled in scaled_objects] in ([], ["worker"])
    assert ("replicas" in worker["spec"]) is not bool(scaled_objects)


def test_a_worker_is_kept_while_rq_has_a_job_of_the_model(
    manifests: list[Manifest], scaled_objects: list[ScaledObject]
) -> None:
    model_id = find(manifests, "ConfigMap", "settings-")["data"]["MODEL_ID"]
    queue = Queue(queue_name(model_id), connection=FakeRedis())

    for scaled in scaled_objects:
        assert {trigger.metadata.list_name for trigger in scaled.spec.triggers} == {
            queue.key,
            queue.intermediate_queue_key,
            StartedJobRegistry(queue=queue).key,
        }


def test_keda_reads_the_redis_of_the_workers(manifests: list[Manifest], scaled_objects: list[ScaledObject]) -> None:
    redis = find(manifests, "Service", "redis")
    [worker] = find(manifests, "Deployment", "worker")["spec"]["template"]["spec"]["containers"]
    address = f"redis.{redis['metadata']['namespace']}.svc:{redis['spec']['ports'][0]['port']}"

    for trigger in (trigger for scaled in scaled_objects for trigger in scaled.spec.triggers):
        assert trigger.metadata.address == address
        assert trigger.metadata.password_from_env in {variable["name"] for variable in worker["env"]}


def test_the_last_worker_stays_for_longer_than_all_attempts_of_a_job(scaled_objects: list[ScaledObject]) -> None:
    for scaled in scaled_objects:
        assert scaled.spec.cooldown_period > MAX_ATTEMPTS * WorkerSettings().job_timeout_seconds
