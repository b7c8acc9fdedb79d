"""A program changes hours, receivers and profiles by the API, as a person does in the page, and undoes it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from hevcq.wiring.app import App
from support.browser import PROFILES
from support.standin import WebhookTaker, running

API = "/api/v1"
SECRET = "whsec_" + "c2VjcmV0" * 5


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file, folder = tmp_path / "hevcq.toml", tmp_path / "profiles"
    folder.mkdir()
    (folder / "small.yaml").write_text(f"# mine\n{PROFILES['small']}")
    file.write_text('# mine\n[schedule]\ngate_command = "/usr/bin/true"\n')
    monkeypatch.setenv("HEVCQ_CONFIG", str(file))
    monkeypatch.setenv("HEVCQ_PROFILES_DIR", str(folder))
    return file


@pytest.fixture
def nas(config: Path, operator: TestClient, opened: App) -> TestClient:
    opened.adopt_settings(opened.settings_file.settings())
    opened.settings = opened.settings.model_copy(
        update={"profiles_dir": config.with_name("profiles")}
    )
    return operator


@pytest.fixture
def taker() -> Iterator[WebhookTaker]:
    with running(WebhookTaker()) as found:
        yield found


def test_hours_are_set_and_the_change_is_undone(nas, config):
    before = config.read_text()
    night = {"windows": ["22:00-07:00"], "timezone": "Europe/Berlin"}

    said = nas.put(f"{API}/hours", json=night).json()
    assert said == {**night, "at_end": "border", "gate_command": "/usr/bin/true"}
    assert 'gate_command = "/usr/bin/true"' in config.read_text()
    (change,) = nas.get(f"{API}/changes").json()
    undone = nas.post(f"{API}/changes/{change['number']}/undo").json()

    assert config.read_text() == before
    assert [each["undone"] for each in undone] == ["", undone[0]["who"]]
    assert nas.post(f"{API}/changes/{change['number']}/undo").status_code == 409
    assert nas.put(f"{API}/hours", json=said).json() == said, "an answer can be sent back"


def test_a_library_and_a_sync_account_as_told_can_be_sent_back(nas, config, tmp_path):
    (tmp_path / "films").mkdir()
    (tmp_path / "secret").write_text("word")
    nas.put(f"{API}/libraries/films", json={"path": str(tmp_path / "films"), "profiles": ["small"]})
    told = "user = 'me'\npassword_file = 'secret'\nfolders = ['Films']"
    account = f"\n[[sync]]\nname = 'cloud'\nurl = 'http://127.0.0.1:9'\n{told}\n"
    config.write_text(f"{config.read_text()}{account}target = '{tmp_path / 'films'}'\n")

    (library,) = nas.get(f"{API}/libraries").json()
    (cloud,) = nas.get(f"{API}/sync").json()
    again = nas.put(f"{API}/libraries/films", json=library["library"])
    sent = nas.put(f"{API}/sync/cloud", json=cloud)

    assert (again.status_code, sent.status_code) == (200, 200), (again.text, sent.text)
    assert again.json()["library"] == library["library"]
    assert sent.json() == cloud
    odd = nas.put(f"{API}/sync/cloud", json={**cloud, "password_file": ["x"]})
    assert (odd.status_code, "only be set in the settings file" in odd.text) == (422, True)


def test_people_programs_and_media_servers_are_added_tested_and_removed(nas, config, taker):
    at = f"http://127.0.0.1:{taker.server_port}/in"
    hook = {"name": "me", "url": at, "secret": SECRET, "events": ["job.done"]}
    person = {"url": "json://127.0.0.1:9/hidden"}

    assert nas.post(f"{API}/receivers/notify", json=person).status_code == 200
    listed = nas.post(f"{API}/receivers/webhook", json=hook)
    one = f"{API}/receivers/1"
    tested = nas.post(f"{one}/test").json()
    stale = nas.delete(one, params={"digest": "0" * 24})
    gone = nas.delete(one, params={"digest": listed.json()["digest"]})

    (_, webhook) = listed.json()["receivers"]
    assert webhook == {"kind": "webhook", "number": 1, "name": "me", "url": at,
                       "events": ["job.done"]}  # fmt: skip
    assert SECRET not in listed.text
    assert "hidden" not in listed.text
    assert tested == {"works": "me accepted the test."}
    assert [each["type"] for each in taker.reported] == ["test"]
    assert (stale.status_code, gone.status_code) == (409, 204)
    assert "webhook" not in config.read_text()
    assert nas.post(f"{one}/test").status_code == 404


def test_a_profile_is_copied_changed_and_deleted(nas, config):
    folder = config.with_name("profiles")

    copied = nas.post(f"{API}/profiles", json={"name": "mine", "source": "small"}).json()
    at = f"{API}/profiles/mine"
    changed = nas.put(at, json={"keys": {"video.crf": 30}}).json()
    late = nas.put(at, json={"text": copied["text"], "former": copied["text"]})
    whole = nas.put(at, json={"text": changed["text"].replace("crf: 30", "crf: 31")}).json()

    assert (copied["own"], copied["users"]) == (True, [])
    assert copied["text"].startswith("# mine")
    assert changed["text"] == copied["text"].replace("crf: 24", "crf: 30")
    assert late.status_code == 409
    assert (folder / "mine.yaml").read_text() == whole["text"]
    assert {"mine", "small"} <= {p["name"] for p in nas.get(f"{API}/profiles").json()}
    assert [nas.delete(at).status_code for _ in range(2)] == [204, 404]
    assert not (folder / "mine.yaml").exists()


WRONG: list[tuple[str, str, dict[str, Any], str]] = [
    ("PUT", "hours", {"windows": ["late"]}, "window"),
    ("PUT", "hours", {"gate_command": "touch /tmp/owned"}, "only be set in the settings file"),
    ("POST", "receivers/webhook", {"url": "nowhere", "secret": SECRET}, "must be an address"),
    ("POST", "receivers/notify", {"url": "discrd://token/x"}, "does not know the address discrd"),
    ("POST", "receivers/pigeon", {"url": "x"}, "kind"),
    ("POST", "profiles", {"name": "small", "source": "small"}, "already"),
    ("PUT", "profiles/small", {"keys": {"video.crf": 999}}, "video.crf"),
    ("PUT", "profiles/small", {"keys": {"video.wheels": 4}}, "is no key"),
    ("PUT", "profiles/small", {"keys": {"wheels.video.crf": 4}}, "is no key"),
    ("PUT", "profiles/small", {"keys": {"name": "other"}}, "name must stay"),
    ("PUT", "profiles/small", {"text": "name: [", "keys": {"video.crf": 4}}, "YAML"),
    ("PUT", "profiles/small", {"text": "video: [1]", "keys": {"video.crf": 4}}, "video"),
]


def test_invalid_settings_are_refused_and_change_nothing(nas, config):
    before = config.read_text()
    for method, path, body, words in WRONG:
        answer = nas.request(method, f"{API}/{path}", json=body)

        assert answer.status_code == 422, answer.text
        assert words in answer.json()["detail"]
        assert config.read_text() == before
        assert not nas.get(f"{API}/changes").json()
