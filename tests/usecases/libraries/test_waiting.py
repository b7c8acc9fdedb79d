"""What waits in a library is told to other processes, and is forgotten with the process."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from hevcq.usecases.libraries.feed import listed, waiting
from hevcq.util.processes import FOLDER, Processes
from support.clips import ManualClock

ROW = {"library": "shows", "waiting": 2, "reason": "it may run only at night."}


def feed(count: int) -> SimpleNamespace:
    library = SimpleNamespace(name="shows")
    return SimpleNamespace(library=library, waiting=count, why_not=lambda: ROW["reason"])


def test_what_waits_is_reported_while_the_process_runs(tmp_path: Path) -> None:
    assert waiting(tmp_path) == []
    process = Processes(tmp_path / FOLDER, ManualClock())
    assert waiting(tmp_path) == []
    process.tell(waiting=listed([feed(2), feed(0)]))
    assert waiting(tmp_path) == [ROW]
    process.tell(waiting=listed([feed(0)]))
    assert waiting(tmp_path) == []
    process.tell(waiting=listed([feed(2)]))
    process.close()
    assert waiting(tmp_path) == []
