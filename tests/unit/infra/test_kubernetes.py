"""The manifests agree with Kubernetes' schema, the composition, the settings and the documents; without a cluster."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from image_analysis_api.settings import ApiSettings
from image_analysis_worker.settings import WorkerSettings
from support.documents import INFRA
from support.manifests import YAML, Manifest

ROOT = Path(__file__).parents[3]
OLDEST_VERSION, NEWEST_VERSION = "1.30", "1.37"
"""Before 1.30, a pod could not sleep before its stop."""

UNITS = {"": 1.0, "m": 0.001, "Gi": 2.0**30, "Mi": 2.0**20, "MB": 1e6}


def read_quantity(text: str) -> float:
    quantity = re.fullmatch(r"([\d.]+) ?([A-Za-z]*)", text)
    assert quantity, text
    number, unit = quantity.groups()
    return float(number) * UNITS[unit]


def read_compose(service: str) -> dict[str, Any]:
    """Read a service of the composition, with the defaults of its variables."""
    text = (ROOT / "infra" / "compose.yaml").read_text()
    return dict(yaml.load(re.sub(r"\$\{\w+:-([^{}]*)\}", r"\1", text), YAML)["services"][service])


def find_workloads(manifests: list[Manifest]) -> dict[str, Manifest]:
    return {m["metadata"]["name"]: m for m in manifests if m["kind"] in ("Deployment", "StatefulSet")}


def find_pods(manifests: list[Manifest]) -> dict[str, dict[str, Any]]:
    return {name: workload["spec"]["template"]["spec"] for name, workload in find_workloads(manifests).items()}


def find_containers(manifests: list[Manifest]) -> dict[str, dict[str, Any]]:
    containers = {}
    for name, pod in find_pods(manifests).items():
        [containers[name]] = pod["containers"]
    return containers


def identify(manifests: list[Manifest]) -> dict[tuple[str, str], Manifest]:
    return {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in manifests}


def test_any_installed_kustomize_builds_the_same(kustomization: Path, manifests: list[Manifest]) -> None:
    for command in (["kustomize", "build"], ["kubectl", "kustomize"]):
        if shutil.which(command[0]):
            built = subprocess.run([*command, str(kustomization)], check=True, capture_output=True, text=True).stdout

            assert identify(list(yaml.load_all(built, YAML))) == identify(manifests)


@pytest.mark.parametrize("version", [OLDEST_VERSION, NEWEST_VERSION])
def test_every_manifest_is_valid(manifests: list[Manifest], version: str) -> None:
    for manifest in manifests:
        if manifest["kind"] != "ScaledObject":
            validate(json.dumps(manifest), version)


@cache
def validate(manifest: str, version: str) -> None:
    """Validate a manifest only once, even if it is in several kustomizations."""
    kubernetes_validate.validate(json.loads(manifest), version, strict=True)


def test_every_manifest_is_in_the_namespace(manifests: list[Manifest]) -> None:
    namespaces = {m["metadata"].get("namespace", m["metadata"]["name"]) for m in manifests}

    assert namespaces == {"image-analysis"}


def test_every_selector_finds_the_pods_of_its_namesake(manifests: list[Manifest]) -> None:
    labels = {name: w["spec"]["template"]["metadata"]["labels"] for name, w in find_workloads(manifests).items()}

    for name, selector in find_selectors(manifests):
        assert [found for found, own in labels.items() if selector.items() <= own.items()] == [name]


def find_selectors(manifests: list[Manifest]) -> Iterator[tuple[str, dict[str, str]]]:
    for manifest in manifests:
        name, spec = manifest["metadata"]["name"], manifest.get("spec", {})
        if manifest["kind"] == "Service":
            yield name, spec["selector"]
        if manifest["kind"] in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
            yield name, spec["selector"]["matchLabels"]
            for spread in spec.get("template", {}).get("spec", {}).get("topologySpreadConstraints", []):
                yield name, spread["labelSelector"]["matchLabels"]


def test_every_service_leads_to_a_port_that_the_image_exposes(manifests: list[Manifest]) -> None:
    exposed = set(re.findall(r"EXPOSE (\d+)", (ROOT / "infra" / "Dockerfile").read_text())) | {"6379"}
    containers = find_containers(manifests)

    for service in (m for m in manifests if m["kind"] == "Service"):
        [port] = service["spec"]["ports"]
        target = port.get("targetPort", port["port"])
        open_ports = containers[service["metadata"]["name"]]["ports"]
        [own] = [own for own in open_ports if target in (own["name"], own["containerPort"])]
        assert str(own["containerPort"]) in exposed


def test_every_metrics_port_is_the_one_of_the_image(manifests: list[Manifest]) -> None:
    dockerfile = (ROOT / "infra" / "Dockerfile").read_text()
    variables = " ".join(re.findall(r"^ENV .*METRICS_HOST=0\.0\.0\.0 .*$", dockerfile, re.MULTILINE))
    listening = re.findall(r"(\w+)_METRICS_PORT=(\d+)", variables)
    opened = {
        (name.upper(), str(port["containerPort"]))
        for name, container in find_containers(manifests).items()
        for port in container.get("ports", [])
        if port["name"] == "metrics"
    }
    is_scraped = any(manifest["metadata"]["name"] == "api-metrics" for manifest in manifests)

    assert opened == (set(listening) if is_scraped else set())


def test_replicated_pods_are_spread_and_have_a_disruption_budget(manifests: list[Manifest]) -> None:
    pods = find_pods(manifests)
    budgets = {m["metadata"]["name"]: m["spec"]["maxUnavailable"] for m in manifests if m["kind"].endswith("Budget")}

    assert budgets == {"api": 1, "deliverer": 1, "worker": 1}
    assert all(pods[name]["topologySpreadConstraints"] for name in budgets)


def test_pods_are_restricted_and_run_as_the_user_of_the_images(manifests: list[Manifest]) -> None:
    of_image = re.search(r"USER (\d+):(\d+)", (ROOT / "infra" / "Dockerfile").read_text())
    assert of_image
    user, group = map(int, of_image.groups())
    [namespace] = [m for m in manifests if m["kind"] == "Namespace"]

    assert namespace["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    for pod in find_pods(manifests).values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": group,
            "fsGroup": group,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert pod["containers"][0]["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_no_service_puts_its_address_into_our_settings(manifests: list[Manifest]) -> None:
    assert not any(pod["enableServiceLinks"] for pod in find_pods(manifests).values())


def test_every_variable_is_a_setting(manifests: list[Manifest]) -> None:
    settings = {name.upper() for name in (*ApiSettings.model_fields, *WorkerSettings.model_fields)}
    settings |= {"RQ_DASHBOARD_REDIS_URL", "RQ_DASHBOARD_PASSWORD", "REDIS_PASSWORD", "REDISCLI_AUTH", "HF_TOKEN"}
    [shared] = [m["data"] for m in manifests if m["metadata"]["name"].startswith("settings-")]

    assert shared.keys() <= settings
    for container in find_containers(manifests).values():
        assert {variable["name"] for variable in container["env"]} <= settings


def test_no_variable_uses_one_that_comes_later(manifests: list[Manifest]) -> None:
    for container in find_containers(manifests).values():
        known: set[str] = set()
        for variable in container["env"]:
            assert set(re.findall(r"\$\((\w+)\)", variable.get("value", ""))) <= known
            known.add(variable["name"])
        assert set(re.findall(r"\$\((\w+)\)", " ".join(container.get("args", [])))) <= known


def test_every_secret_is_one_that_the_documents_make(manifests: list[Manifest]) -> None:
    documented = set(re.findall(r"--from-literal=([\w-]+)=", INFRA.read_text()))
    sources = [v["valueFrom"] for c in find_containers(manifests).values() for v in c["env"] if "valueFrom" in v]

    assert {source["secretKeyRef"]["name"] for source in sources} == {"image-analysis"}
    assert {s["secretKeyRef"]["key"] for s in sources if not s["secretKeyRef"].get("optional")} == documented


def test_every_container_is_probed_as_its_image_checks_itself(manifests: list[Manifest]) -> None:
    containers = find_containers(manifests)
    dockerfile = (ROOT / "infra" / "Dockerfile").read_text()

    for container in containers.values():
        assert container.keys() >= {"readinessProbe", "livenessProbe"}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        command = ", ".join(f'"{part}"' for part in containers["worker"][probe]["exec"]["command"])
        assert f"CMD [{command}]" in dockerfile
        composed = read_compose("deliverer")["healthcheck"]["test"]
        assert ["CMD", *containers["deliverer"][probe]["exec"]["command"]] == composed
    for probe in ("readinessProbe", "livenessProbe"):  # without Redis or a worker, each pod answers with the reason
        assert containers["api"][probe]["httpGet"]["path"] == "/health/live"


@pytest.mark.parametrize(
    ("answer", "is_alive"),
    [
        ("PONG", True),
        ("MISCONF Errors writing to the AOF file: No space left on device", True),
        ("LOADING Redis is loading the dataset in memory", False),
        ("NOAUTH Authentication required.", False),
        ("", False),
    ],
)
def test_redis_stays_in_service_while_its_disk_is_full(
    manifests: list[Manifest], tmp_path: Path, answer: str, is_alive: bool
) -> None:
    (tmp_path / "redis-cli").write_text(f"#!/bin/sh\necho '{answer}'\n")
    (tmp_path / "redis-cli").chmod(0o755)
    redis = find_containers(manifests)["redis"]
    probes = [redis[probe]["exec"]["command"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")]
    kind, composed = read_compose("redis")["healthcheck"]["test"]
    assert kind == "CMD-SHELL"

    for command in (*probes, ["sh", "-c", composed]):
        path = f"{tmp_path}:{os.environ['PATH']}"
        ended = subprocess.run(command, env={"PATH": path}, check=False)
        assert (ended.returncode == 0) is is_alive, command


def test_probes_that_start_a_python_take_two_hundredths_of_a_core_at_most(manifests: list[Manifest]) -> None:
    containers = find_containers(manifests)
    cpu_s = 0.35

    for name in ("worker", "deliverer"):
        periods_s = [containers[name][probe]["periodSeconds"] for probe in ("readinessProbe", "livenessProbe")]
        assert sum(cpu_s / period_s for period_s in periods_s) < 0.02


def test_limits_are_those_of_the_composition(manifests: list[Manifest]) -> None:
    for name, container in find_containers(manifests).items():
        is_gpu = "nvidia.com/gpu" in container["resources"]["limits"]
        limits = read_compose("worker-gpu" if is_gpu else name)["deploy"]["resources"]["limits"]

        assert read_quantity(container["resources"]["limits"]["cpu"]) == read_quantity(limits["cpus"])
        assert read_quantity(container["resources"]["limits"]["memory"]) == read_quantity(
            limits["memory"].replace("g", "Gi").replace("m", "Mi")
        )


def test_requests_are_at_least_what_was_measured(manifests: list[Manifest]) -> None:
    rows = re.findall(r"^\| `(\w+)`(?: \(CPU\))? \|.*\| (\d+ MB) \|$", INFRA.read_text(), re.MULTILINE)
    containers = find_containers(manifests)

    assert {name for name, _ in rows} == containers.keys()
    for name, idle in rows:
        assert read_quantity(idle) < read_quantity(containers[name]["resources"]["requests"]["memory"])


def test_redis_runs_as_in_the_composition(manifests: list[Manifest]) -> None:
    composed = read_compose("redis")
    redis = find_containers(manifests)["redis"]
    [configuration] = [m["data"] for m in manifests if m["metadata"]["name"].startswith("redis-")]

    assert redis["image"] == composed["image"]
    assert redis["args"][-1] == composed["command"][-1]
    assert configuration == {"redis.conf": (ROOT / "infra" / "redis" / "redis.conf").read_text()}


def test_images_are_those_of_the_composition(manifests: list[Manifest]) -> None:
    for name in ("api", "deliverer", "worker", "dashboard"):
        assert find_containers(manifests)[name]["image"].split(":")[0] == read_compose(name)["image"]


def test_grace_periods_are_those_of_the_composition_and_longer_than_a_job(manifests: list[Manifest]) -> None:
    pods = find_pods(manifests)

    for name, pod in pods.items():
        sleep_s = pod["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        assert pod["terminationGracePeriodSeconds"] - sleep_s == int(read_compose(name)["stop_grace_period"][:-1])
    assert pods["worker"]["terminationGracePeriodSeconds"] > WorkerSettings().job_timeout_seconds


def test_a_rollout_of_the_api_takes_no_pod_before_there_is_another(manifests: list[Manifest]) -> None:
    assert find_workloads(manifests)["api"]["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
