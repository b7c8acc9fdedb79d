"""The queue page: which jobs it lists, what one job's page says, and what happens to many at once."""

import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from hevcq.domain.job import JobState
from hevcq.domain.media.facts import MediaInfo, Stream, StreamKind
from hevcq.domain.verdict import FailureClass
from hevcq.errors import Unavailable
from hevcq.library.own_files import certificate_path
from hevcq.ports.catalog import Fingerprint
from hevcq.ports.ledger import JobFilter
from hevcq.settings.libraries import Library
from hevcq.usecases.operations import status
from hevcq.usecases.operations.status import changeable, list_jobs
from hevcq.web.pages import jobs
from support.fakes.ledger import MemoryLedger
from support.library import certificate, sha


def confirm(client, **fields):
    """Press the button of the question about all jobs of a list."""
    question = client.get("/board/jobs/ask", params=fields).text
    return client.post("/board/jobs/change", data=hidden(question))


def hidden(html: str) -> dict[str, str]:
    return dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', html))


def names(html: str) -> list[str]:
    return re.findall(r'<th scope="row" class="words"><a href="[^"]*">([^<]*)</a>', html)


def test_it_lists_jobs_by_state_profile_cause_library_and_words(operator, farm, clock):
    farm.queued("shows/wait.mp4")
    for name, cause in (
        ("shows/Torn.mp4", FailureClass.DAMAGED),
        ("net.mp4", FailureClass.NETWORK),
    ):
        farm.buried(name, cause)
    farm.buried("other.mp4", FailureClass.DAMAGED, profile="720p")
    farm.running("<b>now.mp4")
    shows = Library(name="shows", path=farm.folder / "shows", place="beside")
    farm.app.settings = farm.app.settings.model_copy(update={"libraries": (shows,)})

    def asked(query: str) -> list[str]:
        return names(operator.get(f"/board/jobs?{query}").text)

    assert sorted(asked("")) == ["&lt;b&gt;now.mp4", "Torn.mp4", "net.mp4", "other.mp4", "wait.mp4"]
    assert asked("state=waiting") == ["wait.mp4"]
    assert asked("state=running") == ["&lt;b&gt;now.mp4"]
    assert asked("state=failed&profile=720p") == ["other.mp4"]
    counted = "<strong>1</strong> <span>failed</span>"
    assert counted in operator.get("/board/jobs?profile=720p").text, "not of every profile"
    assert sorted(asked("library=shows")) == ["Torn.mp4", "wait.mp4"]
    assert asked("library=uploads/") == []
    assert asked("q=torn") == ["Torn.mp4"]
    assert asked("state=failed&cause=network") == ["net.mp4"]
    for wrong in ("state=odd", "library=none", "cause=odd"):
        assert operator.get(f"/board/jobs?{wrong}").status_code == 400
    assert asked("before=x") == asked("before=nan-" + "0" * 31)


def test_it_lists_and_changes_jobs_by_the_codec_that_was_probed_last(operator, farm, monkeypatch):
    for name, codec in (("a", "h264"), ("b", "av1"), ("c", "h264"), ("replaced", "h264")):
        path, job = farm.buried(f"{name}.mp4", FailureClass.NETWORK)
        sound = Stream(index=0, kind=StreamKind.AUDIO, codec="aac")
        video = Stream(index=1, kind=StreamKind.VIDEO, codec=codec)
        info = MediaInfo(format_name="mov", streams=(sound, video))
        mark = Fingerprint(job.source.size + (name == "replaced"), 0, 0, 0)
        farm.app.catalog.cache([(path, mark, info)])
    farm.buried("unknown.mp4", FailureClass.NETWORK)

    html = operator.get("/board/jobs?state=failed&codec=H264").text
    assert sorted(names(html)) == ["a.mp4", "c.mp4"]
    assert "2 jobs" in html, "the causes count these alone"
    assert "when this machine last probed it" in html
    assert names(operator.get("/board/jobs?codec=vp9").text) == []
    assert (
        "notice=retry&n=2"
        in confirm(operator, action="retry", state="failed", codec="h264").headers["location"]
    )
    assert operator.get("/board/jobs/now?codec=av1").status_code == 400
    monkeypatch.setattr(status, "MAX_LOOKED_UP", 2)
    assert "among the first 2; there may be more" in operator.get("/board/jobs?codec=vp9").text
    on_aws = farm.app.settings.model_copy(update={"backend": "aws"})
    monkeypatch.setattr(farm.app, "settings", on_aws)
    assert operator.get("/board/jobs?codec=av1").status_code == 400
    assert 'name="codec"' not in operator.get("/board/jobs").text


def test_failures_are_grouped_by_cause_with_what_to_do(operator, farm):
    for number in range(3):
        farm.buried(f"{number}.mp4", FailureClass.DAMAGED)
    farm.buried("net.mp4", FailureClass.NETWORK)

    html = operator.get("/board/jobs?state=failed").text

    said = re.findall(
        r'<span class="tag bad">(\w+)</span> (\d+ jobs?)</a></p><p class="hint">([^<]*)', html
    )
    assert [each[:2] for each in said] == [("damaged", "3 jobs"), ("network", "1 job")]
    assert "intact copy" in said[0][2]
    assert "Why they failed" not in operator.get("/board/jobs").text
    assert re.search(r"<strong>4</strong> <span>failed", html), "the number of all, in the tile"


def test_pages_follow_each_other_without_a_gap(operator, farm, monkeypatch):
    monkeypatch.setattr(jobs, "A_PAGE", 3)
    for number in range(7):
        farm.queued(f"{number}.mp4")

    found, address = [], "/board/jobs?state=waiting"
    while address:
        html = operator.get(address).text
        found += names(html)
        more = re.search(r'href="([^"]*)">More jobs', html)
        address = more[1].replace("&amp;", "&") if more else ""

    assert sorted(found) == [f"{number}.mp4" for number in range(7)]
    assert len(found) == len(set(found))


def test_a_search_reads_so_many_jobs_and_says_where_it_stopped(farm, clock, monkeypatch):
    monkeypatch.setattr(status, "MAX_READ", 2)
    ledger = MemoryLedger(clock)  # it looks for no text by itself
    for number in range(5):
        ledger.register(farm.queued(f"{number}.mp4")[1][0].source, ["hevc"])
    oldest = list(ledger.jobs(JobFilter()))[-1]
    wanted = JobFilter(text=status.shown_path(oldest))

    first = list_jobs(ledger, wanted, 10)
    second = list_jobs(ledger, replace(wanted, before=first.last), 10)
    third = list_jobs(ledger, replace(wanted, before=second.last), 10)

    assert (first.jobs, first.read, second.jobs) == ([], 2, [])
    assert [job.job_id for job in third.jobs] == [oldest.job_id]
    assert third.last is None


def test_all_jobs_of_a_list_are_retried_after_a_question_that_says_how_many(operator, farm):
    torn = farm.buried("torn.mp4", FailureClass.DAMAGED)[1]
    lost = [farm.buried(f"{n}.mp4", FailureClass.NETWORK)[1] for n in range(2)]
    html = operator.get("/board/jobs?state=failed&cause=network").text
    address, _ = re.findall(r'href="(/board/jobs/ask[^"]*)"', html)

    question = operator.get(address.replace("&amp;", "&")).text
    assert "Retry 2 jobs?" in question
    assert "will fail again" not in question
    assert "1 of them will fail again" in operator.get("/board/jobs/ask?action=retry").text
    fields = hidden(question)
    done = operator.post("/board/jobs/change", data=fields)

    assert done.headers["location"].endswith("notice=retry&n=2")
    assert "Queued again: 2." in operator.get(done.headers["location"]).text
    ledger = farm.app.backend.ledger
    assert {ledger.get(job.job_id).state for job in lost} == {JobState.QUEUED}
    assert ledger.get(torn.job_id).state is JobState.DEAD
    assert farm.app.backend.queues["hevc"].depth().dead == 1
    again = operator.post("/board/jobs/change", data=fields)
    assert "notice=nothing&n=0" in again.headers["location"]


def test_all_damaged_videos_are_kept_but_for_uploads(operator, farm, monkeypatch):
    torn = [farm.buried(f"{n}.mp4", FailureClass.DAMAGED)[1] for n in range(2)]
    net = farm.buried("net.mp4", FailureClass.NETWORK)[1]
    fields = {"action": "keep", "state": "failed", "cause": "damaged"}

    question = operator.get("/board/jobs/ask", params=fields).text
    assert "Keep 2 jobs unchanged?" in question
    assert "will fail again" not in question
    done = operator.post("/board/jobs/change", data=hidden(question))

    assert done.headers["location"].endswith("notice=keep&n=2")
    ledger = farm.app.backend.ledger
    assert {ledger.get(job.job_id).state for job in torn} == {JobState.SKIPPED}
    assert ledger.get(net.job_id).state is JobState.DEAD
    monkeypatch.setattr(status, "UPLOADS", net.source.key.rpartition("/")[0])
    for left in (
        confirm(operator, action="keep"),
        operator.post("/board/jobs/change", data={"action": "keep", "job": net.job_id}),
        operator.post("/board/jobs/change", data={"action": "keep", "job": "0" * 32}),
    ):
        assert "notice=nothing" in left.headers["location"], "an upload is its owner's"
    assert ledger.get(net.job_id).state is JobState.DEAD
    for action, state in (("retry", JobState.QUEUED), ("cancel", JobState.DEAD)):
        operator.post("/board/jobs/change", data={"action": action, "job": net.job_id})
        assert ledger.get(net.job_id).state is state, "the rule is of keeping only"


def test_a_failure_that_came_after_the_question_is_left_alone(operator, farm, clock):
    old = farm.buried("old.mp4", FailureClass.DAMAGED)[1]
    question = operator.get("/board/jobs/ask?action=keep&state=failed").text
    clock.advance(1)
    new = farm.buried("new.mp4", FailureClass.DAMAGED)[1]
    clock.advance(1)

    done = operator.post("/board/jobs/change", data=hidden(question))

    assert done.headers["location"].endswith("notice=keep&n=1")
    ledger = farm.app.backend.ledger
    assert ledger.get(old.job_id).state is JobState.SKIPPED
    assert ledger.get(new.job_id).state is JobState.DEAD


def test_of_many_jobs_the_first_are_changed_at_once_and_the_others_follow(
    operator, farm, clock, monkeypatch
):
    monkeypatch.setattr(jobs, "STEP", 2)
    torn = [farm.buried(f"{n}.mp4", FailureClass.NETWORK)[1] for n in range(5)]
    changed = farm.folder / "3.mp4"
    changed.write_bytes(b"another film")
    question = operator.get("/board/jobs/ask?action=retry&state=failed").text
    clock.advance(1)
    new = farm.buried("new.mp4", FailureClass.NETWORK)[1]
    clock.advance(1)

    answer = operator.post("/board/jobs/change", data=hidden(question))

    html = operator.get(answer.headers["location"]).text
    assert "Queued again: 1. The others follow." in html
    ledger = farm.app.backend.ledger
    states = [ledger.get(job.job_id).state for job in torn]
    assert [state is JobState.DEAD for state in states] == [False, False, False, True, False]
    assert ledger.get(new.job_id).state is JobState.DEAD, "it came after the question"


def test_an_error_among_the_others_ends_them_and_breaks_no_page(operator, farm, monkeypatch):
    monkeypatch.setattr(jobs, "STEP", 1)
    for n in range(3):
        farm.buried(f"{n}.mp4", FailureClass.NETWORK)
    question = operator.get("/board/jobs/ask?action=retry&state=failed").text
    reprocess, calls = jobs.reprocess, []

    def breaks(*given):
        calls.append(given)
        if len(calls) == 2:
            raise Unavailable("The database does not answer.")
        return reprocess(*given)

    monkeypatch.setattr(jobs, "reprocess", breaks)
    answer = operator.post("/board/jobs/change", data=hidden(question))
    assert answer.headers["location"].endswith("notice=retry&n=1&more=1")
    assert len(calls) == 2
    assert "<strong>2</strong> <span>failed" in operator.get("/board/jobs").text


@pytest.mark.parametrize(
    ("word", "order"), [("first", "cab"), ("higher", "cab"), ("lower", "abc"), ("last", "abc")]
)
def test_a_waiting_job_is_moved_in_its_queue(operator, farm, word, order):
    made = {name: farm.queued(f"{name}.mp4")[1][0] for name in "abc"}
    job = made["c"]
    html = operator.get(f"/board/jobs/{job.job_id}").text
    assert f'value="{word}">Put {word}' in html

    done = operator.post("/board/jobs/change", data={"job": job.job_id, "action": word})

    assert "its queue: 1." in operator.get(done.headers["location"]).text
    html = operator.get("/board/jobs?state=waiting").text
    places = re.findall(r'id="job-(\w+)".*?no. (\d) in its queue', html, re.DOTALL)
    shown = {made[name].job_id: str(place) for place, name in enumerate(order, 1)}
    assert dict(places) == shown
    queue = farm.app.backend.queues["hevc"]
    got = queue.receive(3, wait_s=0, stop=threading.Event())
    assert "".join(Path(each.tasks[0].source.key).stem for each in got) == order
    late = operator.post("/board/jobs/change", data={"job": job.job_id, "action": word})
    assert "notice=nothing" in late.headers["location"], "somebody works on it"


def test_all_waiting_jobs_of_a_list_are_moved_in_steps_and_keep_their_order(
    operator, farm, monkeypatch
):
    monkeypatch.setattr(jobs, "STEP", 2)
    for name in ("x/a", "y/b", "x/c", "y/d", "x/e", "x/f"):
        farm.queued(f"{name}.mp4")
    assert "Put all higher" not in operator.get("/board/jobs").text
    html = operator.get("/board/jobs?state=waiting&q=/x/").text
    (address,) = re.findall(r'href="([^"]*)">Put all higher', html)
    question = operator.get(address.replace("&amp;", "&")).text
    assert "Put 4 jobs higher?" in question

    answer = operator.post("/board/jobs/change", data=hidden(question))

    assert answer.headers["location"].endswith("notice=higher&n=2&more=1")
    got = farm.app.backend.queues["hevc"].receive(6, wait_s=0, stop=threading.Event())
    assert "".join(Path(each.tasks[0].source.key).stem for each in got) == "acefbd"


@pytest.mark.parametrize("action", ["first", "higher"])
def test_an_unordered_queue_is_explained_and_refuses_moves(operator, farm, monkeypatch, action):
    job = farm.queued("a.mp4")[1][0]
    monkeypatch.setattr(farm.app.backend.queues["hevc"], "ordered", False)
    for name, queue in farm.app.backend.queues.items():
        monkeypatch.setattr(queue, "ordered", False, raising=bool(name))
    for path in (f"/{job.job_id}", "?state=waiting"):
        html = operator.get(f"/board/jobs{path}").text
        assert "Amazon SQS keeps no order and no priorities" in html
        assert f">Put {action}" not in html
    sent = operator.post("/board/jobs/change", data={"job": job.job_id, "action": action})
    assert "Amazon SQS keeps no order" in sent.text


@pytest.mark.parametrize("wrong", ["", "soon", "nan", "inf", "1800009999"])
def test_nothing_is_changed_without_the_time_of_the_question(operator, farm, wrong):
    torn = farm.buried("torn.mp4", FailureClass.DAMAGED)[1]
    fields = hidden(operator.get("/board/jobs/ask?action=keep&state=failed").text)

    answer = operator.post("/board/jobs/change", data={**fields, "asked_at": wrong})

    assert answer.status_code == 400
    assert farm.app.backend.ledger.get(torn.job_id).state is JobState.DEAD


def test_all_jobs_under_way_are_cancelled_and_those_that_ended_are_left_alone(operator, farm):
    job, (_, waiting) = farm.running("now.mp4"), (None, farm.queued("wait.mp4")[1][0])
    done = farm.done("done.mp4")[1]

    answer = confirm(operator, action="cancel")

    assert answer.headers["location"].endswith("notice=cancel&n=2")
    ledger = farm.app.backend.ledger
    assert {ledger.get(each.job_id).state for each in (job, waiting)} == {JobState.DEAD}
    assert ledger.get(done.job_id).state is JobState.DONE
    ended = JobFilter(states=frozenset({JobState.DONE}))
    assert list(changeable(ledger, ended, status.UNDER_WAY)) == []


@pytest.mark.parametrize("form", [{"state": "failed"}, {"action": "odd"}, {"action": "cancel", "job": "TODO/"},
                                  {"action": "retry", "state": "odd"}])  # fmt: skip
def test_a_form_that_names_nothing_changes_nothing(operator, farm, form):
    job = farm.running("now.mp4")
    assert operator.post("/board/jobs/change", data=form).status_code == 400
    assert farm.app.backend.ledger.get(job.job_id).state is JobState.RUNNING


def test_a_job_has_a_page_with_its_reason_its_log_and_its_history(operator, farm, clock):
    job = farm.buried("<i>b.mp4", FailureClass.DAMAGED)[1]

    html = operator.get(f"/board/jobs/{job.job_id}").text

    assert "<i>b" not in html
    assert "&lt;i&gt;b.mp4 broke" in html
    assert "intact copy" in html
    assert "last words" in html
    assert "attempt 1" in html
    assert ": failed, &lt;i&gt;b.mp4 broke" in html
    done = operator.post("/board/jobs/change", data={"job": job.job_id, "action": "retry"})
    assert done.headers["location"] == f"/board/jobs/{job.job_id}?notice=retry&n=1"
    clock.advance(60)
    farm.app.backend.ledger.claim(job.source, "hevc", owner="second", lease_s=60)
    again = operator.get(done.headers["location"]).text
    events = again.partition("History</h2>")[2].partition("</section>")[0]
    assert re.findall(r": (\w+)", events)[:1] == ["begun"], "the newest is told first"
    assert events.index("attempt 2") < events.index(": failed") < events.index(": queued")
    assert "Cancel</button>" in again
    assert f'"/board/jobs/{job.job_id}/now"' in again
    for odd in ("0" * 32, "x"):
        assert operator.get(f"/board/jobs/{odd}").status_code == 404


def test_only_operators_see_the_queue(operator, farm, people):
    job = farm.running("film.mp4")
    anna = people("anna")
    for path in ("", f"/{job.job_id}", f"/{job.job_id}/certificate", f"/{job.job_id}/now",
                 "/now", "/ask?action=cancel"):  # fmt: skip
        assert anna.get(f"/board/jobs{path}").status_code == 404, path
    assert anna.post("/board/jobs/change", data={"action": "cancel"}).status_code == 404
    assert farm.app.backend.ledger.get(job.job_id).state is JobState.RUNNING


def test_the_table_s_head_sorts_and_keeps_the_filters(operator, farm, clock):
    for name in ("bb.mp4", "aaaa.mp4", "c.mp4"):
        farm.queued(name)
        clock.advance(86_400)

    def press(html: str, word: str) -> str:
        found = re.search(rf'<a href="([^"]*)">{word}[ <]', html)
        return operator.get(found[1].replace("&amp;", "&")).text

    html = operator.get("/board/jobs?state=waiting&profile=hevc").text
    assert names(html) == ["c.mp4", "aaaa.mp4", "bb.mp4"]
    by_path = press(html, "Video")
    assert names(by_path) == ["aaaa.mp4", "bb.mp4", "c.mp4"]
    assert 'aria-sort="ascending"' in by_path
    assert 'value="waiting" selected' in by_path
    assert names(press(by_path, "Video")) == ["c.mp4", "bb.mp4", "aaaa.mp4"]
    assert names(press(html, "Size")) == ["aaaa.mp4", "bb.mp4", "c.mp4"]
    assert names(press(html, "Changed")) == ["bb.mp4", "aaaa.mp4", "c.mp4"]
    assert len(names(operator.get("/board/jobs?changed=7").text)) == 3
    assert names(operator.get("/board/jobs?changed=1").text) == []
    assert names(operator.get("/board/jobs?size=1").text) == []
    for wrong in ("sort=odd", "size=2", "changed=x"):
        assert operator.get(f"/board/jobs?{wrong}").status_code == 400


def test_a_placed_rendition_keeps_its_checks_on_the_page(operator, farm):
    """The store's copy of a certificate is deleted once the rendition is in its library."""
    rendition, (original, _) = b"rendition of film.mp4", farm.queued("other.mp4")
    proof = certificate(original, original.read_bytes(), rendition)
    path, job = farm.done("film.mp4", proof)
    target = path.with_suffix(".hevc.mp4")
    target.write_bytes(rendition)
    sizes = len(rendition), path.stat().st_size
    record = certificate_path(path.parent, sha(rendition), sizes, job.job_id)
    record.parent.mkdir(parents=True)
    record.write_text(proof.to_json())
    farm.app.catalog.record_placements([farm.placement(path, job, target)])

    html = operator.get(f"/board/jobs/{job.job_id}").text

    assert '<h2 id="checks">Checks</h2>' in html
