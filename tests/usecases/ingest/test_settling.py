"""Watching: a file is taken up once it stopped growing, and only once."""

from __future__ import annotations

from pathlib import Path

from hevcq.ports.catalog import Fingerprint
from hevcq.usecases.ingest.watch_folder import ScanSchedule, SettlingFiles

VIDEO = Path("/videos/a.mp4")


def bytes_now(size: int, mtime_ns: int = 1) -> dict[Path, Fingerprint]:
    return {VIDEO: Fingerprint(size=size, mtime_ns=mtime_ns, inode=1, device=1)}


def test_a_new_file_is_not_ready_at_first_sight() -> None:
    settling = SettlingFiles(settle_s=5.0)

    assert settling.observe(bytes_now(10), now=0.0) == []
    assert settling.unsettled == 1


def test_a_file_that_stays_the_same_becomes_ready_exactly_once() -> None:
    settling = SettlingFiles(settle_s=5.0)
    settling.observe(bytes_now(10), now=0.0)

    assert settling.observe(bytes_now(10), now=4.9) == []
    assert settling.observe(bytes_now(10), now=5.0) == [VIDEO]
    assert settling.observe(bytes_now(10), now=60.0) == []
    assert settling.unsettled == 0


def test_a_growing_file_starts_to_settle_anew_with_every_change() -> None:
    settling = SettlingFiles(settle_s=5.0)
    for second in range(0, 40, 4):
        assert settling.observe(bytes_now(second), now=float(second)) == []

    assert settling.observe(bytes_now(36), now=41.0) == [VIDEO]


def test_a_change_of_time_alone_counts_as_growing() -> None:
    settling = SettlingFiles(settle_s=5.0)
    settling.observe(bytes_now(10, mtime_ns=1), now=0.0)

    assert settling.observe(bytes_now(10, mtime_ns=2), now=6.0) == []


def test_a_file_that_was_taken_comes_again_when_it_changes() -> None:
    settling = SettlingFiles(settle_s=5.0)
    settling.take(bytes_now(10))

    assert settling.observe(bytes_now(10), now=0.0) == []
    assert settling.observe(bytes_now(20), now=1.0) == []
    assert settling.observe(bytes_now(20), now=6.0) == [VIDEO]


def test_a_file_that_vanished_while_growing_is_forgotten() -> None:
    settling = SettlingFiles(settle_s=5.0)
    settling.observe(bytes_now(10), now=0.0)
    settling.observe({}, now=1.0)

    assert settling.unsettled == 0
    assert settling.observe(bytes_now(10), now=6.0) == []


def test_a_file_that_was_done_and_came_back_is_new_again() -> None:
    settling = SettlingFiles(settle_s=5.0)
    settling.take(bytes_now(10))
    settling.observe({}, now=0.0)
    settling.observe(bytes_now(10), now=1.0)

    assert settling.observe(bytes_now(10), now=6.0) == [VIDEO]


def test_folders_are_looked_through_regularly_even_without_a_signal() -> None:
    looks = ScanSchedule(settle_s=5.0, look_s=30.0)

    assert looks.due(0.0, signalled=False, unsettled=0)
    assert not looks.due(29.0, signalled=False, unsettled=0)
    assert looks.due(30.0, signalled=False, unsettled=0)


def test_a_signal_or_a_growing_file_brings_the_next_look_soon_but_not_at_once() -> None:
    looks = ScanSchedule(settle_s=5.0, look_s=30.0)
    looks.due(0.0, signalled=False, unsettled=0)

    assert not looks.due(1.0, signalled=True, unsettled=0)
    assert looks.due(2.5, signalled=True, unsettled=0)
    assert looks.due(5.0, signalled=False, unsettled=3)
