"""Finds the programs that the tests run and that are no Python packages."""

import shutil

PACKAGES = "apt-get install --no-install-recommends prometheus chromium curl npm nginx"


def find_program(name: str) -> str:
    """Find a program on the search path; fail with what to install."""
    path = shutil.which(name)
    assert path is not None, f"There is no {name} on the search path. On Debian: {PACKAGES}"
    return path
