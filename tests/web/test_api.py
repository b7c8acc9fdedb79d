"""The API: whose videos, what is refused and how it is said, pages, tags, keys, and its description."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripts.write_openapi import TARGET, rendered
from starlette.testclient import TestClient

from hevcq.domain.job import Phase, Progress
from hevcq.domain.verdict import FailureClass
from hevcq.domain.videos import VideoStatus
from hevcq.errors import SourceDamaged
from hevcq.ports.backend import WorkerFacts
from hevcq.settings.libraries import Library
from hevcq.web.identity.accounts import ProgramTokens
from hevcq.web.identity.person import Scope
from hevcq.wiring.app import App
from hevcq.wiring.contexts import video_farm
from support.jobs import Farm
from support.videos import CLIP, VideoBench

API = "/api/v1"
WANTED = {"name": "Holiday.mov", "size": len(CLIP), "profiles": ["hevc"], "title": "Holiday"}


@pytest.fixture
def bench(opened: App, tmp_path: Path) -> VideoBench:
    return VideoBench(tmp_path, video_farm(opened))


def test_the_description_in_the_docs_is_that_of_the_code() -> None:
    assert TARGET.read_text(encoding="utf-8") == rendered(), "run scripts/write_openapi.py"


def test_a_video_from_its_upload_to_its_end(
    ann: TestClient, bench: VideoBench, as_person: Callable[[str], TestClient]
) -> None:
    begun = ann.post(f"{API}/uploads", json=WANTED)
    assert begun.status_code == 201
    upload = begun.json()
    video_id = upload["video"]["id"]
    assert upload["way"]["kind"] == "tus"
    assert upload["way"]["url"] == f"/uploads/{video_id}"
    early = ann.post(f"{API}/uploads/{video_id}/complete")
    assert (early.status_code, early.json()["class"]) == (422, "bad_upload")
    bench.send(bench.farm.find(video_id, "ann"))
    assert ann.get(f"{API}/uploads/{video_id}").json()["came"] == len(CLIP)
    done = ann.post(f"{API}/uploads/{video_id}/complete")
    assert done.json()["status"] == "processing"
    assert [each["state"] for each in done.json()["formats"]] == ["queued"]
    assert ann.post(f"{API}/uploads/{video_id}/complete").status_code == 200

    bench.encoder.trimmed = (CLIP, ("8 pictures are left out.",))
    bench.work("hevc")
    shown = ann.get(f"{API}/videos/{video_id}").json()
    assert shown["status"] == "done"
    (made,) = shown["formats"]
    assert ann.get(made["url"]).status_code == 200
    assert "8 pictures are left out." in made["notices"]
    assert made["saved"] == pytest.approx(1 - made["size"] / len(CLIP))
    public = ann.post(f"{API}/videos/{video_id}/publish").json()
    name = made["url"].rpartition("/")[2]
    assert as_person("").get(f"/p/{public['slug']}/media/hevc/{name}").status_code == 200
    assert ann.post(f"{API}/videos/{video_id}/unpublish").json()["slug"] is None
    assert ann.delete(f"{API}/videos/{video_id}").status_code == 204
    assert ann.get(f"{API}/videos/{video_id}").status_code == 404
    assert ann.get(f"{API}/usage").json()["videos"] == 0


def test_anothers_video_is_not_there_and_an_operator_sees_all(
    bench: VideoBench, as_person: Callable[[str], TestClient]
) -> None:
    video, upload = bench.done(profiles=("hevc",)), bench.request()
    bob, operator = as_person("bob"), as_person("op")
    where = f"{API}/videos/{video.video_id}"
    for method, address, body in (
        ("GET", where, None),
        ("PATCH", where, {"title": "x"}),
        ("DELETE", where, None),
        ("POST", f"{where}/publish", None),
        ("POST", f"{where}/unpublish", None),
        ("POST", f"{where}/retry", {}),
        ("POST", f"{where}/cancel", {}),
        ("GET", f"{API}/uploads/{upload.video_id}", None),
        ("POST", f"{API}/uploads/{upload.video_id}/complete", None),
        ("POST", f"{API}/uploads/{upload.video_id}/parts", {"numbers": [1]}),
        ("DELETE", f"{API}/uploads/{upload.video_id}", None),
    ):
        answer = bob.request(method, address, json=body)
        assert (answer.status_code, answer.json()["class"]) == (404, "no_such_video"), address
    assert bob.get(f"{API}/videos").json()["videos"] == []
    assert bob.get(f"{API}/videos", params={"all": "true"}).json()["videos"] == []
    assert bob.get(f"{API}/queues").status_code == 403
    assert bob.get(f"{API}/jobs").status_code == 403
    assert bench.now(video) == video

    assert operator.get(where).json()["owner"] == "ann"
    assert len(operator.get(f"{API}/videos", params={"all": "true"}).json()["videos"]) == 2
    assert operator.get(f"{API}/uploads/{upload.video_id}").status_code == 404
    assert as_person("").get(where).status_code == 401


def every(client: TestClient, what: str) -> list[dict[str, Any]]:
    """Return the rows of a list, read page by page."""
    found, cursor = [], ""
    while True:
        page = client.get(f"{API}/{what}", params={"limit": 2, "cursor": cursor}).json()
        assert not [each for each in page[what] if each in found], "a page twice"
        found += page[what]
        assert len(page[what]) <= 2
        cursor = page["cursor"]
        if not cursor:
            return found


def test_pages_follow_the_cursor(ann: TestClient, bench: VideoBench) -> None:
    for number in range(5):
        bench.request(title=f"V{number}")
        bench.clock.advance(1)
    assert [each["title"] for each in every(ann, "videos")] == ["V4", "V3", "V2", "V1", "V0"]
    found = ann.get(f"{API}/videos", params={"text": "v3", "status": "uploading"}).json()
    assert [each["title"] for each in found["videos"]] == ["V3"]
    assert ann.get(f"{API}/videos", params={"status": "done"}).json()["videos"] == []


def test_a_bad_upload_is_refused_in_a_sentence(ann: TestClient, opened: App) -> None:
    for body, status in (
        ({"size": 0}, 422),
        ({"size": "10"}, 422),
        ({"size": 2**70}, 422),
        ({"name": ""}, 422),
        ({"profiles": ["../x"]}, 422),
        ({"profiles": ["nope"]}, 422),
        ({"owner": "bob"}, 422),
        ({"size": 2**45}, 413),
        ({"title": "x" * 201}, 422),
    ):
        answer = ann.post(f"{API}/uploads", json={**WANTED, **body})
        assert answer.status_code == status, body
        assert answer.headers["Content-Type"] == "application/problem+json"
        said = answer.json()
        assert said["status"] == status
        assert said["detail"].endswith(".")
    assert video_farm(opened).videos.usage().videos == 0


def test_a_body_that_is_no_request_is_refused(ann: TestClient) -> None:
    for content, kind, status in (
        (b"{", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[" * 60_000, "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"", "application/json", 400),
        (b"a=b", "application/x-www-form-urlencoded", 415),
        (b" " * 70_000, "application/json", 413),
        (json.dumps({**WANTED, "title": "\ud800"}).encode(), "application/json", 422),
    ):
        answer = ann.post(f"{API}/uploads", content=content, headers={"Content-Type": kind})
        assert answer.status_code == answer.json()["status"] == status, content[:20]


def test_operators_follow_jobs_and_queue_failed_ones_again(
    bench: VideoBench, as_person: Callable[[str], TestClient]
) -> None:
    operator = as_person("op")
    bench.encoder.errors["probe"] = [SourceDamaged("Two packets are missing.")]
    video = bench.upload(profiles=("hevc",))
    bench.work("hevc")
    bench.clock.advance(1)
    other = bench.upload(profiles=("hevc",))
    (failed,) = operator.get(f"{API}/jobs", params={"state": "dead"}).json()["jobs"]
    assert (failed["failure_class"], failed["source"]) == ("damaged", video.source.key)
    listed = [each["source"] for each in every(operator, "jobs")]
    assert listed == [other.source.key, video.source.key]

    job = f"{API}/jobs/{failed['id']}"
    assert operator.post(f"{job}/reprocess").json()["state"] == "queued"
    assert operator.post(f"{job}/reprocess").status_code == 409
    assert operator.post(f"{job}/move?to=higher").json()["state"] == "queued"
    assert operator.post(f"{job}/move?to=away").status_code == 422
    assert operator.post(f"{job}/cancel").json()["state"] == "dead"
    assert operator.post(f"{job}/move?to=first").status_code == 409
    assert operator.post(f"{job}/cancel").status_code == 409
    assert operator.post(f"{job}/reprocess").json()["state"] == "queued"
    assert operator.get(f"{API}/jobs/{'0' * 32}").status_code == 404
    hevc = {each["profile"]: each for each in operator.get(f"{API}/queues").json()["queues"]}
    assert hevc["hevc"]["jobs"]["queued"] == 2
    assert bench.now(video).status is VideoStatus.PROCESSING


def test_a_failed_video_of_a_library_is_kept_as_it_is(
    as_person: Callable[[str], TestClient], farm: Farm, bench: VideoBench
) -> None:
    operator = as_person("op")
    _, torn = farm.buried("torn.mp4", FailureClass.DAMAGED)
    bench.encoder.errors["probe"] = [SourceDamaged("Two packets are missing.")]
    uploaded = bench.upload(profiles=("hevc",))
    bench.work("hevc")

    assert operator.post(f"{API}/jobs/{torn.job_id}/keep").json()["state"] == "skipped"
    (dead,) = operator.get(f"{API}/jobs", params={"state": "dead"}).json()["jobs"]
    assert dead["source"] == uploaded.source.key
    for each in (torn.job_id, dead["id"]):
        assert operator.post(f"{API}/jobs/{each}/keep").status_code == 409


def test_a_token_allows_its_scopes_and_nothing_else(
    visit: Callable[..., TestClient], bench: VideoBench, opened: App
) -> None:
    client = visit(auth="none")
    tokens = ProgramTokens(opened.accounts, opened.clock)
    token = tokens.create("t", "ann", [Scope.READ], days=1)
    client.headers["Authorization"] = f"Bearer {token}"
    video = bench.request()
    where = f"{API}/videos/{video.video_id}"
    assert client.get(where).status_code == 200
    for method, address, body in (
        ("PATCH", where, {"title": "x"}),
        ("DELETE", where, None),
        ("POST", f"{where}/publish", None),
        ("POST", f"{API}/uploads", WANTED),
        ("DELETE", f"{API}/uploads/{video.video_id}", None),
        ("GET", f"{API}/jobs", None),
        ("POST", f"{API}/pause", {}),
    ):
        answer = client.request(method, address, json=body)
        assert answer.status_code == 403, address
    tus = {"Tus-Resumable": "1.0.0", "Upload-Length": "3"}
    assert client.post("/uploads", headers=tus).status_code == 403
    assert bench.now(video) == video


def test_programs_see_what_the_board_shows(
    as_person: Callable[[str], TestClient], opened: App, farm: Farm, tmp_path: Path
) -> None:
    job = farm.running("film.mp4")
    progress = Progress(phase=Phase.ENCODE, percent=50.0, speed=2.0, eta_s=600.0)
    opened.backend.ledger.progress(job.job_id, job.fence, progress)
    farm.done("made.mp4")
    (tmp_path / "shows").mkdir()
    opened.settings = opened.settings.model_copy(
        update={"libraries": (Library(name="shows", path=tmp_path / "shows", place="beside"),)}
    )
    operator = as_person("op")

    (running,) = operator.get(f"{API}/running").json()
    assert (running["id"], running["speed"], running["alive"]) == (job.job_id, 2.0, True)
    assert 500 < running["least_left_s"] < 900 < running["most_left_s"] < 1200
    saved = operator.get(f"{API}/savings").json()
    assert (saved["jobs"], len(saved["by_day"])) == (1, 30)
    (library,) = operator.get(f"{API}/libraries").json()
    assert (library["name"], library["problem"], library["encoded"]) == ("shows", "", 0)
    opened.backend.machines.tell("a" * 16, WorkerFacts(machine="the nas", version="0.1.0"))
    for what, by in (("drain", "op"), ("resume", "")):
        (nas,) = operator.post(f"{API}/machines/the%20nas/{what}").json()
        assert (nas["facts"]["machine"], nas["drained_by"]) == ("the nas", by)
    assert operator.post(f"{API}/machines/desk/drain").status_code == 422
    bob = as_person("bob")
    for what in ("running", "savings", "libraries", "machines"):
        assert bob.get(f"{API}/{what}").status_code == 403, what
