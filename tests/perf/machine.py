"""Describes the machine and its software, and measures how much of it other programs used during the run."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

PROC = Path("/proc")
PACKAGES = ("torch", "transformers", "pillow", "rq", "redis", "fastapi", "uvicorn")


def describe_machine() -> dict[str, object]:
    """Return the processor, the system and the versions."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": count_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def count_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def busy_s() -> float:
    """Return the seconds that all cores together were busy since the start; 0 if the system does not report it."""
    if not (PROC / "stat").exists():
        return 0.0
    user, nice, system, _idle, _wait, *interrupts = (PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]
    return sum(map(int, (user, nice, system, *interrupts))) / os.sysconf("SC_CLK_TCK")


def cpu_s(process_id: int) -> float:
    """Return the CPU seconds of a process, in all its threads; 0 if the system does not report it."""
    path = PROC / str(process_id) / "stat"
    if not path.exists():
        return 0.0
    # The program's name is in brackets and can contain anything; user and system time are the 14th and 15th fields.
    user, system = path.read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _processor() -> str:
    lines = (PROC / "cpuinfo").read_text().splitlines() if (PROC / "cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
