"""The operator's board and its figures: what they show, and that buttons do what the commands do."""

import csv
import re
import threading
from dataclasses import replace

import pytest

from hevcq.domain.job import Phase, Progress
from hevcq.library.filesystem import fingerprint_of
from hevcq.ports.backend import SILENT_S, WorkerFacts
from hevcq.ports.catalog import Checked, Depth, Happened, Health, Spot
from hevcq.settings.libraries import Library
from hevcq.sql.catalog import HealthRecords
from hevcq.usecases.ingest.decide import Disposition, Item
from hevcq.usecases.ingest.library_rules import Feed, waiting_rows
from hevcq.wiring.contexts import event_log


def test_it_shows_queues_running_jobs_and_that_others_failed(operator, farm):
    farm.queued("waiting.mp4")
    job = farm.running("film.mp4")
    progress = Progress(phase=Phase.ENCODE, percent=41.6, speed=1.234, eta_s=754)
    farm.app.backend.ledger.progress(job.job_id, job.fence, progress)
    assert "Some jobs failed" not in operator.get("/board").text
    farm.running("<script>alert(1)<script>.mp4")
    farm.buried("bad.mp4")

    html = operator.get("/board").text

    assert 'value="42"' in html
    assert "1.23× real time" in html
    assert "<script>alert(1)" not in html
    assert "&lt;script&gt;alert(1)&lt;script&gt;.mp4" in html
    assert '"/board/jobs?state=failed">Some jobs failed' in html
    assert "No worker is running" in html
    assert '<th scope="row">hevc</th>' in html
    assert '<th scope="row">720p</th>' not in html, "no library uses it, and it has no work"
    wanted = Library(name="shows", path=farm.app.settings.data_dir, profiles=("720p",))
    farm.app.settings = farm.app.settings.model_copy(update={"libraries": (wanted,)})
    html = operator.get("/board").text
    assert '<th scope="row">720p</th>' in html
    assert "run <code>hevcq service</code>" in html, "who set up by `hevcq serve` alone is told"


def test_a_running_job_of_a_library_has_a_picture_of_its_source(
    operator, farm, people, monkeypatch
):
    job, blind = farm.running("film.mp4"), farm.running("odd.mp4")

    def still(location: str, *, width: int, stop: threading.Event) -> bytes:
        return b"\xff\xd8 of film" if location.endswith("film.mp4") and width < 640 else b""

    monkeypatch.setattr(farm.app.encoder, "still", still)
    address = f"/board/jobs/{job.job_id}/poster.jpg"

    assert f'src="{address}"' in operator.get("/board").text
    got = operator.get(address)
    assert (got.content, got.headers["content-type"]) == (b"\xff\xd8 of film", "image/jpeg")
    (kept,) = (farm.app.settings.data_dir / "web" / "pictures" / "sources").iterdir()
    assert kept.read_bytes() == got.content
    none = operator.get(f"/board/jobs/{blind.job_id}/poster.jpg")
    assert none.headers["content-type"] == "image/svg+xml"
    for odd in ("0" * 32, "..", "x"):
        assert operator.get(f"/board/jobs/{odd}/poster.jpg").status_code == 404
    assert people("anna").get(address).status_code == 404


def test_work_is_paused_for_a_while_and_resumed(operator, farm, clock):
    farm.queued("waiting.mp4")

    done = operator.post("/board/pause", data={"for": "1h"})

    html = operator.get(done.headers["location"]).text
    assert "no new ones start" in html
    (held,) = farm.app.backend.ledger.pauses()
    assert (held.by, held.until) == ("local", pytest.approx(clock.now() + 3600, abs=60))
    assert "Resume</button>" in html
    operator.post("/board/resume", data={"all": "yes"})
    assert farm.app.backend.ledger.pauses() == ()
    assert operator.post("/board/pause", data={"for": "9y"}).status_code == 400
    again = operator.post("/board/resume", data={"all": "yes"})
    assert "not_paused" in again.headers["location"]


def test_it_shows_libraries_with_their_state_and_the_ingests_that_ended(operator, farm, tmp_path):
    assert "No library yet" in operator.get("/board/libraries").text
    assert '"/board/libraries"' in operator.get("/board").text
    there = tmp_path / "library"
    there.mkdir(exist_ok=True)
    found = (
        Library(name="shows", path=there, place="beside"),
        Library(name="gone", path=tmp_path / "<i>gone", watch=False),
    )
    farm.app.settings = farm.app.settings.model_copy(update={"libraries": found})
    log, now = event_log(farm.app), farm.app.clock.now()
    for number in range(2):
        log.add(Happened("batch.finished", now + number, reason=f"{number} done & <u>.", before=9))
    log.add(Happened("disk.low", now, source="me", reason="never shown here"))
    encoded = Happened("job.done", now, job_id="a" * 32, profile="hevc", before=3000, after=1000)
    log.add_missing([replace(encoded, source=f"TODO/all{there}/a.mkv")])

    html = operator.get("/board/libraries").text

    shows, gone = re.findall(r'<li class="card">\s*<h2.*?</li>', html, re.S)
    assert "ready" in shows
    assert "<strong>2.0 KiB</strong> saved in 30 days:" in shows
    assert "1 rendition made" in shows
    assert "unusable" in gone
    assert "is its disk mounted?" in gone
    assert "Nothing encoded in 30 days." in gone
    assert "<i>gone" not in html
    assert html.index("1 done &amp; &lt;u&gt;.") < html.index("0 done &amp;"), "newest first"
    assert "never shown here" not in html
    shut = Feed(found[0], lambda: "Library shows may run only at night (schedule).")
    shut.add([Item(path=there / "a.mkv", size=1, disposition=Disposition.QUEUE)])
    farm.app.processes.tell(waiting=waiting_rows([shut]))
    text = operator.get("/board/libraries").text
    assert "1 video waiting; it may run only at night (schedule)." in text
    farm.app.processes.tell(waiting=[])
    assert "waiting;" not in operator.get("/board/libraries").text


def test_it_lists_damaged_videos_with_what_is_wrong(operator, farm, tmp_path):
    assert "Damaged videos" not in operator.get("/board/libraries").text
    file = tmp_path / "<b>.mp4"
    file.write_bytes(b"x")
    spots, mark = (Spot(2.0, 7, "torn"),), fingerprint_of(file.stat())
    bad = Checked(file, mark, "", Depth.DEMUX, Health.DAMAGED, "It is torn.", 9.0, spots)
    HealthRecords(farm.app.catalog.database).record(bad)

    html = operator.get("/board/libraries").text

    assert "&lt;b&gt;.mp4</p>" in html
    assert "It is torn. at 0:00:02.0 (byte 7)" in html


def test_machines_are_listed_drained_and_resumed(operator, farm, clock):
    machines = farm.app.backend.machines
    facts = WorkerFacts(machine="<b>nas</b>", version="0.1.0", cores=4, slots=2)
    left = {"load": 3.25, "memory": 8 << 30, "memory_free": 3 << 30, "scratch_free": 90 << 30}
    machines.tell("a" * 16, facts.model_copy(update=left))

    html = operator.get("/board").text
    assert "Load 3.2, 3.0 GiB of 8.0 GiB memory free, 90.0 GiB scratch space free" in html
    assert "&lt;b&gt;nas" in html
    assert "<b>nas" not in html
    done = operator.post("/board/drain", data={"machine": facts.machine})

    assert done.headers["location"].startswith("/board?notice=drained")
    assert "takes no new work" in operator.get(done.headers["location"]).text
    assert machines.processes()[0].drained_by == "local"
    clock.advance(SILENT_S)
    assert 'aria-label="Resume &lt;b&gt;nas' in operator.get("/board").text, "also one that is off"
    again = operator.post("/board/drain", data={"machine": facts.machine, "work": "yes"})
    assert again.headers["location"].startswith("/board?notice=works")
    assert machines.processes()[0].drained_by == ""
    other = operator.post("/board/drain", data={"machine": "desk"})
    assert other.headers["location"].startswith("/board?notice=unknown")


DAY_S = 86_400.0
HOSTILE = "<b onmouseover=alert(1)>"


def encoded(farm, number: int, days_ago: float, **keys: object) -> None:
    now = farm.app.clock.now() - days_ago * DAY_S
    done = Happened(
        "job.done", now, job_id=f"{number:032d}", profile="hevc", before=3000, after=1000
    )
    source = f"TODO/all/media/{HOSTILE}/{number}.mkv"
    event_log(farm.app).add_missing([replace(done, source=source, **keys)])


def test_it_shows_what_was_saved_in_the_time_asked_for(operator, farm):
    encoded(farm, 1, 1)
    encoded(farm, 2, 60, before=9000)

    month = operator.get("/board/figures").text
    year = operator.get("/board/figures?since=1y").text

    assert "<strong>2.0 KiB</strong> smaller" in month
    assert "1 rendition made" in month
    assert "2 renditions made" in year
    assert month.count("<rect") > 0
    assert f">{HOSTILE}" not in month


def test_the_csv_has_a_row_for_each_daily_sum(operator, farm):
    encoded(farm, 1, 1)
    encoded(farm, 2, 60)

    answer = operator.get("/board/figures.csv?since=all")

    assert answer.headers["content-type"].startswith("text/csv")
    assert 'filename="hevcq-figures-all.csv"' in answer.headers["content-disposition"]
    rows = list(csv.DictReader(answer.text.splitlines()))
    assert [(row["event"], row["count"], row["bytes_after"]) for row in rows] == [
        ("job.done", "1", "1000"),
        ("job.done", "1", "1000"),
    ]


def test_it_shows_what_this_machine_has_left_and_which_folder_is_not_there(
    operator, farm, tmp_path
):
    app = farm.app
    (tmp_path / "films").mkdir()
    libraries = [
        Library(name="films", path=tmp_path / "films"),
        Library(name="away", path=tmp_path / "gone", place="mirror", output=tmp_path / "out"),
    ]
    app.settings = app.settings.model_copy(update={"libraries": tuple(libraries)})

    html = operator.get("/board/figures").text.partition("This machine now")[2]

    found = dict(re.findall(r'<li><p>(.*?)</p> <p class="facts">(.*?)</p>', html))
    room = r"\d.* [KMGTP]iB of \d.* [KMGTP]iB free"
    assert re.fullmatch(
        r"[\d.]+, [\d.]+, [\d.]+ on \d+ cores", found["Load of 1, 5 and 15 minutes"]
    )
    for name in ("Memory", "Data folder", "Library films"):
        assert re.fullmatch(room, found[name]), name
    for name in ("Library away", "Output of away"):
        assert found[name] == "cannot be read: No such file or directory"
