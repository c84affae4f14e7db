"""The list of each image's packages: those that the Dockerfile installs, with an allowed license each."""

import re
from pathlib import Path
from typing import Any

import pytest

import sbom
from sbom import LICENSE_CHARACTERS, OPTIONS, ROOT, LicenseError, find_license, make

DOCKERFILE = (ROOT / "infra" / "Dockerfile").read_text()
INSTALLS = {
    "api": ["starlette", "pillow", "redis", "opentelemetry-sdk"],
    "dashboard": ["rq-dashboard", "flask", "six"],
    "worker": ["torch", "transformers", "rq", "numpy"],
    "worker-openvino": ["openvino", "transformers", "rq", "numpy"],
}
"""Some packages of each image."""


@pytest.mark.parametrize("image", OPTIONS)
def test_image_is_listed_with_the_licenses_of_its_packages(image: str) -> None:
    bom = make(image)

    names = {part["name"] for part in bom["components"]}
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.5")
    assert set(INSTALLS[image]) <= names
    assert not {"pytest", "colorama", "fastapi-cli"} & names
    assert not any(name.startswith(("nvidia-", "cuda-")) for name in names)
    assert ("torch" in names, "openvino" in names) == (image == "worker", image == "worker-openvino")
    assert all(part["licenses"][0]["license"]["name"] for part in bom["components"])
    assert all(
        {entry["ref"], *entry["dependsOn"]} <= {part["bom-ref"] for part in bom["components"]}
        for entry in bom["dependencies"]
    )


@pytest.mark.parametrize("image", OPTIONS)
def test_dockerfile_installs_with_the_same_options(image: str) -> None:
    lines = re.sub(r"\\\n\s*", "", DOCKERFILE).splitlines()
    extras = re.findall("--extra ([a-z]+)", " ".join(OPTIONS[image]))

    [target] = [
        option for option in OPTIONS[image] if option in ("image-analysis-api", "image-analysis-worker", "dashboard")
    ]
    installing = [line for line in lines if "uv sync" in line and target in line]

    assert any(re.findall("--extra ([a-z]+)", line) == extras for line in installing)


class Metadata(dict[str, str]):
    """What a package states."""

    def get_all(self, name: str, default: Any = None) -> list[str]:
        return [self[name]] if name in self else default

    def __missing__(self, _name: str) -> None:
        return None


@pytest.mark.parametrize(
    ("stated", "found"),
    [
        ({"License-Expression": "MIT OR GPL-3.0-only"}, None),
        ({"License-Expression": "(MIT AND BSD-3-Clause) OR ISC"}, "(MIT AND BSD-3-Clause) OR ISC"),
        ({"License": "LicenseRef-NVIDIA-Proprietary"}, None),
        (
            {"License": "x" * (LICENSE_CHARACTERS + 1), "Classifier": "License :: OSI Approved :: MIT License"},
            "MIT License",
        ),
        ({"Classifier": "Topic :: Software"}, None),
        ({}, None),
    ],
)
def test_license_that_is_unknown_or_not_allowed_is_refused(
    stated: dict[str, str], found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sbom, "metadata", lambda _name: Metadata(stated))

    if found is None:
        with pytest.raises(LicenseError, match="add it to ALLOWED"):
            find_license("package")
    else:
        assert find_license("package") == found


def test_package_that_is_not_installed_here_is_refused() -> None:
    with pytest.raises(LicenseError, match="no-such-package"):
        find_license("no-such-package")


def test_lists_stay_out_of_the_repository() -> None:
    assert "dist/" in Path(ROOT / ".gitignore").read_text().split()
