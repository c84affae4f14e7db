"""The services of the release before this one, from git's history, in today's environment."""

import os
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).parents[2]

BEFORE_THE_FIRST_TAG = "d0c20b9b07cec4ee629d41e1eb63cf1aaed1284b"
"""No version has a tag yet. This is the last commit before the changelog began, which describes what changed since; the
jobs in `integration/jobs_of_release_2026_11.json` are of the same one."""


def unpack_release_before(folder: Path) -> dict[str, str]:
    """Unpack the packages of the newest version before this commit; return the variables that make Python import them.

    Today's environment has the libraries that the release before needs.
    """
    archive = _git("archive", "--format=tar", _find_release_before(), "packages")
    with tarfile.open(fileobj=BytesIO(archive)) as packages:
        packages.extractall(folder, filter="data")
    variables = {"PYTHONPATH": os.pathsep.join(map(str, sorted(folder.glob("packages/*/src"))))}
    code = "import image_analysis_api, image_analysis_common, image_analysis_worker as worker; print(worker.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True, check=True
    )
    assert found.stdout.startswith(str(folder)), f"today's packages are imported: {found.stdout}"
    return variables


def _find_release_before() -> str:
    command = ["git", "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*", "HEAD^"]
    tag = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    return tag or BEFORE_THE_FIRST_TAG


def _git(*arguments: str) -> bytes:
    ended = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    assert ended.returncode == 0, f"the release before is not here; `git fetch --unshallow` brings it: {ended.stderr!r}"
    return ended.stdout
