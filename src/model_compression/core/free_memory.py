"""How much memory is free, and how much this process has held."""

import os
import sys
from pathlib import Path

_UNKNOWN = 2 * 2**30  # taken for free where the system does not say


def available_memory_bytes() -> int:
    """What is free in this machine, or in the container that this process is bound to."""
    bounds = [_machine_bytes(), _container_bytes()]
    return min(bound for bound in bounds if bound is not None)


def _machine_bytes() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):  # no such call, as on Windows
        return _UNKNOWN


def _container_bytes(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """None where there is no bound."""
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            return max(0, int((root / limit).read_text()) - int((root / usage).read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return None


def most_memory_bytes() -> int | None:
    """The most that this process has held at once, without that of a GPU; None where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
