"""The asker of a process that stays: what it does with one that lies, is torn, hangs or is spent."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
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
OURS = {"version": "5.1.9", "configuration": "--enable-all"}
PROGRAM = "#!/bin/sh\n# libavformat.so.59 5.1.9 --enable-all\n"
PAIR = socket.socketpair
FRAMES = b'{"frames": []}'


def message(kind: bytes, body: bytes) -> bytes:
    return kind + len(body).to_bytes(4, "big") + body


class Played:
    """A child that sent what a test wants, and sent it before it is asked."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        program = folder / "ffprobe"
        program.write_text(PROGRAM)
        program.chmod(0o755)
        self.program, self.pid, self.ended = str(program), 0, 0
        self.introduced: object = OURS
        self.sent: list[tuple[bytes, bytes]] = []
        self.stop = threading.Event()
        self.pool = Demuxers(self.program, sandboxed=False)
        self.tools = FfmpegTools("ffmpeg", self.program, SystemClock())
        patch.setattr(inputs, "start_child", self.start)
        patch.setattr(inputs, "demuxers", lambda *_, **__: self.pool)
        patch.setattr(inputs, "usage", lambda _pid: Usage(0.0, 0.0))

    def start(self, _argv: object, _limits: object, _sink: object, stdin: int) -> Played:
        self.channel = socket.socket(fileno=os.dup(stdin))
        self.channel.sendall(message(b"A", json.dumps(self.introduced).encode()))
        self.channel.sendall(b"".join(message(*one) for one in self.sent))
        self.stop.set()
        return self

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


ANSWER = message(b"A", FRAMES)


def look(played: Played, stop: threading.Event | None = None, **options: Any) -> object:
    with Demuxed(played.tools, played.program, stop or threading.Event()) as file:
        return file.ask("look", LOOK, **options)


def test_one_is_heard_where_a_thousand_files_are_open(played, monkeypatch):
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 1200:
        pytest.skip("this user may not open 1,200 files (ulimit -n)")

    def far() -> tuple[socket.socket, socket.socket]:
        pair = PAIR()
        moved = tuple(socket.socket(fileno=fcntl.fcntl(one, fcntl.F_DUPFD, 1100)) for one in pair)
        for one in pair:
            one.close()
        return moved

    monkeypatch.setattr(socket, "socketpair", far)
    played.sent = [(b"A", FRAMES), (b"A", b"{}")]
    assert look(played) == {"frames": []}


@pytest.mark.parametrize(
    "sent",
    [
        b"", b"A\0", ANSWER[:-1], b"A\xff\xff\xff\xff" + ANSWER, message(b"L", b"x\n") + b"A",
        message(b"X", b"") + ANSWER,
        *(message(b"A", body) for body in (
            b"{}!", b"[]", b"[" * 65_536, b"{}", b'{"frames": {}}', b'{"frames": [1]}',
            b'{"packets": "1"}', b'{"frames": null}',
        )),
    ],
)  # fmt: skip
def test_a_lie_or_a_torn_answer_is_no_answer_and_the_liar_is_ended(played, sent):
    with Demuxed(played.tools, played.program, threading.Event()) as file:
        played.channel.sendall(sent)
        played.channel.shutdown(socket.SHUT_WR)
        assert [file.ask("look", LOOK) for _ in range(2)] == [None, None]
    assert (played.ended, played.pool._all) == (1, set())


@pytest.mark.parametrize("wrong", [0, 1])
def test_packets_that_do_not_add_up_are_void(played, wrong):
    heard: list[bytes] = []
    reader = SimpleNamespace(feed=heard.append, close=lambda: None)
    end = b'{"packets": %d}' % (3 + wrong)
    played.sent = [(b"L", b"0,1\n0,2\n"), (b"L", b"0,3\n"), (b"A", end), (b"A", b"{}")]
    question = {"stream": None, "named": "", "hashed": False}
    found = demux_packets(played.tools, played.program, question, reader, threading.Event())
    assert found is not bool(wrong)
    assert b"".join(heard) == b"0,1\n0,2\n0,3\n"


@pytest.mark.usefixtures("hours")
@pytest.mark.parametrize("sent", [message(b"A", FRAMES + b" " * 50), b""])
def test_one_that_speaks_byte_by_byte_or_not_at_all_is_ended_at_its_deadline(played, sent):
    with Demuxed(played.tools, played.program, threading.Event()) as file:
        (one,) = played.pool._all
        one.channel = Trickle(fileno=one.channel.detach())
        played.channel.sendall(sent)
        assert file.ask("look", LOOK, deadline_s=60 if sent else 1) is None
    assert not played.pool._all


def test_its_asker_is_heard_while_it_speaks(played):
    played.sent = [(b"A", FRAMES)]
    with pytest.raises(Unavailable):
        look(played, check=Mock(side_effect=Unavailable("silence")))
    assert not played.pool._all


@pytest.mark.usefixtures("hours")
@pytest.mark.parametrize("stops", [Stopped, None])
def test_one_that_does_not_let_a_file_go_is_ended(played, monkeypatch, stops):
    monkeypatch.setattr(inputs, "SERVED_DEADLINE_S", 2)
    stop, before = threading.Event(), len(os.listdir("/proc/self/fd"))
    played.sent = [(b"L", b""), (b"A", FRAMES)]
    with (
        pytest.raises(stops) if stops else nullcontext(),
        Demuxed(played.tools, played.program, stop) as file,
    ):
        assert file.ask("look", LOOK, deadline_s=60) == {"frames": []}
        if stops:
            stop.set()
    assert not played.pool._all
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("used", "stays"),
    [(Usage(1799.0, 511.0), 1), (Usage(1800.0, 1.0), 0), (Usage(1.0, 512.0), 0), (None, 0)],
)
def test_one_that_is_spent_is_followed_by_a_new_one(played, monkeypatch, used, stays):
    monkeypatch.setattr(inputs, "usage", lambda _pid: used)
    played.sent = [(b"A", FRAMES), (b"A", b"{}")]
    assert look(played) is not None
    assert len(played.pool._all) == stays


@pytest.mark.parametrize(
    ("introduced", "text", "why"),
    [
        ({**OURS, "version": "5.1.8"}, PROGRAM, "another build"),
        ({"version": "", "configuration": ""}, PROGRAM, "another build"),
        ({"version": "5.1.9"}, PROGRAM, "another build"), ({**OURS, "version": 5}, PROGRAM, "another build"),
        (OURS, "#!/bin/sh", "does not use"),
    ],
)  # fmt: skip
def test_another_ffprobe_than_the_libraries_is_started_itself(played, introduced, text, why):
    played.introduced = introduced
    Path(played.program).write_text(text)
    assert not played.pool.available(threading.Event())
    assert why in played.pool.why_not
    assert played.ended == (text == PROGRAM)


def test_a_stop_ends_one_that_only_begins(played):
    played.stop = stop = threading.Event()
    for _ in range(2):
        with pytest.raises(Stopped):
            played.pool.borrow(stop)
    assert played.ended == 1


def test_without_a_process_ffprobe_is_asked_and_the_reason_is_kept(played, monkeypatch):
    monkeypatch.setattr(inputs, "start_child", Mock(side_effect=WorkerUnfit("no python")))
    assert [played.pool.borrow(threading.Event()) for _ in range(2)] == [None, None]
    assert (played.pool.why_not, inputs.start_child.call_count) == ("no python", 1)


def test_what_is_no_plain_file_or_was_stopped_is_not_lent(tmp_path, played):
    stop, before = threading.Event(), len(os.listdir("/proc/self/fd"))
    for name in (tmp_path, tmp_path / "none", "a\0b", "http://127.0.0.1:9/x.mp4"):
        with Demuxed(played.tools, str(name), stop) as file:
            assert file.ask("look", LOOK) is None
    played.pool.give_back(Mock(), well=True)  # borrowed before a fork
    assert (played.pool._all, played.ended) == (set(), 0)
    stop.set()
    with pytest.raises(Stopped):
        Demuxed(played.tools, played.program, stop)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_proxys_password_goes_by_the_environment_only(played):
    access = inputs.access_to(played.tools, f"{PROXY_SCHEME}127.0.0.1:80/x.mkv?word", "/a.srt")
    assert access.relay == "http://hevcq:word@127.0.0.1:80"
    assert (access.reads, access.network) == (("/a.srt",), False)
    assert inputs.access_to(played.tools, "https://h/x.mkv").network
