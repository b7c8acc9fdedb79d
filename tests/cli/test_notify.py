"""`hevcq notify`, and messages of real work to a server on this machine."""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from standardwebhooks import Webhook as Reference

from hevcq.cli.exit_codes import ExitCode
from hevcq.ports.event_log import GivenUp, Happened
from hevcq.settings.loader import load
from hevcq.wiring.app import open_app
from hevcq.wiring.notify import EventWatcher, event_log, receivers
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
        "allow_private": True,
    }
    monkeypatch.setenv("HEVCQ_WEBHOOK", json.dumps([told]))
    return server


def test_a_test_message_is_signed_and_says_what_it_is(hevcq, webhook):
    assert hevcq("notify", "test").out == "taken  mine\n"

    ((headers, body),) = webhook.got
    assert Reference(SECRET).verify(body, headers)["type"] == "test"
    assert hevcq("notify", "test", "mine").code == 0
    assert hevcq("notify", "test", "yours").code == ExitCode.USAGE


def test_a_receiver_that_refuses_is_a_failure_with_its_reason(hevcq, webhook):
    webhook.status = 500
    ran = hevcq("notify", "test")
    assert ran.code == ExitCode.SOME_FAILED
    assert "failed  mine: Not taken: it answered 500." in ran.out


def test_the_end_of_a_job_and_of_a_batch_reach_the_webhook_and_410_ends_it(hevcq, webhook, farm):
    watcher = EventWatcher(open_app(load().settings))
    farm.buried("a.mp4")
    watcher.step()
    events = [told["type"] for told in webhook.reported]
    assert events == ["job.failed", "batch.finished"]
    assert webhook.reported[0]["data"]["source"].endswith("a.mp4")
    assert "1 failed" in webhook.reported[1]["data"]["reason"]

    webhook.status = 410
    farm.buried("b.mp4")
    watcher.step()
    assert "off: Not taken: it wants nothing more (410)." in hevcq("notify", "list").out
    webhook.status = 204
    assert hevcq("notify", "test").code == 0
    watcher.step()
    assert [told["type"] for told in webhook.reported[-2:]] == ["job.failed", "batch.finished"]


def test_people_are_notified_by_apprise(hevcq, server, monkeypatch, farm):
    url = f"json://127.0.0.1:{server.server_port}"
    told = {"url": url, "events": ["job.failed"], "template": "{source} broke: {reason}"}
    monkeypatch.setenv("HEVCQ_NOTIFY", json.dumps([told]))
    assert hevcq("notify", "test").out == "taken  json\n"
    assert server.reported[0]["title"] == "hevcq: Test message"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("HEVCQ_NOTIFY", {"url": "json://x", "events": ["nothing"]}, "is no event"),
        ("HEVCQ_NOTIFY", {"url": "json://x", "template": "{0.__class__}"}, "its fields are"),
        ("HEVCQ_NOTIFY", {"url": "json://x", "digest": "25:00"}, "must be a time of day"),
        ("HEVCQ_NOTIFY", {}, "needs either url or url_file"),
        ("HEVCQ_NOTIFY", {"url": "nowhere://x"}, "apprise does not know the address nowhere:"),
        ("HEVCQ_WEBHOOK", {"url": "ftp://x", "secret": SECRET}, "must be an address"),
        ("HEVCQ_WEBHOOK", {"url": "https://x", "secret": "whsec_AA"}, "must be whsec_"),
        ("HEVCQ_WEBHOOK", {"url": "https://x", "secret_file": "/nowhere"}, "secret_file"),
        ("HEVCQ_MEDIA_SERVER", {"kind": "kodi", "url": "http://x", "key": "k"}, "kind"),
        (
            "HEVCQ_MEDIA_SERVER",
            {"kind": "plex", "url": "http://x", "key": "k", "paths": ["a"]},
            "/here=/there",
        ),
    ],
)
def test_a_wrong_receiver_is_refused_in_one_sentence(hevcq, monkeypatch, name, value, says):
    monkeypatch.setenv(name, json.dumps([value]))
    ran = hevcq("notify", "test")
    assert ran.code == ExitCode.CONFIG
    assert says in ran.err
    assert ran.err.count("\n") == 1


def test_secrets_are_not_shown(hevcq, monkeypatch, webhook):
    monkeypatch.setenv("HEVCQ_NOTIFY", json.dumps([{"url": "json://user:hidden@127.0.0.1"}]))
    shown = hevcq("config", "show")
    assert shown.code == 0
    assert SECRET not in shown.out
    assert "hidden" not in shown.out
    assert "hidden" not in hevcq("notify", "list").out


def test_a_new_secret_is_one_that_is_accepted(hevcq):
    from hevcq.settings.notify import signing_key

    assert len(signing_key(hevcq("notify", "secret").out.strip())) == 32


def test_nobody_is_notified_without_settings(hevcq):
    assert "Nobody is notified" in hevcq("notify", "test").out


def test_what_was_given_up_is_reported_and_sent_again(hevcq, webhook, farm):
    assert hevcq("notify", "redrive").out == "mine: nothing was given up\n"
    opened = open_app(load().settings)
    log, (receiver,) = event_log(opened), receivers(opened.settings, opened.clock)
    reader = log.reader(receiver.identity)
    log.add(Happened("disk.low", opened.clock.now(), source="here", reason="Full."))
    seq = log.after(0, 9)[-1].seq
    lost = GivenUp(receiver.identity, reader.seq, seq, 1, opened.clock.now())
    log.give_up(replace(reader, seq=seq, problem="Gave up 1 message: no"), lost)
    opened.close()

    assert "1 message was given up: `hevcq notify redrive` sends" in hevcq("status").out
    assert json.loads(hevcq("status", "--json").out)["messages_given_up"] == 1
    assert "1 message was given up" in hevcq("doctor").out
    webhook.status = 500
    ran = hevcq("notify", "redrive", "mine")
    assert (ran.code, "it answered 500" in ran.out) == (ExitCode.SOME_FAILED, True)
    webhook.status = 204
    webhook.got.clear()
    assert hevcq("notify", "redrive").out == "mine: 1 sent\n"
    assert [told["type"] for told in webhook.reported] == ["disk.low"]
    assert "given up" not in hevcq("status").out
    assert hevcq("notify", "redrive", "yours").code == ExitCode.USAGE


def test_what_was_given_up_for_a_receiver_that_is_gone_is_dropped(hevcq, webhook, farm):
    opened = open_app(load().settings)
    log = event_log(opened)
    log.give_up(log.reader("former"), GivenUp("former", 0, 1, 1, opened.clock.now()))
    opened.close()
    assert hevcq("notify", "redrive").code == 0
    assert json.loads(hevcq("status", "--json").out)["messages_given_up"] == 0
