"""Read what else this machine does: others' CPU use, its power supply, its temperature."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """CPU seconds since the machine started: all that could be used, all that was, and by this process.

    `own` includes children.
    """

    possible: float
    busy: float
    own: float

    def others_percent(self, earlier: CpuTimes) -> float:
        """Return the share of the CPU that others used since `earlier`, 0 to 100."""
        possible = self.possible - earlier.possible
        if possible <= 0:
            return 0.0
        others = (self.busy - earlier.busy) - (self.own - earlier.own)
        return max(0.0, min(100.0, 100 * others / possible))


def cpu_times() -> CpuTimes:
    """Return the CPU times of this machine and of this process with its children, ended ones too."""
    times = psutil.cpu_times()
    possible = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    idle = times.idle + getattr(times, "iowait", 0.0)
    spent = os.times()
    own = spent.user + spent.system + spent.children_user + spent.children_system
    for child in psutil.Process().children(recursive=True):
        try:
            used = child.cpu_times()
        except psutil.Error:  # it ended: counted with the next look
            continue
        own += used.user + used.system
    return CpuTimes(possible, possible - idle, own)


def on_battery() -> bool | None:
    """Return whether this machine runs on battery, or None if unknown."""
    read = getattr(psutil, "sensors_battery", None)
    found = read() if read is not None else None
    return None if found is None or found.power_plugged is None else not found.power_plugged


def hottest_c() -> float | None:
    """Return the highest temperature of its sensors in °C, or None if it has none."""
    read = getattr(psutil, "sensors_temperatures", None)
    found = read() if read is not None else {}
    return max((each.current for sensors in found.values() for each in sensors), default=None)
