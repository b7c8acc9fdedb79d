"""What a person sees while an ingest runs, and what a program reads of it."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from hevcq.cli.output import ingest_report as report
from hevcq.cli.output.ingest_report import plan_lines, plan_total
from hevcq.cli.output.live import (
    Board,
    JsonLines,
    LogLines,
    open_display,
    overall,
    picture,
)
from hevcq.cli.output.sentences import about, sentence, without_path
from hevcq.domain.events import EventName, IngestEvent
from hevcq.usecases.ingest.decide import Disposition, IngestPlan, Item
from hevcq.usecases.ingest.enqueue import UploadProgress
from hevcq.usecases.ingest.forecast import Range
from hevcq.usecases.ingest.summary import IngestOutcome, IngestResult
from support.clips import ManualClock
from support.ingest.values import encode_plan


def event(name: EventName, **fields: object) -> IngestEvent:
    base = {"event": name, "at": 100.0, "path": "/f/a.mp4", "profile": "hevc"}
    return IngestEvent.model_validate(base | fields)


def started_board() -> Board:
    board = Board()
    for path in ("/f/a.mp4", "/f/b.mp4"):
        board.apply(event(EventName.FILE_PLANNED, path=path, cpu_s=(50.0, 150.0)))
    board.apply(event(EventName.PLAN, forecast_s=(60.0, 240.0)))
    for path in ("/f/a.mp4", "/f/b.mp4"):
        board.apply(event(EventName.JOB_QUEUED, path=path))
    return board


def test_before_anything_is_measured_the_eta_is_the_forecast() -> None:
    assert started_board().eta_s(now=100.0) == 240.0


def test_the_eta_follows_what_was_measured() -> None:
    board = started_board()
    board.apply(event(EventName.JOB_DONE, size=10, output_size=5, bytes_saved=5))

    assert board.share() == pytest.approx(0.5)
    assert board.eta_s(now=400.0) == pytest.approx(300.0)


@pytest.mark.parametrize("begun", [True, False])
def test_the_time_left_is_that_of_one_long_video_at_the_end(*, begun: bool) -> None:
    board = Board()
    for path, cpu in (("a", 100.0), ("b", 100.0), ("long", 400.0)):
        board.apply(event(EventName.FILE_PLANNED, path=path, cpu_s=(cpu, cpu)))
        board.apply(event(EventName.JOB_QUEUED, path=path))
    board.apply(event(EventName.JOB_PROGRESS, path="a", phase="encode", percent=0.0))
    if begun:
        board.apply(event(EventName.JOB_PROGRESS, path="long", phase="encode", percent=0.0))
        board.apply(event(EventName.JOB_PROGRESS, path="long", phase="verify", percent=0.0, at=4e2))
        board.apply(event(EventName.JOB_DONE, path="a", bytes_saved=1))
        board.apply(event(EventName.JOB_DONE, path="b", bytes_saved=1))
        assert board.eta_s(now=500.0) == pytest.approx(100.0)
    else:
        board.apply(event(EventName.JOB_PROGRESS, path="a", phase="verify", percent=0.0))
        board.apply(event(EventName.JOB_DONE, path="b", bytes_saved=1))
        assert board.eta_s(now=180.0) == pytest.approx(400.0)  # 80 s were 80 of 100 s of work


def test_time_left_is_never_nothing_while_work_is_open() -> None:
    board = started_board()
    board.apply(event(EventName.JOB_DONE, bytes_saved=5))
    board.apply(event(EventName.JOB_PROGRESS, path="/f/b.mp4", phase="publish", percent=100.0))
    assert "1 s left" in overall(board, 100.5)


def test_progress_never_runs_backwards_from_phase_to_phase() -> None:
    board, shares = started_board(), []
    for phase in ("probe", "preflight", "encode", "verify", "publish"):
        for percent in (0.0, 50.0, 100.0):
            board.apply(event(EventName.JOB_PROGRESS, phase=phase, percent=percent))
            shares.append(board.share())

    assert shares == sorted(shares)
    assert shares[-1] <= 0.5


def test_totals_count_done_failed_skipped_and_saved_bytes() -> None:
    board = started_board()
    board.apply(event(EventName.JOB_DONE, size=10_240, output_size=5_120, bytes_saved=5_120))
    board.apply(event(EventName.JOB_FAILED, path="/f/b.mp4", reason="damaged"))

    said = overall(board, now=200.0)

    assert board.open == 0
    assert "1 of 2 done" in said
    assert "1 failed" in said
    assert "5.0 KiB smaller" in said
    assert "left" not in said


def test_a_pause_stays_on_the_screen_until_work_goes_on() -> None:
    board = started_board()
    board.apply(event(EventName.PAUSED, reason="the disk is full"))
    assert board.notice == "Paused: the disk is full"

    board.apply(event(EventName.JOB_PROGRESS, phase="encode", percent=1.0))
    assert board.notice == ""


def test_a_name_like_markup_is_shown_as_it_is() -> None:
    board = started_board()
    board.apply(event(EventName.JOB_PROGRESS, path="/f/[red]x[bold].mp4", phase="encode"))
    out = io.StringIO()
    Console(file=out, width=120).print(picture(board, now=110.0, width=120))

    assert "[red]x[bold].mp4" in out.getvalue()


def test_json_lines_are_one_object_each_without_empty_fields() -> None:
    out = io.StringIO()
    show = JsonLines(out)
    show(event(EventName.JOB_DONE, size=10, output_size=5, bytes_saved=5))

    (line,) = out.getvalue().splitlines()
    assert json.loads(line) == {
        "event": "job_done",
        "at": 100.0,
        "path": "/f/a.mp4",
        "profile": "hevc",
        "size": 10,
        "output_size": 5,
        "bytes_saved": 5,
    }


@pytest.mark.parametrize(
    ("quiet", "verbose", "said"),
    [(True, False, 1), (False, False, 2), (False, True, 4)],
)
def test_log_lines_say_as_much_as_was_asked_for(quiet: bool, verbose: bool, said: int) -> None:
    out = io.StringIO()
    show = LogLines(ManualClock(), quiet=quiet, verbose=verbose, out=out)
    show(event(EventName.JOB_QUEUED))
    show(event(EventName.JOB_PROGRESS, phase="encode", percent=5.0))
    show(event(EventName.JOB_DONE, size=10, output_size=5))
    show(event(EventName.JOB_FAILED, reason="It is damaged.", failure_class="damaged"))

    assert len(out.getvalue().splitlines()) == said
    assert "It is damaged." in out.getvalue()


def test_without_a_terminal_there_is_no_live_display() -> None:
    clock = ManualClock()

    shown = open_display(clock, as_json=False, quiet=False, verbose=False, terminal=False)
    as_json = open_display(clock, as_json=True, quiet=False, verbose=False, terminal=True)

    assert isinstance(shown, LogLines)
    assert isinstance(as_json, JsonLines)


@pytest.mark.parametrize("name", list(EventName))
def test_every_event_can_be_shown_or_left_out_but_never_breaks(name: EventName) -> None:
    bare = IngestEvent(event=name, at=1.0)
    Board().apply(bare)

    said = sentence(bare)

    assert said is None or isinstance(said, str)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ((0.0, 0.2), "up to 1 second"),
        ((20.0, 60.0), "20 to 60 seconds"),
        ((60.0, 300.0), "1 to 5 minutes"),
        ((3600.0, 36000.0), "1 to 10 hours"),
        ((600.0, 600.0), "about 10 minutes"),
    ],
)
def test_a_range_of_time_reads_as_words(seconds: tuple[float, float], expected: str) -> None:
    assert about(seconds) == expected


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("/f/a.mp4 is empty.", "It is empty."),
        ("/f/a.mp4: an edit list hides it.", "An edit list hides it."),
        ("The disk is full.", "The disk is full."),
        ("/f/b.mp4 is empty.", "/f/b.mp4 is empty."),
    ],
)
def test_a_file_is_not_named_twice_in_one_sentence(reason: str, words: str) -> None:
    assert without_path("/f/a.mp4", reason) == words
    failed = event(EventName.JOB_FAILED, reason=reason, failure_class="damaged")
    assert sentence(failed) == f"/f/a.mp4 [hevc]: failed (damaged): {words}"


ITEM = Item(path=Path("/media/a.mp4"), size=1000, disposition=Disposition.QUEUE)


def upload_percents(steps: list[tuple[float, int]], item: Item = ITEM) -> list[float | None]:
    """Return the percents told of (seconds later, bytes so far)."""
    clock, told = ManualClock(), list[IngestEvent]()
    moved = UploadProgress(item, told.append, clock)
    for seconds, count in steps:
        clock.advance(seconds)
        moved(count)
    return [event.percent for event in told]


def test_it_is_reported_twice_a_second_and_once_more_at_the_end() -> None:
    assert upload_percents([(0.1, 10), (0.5, 100), (0.1, 200), (0.5, 700), (0.1, 1000)]) == [
        10,
        70,
        100,
    ]


def test_a_scan_is_shown_before_its_first_file_and_counts_after_it() -> None:
    board = Board()
    assert drawn(board) == "Scanning…"
    board.apply(event(EventName.SCAN_STARTED, at=100.0))
    board.apply(event(EventName.SCAN_PROGRESS, counts={"files": 1}))
    assert drawn(board) == "Scanning: 1 video so far, 10 s"
    unannounced = Board()
    unannounced.apply(event(EventName.SCAN_PROGRESS, at=108.0, counts={"files": 1}))
    assert drawn(unannounced) == "Scanning: 1 video so far, 2 s"
    board.apply(event(EventName.SCAN_PROGRESS, counts={"files": 1234}))
    assert drawn(board) == "Scanning: 1,234 videos so far, 10 s"
    board.apply(event(EventName.PLAN, forecast_s=(1.0, 2.0)))
    board.apply(event(EventName.JOB_QUEUED))
    assert "0 of 1 done" in drawn(board)


def drawn(board: Board) -> str:
    out = io.StringIO()
    Console(file=out, width=80).print(picture(board, now=110.0, width=80))
    return out.getvalue().strip()


def test_a_plan_of_a_thousand_videos_is_one_screen_of_80_columns() -> None:
    kinds = [Disposition.QUEUE, Disposition.SKIP, Disposition.REFUSE, Disposition.UNREADABLE]
    reasons = [
        "",
        "Source ({0}x240) is smaller than 720p; not upscaled.",
        "Captions.",
        "It is empty.",
    ]
    items = tuple(
        Item(
            path=Path(f"/f/{'A long name of a video ' * 4}({n}).mp4"),
            size=n * 10**6,
            disposition=kinds[n % 4],
            reason=reasons[n % 4].format(n),
            cpu=Range(100.0, 250.0),
            output=Range(n * 5e5, n * 6e5),
        )
        for n in range(1000)
    )
    plan = IngestPlan(items, Range(3600.0, 7200.0), Range(1e11, 1.2450e11))

    lines = list(plan_lines(plan, 80, listed=True, every=False))

    assert len(lines) <= 22
    assert max(map(len, lines)) <= 80
    assert "… and 243 more (--verbose lists all)" in lines
    assert "  250  Source is smaller than 720p; not upscaled." in lines
    assert sum("(996)" in line for line in lines) == 1, "the largest is listed"
    assert plan_total(plan).startswith("250 to encode, 250 skipped, 250 refused, 250 not usable. ")
    assert (
        "become 93.1 to 115.9 GiB (75 to 80 % smaller); encoding will take 1 to 2 hours."
        in plan_total(plan)
    )
    assert plan_total(replace(plan, busy=2.0)).endswith("1 to 2 hours (this machine is busy now).")
    every = list(plan_lines(plan, None, listed=True, every=True))
    assert len(every) == 1001
    grown = {"40 % smaller to 20 % larger": (3e11, 6e11), "8 to 60 % larger": (5.4e11, 8e11)}
    for words, size in grown.items():
        assert f"({words})" in plan_total(replace(plan, output=Range(*size)))


def test_a_notice_of_a_plan_names_the_video_that_it_is_about() -> None:
    both = encode_plan().model_copy(update={"notices": ("Captions are dropped.", "Rare.")})
    one = encode_plan().model_copy(update={"notices": ("Captions are dropped.",)})
    items = tuple(
        Item(path=Path(f"/f/{name}.mkv"), size=1, disposition=Disposition.QUEUE, plan=made)
        for name, made in (("a", one), ("b", both), ("c", one))
    )

    lines = list(plan_lines(IngestPlan(items, Range(1.0, 2.0)), 80, listed=False, every=False))

    assert lines == ["a.mkv and 2 more: Captions are dropped.", "b.mkv: Rare."]


def test_what_encodes_changed_is_reported_once_a_kind_at_80_columns() -> None:
    cut = "Stream 0: {} pictures before the first whole one are left out: it begins between key frames."
    done = [
        IngestResult(
            Path(f"/f/{n}.ts"), "hevc", IngestOutcome.PLACED, notices=(cut.format(n + 2), "Closed.")
        )
        for n in range(3)
    ]
    plain = IngestResult(Path("/f/a.mp4"), "hevc", IngestOutcome.PLACED)

    assert list(report.changes([plain], 80)) == []
    lines = list(report.changes([plain, *done], 80))

    assert lines == [
        "0.ts and 2 like it: Stream 0: 2 pictures before the first whole one are left",
        "  out: it begins between key frames.",
        "0.ts and 2 like it: Closed.",
        "`hevcq status FILE` says what was changed in a file.",
    ]
