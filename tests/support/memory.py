"""Memory of a process and its descendants; on Linux."""

from pathlib import Path


def family(pid: int) -> list[int]:
    """Return the IDs of a process, its children and their children."""
    children = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [pid, *(member for found in children for child in found for member in family(int(child)))]


def resident_bytes(pid: int) -> int:
    """Return the memory that a process and its children use now."""
    return sum(_read(member, "VmRSS") for member in family(pid))


def peak_bytes(pid: int) -> int:
    """Return the sum of the peaks of a process and its children since `forget_peak`."""
    return sum(_read(member, "VmHWM") for member in family(pid))


def forget_peak(pid: int) -> None:
    for member in family(pid):
        Path(f"/proc/{member}/clear_refs").write_text("5")


def _read(pid: int, field: str) -> int:
    """Read a number of bytes; 0 for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)
