"""How much of the processor this process got, and how much all others took."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_LEAST_SHARE = 0.8  # of the time that a process which only computes must have had the processor
_LEAST_S = 0.2  # below, the system's counters, of 10 ms, say too little of others
_OTHERS, _CORES = 0.5, 0.75  # cores that others must take at least, and share of all that is then taken, to disturb


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Seconds on the clock, of this process on all cores, and of all processes; None where the system does not say."""

    wall_s: float
    own_s: float
    all_s: float | None

    @classmethod
    def now(cls) -> Self:
        """Since some time in the past."""
        return cls(wall_s=time.perf_counter(), own_s=time.process_time(), all_s=_of_all())

    def since(self, before: "Usage") -> "Usage":
        """The difference."""
        both = self.all_s is not None and before.all_s is not None
        return Usage(
            wall_s=self.wall_s - before.wall_s,
            own_s=self.own_s - before.own_s,
            all_s=self.all_s - before.all_s if both else None,  # type: ignore[operator]
        )

    def is_crowded(self, threads: int, cores: int | None = None) -> bool:
        """Whether other work slowed down a process that did nothing but compute with ``threads`` threads.

        It had to wait for a processor, or others left too few cores, which share caches and memory, free.
        """
        if self.own_s < _LEAST_SHARE * self.wall_s:
            return True
        if self.all_s is None or self.wall_s < _LEAST_S:
            return False
        others = (self.all_s - self.own_s) / self.wall_s
        return others > _OTHERS and others + threads > _CORES * (cores or os.cpu_count() or 1)


def _of_all() -> float | None:
    try:
        user, nice, system, _, _, irq, soft_irq, steal = map(int, _first_line().split()[1:9])
        return (user + nice + system + irq + soft_irq + steal) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):  # no such file or call, as on Windows and macOS
        return None


def _first_line() -> str:
    with Path("/proc/stat").open() as file:
        return file.readline()
