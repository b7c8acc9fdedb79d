"""`hevcq config notify`, and messages of real work to a server on this machine."""

import base64
import json
from collections.abc import Iterator

import pytest
from standardwebhooks import Webhook as Reference

from hevcq.cli.exit_codes import ExitCode
from hevcq.settings.loader import load
from hevcq.wiring.app import App
from hevcq.wiring.contexts import event_watch
from support.standin import WebhookTaker, running

SECRET = f"whsec_{base64.b64encode(bytes(32)).decode()}"


@pytest.fixture
def server() -> Iterator[WebhookTaker]:
    with running(WebhookTaker()) as taker:
        yield taker


@pytest.fixture
def webhook(server, monkeypatch) -> WebhookTaker:
    told = {
        "name": "mine",
        "url": f"http://127.0.0.1:{server.server_port}/in",
        "secret": SECRET,
    }
    monkeypatch.setenv("HEVCQ_WEBHOOK", json.dumps([told]))
    return server


def test_a_test_message_is_signed_and_says_what_it_is(hevcq, webhook):
    assert hevcq("config", "notify", "test").out == "sent  mine\n"

    ((headers, body),) = webhook.got
    assert Reference(SECRET).verify(body, headers)["type"] == "test"
    assert hevcq("config", "notify", "test", "mine").code == 0
    assert hevcq("config", "notify", "test", "yours").code == ExitCode.USAGE


def test_a_receiver_that_refuses_is_a_failure_with_its_reason(hevcq, webhook, monkeypatch):
    two = [{"name": "mine", "url": f"http://127.0.0.1:{webhook.server_port}/in", "secret": SECRET},
           {"name": "away", "url": "http://127.0.0.1:1", "secret": SECRET}]  # fmt: skip
    monkeypatch.setenv("HEVCQ_WEBHOOK", json.dumps(two))
    assert hevcq("config", "notify", "test").code == ExitCode.SOME_FAILED, "one of two"
    webhook.status = 500
    ran = hevcq("config", "notify", "test")
    assert ran.code == ExitCode.SOME_FAILED
    assert "failed  mine: Not taken: it answered 500." in ran.out


def test_the_end_of_a_job_and_of_a_batch_reach_the_webhook_once_it_answers(
    hevcq, webhook, farm, request
):
    app = App(load().settings)
    request.addfinalizer(app.close)
    watcher = event_watch(app)
    farm.buried("a.mp4")
    watcher.step()
    events = [told["type"] for told in webhook.reported]
    assert events == ["job.failed", "batch.finished"]
    assert webhook.reported[0]["data"]["source"].endswith("a.mp4")
    assert "1 failed" in webhook.reported[1]["data"]["reason"]

    webhook.status = 500
    farm.buried("b.mp4")
    watcher.step()
    assert "mine: Not taken: it answered 500." in hevcq("doctor").out
    webhook.status = 204
    assert hevcq("config", "notify", "test").code == 0
    watcher.step()
    assert [told["type"] for told in webhook.reported[-2:]] == ["job.failed", "batch.finished"]
    assert "500" not in hevcq("doctor").out


def test_people_are_notified_by_apprise(hevcq, server, monkeypatch, farm):
    url = f"json://127.0.0.1:{server.server_port}"
    told = {"url": url, "events": ["job.failed"]}
    monkeypatch.setenv("HEVCQ_NOTIFY", json.dumps([told]))
    assert hevcq("config", "notify", "test").out == "sent  json\n"
    assert server.reported[0]["title"] == "hevcq: Test message"


WRONG = [
    ("HEVCQ_NOTIFY", {"url": "json://x", "events": ["nothing"]}, "is no event"),
    ("HEVCQ_NOTIFY", {"url": "json://x", "digest": "25:00"}, "must be a time of day"),
    ("HEVCQ_NOTIFY", {}, "url is missing"),
    ("HEVCQ_NOTIFY", {"url": "qqqqqq://x"}, "apprise does not know the address qqqqqq:"),
    ("HEVCQ_NOTIFY", {"url": "discord://x"}, "discord://… of [[notify]], or it is incomplete."),
    ("HEVCQ_WEBHOOK", {"url": "ftp://x", "secret": SECRET}, "must be an address"),
    ("HEVCQ_WEBHOOK", {"url": "https://x", "secret": "whsec_AA"}, "must be whsec_"),
    ("HEVCQ_WEBHOOK", {"url": "https://x", "secret": "/nowhere"}, "/nowhere No such file"),
    ("HEVCQ_MEDIA_SERVER", {"kind": "kodi", "url": "http://x", "key": "k"}, "kind"),
    (
        "HEVCQ_MEDIA_SERVER",
        {"kind": "plex", "url": "http://x", "key": "k", "paths": ["a"]},
        "/here=/there",
    ),
]


def test_a_wrong_receiver_is_refused_in_one_sentence(hevcq, monkeypatch):
    for name, value, says in WRONG:
        with monkeypatch.context() as at:
            at.setenv(name, json.dumps([value]))
            ran = hevcq("config", "notify", "test")
        assert (ran.code, says in ran.err) == (ExitCode.CONFIG, True), ran.err
        assert ran.err.count("\n") == 1


def test_secrets_are_not_shown(hevcq, monkeypatch, webhook):
    monkeypatch.setenv("HEVCQ_NOTIFY", json.dumps([{"url": "json://user:hidden@127.0.0.1"}]))
    shown = hevcq("config", "show")
    assert shown.code == 0
    assert SECRET not in shown.out
    assert "hidden" not in shown.out
    assert "hidden" not in hevcq("doctor").out
