"""What this process holds: receipts with their own deadlines, because SQS does not guard them.

SQS may take a receipt whose message was handed to somebody else since (an old handle extends, and
can release the new owner's message), so that a lost lease cannot be learned from the service.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from hevcq.domain.profile import MAX_VISIBILITY_S

CAP_MARGIN_S = 30
"""Kept free below the 12 h, which SQS counts from the receive on its own clock; asking past the
remainder is an error there, not a clamp."""


@dataclass(slots=True)
class Receipt:
    """One receipt: monotonic seconds of its receive and of the end it was last given."""

    received_at: float
    deadline: float

    @property
    def ends_at_latest(self) -> float:
        """Monotonic seconds past which no extension reaches."""
        return self.received_at + MAX_VISIBILITY_S - CAP_MARGIN_S


class ReceiptBook:
    """The live receipts of one queue, by receipt handle; safe to share between threads.

    A receipt past its deadline is stale, even if the service would still take it.
    """

    def __init__(self) -> None:
        self._leases: dict[str, Receipt] = {}
        self._lock = threading.Lock()

    def add(self, receipt: str, lease: Receipt, now: float) -> None:
        """Remember a receipt that was just handed out, and forget those that ran out."""
        with self._lock:
            for old in [key for key, held in self._leases.items() if held.deadline <= now]:
                del self._leases[old]
            self._leases[receipt] = lease

    def live(self, receipt: str, now: float) -> Receipt | None:
        """Return the lease of a receipt that is neither settled nor past its deadline."""
        with self._lock:
            lease = self._leases.get(receipt)
            return lease if lease is not None and now < lease.deadline else None

    def take(self, receipt: str, now: float) -> Receipt | None:
        """Return the live lease and forget it: of two that settle, only one gets it."""
        with self._lock:
            lease = self._leases.pop(receipt, None)
            return lease if lease is not None and now < lease.deadline else None

    def put_back(self, receipt: str, lease: Receipt) -> None:
        """Undo `take` after a settling that did not happen."""
        with self._lock:
            self._leases[receipt] = lease

    def drop(self, receipt: str) -> None:
        """Forget a receipt that the service says is gone."""
        with self._lock:
            self._leases.pop(receipt, None)
