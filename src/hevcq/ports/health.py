"""The port of a library's health: which bytes each file had when it was read whole, and how it was."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hevcq.ports.catalog import Fingerprint


class Depth(StrEnum):
    """How a video is read: its packets and sound, or every picture too; stable words."""

    DEMUX = "demux"
    DECODE = "decode"


class Health(StrEnum):
    """What a whole read found; stable words."""

    SOUND = "sound"
    DAMAGED = "damaged"
    ROTTEN = "rotten"
    """Other bytes than at the last check, though neither time nor size changed."""
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Spot:
    """Where damage is: seconds from the start, byte in the file, and what ffmpeg says there."""

    time_s: float | None
    byte: int | None
    what: str


@dataclass(frozen=True, slots=True)
class Checked:
    """The last whole read of one file; `at` is in Unix seconds.

    `sha256` is that of the bytes first read with this fingerprint, "" where they could not be read;
    a file that rots keeps it, so that a copy that is put back is recognised.
    """

    path: Path
    fingerprint: Fingerprint
    sha256: str
    depth: Depth
    health: Health
    detail: str
    at: float
    spots: tuple[Spot, ...] = ()


class HealthRecords(ABC):
    """Store the last check of each file, and when a round over some folders began. Durable."""

    @abstractmethod
    def checked(self, paths: Sequence[Path]) -> Mapping[Path, Checked]:
        """Return the last checks of `paths`."""

    @abstractmethod
    def unsound(self) -> Sequence[Checked]:
        """Return the last checks that found a file other than sound, latest first."""

    @abstractmethod
    def record(self, checked: Checked) -> None:
        """Store a check, over an earlier one of its path."""

    @abstractmethod
    def round_began(self, key: str) -> float | None:
        """Return when the round of this key began, if it did not end; Unix seconds."""

    @abstractmethod
    def begin_round(self, key: str, at: float) -> None:
        """Note that a round of this key began, over an earlier one."""

    @abstractmethod
    def end_round(self, key: str) -> None:
        """Note that the round ended."""
