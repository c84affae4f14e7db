"""The manifests of every way to deploy the service to a cluster."""

import os
from pathlib import Path

import pytest
import yaml

from support.manifests import Manifest, build

KUBERNETES = Path(__file__).parents[3] / "infra" / "kubernetes"
WAYS = {
    "base": ["base"],
    "cpu": ["overlays/cpu"],
    "gpu": ["overlays/gpu"],
    "cpu and hub": ["overlays/cpu", "components/model-hub"],
    "cpu and metrics": ["overlays/cpu", "components/metrics"],
}


@pytest.fixture(scope="session", params=WAYS)
def kustomization(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kustomization as an operator writes it, based on one of ours."""
    folder = tmp_path_factory.mktemp("kustomization").resolve()
    resource, *components = [os.path.relpath(KUBERNETES / part, folder) for part in WAYS[request.param]]
    root = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [resource],
        "components": components,
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(root))
    return folder


@pytest.fixture(scope="session")
def manifests(kustomization: Path) -> list[Manifest]:
    return build(kustomization)
