"""The programs that the tests run and that no package index has."""

import shutil

PACKAGES = "apt-get install --no-install-recommends prometheus chromium"


def find_program(name: str) -> str:
    """Find a program on the search path; fail with what to install."""
    path = shutil.which(name)
    assert path is not None, f"There is no {name} on the search path. On Debian: {PACKAGES}"
    return path
