"""The pause port: the pauses of a farm, beside its ledger, so that every process sees the same."""

from __future__ import annotations

from abc import ABC, abstractmethod

from hevcq.domain.pause import Pause


class Pauses(ABC):
    """Hold at most one pause for each profile, and one for all profiles (named "").

    Specification, held by tests/contracts for every backend: a pause or its end is durable when the
    call returns, and every process reads it from then on. Raises StorageError or Unavailable.
    """

    pauses_read_every_s: float = 0.0
    """Seconds that a worker may use what it read, set by the cost of a read on this backend."""

    @abstractmethod
    def pauses(self) -> tuple[Pause, ...]:
        """Return every pause that has not ended by now, that of all profiles first."""

    @abstractmethod
    def pause(self, pause: Pause) -> None:
        """Set the pause of its profile, in place of the one it had."""

    @abstractmethod
    def resume(self, profile: str | None) -> tuple[Pause, ...]:
        """End the pause of this profile ("": the one of all), or with None every pause.

        Return those that had not ended by themselves.
        """
