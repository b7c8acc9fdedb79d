"""Whether the disks have room for what is about to be made."""

from __future__ import annotations

from hevcq.errors import DiskFull
from hevcq.worker.kit import Kit


def require_room(kit: Kit, size: int, name: str) -> None:
    """Raise DiskFull unless scratch and store have `size` bytes free, and what must stay so on top."""
    needed = size + kit.min_free_bytes
    there, room = kit.scratch.free_bytes(), kit.retry_control_call(kit.backend.store.free_bytes)
    free = there if room is None else min(there, room)
    if free < needed:
        least = -(-needed >> 20)  # rounded up, or it may seem to be there already
        raise DiskFull(
            f"{name} needs {least} MiB free, and there are {free >> 20} MiB.",
            remedy="The work goes on by itself once there is room.",
        )
