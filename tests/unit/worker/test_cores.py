"""The number of cores that a container may use, and the features of its CPU."""

import os
from pathlib import Path

import pytest

from image_analysis_worker.engines.cores import count_usable_cores, has_cpu_flag

HOST = len(os.sched_getaffinity(0))


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, HOST),
        ({"cpu.max": "max 100000\n"}, HOST),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "150000 100000\n"}, min(HOST, 2)),
        ({"cpu.max": "99900000 100000\n"}, HOST),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, HOST),
        ({"cpu.max": "nonsense"}, HOST),
    ],
)
def test_cores_are_cut_to_the_quota(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    assert count_usable_cores(write(tmp_path, files)) == cores


def test_cpu_feature_is_found_by_its_whole_name(tmp_path: Path) -> None:
    cpuinfo = write(tmp_path, {"cpuinfo": "processor : 0\nflags\t\t: sse2 avx512_bf16x amx_bf16\n"}) / "cpuinfo"

    assert has_cpu_flag("avx512_bf16", "amx_bf16", cpuinfo=cpuinfo)
    assert not has_cpu_flag("avx512_bf16", cpuinfo=cpuinfo)
    assert not has_cpu_flag("amx_bf16", cpuinfo=tmp_path / "absent")
