"""Videos that programs submit: by path, and by the webhooks of Sonarr and Radarr."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient

from contracts.backends import PROFILES
from hevcq.errors import NoSuchVideo
from hevcq.running.ingest import submit_key
from hevcq.settings.libraries import Library
from hevcq.web.identity.accounts import ProgramTokens
from hevcq.web.identity.person import Scope
from hevcq.wiring.app import App
from support.aws.moto_server import make_farm
from support.clips import ManualClock, make_clip
from support.standin import Quiet, running

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
def nas(
    visit: Callable[..., TestClient], opened: App, clock: ManualClock, media: Path
) -> TestClient:
    return program(visit, opened, clock, Scope.OPERATE)


def program(
    visit: Callable[..., TestClient], opened: App, clock: ManualClock, *scopes: Scope
) -> TestClient:
    client = visit()
    token = ProgramTokens(opened.accounts, clock).create("nas", "local", scopes, 1)
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


def test_what_cannot_be_submitted_is_said(nas: TestClient, media: Path):
    (media / "secret.mkv").touch()
    (media / "Shows" / "out").symlink_to(media)
    (media / "Shows" / "notes.mkv").write_text("no video")
    kind = {"Content-Type": "application/json"}
    for body, status, words in REFUSED:
        sent = {k: v.format(media=media) if isinstance(v, str) else v for k, v in body.items()}

        answer = nas.post(JOBS, content=json.dumps(sent), headers=kind)

        assert answer.status_code == status, answer.text
        assert words in answer.json()["detail"]


def test_only_operators_and_their_tokens_submit(
    visit: Callable[..., TestClient], opened: App, clock: ManualClock, media: Path
):
    for scopes in ((Scope.READ,), (Scope.UPLOAD, Scope.MANAGE)):
        client = program(visit, opened, clock, *scopes)
        assert client.post(JOBS, json={"path": "/a"}).status_code == 403
    assert visit().post(JOBS, json={"path": "/a"}).status_code == 401


@pytest.mark.media
def test_a_file_gets_the_profiles_of_its_library_once_or_some_if_asked(
    nas: TestClient, media: Path
):
    clip = make_clip(media / "Shows" / "Season 01", name="E01 <b>.mkv", size="1920x1080")

    (first,) = nas.post(JOBS, json={"path": str(clip), "profiles": ["720p"]}).json()
    again, other = nas.post(JOBS, json={"path": str(clip)}).json()

    assert (first["profile"], first["result"]) == ("720p", "queue")
    assert (again["profile"], again["result"], again["job"]) == ("720p", "join", first["job"])
    assert (other["profile"], other["result"]) == ("av1", "queue")
    assert nas.get(f"{JOBS}/{first['job']}").json()["state"] == "queued"
    assert len(nas.get(JOBS).json()["jobs"]) == 2


@pytest.mark.media
def test_what_is_no_video_is_unreadable_and_makes_no_job(nas: TestClient, media: Path):
    (media / "Shows" / "notes.mkv").write_text("no video")

    (found,) = nas.post(JOBS, json={"path": str(media / "Shows" / "notes.mkv")}).json()

    assert (found["result"], found["job"]) == ("unreadable", "")
    assert found["reason"]


@pytest.mark.media
@pytest.mark.parametrize("sender", ["sonarr", "radarr"])
def test_the_webhook_of_an_import_queues_its_file(nas: TestClient, media: Path, sender: str):
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
def test_an_upgrade_is_queued_beside_the_job_of_what_it_replaces(nas: TestClient, media: Path):
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
def test_the_custom_script_of_the_recipe_does_what_it_says(nas: TestClient, media: Path):
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
def test_their_test_and_other_events_do_nothing(nas: TestClient, sender: str):
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
