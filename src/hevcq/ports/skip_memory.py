"""The skip memory port: which bytes are known not to be worth encoding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Remembered:
    """An earlier decision about the same bytes under the same recipe."""

    reason: str
    made_at: float


class SkipMemory(ABC):
    """What was skipped, by content. Specification, held by tests/contracts for every backend:

    - What is remembered holds for these very bytes, this profile and this revision of it.
    - The latest reason wins. Forgetting costs an encode and nothing else.
    """

    @abstractmethod
    def remember(self, source_sha256: str, profile: str, revision: str, reason: str) -> None:
        """Record that these bytes under this recipe are not worth encoding again."""

    @abstractmethod
    def recall(self, source_sha256: str, profile: str, revision: str) -> Remembered | None:
        """Return what was remembered for these bytes and this recipe, or None."""
