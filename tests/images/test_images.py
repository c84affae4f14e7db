"""The content of the images."""

import tomllib

import pytest

from images.composition import ROOT, Composition

BASE = "debian:bookworm-slim"
LIMITS_MB = {"api": 115, "dashboard": 80, "worker": 1280, "worker-openvino": 450}
BUILDERS = ("uv", "pip", "gcc", "strip", "curl", "git")


@pytest.mark.parametrize("service", LIMITS_MB)
def test_image_adds_little_to_its_base(built: Composition, service: str) -> None:
    [base], [image] = (built.inspect(name, kind="image") for name in (BASE, f"image-analysis-{service}"))

    assert (image["Size"] - base["Size"]) / 1e6 <= LIMITS_MB[service]


@pytest.mark.parametrize("service", LIMITS_MB)
def test_image_has_labels_and_runs_only_its_program_as_its_own_user(built: Composition, service: str) -> None:
    [image] = built.inspect(f"image-analysis-{service}", kind="image")
    config = image["Config"]

    labels = {name.rpartition(".")[2] for name in config["Labels"] if name.startswith("org.opencontainers.image.")}
    assert labels >= {"title", "description", "version", "revision", "licenses"}
    program = ["python", "/app/serve.py"] if service == "dashboard" else ["python", "-m"]
    assert (config["User"], config["Cmd"][:2], config["Healthcheck"]["Test"][0]) == ("10001:10001", program, "CMD")


@pytest.mark.parametrize("service", LIMITS_MB)
def test_nothing_that_builds_or_fetches_is_in_an_image(built: Composition, service: str) -> None:
    code = f"import shutil; print([name for name in {BUILDERS} if shutil.which(name)])"

    found = built.docker("run", "--rm", "--network", "none", f"image-analysis-{service}", "python", "-c", code)

    assert found.strip() == "[]"


def test_worker_has_the_cpu_build_of_the_locked_torch(built: Composition) -> None:
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    [locked] = [package["version"] for package in packages if package["name"] == "torch"]
    code = "import torch; print(torch.__version__.split('+')[0], torch.version.cuda)"

    printed = built.docker("run", "--rm", "--network", "none", "image-analysis-worker", "python", "-c", code)

    assert printed.split() == [locked, "None"]


def test_worker_without_torch_has_openvino_alone(built: Composition) -> None:
    code = "from importlib.util import find_spec; print([n for n in ('torch', 'nncf', 'openvino') if find_spec(n)])"

    printed = built.docker("run", "--rm", "--network", "none", "image-analysis-worker-openvino", "python", "-c", code)

    assert printed.strip() == "['openvino']"


def test_worker_without_torch_has_every_image_processor(built: Composition) -> None:
    code = """
import importlib, sys
from pathlib import Path
sys.modules["torch"] = None
import transformers
for path in Path(transformers.__file__).parent.glob("models/*/image_processing_pil_*.py"):
    importlib.import_module(f"transformers.models.{path.parent.name}.{path.stem}")
    print(path.parent.name)
"""

    printed = built.docker("run", "--rm", "--network", "none", "image-analysis-worker-openvino", "python", "-c", code)

    assert set(printed.split()) >= {"beit", "convnext", "deit", "efficientnet", "mobilevit", "vit"}


@pytest.mark.parametrize("image", ["worker", "worker-openvino"])
def test_decoders_of_a_worker_image_have_no_way_to_the_network(built: Composition, image: str) -> None:
    code = """
import socket
from image_analysis_worker.decoding.sandbox import enter_sandbox
socket.socket().close()
enter_sandbox()
try:
    socket.socket()
except PermissionError:
    print("refused")
"""

    printed = built.docker("run", "--rm", "--network", "none", f"image-analysis-{image}", "python", "-c", code)

    assert printed.strip() == "refused"
