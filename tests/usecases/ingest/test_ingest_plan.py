"""What an ingest decides for each file before it changes anything.

What a person sees while an ingest runs, and what a program reads of it.
"""

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from hevcq.cli.output.ingest_report import plan_lines
from hevcq.cli.output.live import Board, live_table, total_line
from hevcq.cli.output.render import sentence
from hevcq.domain.events import EventName, IngestEvent
from hevcq.domain.job import JobRecord, JobState, RenditionRef, Source
from hevcq.domain.planning.encode_plan import Skip, SkipReason
from hevcq.ports.catalog import Mode, Placement, PlacementState
from hevcq.usecases.ingest import decide as decide_
from hevcq.usecases.ingest.decide import Disposition, Item, Recorded, decide, with_forecast
from hevcq.usecases.ingest.forecast import TABLE_ONLY, Costs, Range
from hevcq.usecases.ingest.request import Destination
from hevcq.usecases.proofs import TargetState
from support.fakes.backend import HEVC
from support.ingest.values import encode_plan, video

BESIDE = Destination(Mode.BESIDE)
VIDEO = Path("/videos/a.mp4")


def settle_targets(items, where, state):
    targets = decide_.Targets(where, SimpleNamespace(state=state, why_not_proven=lambda *_: ""))
    return [targets.assign(item) for item in items]


def job(state: JobState, reason: str = "") -> JobRecord:
    source = Source(bucket="library", key="TODO/all/videos/a.mp4", version="1", size=1000)
    return JobRecord(
        job_id="j1",
        source=source,
        profile="hevc",
        state=state,
        reason=reason,
        created_at=1.0,
        updated_at=1.0,
    )


def placement(state: PlacementState, mode: Mode = Mode.BESIDE) -> Placement:
    return Placement(
        job_id="j1",
        root=VIDEO.parent,
        source=VIDEO,
        fingerprint=video(VIDEO).fingerprint,
        profile="hevc",
        mode=mode,
        target=Path("/videos/a.hevc.mp4"),
        keep_days=30.0,
        state=state,
    )


def free(_target: Path, _source: Path, _size: int) -> TargetState:
    return TargetState.FREE


@pytest.mark.parametrize(
    ("state", "placed", "expected"),
    [
        (JobState.QUEUED, PlacementState.WAITING, Disposition.JOIN),
        (JobState.RUNNING, PlacementState.WAITING, Disposition.JOIN),
        (JobState.QUEUED, PlacementState.PLACED, Disposition.JOIN),
        (JobState.DONE, PlacementState.WAITING, Disposition.COLLECT),
        (JobState.DONE, PlacementState.REFUSED, Disposition.COLLECT),
        (JobState.DONE, None, Disposition.COLLECT),
        (JobState.DONE, PlacementState.PLACED, Disposition.DONE),
        (JobState.DONE, PlacementState.REPLACED, Disposition.DONE),
        (JobState.DONE, PlacementState.UNDONE, Disposition.QUEUE),
        (JobState.DONE, PlacementState.EXPIRED, Disposition.REFUSE),
        (JobState.SKIPPED, PlacementState.WAITING, Disposition.SKIP),
        (JobState.DEAD, PlacementState.WAITING, Disposition.FAILED),
    ],
)
def test_what_the_ledger_knows_decides(state, placed, expected):
    known = Recorded(placement(placed) if placed else None, job(state, "not smaller"))

    skip = Skip(reason=SkipReason.ALREADY_TARGET, detail="It is HEVC already.")
    undone = placed is PlacementState.UNDONE
    for plan in [encode_plan()] if undone else [encode_plan(), skip]:  # its job counts more
        assert decide(video(VIDEO), HEVC, plan, known, BESIDE).disposition is expected
    if undone:  # nothing is replaced a second time unasked
        again = decide(video(VIDEO), HEVC, encode_plan(), known, Destination(Mode.REPLACE))
        assert again.disposition is Disposition.DONE


def test_a_replaced_video_whose_original_was_freed_is_done_though_the_original_came_back():
    known = Recorded(placement(PlacementState.EXPIRED, Mode.REPLACE), job(JobState.DONE))
    found = decide(video(VIDEO), HEVC, encode_plan(), known, Destination(Mode.REPLACE))
    assert found.disposition is Disposition.DONE


@pytest.mark.parametrize(
    ("said", "again"),
    [
        ("Quality 92.8 (VMAF; 93 was asked for), CRF 24.", False),
        ("CRF 24 is used, and no quality searched: VMAF is not made for HDR.", False),
        ("Quality 89.8 (VMAF; 90 was asked for), CRF 27.", True),
        ("", True),
    ],
)
def test_a_rendition_of_another_quality_is_told_how_to_be_made_anew(said, again):
    asked = HEVC.model_copy(update={"video": HEVC.video.model_copy(update={"quality": 93.0})})
    made = RenditionRef(
        key="k", size=1, sha256="0" * 64, certificate_key="c", notices=(said,) if said else ()
    )
    done = job(JobState.DONE).model_copy(update={"rendition": made})
    known = Recorded(placement(PlacementState.PLACED), done)

    item = decide(video(VIDEO), asked, encode_plan(), known, BESIDE)

    assert item.disposition is Disposition.DONE
    assert ("hevcq retry /videos/a.mp4" in item.reason) is again


def test_a_job_that_waits_for_its_place_gets_the_place_of_the_latest_command():
    known = Recorded(placement(PlacementState.WAITING), job(JobState.QUEUED))
    mirror = Destination(Mode.MIRROR, output=Path("/out"))

    item = decide(video(VIDEO), HEVC, encode_plan(), known, mirror)

    assert item.target == Path("/out/a.hevc.mp4")


def placed(made: RenditionRef) -> Placement:
    return replace(placement(PlacementState.PLACED), sha256=made.sha256)


@pytest.mark.parametrize(
    ("where", "target"),
    [
        (Destination(Mode.REPLACE), "/videos/a.mp4"),
        (Destination(Mode.MIRROR, output=Path("/out")), "/out/a.hevc.mp4"),
    ],
)
def test_what_is_in_place_elsewhere_is_put_where_it_is_wanted(where, target):
    made = RenditionRef(key="DONE/hevc/a.mp4", size=7, sha256="0" * 64, certificate_key="x")
    done = job(JobState.DONE).model_copy(update={"rendition": made})

    item = decide(video(VIDEO), HEVC, encode_plan(), Recorded(placed(made), done), where)

    assert (item.disposition, item.target) == (Disposition.COLLECT, Path(target))
    assert item.reason == "Encoded earlier; its rendition is at /videos/a.hevc.mp4."
    plan = with_forecast([item], TABLE_ONLY, 1.0, 1)
    assert plan.output == (7, 7)
    assert plan.bytes_to_encode == item.size


def queued(path: str, extension: str = "mkv", where: Destination = BESIDE) -> Item:
    plan = encode_plan(extension=extension)
    return decide(video(Path(path)), HEVC, plan, Recorded(), where)


@pytest.mark.parametrize("first", ["a.avi", "A.mkv"])
def test_two_sources_with_one_stem_in_any_case_get_different_targets(first):
    items = settle_targets([queued(f"/videos/{first}"), queued("/videos/a.mkv")], BESIDE, free)

    assert [item.target.name for item in items] == [f"{first[0]}.hevc.mkv", "a.mkv.hevc.mkv"]


def test_two_sources_that_would_replace_each_other_are_refused():
    where = Destination(Mode.REPLACE)
    avi, mkv = queued("/videos/a.avi", where=where), queued("/videos/a.mkv", where=where)

    first, second = settle_targets([avi, mkv], where, free)

    assert first.disposition is Disposition.QUEUE
    assert second.disposition is Disposition.REFUSE
    assert second.reason == decide_.NAME_TAKEN.format("/videos/a.mkv")


def test_only_a_set_is_published_in_place_of_what_the_video_was_before():
    (file,) = settle_targets([queued("/videos/a.mp4")], BESIDE, lambda *_: TargetState.FORMER)
    (folder,) = settle_targets(
        [queued("/videos/a.mp4", "m3u8")], BESIDE, lambda *_: TargetState.FORMER
    )

    assert file.disposition is Disposition.REFUSE
    assert "was made of what this video held earlier; move it away" in file.reason
    assert folder.disposition is Disposition.QUEUE
    assert folder.target == Path("/videos/a.hevc.hls/master.m3u8")


def test_a_video_keeps_its_whole_name_beside_the_rendition_of_its_twin():
    def taken(target: Path, _source: Path, _size: int) -> TargetState:
        return TargetState.TWIN if target == Path("/videos/a.hevc.mkv") else TargetState.FREE

    items = settle_targets([queued("/videos/a.avi"), queued("/videos/a.mkv")], BESIDE, taken)

    assert [str(item.target) for item in items] == [
        "/videos/a.avi.hevc.mkv",
        "/videos/a.mkv.hevc.mkv",
    ]
    waits = replace(queued("/videos/a.avi"), disposition=Disposition.JOIN)
    assert settle_targets([waits], BESIDE, taken)[0].target == Path("/videos/a.avi.hevc.mkv")
    everywhere = settle_targets([queued("/videos/a.avi")], BESIDE, lambda *_: TargetState.TWIN)
    assert everywhere[0].disposition is Disposition.REFUSE


def test_a_video_that_is_refused_takes_no_name_from_another():
    where = Destination(Mode.REPLACE)
    both = [queued("/videos/a.avi", where=where), queued("/videos/a.mkv", where=where)]

    refused, taken = settle_targets(both, where, lambda *_: TargetState.STRANGER)

    assert (refused.disposition, taken.disposition) == (Disposition.REFUSE, Disposition.QUEUE)
    assert taken.target == taken.path, "a replacement is no conflict with its own source"


@pytest.mark.parametrize(
    ("source", "extension", "expected"),
    [
        ("a.mp4", "mp4", "a.mp4"),
        ("a.M4V", "mp4", "a.M4V"),
        ("a.avi", "mkv", "a.mkv"),
        ("a.b.c.mov", "mov", "a.b.c.mov"),
        (".mp4", "mp4", ".mp4.mp4"),
        ("noend", "mkv", "noend.mkv"),
    ],
)
def test_a_replacement_keeps_the_name_and_tells_the_container(source, extension, expected):
    target = Destination(Mode.REPLACE).target(Path("/f") / source, Path("/f"), "hevc", extension)

    assert target.name == expected


@pytest.mark.parametrize("name", ["n" * 251 + ".mp4", "ü" * 125 + ".mp4", "\udcff" * 250 + ".mp4"])
def test_the_longest_name_still_fits_with_its_companions(name):
    first = BESIDE.target(Path("/f") / name, Path("/f"), "hevc", "mp4")
    other = BESIDE.target(Path("/f") / ("x" + name[1:]), Path("/f"), "hevc", "mp4")

    assert len(str(first.name).encode("utf-8", "surrogateescape")) <= 220
    assert first.name.endswith(".hevc.mp4")
    assert first != other


def test_the_forecast_counts_what_is_to_be_encoded_and_nothing_else():
    todo = queued("/videos/a.mp4")
    done = replace(todo, disposition=Disposition.DONE)
    collect = replace(todo, disposition=Disposition.COLLECT)

    plan = with_forecast([done, collect], Costs(), cores=2, workers=2)
    more = with_forecast([todo, done], Costs(), cores=2, workers=2)

    assert plan.forecast.high == 0
    assert 0 < more.forecast.low < more.forecast.high
    assert more.items[0].cpu is not None
    assert more.items[1].cpu is None


def test_what_saves_most_for_its_cpu_is_encoded_until_so_much_is_freed():
    def costing(name: str, cpu_s: float, left: float) -> Item:
        found = queued(f"/videos/{name}.mp4")
        return replace(
            found, size=1000, cpu=Range(cpu_s, cpu_s), output=Range(left, left), info=found.info
        )

    slow, quick, useless = (
        costing("slow", 50, 200),
        costing("quick", 10, 400),
        costing("no", 1, 1000),
    )
    runs = replace(costing("runs", 10, 900), disposition=Disposition.JOIN)

    def encoded(wanted: int, budget_s: float = 1e9, most_s: float = 1e9) -> list[str]:
        items = decide_.most_saving([slow, useless, quick, runs], wanted, budget_s, most_s)
        assert len(items) == 4
        left = [each for each in items if each.disposition is Disposition.SKIP]
        assert all((each.cpu, each.output) == (None, None) for each in left)
        return [each.path.stem for each in items if each not in left]

    assert encoded(50) == ["runs"]
    assert encoded(700) == ["runs", "quick"]
    assert encoded(701) == encoded(10**9) == ["runs", "quick", "slow"]
    assert encoded(10**9, 70.0) == ["runs", "quick", "slow"]
    assert encoded(10**9, 69.9) == ["runs", "quick"]
    assert encoded(10**9, 1.0) == ["runs"]
    slow = replace(slow, cpu=Range(20, 80))
    assert encoded(10**9, most_s=100.0) == ["runs", "quick", "slow"]
    assert encoded(10**9, most_s=99.9) == ["runs", "quick"]


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


def test_the_eta_follows_what_was_measured():
    board = started_board()
    board.apply(event(EventName.JOB_DONE, size=10, output_size=5, bytes_saved=5))

    assert board.share() == pytest.approx(0.5)
    assert board.eta_s(now=400.0) == pytest.approx(300.0, rel=0.1)


@pytest.mark.parametrize("wrong", [0.7, 1.0, 1.5])
def test_the_time_left_is_steady_while_qualities_are_searched(wrong):
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


def test_why_a_run_stops_or_waits_is_shown_while_running_encodes_go_on():
    board = started_board()
    board.apply(event(EventName.STOPPING, path=None, profile=None, reason="Stopping: 20 s."))
    board.apply(event(EventName.JOB_PROGRESS, phase="encode", percent=6.0))
    assert board.notice == "Stopping: 20 s."


def test_progress_never_runs_backwards_from_phase_to_phase():
    board, shares = started_board(), []
    for phase in ("probe", "preflight", "search", "encode", "fetch", "join", "verify", "publish"):
        for percent in (0.0, 50.0, 100.0):
            board.apply(event(EventName.JOB_PROGRESS, phase=phase, percent=percent))
            shares.append(board.share())

    assert shares == sorted(shares)
    assert shares[-1] <= 0.5


def test_the_line_of_the_whole_counts_each_end_of_a_job():
    board = started_board()
    ends = (EventName.JOB_DONE, EventName.JOB_SKIPPED, EventName.JOB_FAILED, EventName.PLACE_FAILED)
    for number, end in enumerate(ends):
        path = f"/f/{number}.mp4"
        board.apply(event(EventName.JOB_QUEUED, path=path))
        board.apply(event(end, path=path, bytes_saved=5_120, reason="It is damaged."))

    said = total_line(board, now=200.0)

    assert (board.jobs, board.open) == (6, 2)
    assert said.startswith("1 of 6 done · ")
    assert " · 1 skipped · 2 failed · " in said


def test_a_name_like_markup_is_shown_as_it_is():
    board = started_board()
    board.apply(event(EventName.JOB_PROGRESS, path="/f/[red]x[bold].mp4", phase="encode"))
    out = io.StringIO()
    Console(file=out, width=120).print(live_table(board, now=110.0, width=120))

    assert "[red]x[bold].mp4" in out.getvalue()


@pytest.mark.parametrize("name", list(EventName))
def test_every_event_can_be_shown_or_left_out_but_never_breaks(name):
    bare = IngestEvent(event=name, at=1.0)
    Board().apply(bare)

    said = sentence(bare)

    assert said is None or isinstance(said, str)


def test_a_plan_names_every_kind_of_loss_in_the_same_order_and_all_videos_if_asked():
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
        plan = decide_.IngestPlan(tuple(order), Range(1.0, 2.0))
        assert list(plan_lines(plan, 80, listed=False, every=False)) == [
            "b.mkv, c.mkv and 1 more: Captions are dropped.",
            "c.mkv: Stream 2 is left out. Likewise d.mkv.",
            *sorted(f"a.mkv: {each}" for each in rare),
        ]
        first = next(iter(plan_lines(plan, 80, listed=False, every=True)))
        assert first == "b.mkv, c.mkv, d.mkv: Captions are dropped."
    alone = decide_.IngestPlan((items[0],), Range(1.0, 2.0))
    assert "d.mkv: Stream 12 is left out. Stream 3 is left out." in plan_lines(
        alone, None, listed=False, every=False
    )
