"""The API: whose videos, what is refused and how it is said, pages, tags, keys, and its description.

Videos that programs submit: by path, and by the webhooks of Sonarr and Radarr.
"""

import json
import os
import re
import shutil
import subprocess
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripts.write_openapi import TARGET, rendered
from starlette.testclient import TestClient

from contracts.backends import PROFILES
from hevcq.domain.job import Phase, Progress
from hevcq.domain.verdict import FailureClass
from hevcq.domain.videos import VideoStatus
from hevcq.errors import NoSuchVideo, SourceDamaged
from hevcq.ports.backend import WorkerFacts
from hevcq.running.ingest import submit_key
from hevcq.settings.libraries import Library
from hevcq.web.api.openapi import document
from hevcq.web.identity.accounts import ProgramTokens
from hevcq.web.identity.person import Scope
from hevcq.wiring.app import App
from hevcq.wiring.contexts import video_farm
from support.aws.moto_server import make_farm
from support.clips import make_clip
from support.standin import Quiet, running
from support.videos import CLIP, VideoBench

API = "/api/v1"
WANTED = {"name": "Holiday.mov", "size": len(CLIP), "profiles": ["hevc"], "title": "Holiday"}


@pytest.fixture
def bench(opened: App, tmp_path: Path) -> VideoBench:
    return VideoBench(tmp_path, video_farm(opened))


def test_the_description_in_the_docs_is_that_of_the_code():
    assert TARGET.read_text(encoding="utf-8") == rendered(), "run scripts/write_openapi.py"


ODD = st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.just("hevc")
ODD_PATHS = st.sampled_from(["0" * 26, "0" * 32, "hevc", "webhook", "0", "-1", "\u00e9 %2f"])
DESCRIBED = document()
EVERY = [(method, path) for path, those in DESCRIBED["paths"].items() for method in those]


def keys_of(operation: dict[str, Any]) -> list[str]:
    """Return the keys that the body of an operation may have."""
    (content,) = operation.get("requestBody", {}).get("content", {"": {}}).values()
    schema = content.get("schema", {})
    for each in [schema, *schema.get("anyOf", ())]:
        if "$ref" in each:
            schema = DESCRIBED["components"]["schemas"][each["$ref"].rpartition("/")[2]]
    return list(schema.get("properties", ()))


@pytest.mark.parametrize(("method", "path"), EVERY)
def test_each_operation_answers_anything_as_its_description_says(visit, method, path):
    client, operation = visit(auth="none"), DESCRIBED["paths"][path][method]
    query = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"]
    bodies = ODD | st.dictionaries(
        st.sampled_from(keys_of(operation) or ["x"]), ODD | st.lists(ODD)
    )

    @settings(max_examples=3, database=None, suppress_health_check=list(HealthCheck))
    @given(ODD_PATHS, st.fixed_dictionaries(dict.fromkeys(query, ODD)), bodies)
    def each(value, params, body):
        answer = client.request(method, re.sub("{[^}]*}", value, path), params=params, json=body)
        if answer.is_success:
            assert str(answer.status_code) in operation["responses"]
        else:
            assert (answer.status_code < 500, answer.json()["status"]) == (True, answer.status_code)
            assert answer.headers["Content-Type"] == "application/problem+json"

    each()


def test_a_video_from_its_upload_to_its_end(ann, bench, as_person):
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


def test_anothers_video_is_not_there_and_an_operator_sees_all(bench, as_person):
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


def test_pages_follow_the_cursor(ann, bench):
    for number in range(5):
        bench.request(title=f"V{number}")
        bench.clock.advance(1)
    assert [each["title"] for each in every(ann, "videos")] == ["V4", "V3", "V2", "V1", "V0"]
    found = ann.get(f"{API}/videos", params={"text": "v3", "status": "uploading"}).json()
    assert [each["title"] for each in found["videos"]] == ["V3"]
    assert ann.get(f"{API}/videos", params={"status": "done"}).json()["videos"] == []


def test_a_bad_upload_is_refused_in_a_sentence(ann, opened):
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


def test_a_body_that_is_no_request_is_refused(ann):
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


def test_operators_follow_jobs_and_queue_failed_ones_again(bench, as_person):
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


def test_a_failed_video_of_a_library_is_kept_as_it_is(as_person, farm, bench):
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


def test_a_token_allows_its_scopes_and_nothing_else(visit, bench, opened):
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
        ("POST", f"{API}/jobs", {"path": "/a"}),
    ):
        answer = client.request(method, address, json=body)
        assert answer.status_code == 403, address
    tus = {"Tus-Resumable": "1.0.0", "Upload-Length": "3"}
    assert client.post("/uploads", headers=tus).status_code == 403
    assert bench.now(video) == video


def test_programs_see_what_the_board_shows(as_person, opened, farm, tmp_path):
    job = farm.running("film.mp4")
    progress = Progress(phase=Phase.ENCODE, percent=50.0, speed=2.0, eta_s=600.0)
    opened.backend.ledger.progress(job.job_id, job.fence, progress)
    farm.done("made.mp4")
    (tmp_path / "shows").mkdir()
    opened.settings = opened.settings.model_copy(
        update={"libraries": (Library(name="shows", path=tmp_path / "shows", place="beside"),)}
    )
    operator = as_person("op")

    (running,) = operator.get(f"{API}/queues").json()["running"]
    assert (running["job_id"], running["speed"], running["alive"]) == (job.job_id, 2.0, True)
    assert running["eta_s"] == 600
    saved = operator.get(f"{API}/savings").json()
    assert (saved["jobs"], len(saved["by_day"])) == (1, 30)
    (library,) = operator.get(f"{API}/libraries").json()
    shown = library["library"]["name"], library["state"]["problem"], library["line"]["renditions"]
    assert shown == ("shows", "", 0)
    opened.backend.machines.tell("a" * 16, WorkerFacts(machine="the nas", version="0.1.0"))
    for what, by in (("drain", "op"), ("resume", "")):
        (nas,) = operator.post(f"{API}/machines/the%20nas/{what}").json()
        assert (nas["facts"]["machine"], nas["drained_by"]) == ("the nas", by)
    assert operator.post(f"{API}/machines/desk/drain").status_code == 422
    bob = as_person("bob")
    for what in ("queues", "savings", "libraries", "machines"):
        assert bob.get(f"{API}/{what}").status_code == 403, what


JOBS = "/api/v1/jobs"
RECORDED = json.loads((Path(__file__).parent / "imported.json").read_text())
"""Bodies in the shape that Sonarr 4 and Radarr 5 send on import, and as their test."""


@pytest.fixture
def media(tmp_path: Path, opened: App) -> Path:
    made = tmp_path / "media"
    (made / "Shows" / "Season 01").mkdir(parents=True)
    library = Library(name="Shows", path=made / "Shows", profiles=("720p", "av1"))
    opened.settings = opened.settings.model_copy(update={"libraries": (library,)})
    return made


@pytest.fixture
def nas(visit, opened, clock, media: Path) -> TestClient:
    """A program that may run the farm."""
    client = visit()
    token = ProgramTokens(opened.accounts, clock).create("nas", "local", [Scope.OPERATE], 1)
    client.headers["Authorization"] = f"Bearer {token}"
    return client


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({}, 422, "either a path or a key"),
    ({"path": "/a", "key": "b"}, 422, "either a path or a key"),
    ({"path": "Shows/a.mkv"}, 422, "from / on"),
    ({"path": "/a\0b"}, 422, "from / on"),
    ({"path": "/a\udc80"}, 422, "path"),
    ({"path": "/etc/passwd"}, 422, "in no library"),
    ({"path": "{media}/Shows/../secret.mkv"}, 422, "in no library"),
    ({"path": "{media}/Shows/out/secret.mkv"}, 422, "in no library"),
    ({"path": "{media}/Shows/gone.mkv"}, 404, "There is no file"),
    ({"path": "{media}/Shows"}, 404, "There is no file"),
    ({"key": "TODO/all/a.mkv"}, 422, "not on AWS"),
    ({"path": "{media}/Shows/notes.mkv", "profiles": ["none-such"]}, 422, "only 720p, av1"),
    ({"path": "{media}/Shows/notes.mkv", "priority": 5}, 422, "priority"),
]


def test_invalid_submissions_are_refused_with_a_reason(nas, media):
    (media / "secret.mkv").touch()
    (media / "Shows" / "out").symlink_to(media)
    (media / "Shows" / "notes.mkv").write_text("no video")
    kind = {"Content-Type": "application/json"}
    for body, status, words in REFUSED:
        sent = {k: v.format(media=media) if isinstance(v, str) else v for k, v in body.items()}

        answer = nas.post(JOBS, content=json.dumps(sent), headers=kind)

        assert answer.status_code == status, answer.text
        assert words in answer.json()["detail"]


@pytest.mark.media
def test_a_file_gets_the_profiles_of_its_library_once_or_some_if_asked(nas, media):
    clip = make_clip(media / "Shows" / "Season 01", name="E01 <b>.mkv", size="1920x1080")

    (first,) = nas.post(JOBS, json={"path": str(clip), "profiles": ["720p"]}).json()
    again, other = nas.post(JOBS, json={"path": str(clip)}).json()

    assert (first["profile"], first["result"]) == ("720p", "queue")
    assert (again["profile"], again["result"], again["job"]) == ("720p", "join", first["job"])
    assert (other["profile"], other["result"]) == ("av1", "queue")
    assert nas.get(f"{JOBS}/{first['job']}").json()["state"] == "queued"
    assert len(nas.get(JOBS).json()["jobs"]) == 2


@pytest.mark.media
def test_a_file_without_video_is_unreadable_and_gets_no_job(nas, media):
    (media / "Shows" / "notes.mkv").write_text("no video")

    (found,) = nas.post(JOBS, json={"path": str(media / "Shows" / "notes.mkv")}).json()

    assert (found["result"], found["job"]) == ("unreadable", "")
    assert found["reason"]


@pytest.mark.media
@pytest.mark.parametrize("sender", ["sonarr", "radarr"])
def test_the_webhook_of_an_import_queues_its_file(nas, media, sender):
    clip = make_clip(media / "Shows" / "Season 01", name="imported.mkv", size="1920x1080")
    body = json.dumps(RECORDED[sender]).replace("IMPORTED", str(clip))

    sent = nas.post(
        f"{JOBS}/imported", content=body, headers={"Content-Type": "application/json"}
    ).json()

    assert [(each["profile"], each["result"]) for each in sent] == [
        ("720p", "queue"),
        ("av1", "queue"),
    ]


@pytest.mark.media
def test_an_upgrade_is_queued_beside_the_job_of_what_it_replaces(nas, media):
    season = media / "Shows" / "Season 01"
    old = make_clip(season, name="imported.mkv", size="1920x1080")
    body = {**RECORDED["sonarr"], "isUpgrade": True, "deletedFiles": [{"path": str(old)}]}

    def imported(path: Path) -> list[tuple[str, str]]:
        sent = json.dumps(body).replace("IMPORTED", str(path))
        headers = {"Content-Type": "application/json"}
        found = nas.post(f"{JOBS}/imported", content=sent, headers=headers).json()
        return [(each["result"], each["job"]) for each in found if each["profile"] == "720p"]

    ((_, first),) = imported(old)
    old.unlink()
    found = imported(make_clip(season, name="imported.mkv", size="1920x1088"))

    assert [each[0] for each in found] == ["queue", "skip"]
    assert found[0][1] != first == found[1][1]


class Relay(Quiet):
    """Hands what is posted to the page of a test."""

    server: Any

    def do_POST(self) -> None:
        headers = {name: self.headers[name] for name in ("Authorization", "Content-Type")}
        answer = self.server.page.post(self.path, content=self.body(), headers=headers)
        self.reply(answer.status_code, answer.content)


def script(address: str, token: str) -> str:
    """Return the custom script of the recipe, with a person's address and token."""
    text = (Path(__file__).parents[2] / "docs" / "home" / "recipes.md").read_text()
    (found,) = [each for each in text.split("```sh\n") if each.startswith("#!/bin/sh")]
    return found.split("```")[0].replace("http://127.0.0.1:8790", address).replace("TOKEN", token)


@pytest.mark.media
@pytest.mark.skipif(not shutil.which("jq") or not shutil.which("curl"), reason="needs jq and curl")
def test_the_custom_script_of_the_recipe_does_what_it_says(nas, media):
    season = media / "Shows" / "Season 01"
    names = ("A [1080p] *'.mkv", 'B "2".mkv', "C.mkv", "D.mkv")
    clips = [str(make_clip(season, name=name, size="1920x1080")) for name in names]
    token = nas.headers["Authorization"].removeprefix("Bearer ")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Relay)
    server.page = nas  # type: ignore[attr-defined]

    def run(text: str, **said: str) -> int:
        known = {"PATH": os.environ["PATH"], **said}
        return subprocess.run(["sh", "-c", text], env=known, check=False).returncode

    def queued() -> set[str]:
        listed = nas.get(JOBS).json()["jobs"]
        return {each["source"].rpartition("/")[2] for each in listed}

    with running(server):
        text = script(f"http://127.0.0.1:{server.server_port}", token)
        several = "|".join(clips[1:3])
        for said in (
            {"sonarr_eventtype": "Test"},
            {"radarr_eventtype": "Test"},
            {"sonarr_eventtype": "EpisodeFileDelete", "sonarr_episodefile_path": clips[0]},
            {"radarr_eventtype": "Rename", "radarr_moviefile_path": clips[0]},
        ):
            assert run(text, **said) == 0
        assert queued() == set()
        assert run(text, sonarr_eventtype="Download", sonarr_episodefile_path=clips[0]) == 0
        assert run(text, sonarr_eventtype="Download", sonarr_episodefile_paths=several) == 0
        assert run(text, radarr_eventtype="Download", radarr_moviefile_path=clips[3]) == 0
        assert queued() == set(names)
        gone = {"radarr_eventtype": "Download", "radarr_moviefile_path": f"{season}/gone.mkv"}
        assert run(text, **gone) != 0
        assert run(script(f"http://127.0.0.1:{server.server_port}", "wrong"), **gone) != 0


@pytest.mark.parametrize("sender", ["test", "grab"])
def test_other_webhook_events_do_nothing(nas, sender):
    answer = nas.post(f"{JOBS}/imported", json=RECORDED[sender])

    assert (answer.status_code, answer.json()) == (200, [])


@pytest.mark.aws
def test_on_aws_the_newest_version_of_a_key_is_queued_once():
    farm = make_farm(PROFILES)
    bucket = farm.settings.aws.input_bucket
    farm.clients.s3.put_object(Bucket=bucket, Key="TODO/all/a b.mkv", Body=b"video")
    app = SimpleNamespace(settings=farm.settings, backend=farm.backend, profiles=PROFILES)

    (first,) = submit_key(app, "TODO/all/a b.mkv", ["hevc"])
    (again,) = submit_key(app, "TODO/all/a b.mkv", ["hevc"])

    assert (first.profile, first.result, again.job) == ("hevc", "queued", first.job)
    assert farm.backend.ledger.get(first.job).source.key == "TODO/all/a b.mkv"
    for key in ("TODO/all/a", "TODO/all/gone.mkv"):
        with pytest.raises(NoSuchVideo):
            submit_key(app, key, ["hevc"])
    farm.backend.close()
