"""What CPU this process may use: how many cores, fewer than the host has in a container, and what they can do."""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def count_usable_cores(cgroup: Path = CGROUP) -> int:
    """Count the cores of the CPU affinity, cut to the cgroup's quota (version 2 or 1), one at least."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(affinity, _read_quota(cgroup))))


def _read_quota(cgroup: Path) -> float:
    """Read the cores that the scheduler grants in each period; infinity without a limit."""
    try:
        if (version_2 := cgroup / "cpu.max").is_file():
            quota, period = version_2.read_text().split()
        else:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):  # no cgroup, or "max"
        return math.inf


def has_cpu_flag(*names: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether the CPU has one of some features, by Linux's names for them; False where there is no list."""
    try:
        line = next(line for line in cpuinfo.read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        return False
    return not set(names).isdisjoint(line.split())
