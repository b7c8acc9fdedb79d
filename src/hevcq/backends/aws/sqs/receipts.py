"""Track the receipts of this process with deadlines of our own, because SQS does not enforce them.

SQS may accept a receipt handle although the message was delivered to another consumer since: an
old handle can extend or release the new owner's message. So SQS does not show that a lease is lost.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from hevcq.domain.profile import MAX_VISIBILITY_S

CAP_MARGIN_S = 30
"""Seconds kept free below the 12 hours that SQS counts from the receive on its own clock: a request
past the remainder is an error there and is not clamped."""


@dataclass(slots=True)
class Receipt:
    """The times of one receipt in monotonic seconds: its receive, and its current deadline."""

    received_at: float
    deadline: float

    @property
    def latest_end(self) -> float:
        """The monotonic time in seconds past which SQS grants no extension."""
        return self.received_at + MAX_VISIBILITY_S - CAP_MARGIN_S


class ReceiptBook:
    """The live receipts of one queue by receipt handle. Thread-safe.

    A receipt past its deadline is stale, even if SQS would still accept it. `now` is monotonic
    seconds.
    """

    def __init__(self) -> None:
        self._receipts: dict[str, Receipt] = {}
        self._lock = threading.Lock()

    def add(self, handle: str, receipt: Receipt, now: float) -> None:
        """Add a receipt that was just received, and drop those past their deadline."""
        with self._lock:
            for old in [key for key, each in self._receipts.items() if each.deadline <= now]:
                del self._receipts[old]
            self._receipts[handle] = receipt

    def live(self, handle: str, now: float) -> Receipt | None:
        """Return the receipt if it is neither settled nor past its deadline, else None."""
        with self._lock:
            receipt = self._receipts.get(handle)
            return receipt if receipt is not None and now < receipt.deadline else None

    def pop(self, handle: str, now: float) -> Receipt | None:
        """Remove and return the live receipt: of two threads that settle it, only one gets it."""
        with self._lock:
            receipt = self._receipts.pop(handle, None)
            return receipt if receipt is not None and now < receipt.deadline else None

    def put_back(self, handle: str, receipt: Receipt) -> None:
        """Undo `pop` after a settlement that failed."""
        with self._lock:
            self._receipts[handle] = receipt

    def drop(self, handle: str) -> None:
        """Remove a receipt that SQS reports as gone."""
        with self._lock:
            self._receipts.pop(handle, None)
