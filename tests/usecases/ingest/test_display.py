"""What a person sees while an ingest runs, and what a program reads of it."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from hevcq.cli.output.ingest_report import plan_lines
from hevcq.cli.output.live import (
    Board,
    overall,
    picture,
    scanning,
)
from hevcq.cli.output.render import sentence
from hevcq.domain.events import EventName, IngestEvent
from hevcq.usecases.ingest.decide import Disposition, IngestPlan, Item
from hevcq.usecases.ingest.forecast import Range
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


def test_the_eta_follows_what_was_measured() -> None:
    board = started_board()
    board.apply(event(EventName.JOB_DONE, size=10, output_size=5, bytes_saved=5))

    assert board.share() == pytest.approx(0.5)
    assert board.eta_s(now=400.0) == pytest.approx(300.0, rel=0.1)


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
        assert board.eta_s(now=180.0) == pytest.approx(20.0 + 400.0)  # 80 s were 80 of 100


@pytest.mark.parametrize("wrong", [0.7, 1.0, 1.5])
def test_the_time_left_is_steady_while_qualities_are_searched(wrong: float) -> None:
    board, now = Board(), 0.0
    encodes = dict.fromkeys("abcdef", (20.0, 1.6)) | {"long": (300.0, 0.08)}
    whole = sum(encode_s * (1.3 + search) for encode_s, search in encodes.values())
    for path, (encode_s, search) in encodes.items():
        planned = {"cpu_s": [encode_s * (1.3 + search) * wrong] * 2, "search": search}
        board.apply(event(EventName.FILE_PLANNED, path=path, **planned))
        board.apply(event(EventName.JOB_QUEUED, path=path, at=0.0))
    board.apply(event(EventName.PLAN, forecast_s=(whole * wrong, whole * wrong)))
    for path, (encode_s, search) in encodes.items():
        for phase, share in (("search", search), ("encode", 1.0), ("verify", 0.3)):
            for percent in range(0, 100, 20):
                moved = {"path": path, "phase": phase, "percent": percent, "at": now}
                board.apply(event(EventName.JOB_PROGRESS, **moved))
                left = (board.eta_s(now) or 0.0) / (whole - now)
                assert 0.8 * min(1.0, wrong) <= left <= 1.3 * max(1.0, wrong)
                now += encode_s * share / 5
        board.apply(event(EventName.JOB_DONE, path=path, at=now, bytes_saved=1))


def test_how_long_samples_will_take_counts_down() -> None:
    board = Board()
    told = {"counts": {"sampled": 3, "files": 8}, "forecast_size": (10_240, 20_480), "eta_s": 40.0}
    board.apply(event(EventName.SAMPLE_PROGRESS, reason="choosing a CRF, now 25", **told))
    said = "Sampled 3 of 8 videos: all renditions 10.0 to 20.0 KiB (choosing a CRF, now 25), about"
    assert scanning(board, now=110.0) == f"{said} 30 s left"
    assert scanning(board, now=900.0) == f"{said} 1 s left"


def test_the_join_of_chunks_takes_nothing_back() -> None:
    board = started_board()
    for phase in ("encode", "fetch", "join", "verify"):
        board.apply(event(EventName.JOB_PROGRESS, phase=phase, percent=99.0))
        assert board.share() > 0.38


def test_why_a_run_stops_or_waits_is_shown_while_running_encodes_go_on() -> None:
    board = started_board()
    board.apply(event(EventName.STOPPING, path=None, profile=None, reason="Stopping: 20 s."))
    board.apply(event(EventName.JOB_PROGRESS, phase="encode", percent=6.0))
    assert board.notice == "Stopping: 20 s."


def test_time_left_is_never_nothing_while_work_is_open() -> None:
    board = started_board()
    board.apply(event(EventName.JOB_DONE, bytes_saved=5))
    board.apply(event(EventName.JOB_PROGRESS, path="/f/b.mp4", phase="publish", percent=100.0))
    assert "1 s left" in overall(board, 100.5)


def test_progress_never_runs_backwards_from_phase_to_phase() -> None:
    board, shares = started_board(), []
    for phase in ("probe", "preflight", "search", "encode", "verify", "publish"):
        for percent in (0.0, 50.0, 100.0):
            board.apply(event(EventName.JOB_PROGRESS, phase=phase, percent=percent))
            shares.append(board.share())

    assert shares == sorted(shares)
    assert shares[-1] <= 0.5


def test_the_line_of_the_whole_counts_each_end_of_a_job() -> None:
    board = started_board()
    ends = (EventName.JOB_DONE, EventName.JOB_SKIPPED, EventName.JOB_FAILED, EventName.PLACE_FAILED)
    for number, end in enumerate(ends):
        path = f"/f/{number}.mp4"
        board.apply(event(EventName.JOB_QUEUED, path=path))
        board.apply(event(end, path=path, bytes_saved=5_120, reason="It is damaged."))

    said = overall(board, now=200.0)

    assert (board.jobs, board.open) == (6, 2)
    assert said.startswith("1 of 6 done · ")
    assert " · 1 skipped · 2 failed · " in said


def test_a_name_like_markup_is_shown_as_it_is() -> None:
    board = started_board()
    board.apply(event(EventName.JOB_PROGRESS, path="/f/[red]x[bold].mp4", phase="encode"))
    out = io.StringIO()
    Console(file=out, width=120).print(picture(board, now=110.0, width=120))

    assert "[red]x[bold].mp4" in out.getvalue()


@pytest.mark.parametrize("name", list(EventName))
def test_every_event_can_be_shown_or_left_out_but_never_breaks(name: EventName) -> None:
    bare = IngestEvent(event=name, at=1.0)
    Board().apply(bare)

    said = sentence(bare)

    assert said is None or isinstance(said, str)


def test_a_plan_names_every_kind_of_loss_in_the_same_order_and_all_videos_if_asked() -> None:
    rare = [f"Loss {word}." for word in ("one", "two", "three", "four", "five", "six")]
    lost = {
        "d": ["Captions are dropped.", "Stream 3 is left out.", "Stream 12 is left out."],
        "c": ["Captions are dropped.", "Stream 2 is left out."],
        "b": ["Captions are dropped."],
        "a": rare,
    }
    items = [
        Item(
            path=Path(f"/f/{name}.mkv"),
            size=1,
            disposition=Disposition.QUEUE,
            plan=encode_plan().model_copy(update={"notices": tuple(notices)}),
        )
        for name, notices in lost.items()
    ]

    for order in (items, items[::-1]):
        plan = IngestPlan(tuple(order), Range(1.0, 2.0))
        assert list(plan_lines(plan, 80, listed=False, every=False)) == [
            "b.mkv, c.mkv and 1 more: Captions are dropped.",
            "c.mkv, d.mkv: Stream 2 is left out.",
            *sorted(f"a.mkv: {each}" for each in rare),
        ]
        first = next(iter(plan_lines(plan, 80, listed=False, every=True)))
        assert first == "b.mkv, c.mkv, d.mkv: Captions are dropped."
    alone = IngestPlan((items[0],), Range(1.0, 2.0))
    assert "d.mkv: Stream 12 is left out. Stream 3 is left out." in plan_lines(
        alone, None, listed=False, every=False
    )
