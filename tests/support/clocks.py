"""The clock of one process, which a test sets forward or back: Debian's package `faketime`."""

from pathlib import Path

LIBRARIES = "lib/*/faketime/libfaketimeMT.so.1"


class Clock:
    """Shows the right time until it is shifted. `file` tells the process how far; it reads it every second."""

    def __init__(self, file: Path, shift_s: int = 0) -> None:
        self._file = file
        self.shift(shift_s)

    def shift(self, shift_s: int) -> None:
        self._file.write_text(f"{shift_s:+d}\n")

    @property
    def variables(self) -> dict[str, str]:
        """The environment of the process. What measures durations, its monotonic clock, stays right."""
        [library] = Path("/usr").glob(LIBRARIES)
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
