"""How many CPU cores this process may use, which in a container may be fewer than the host's, and their features."""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def count_usable_cores(cgroup: Path = CGROUP) -> int:
    """Count the cores of the CPU affinity, limited by the cgroup's quota (version 2 or 1); at least one."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(affinity, _read_quota(cgroup))))


def _read_quota(cgroup: Path) -> float:
    """Read the cgroup's quota in cores; infinity without a limit."""
    try:
        if (version_2 := cgroup / "cpu.max").is_file():
            quota, period = version_2.read_text().split()
        else:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):  # no cgroup, or "max"
        return math.inf


def has_cpu_flag(*names: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the CPU has at least one of these features, by Linux's names; False if Linux lists none."""
    try:
        line = next(line for line in cpuinfo.read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        return False
    return not set(names).isdisjoint(line.split())


def has_bfloat16() -> bool:
    """Return whether the CPU multiplies bfloat16; without it, bfloat16 is slower than float32."""
    return has_cpu_flag("avx512_bf16", "amx_bf16")


def has_vnni() -> bool:
    """Return whether the CPU sums products of int8 in 32 bits; otherwise, large sums are cut to 16 bits."""
    return has_cpu_flag("avx512_vnni", "avx_vnni", "amx_int8")


def has_gpu(devices: Path = Path("/dev")) -> bool:
    """Return whether this machine seems to have an NVIDIA GPU; asking torch would import it."""
    return any(devices.glob("nvidia[0-9]*")) or (devices / "dxg").exists()
