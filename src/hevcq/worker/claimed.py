"""A job that is ours: what to do, and the rights to do it."""

from __future__ import annotations

from dataclasses import dataclass

from hevcq.domain.job import Task
from hevcq.domain.profile import Profile
from hevcq.worker.lease import Fence, Lease


@dataclass(frozen=True, slots=True)
class Claimed:
    """A task whose job the ledger granted. `worker` names the slot that works on it."""

    task: Task
    profile: Profile
    lease: Lease
    fence: Fence
    worker: str
