"""Choose the hardware encoder of a job: by trial, within its sessions, and not one that just failed.

A name in `ffmpeg -encoders` proves nothing: Debian's ffmpeg lists NVENC, QSV and VAAPI on machines
without any of them. So each is tried once in this process; a device that fails is set aside for ten
minutes, then twice as long, and so on. One whose rendition failed a gate passes its trial: it is set
aside for all processes of the machine, by a note in their data folder.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from hevcq.domain.formats.hardware import HARDWARE, candidates
from hevcq.domain.model import Frozen
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import hardware_problem
from hevcq.domain.profile import Profile
from hevcq.util.clock import Clock

SET_ASIDE_S = 600.0
MOST_SET_ASIDE_S = 86_400.0

Trial = Callable[[str, threading.Event], str]
"""Tries an encoder by name; returns why it cannot be used, or ""."""


class _Note(Frozen):
    """That a device of this machine is set aside, for all processes; `until` is seconds since the epoch."""

    problem: str
    until: float
    failures: int


@dataclass(slots=True)
class _Device:
    """What is known of one encoder in this process; `until` is monotonic seconds."""

    tried: bool = False
    problem: str = ""
    until: float = 0.0
    failures: int = 0
    sessions: int = 0
    most: int | None = None


@dataclass(slots=True)
class Devices:
    """The hardware encoders of this process; safe for any number of threads.

    `notes` is the folder with what other processes of the machine found (None: nothing is shared).
    """

    trial: Trial
    clock: Clock
    notes: Path | None = None
    _devices: dict[str, _Device] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reserve(self, profile: Profile, plan: EncodePlan, stop: threading.Event) -> tuple[str, str]:
        """Reserve a session of an encoder for this job.

        Returns its name, or "" and why none can be used; `release` gives the session back.
        """
        names = candidates(profile.video.encoder, profile.video.codec)
        reason = hardware_problem(profile, plan)
        if reason or not names:
            return "", reason
        problems = []
        for name in names:
            problem = self._usable(name, stop) or self._reserve(name)
            if not problem:
                return name, ""
            problems.append(f"{name}: {problem}")
        return "", "; ".join(problems)

    def release(self, name: str) -> None:
        """Give a session back."""
        with self._lock:
            self._of(name).sessions -= 1

    def full(self, name: str) -> None:
        """Note that the driver refused one more session: there are as many as the others hold."""
        with self._lock:
            device = self._of(name)
            device.most = max(1, device.sessions - 1)

    def set_aside(self, name: str, problem: str) -> None:
        """Note that an encoder failed; it is tried again after ten minutes, doubled each time."""
        with self._lock:
            device = self._of(name)
            wait = min(MOST_SET_ASIDE_S, SET_ASIDE_S * 2**device.failures)
            device.failures += 1
            device.tried, device.problem = True, problem
            device.until = self.clock.monotonic() + wait

    def set_aside_for_all(self, name: str, problem: str) -> None:
        """Note the same for every process of this machine, whose trials would not notice."""
        note = self._note(name)
        with self._lock:
            self._of(name).failures = max(self._of(name).failures, note.failures if note else 0)
        self.set_aside(name, problem)
        if self.notes is None:
            return
        with self._lock:
            device = self._of(name)
            left = device.until - self.clock.monotonic()
            shared = _Note(problem=problem, until=self.clock.now() + left, failures=device.failures)
        # A note that cannot be written is missed by the others only: each finds out by itself.
        with contextlib.suppress(OSError):
            self.notes.mkdir(parents=True, exist_ok=True)
            part = self.notes / f".{name}.{os.getpid()}.{threading.get_ident()}"
            part.write_text(shared.model_dump_json(), encoding="utf-8")
            part.replace(self._place(self.notes, name))

    def proved(self, name: str) -> None:
        """Note that an encode passed every gate: earlier failures no longer count."""
        with self._lock:
            self._of(name).failures = 0
        if self.notes is not None:
            with contextlib.suppress(OSError):
                self._place(self.notes, name).unlink(missing_ok=True)

    def _note(self, name: str) -> _Note | None:
        """Return what a process of this machine noted of a device; None if nothing can be read."""
        if self.notes is None:
            return None
        try:
            return _Note.model_validate_json(self._place(self.notes, name).read_bytes())
        except (OSError, ValidationError):
            return None

    @staticmethod
    def _place(folder: Path, name: str) -> Path:
        return folder / f"{name}.json"

    def _of(self, name: str) -> _Device:
        return self._devices.setdefault(name, _Device())

    def _usable(self, name: str, stop: threading.Event) -> str:
        note = self._note(name)
        # The clock may have been set back since: no note holds for longer than the longest wait.
        if note is not None and 0 < note.until - self.clock.now() <= MOST_SET_ASIDE_S:
            return note.problem
        with self._lock:
            device = self._of(name)
            if device.problem and self.clock.monotonic() < device.until:
                return device.problem
            if device.tried and not device.problem:
                return ""
        problem = self.trial(name, stop)
        if problem:
            self.set_aside(name, problem)
            return problem
        with self._lock:
            device.tried, device.problem = True, ""
        return ""

    def _reserve(self, name: str) -> str:
        with self._lock:
            device = self._of(name)
            if device.most is not None and device.sessions >= device.most:
                return f"its {device.most} sessions are in use"
            device.sessions += 1
        return ""


def session_refused(name: str, lines: Sequence[str]) -> bool:
    """Return whether an encoder's lines say that its device has no more sessions."""
    return any(each in line for line in lines for each in HARDWARE[name][0].session_full)
