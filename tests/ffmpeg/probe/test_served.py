"""The asker of a process that stays: what it does with one that lies, is torn, hangs or is spent."""

from __future__ import annotations

import itertools
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from hevcq.errors import Stopped, Unavailable, WorkerUnfit
from hevcq.ffmpeg import inputs
from hevcq.ffmpeg.inputs import Demuxed, Demuxers, FfmpegTools
from hevcq.ffmpeg.inspect.measure import demux_packets
from hevcq.ffmpeg.process.limits import Usage
from hevcq.ports.store import PROXY_SCHEME
from hevcq.util.clock import SystemClock

LOOK = {"packets": 1}


def message(kind: bytes, body: bytes) -> bytes:
    return kind + len(body).to_bytes(4, "big") + body


class Played:
    """A child that sent what a test wants, and sent it before it is asked."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        program = folder / "ffprobe"
        program.write_text("#!/bin/sh\n# libavformat.so.59 5.1.9 --enable-all\n")
        program.chmod(0o755)
        self.program, self.pid, self.ended = str(program), 0, 0
        self.introduced: object = {"version": "5.1.9", "configuration": "--enable-all"}
        self.first = lambda: None
        self.pool = Demuxers(self.program, sandboxed=False)
        self.tools = FfmpegTools("ffmpeg", self.program, SystemClock())
        patch.setattr(inputs, "start_child", self.start)
        patch.setattr(inputs, "demuxers", lambda *_, **__: self.pool)
        patch.setattr(inputs, "usage", lambda _pid: Usage(0.0, 0.0))

    def start(self, _argv: object, _limits: object, _sink: object, stdin: int) -> Played:
        self.channel = socket.socket(fileno=os.dup(stdin))
        self.sends(b"A", self.introduced)
        self.first()
        return self

    def sends(self, kind: bytes, content: object) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.channel.sendall(message(kind, body))

    def end_group(self) -> None:
        self.ended += 1
        self.channel.close()

    def close(self) -> None:
        """Nothing was opened."""


@pytest.fixture
def played(tmp_path, monkeypatch) -> Iterator[Played]:
    made = Played(tmp_path, monkeypatch)
    yield made
    made.pool.close()


@pytest.fixture
def hours(monkeypatch) -> None:
    """A clock on which a second passes with each look."""
    ticks = itertools.count().__next__
    monkeypatch.setattr(inputs, "_CLOCK", SimpleNamespace(monotonic=ticks))


class Trickle(socket.socket):
    def recv(self, _size: int, *_: int) -> bytes:
        return super().recv(1)


ANSWER = message(b"A", b'{"frames": []}')


@pytest.mark.parametrize(
    "sent",
    [
        b"", b"A\0", ANSWER[:-1], b"A\xff\xff\xff\xff" + ANSWER, message(b"L", b"x\n") + b"A",
        message(b"X", b"") + ANSWER, message(b"A", b"{}!"), message(b"A", b"[]"), message(b"A", b"[" * 65_536),
        message(b"A", b"{}"), message(b"A", b'{"frames": {}}'), message(b"A", b'{"frames": [1]}'),
        message(b"A", b'{"packets": "1"}'), message(b"A", b'{"frames": null}'),
    ],
)  # fmt: skip
def test_a_lie_or_a_torn_answer_is_no_answer_and_the_liar_is_ended(tmp_path, played, sent):
    with Demuxed(played.tools, played.program, threading.Event()) as file:
        played.channel.sendall(sent)
        played.channel.shutdown(socket.SHUT_WR)
        assert file.ask("look", LOOK) is None
        assert file.ask("look", LOOK) is None
    assert played.ended == 1
    assert not played.pool._all


@pytest.mark.parametrize("wrong", [0, 1])
def test_packets_that_do_not_add_up_are_void(played, wrong):
    heard: list[bytes] = []
    reader = SimpleNamespace(feed=heard.append, close=lambda: None)
    played.first = lambda: [
        played.sends(kind, content)
        for kind, content in (
            (b"L", b"0,1\n0,2\n"), (b"L", b"0,3\n"), (b"A", {"packets": 3 + wrong}), (b"A", {})
        )
    ]  # fmt: skip
    question = {"stream": None, "named": "", "hashed": False}
    found = demux_packets(played.tools, played.program, question, reader, threading.Event())
    assert found is not bool(wrong)
    assert b"".join(heard) == b"0,1\n0,2\n0,3\n"


@pytest.mark.usefixtures("hours")
@pytest.mark.parametrize("sent", [message(b"A", b'{"frames": []}' + b" " * 50), b""])
def test_one_that_speaks_byte_by_byte_or_not_at_all_is_ended_at_its_deadline(played, sent):
    with Demuxed(played.tools, played.program, threading.Event()) as file:
        (one,) = played.pool._all
        one.channel = Trickle(fileno=one.channel.detach())
        played.channel.sendall(sent)
        assert file.ask("look", LOOK, deadline_s=60 if sent else 1) is None
    assert not played.pool._all


def test_its_asker_is_heard_while_it_speaks(played):
    def check() -> None:
        raise Unavailable("silence")

    with Demuxed(played.tools, played.program, threading.Event()) as file:
        played.sends(b"A", {"frames": []})
        with pytest.raises(Unavailable):
            file.ask("look", LOOK, check=check)
    assert not played.pool._all


@pytest.mark.usefixtures("hours")
@pytest.mark.parametrize("stopped", [True, False])
def test_one_that_does_not_let_a_file_go_is_ended(played, monkeypatch, stopped):
    monkeypatch.setattr(inputs, "SERVED_DEADLINE_S", 2)
    stop, before = threading.Event(), len(os.listdir("/proc/self/fd"))

    def look() -> None:
        with Demuxed(played.tools, played.program, stop) as file:
            played.sends(b"A", {"frames": []})
            assert file.ask("look", LOOK, deadline_s=60) == {"frames": []}
            if stopped:
                stop.set()

    if stopped:
        with pytest.raises(Stopped):
            look()
    else:
        look()
    assert not played.pool._all
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("used", "stays"),
    [
        (Usage(1799.0, 511.0), True), (Usage(1800.0, 1.0), False), (Usage(1.0, 512.0), False),
        (None, False),
    ],
)  # fmt: skip
def test_one_that_is_spent_is_followed_by_a_new_one(played, monkeypatch, used, stays):
    monkeypatch.setattr(inputs, "usage", lambda pid: used)
    with Demuxed(played.tools, played.program, threading.Event()) as file:
        played.sends(b"A", {"frames": []})
        played.sends(b"A", {})
        assert file.ask("look", LOOK) is not None
    assert len(played.pool._all) == stays


@pytest.mark.parametrize(
    "introduced",
    [{"version": "5.1.8", "configuration": "--enable-all"}, {"version": "", "configuration": ""},
     {"version": "5.1.9"}, {"version": 5, "configuration": "--enable-all"}],
)  # fmt: skip
def test_libraries_of_another_build_are_not_asked(played, introduced):
    played.introduced = introduced
    assert not played.pool.available(threading.Event())
    assert "another build" in played.pool.why_not
    assert played.ended == 1


def test_a_stop_ends_one_that_only_begins(played):
    stop = threading.Event()
    played.first = stop.set
    with pytest.raises(Stopped):
        played.pool.borrow(stop)
    with pytest.raises(Stopped):
        played.pool.borrow(stop)
    assert played.ended == 1


def test_without_a_process_ffprobe_is_asked_and_the_reason_is_kept(played, monkeypatch):
    def refuse(*_: object) -> None:
        raise WorkerUnfit("python cannot be started")

    monkeypatch.setattr(inputs, "start_child", refuse)
    assert played.pool.borrow(threading.Event()) is None
    assert played.pool.why_not == "python cannot be started"
    assert played.pool.borrow(threading.Event()) is None


def test_what_is_no_plain_file_or_was_stopped_is_not_lent(tmp_path, played):
    stop, before = threading.Event(), len(os.listdir("/proc/self/fd"))
    for name in (tmp_path, tmp_path / "none", "a\0b", "http://127.0.0.1:9/x.mp4"):
        with Demuxed(played.tools, str(name), stop) as file:
            assert file.ask("look", LOOK) is None
    played.pool.give_back(Mock(), well=True)  # borrowed before a fork
    assert not played.pool._all
    stop.set()
    with pytest.raises(Stopped):
        Demuxed(played.tools, played.program, stop)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_proxys_password_goes_by_the_environment_only(played):
    access = inputs.access_to(played.tools, f"{PROXY_SCHEME}127.0.0.1:80/x.mkv?word", "/a.srt")
    assert access.relay == "http://hevcq:word@127.0.0.1:80"
    assert (access.reads, access.network) == (("/a.srt",), False)
    assert inputs.access_to(played.tools, "https://h/x.mkv").network
