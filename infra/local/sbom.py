"""Writes a list of the Python packages in each image, with their licenses (CycloneDX), into dist/; for `just sbom`.

The packages are those of `uv.lock` that the Dockerfile installs. The licenses are read from the packages installed
here, which are the same. Fails if a license is unknown or not among `ALLOWED`.
"""

import json
import re
import subprocess
import sys
from collections import Counter
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

from packaging.markers import Marker

ROOT = Path(__file__).resolve().parents[2]
WORKER = ["--no-dev", "--package", "image-analysis-worker", "--extra", "telemetry"]
OPTIONS = {
    "api": ["--no-dev", "--package", "image-analysis-api", "--extra", "telemetry"],
    "dashboard": ["--only-group", "dashboard"],
    "worker": [*WORKER, "--extra", "teach", "--extra", "torch"],
    "worker-openvino": [*WORKER, "--extra", "openvino"],
}
"""The options of `uv sync` for each image."""
LEFT_OUT = {"api": r"pycparser", "worker": r"(triton|cuda-|nvidia-).*"}
"""Packages that the Dockerfile leaves out or, with torch's build for CUDA, replaces."""

SYSTEM = {
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_system": "Linux",
    "python_full_version": "3.11.2",
    "python_version": "3.11",
    "sys_platform": "linux",
}
"""Of the images: Debian bookworm."""

ALLOWED = re.compile(
    r"(3-Clause )?BSD(-[23]-Clause|-3-Clause License)?|0BSD|(The )?MIT(-0|-CMU)?|Apache( Software|-2\.0| 2\.0)?"
    r"|(WITH )?LLVM-exception|BSL-1\.0|CC0-1\.0|CNRI-Python|ISC|MPL-2\.0|PSF-2\.0|Zlib"
)
BETWEEN = re.compile(r"\(|\)|;|\bAND\b|\bOR\b|\bWITH\b|\bLicense\b|OSI Approved ::")
LICENSE_CHARACTERS = 60
"""A longer text is not a name but the license itself."""

NOT_INSTALLED = {"async-timeout": "Apache-2.0"}
"""Packages that the images' Python needs, but a newer one does not."""


class LicenseError(Exception):
    """A package's license is unknown or not allowed."""


def find_license(package: str) -> str:
    """Read a package's license from its metadata: the expression, the short text, or the classifiers.

    Raises:
        LicenseError: it states none, or one that is not allowed.
    """
    try:
        stated = metadata(package)
    except PackageNotFoundError:
        name = NOT_INSTALLED.get(package, "")
    else:
        text = (stated["License"] or "").strip()
        classifiers = [
            line.rpartition(" :: ")[2] for line in stated.get_all("Classifier", []) if line.startswith("License ::")
        ]
        name = stated["License-Expression"] or (text if len(text) <= LICENSE_CHARACTERS else "")
        name = name or "; ".join(classifiers)
    words = [word.strip() for word in BETWEEN.split(name) if word.strip()]
    if not words or not all(map(ALLOWED.fullmatch, words)):
        raise LicenseError(f"{package} has the license {name!r}: if it may be shipped, add it to ALLOWED")
    return name


def is_shipped(component: dict[str, Any], image: str) -> bool:
    """Whether the image contains a package that uv lists."""
    properties = {entry["name"]: entry["value"] for entry in component.get("properties", ())}
    marker = properties.get("uv:package:marker")
    is_left_out = re.fullmatch(LEFT_OUT.get(image, ""), component["name"])
    return not is_left_out and (marker is None or Marker(marker).evaluate(SYSTEM))


def make(image: str) -> dict[str, Any]:
    """Make the list of an image's packages.

    Raises:
        LicenseError: see `find_license`.
    """
    command = ["uv", "export", "--quiet", "--frozen", "--format", "cyclonedx1.5", "--preview-features", "sbom-export"]
    exported = subprocess.run([*command, *OPTIONS[image]], cwd=ROOT, capture_output=True, text=True, check=True)
    bom: dict[str, Any] = json.loads(exported.stdout)
    bom["metadata"]["component"] = {"type": "container", "bom-ref": image, "name": f"image-analysis-{image}"}
    bom["components"] = [part for part in bom["components"] if is_shipped(part, image)]
    for part in bom["components"]:
        part["licenses"] = [{"license": {"name": find_license(part["name"])}}]
    kept = {part["bom-ref"] for part in bom["components"]}
    bom["dependencies"] = [
        {**entry, "dependsOn": [name for name in entry.get("dependsOn", ()) if name in kept]}
        for entry in bom["dependencies"]
        if entry["ref"] in kept
    ]
    return bom


def main() -> int:
    """Write dist/IMAGE.cdx.json for every image, and print how often each license occurs."""
    (ROOT / "dist").mkdir(exist_ok=True)
    for image in OPTIONS:
        try:
            bom = make(image)
        except LicenseError as error:
            print(f"error: {image}: {error}", file=sys.stderr)
            return 1
        path = ROOT / "dist" / f"{image}.cdx.json"
        path.write_text(json.dumps(bom, indent=1))
        licenses = Counter(part["licenses"][0]["license"]["name"] for part in bom["components"])
        print(f"{path.relative_to(ROOT)}: {len(bom['components'])} packages")
        print("  " + ", ".join(f"{name} ({count})" for name, count in licenses.most_common()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
