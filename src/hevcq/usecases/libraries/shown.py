"""The libraries of this machine as they are shown: their state, and what was made of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from hevcq.settings.libraries import Library
from hevcq.settings.model import Settings
from hevcq.sqlite.event_log import EventLog
from hevcq.usecases.history.report import Line, day_of, report
from hevcq.usecases.library_state import FolderState, folder_state, watching


@dataclass(frozen=True, slots=True)
class Shown:
    """A library as it is shown; `line` is of the days that were asked for."""

    library: Library
    state: FolderState
    watched: str
    profiles: tuple[str, ...]
    line: Line


def libraries_of(settings: Settings, log: EventLog, now: float, days: int) -> Sequence[Shown]:
    """Return every library of the settings, with the sums of the last `days` days.

    Looks at each folder, so a file server that is gone lets it hang. Raises StorageError.
    """
    names = {library.path: library.name for library in settings.libraries}
    last = day_of(now)
    made = report(log, last - timedelta(days=days), last, lambda key: names.get(key.root, ""))
    lines = {line.name: line for line in made.libraries}
    return [
        _shown(settings, library, lines.get(library.name, Line(library.name)))
        for library in settings.libraries
    ]


def _shown(settings: Settings, library: Library, line: Line) -> Shown:
    state = folder_state(library)
    watched = "not watched" if not library.watch else watching(state)
    return Shown(library, state, watched, library.profiles or tuple(settings.ingest.profiles), line)
