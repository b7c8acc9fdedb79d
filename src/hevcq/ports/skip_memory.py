"""The skip memory port: content that is known not to be worth encoding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Remembered:
    """An earlier decision about the same bytes under the same recipe."""

    reason: str
    made_at: float


class SkipMemory(ABC):
    """Skip decisions by content. Specification, held by tests/contracts for every backend:

    - A decision holds for exactly these bytes, this profile and this revision of it.
    - The latest reason wins. Forgetting costs an encode and nothing else.
    """

    @abstractmethod
    def remember(self, source_sha256: str, profile: str, revision: str, reason: str) -> None:
        """Record that these bytes under this recipe are not worth encoding again."""

    @abstractmethod
    def recall(self, source_sha256: str, profile: str, revision: str) -> Remembered | None:
        """Return the decision recorded for these bytes under this recipe, or None."""
