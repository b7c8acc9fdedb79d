"""What systemd is told, over a real datagram socket."""

import os
import socket
import tempfile
from collections.abc import Iterator

import pytest

from hevcq.util.signals import Notifier, notifier_of
from support.clips import ManualClock


@pytest.fixture(params=["file", "abstract"])
def listening(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, str]]:
    with (
        tempfile.TemporaryDirectory() as folder,  # the path of a socket must be short
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard,
    ):
        name = f"@hevcq-test-{os.getpid()}"
        address = f"{folder}/notify" if request.param == "file" else name
        heard.bind(address if request.param == "file" else f"\0{name[1:]}")
        heard.setblocking(False)
        yield heard, address


def reported(heard: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(heard.recv(4096).decode())
        except BlockingIOError:
            return found


def test_each_state_is_one_datagram(listening):
    heard, address = listening
    tell = Notifier(address, 0.0, ManualClock())

    tell.ready()
    tell.status("two\nlines")
    tell.status("two\nlines")
    tell.reloading()
    tell.alive()
    tell.stopping()

    assert reported(heard) == [
        "READY=1",
        "STATUS=two lines",
        "RELOADING=1\nMONOTONIC_USEC=1000000000",
        "STOPPING=1",
    ]


def test_signs_of_life_come_three_times_in_the_interval_and_not_more_often(listening):
    heard, address = listening
    clock = ManualClock()
    tell = Notifier(address, 30.0, clock)

    for _ in range(60):
        tell.alive()
        clock.advance(1)

    assert reported(heard) == ["WATCHDOG=1"] * 6


def test_the_environment_says_where_and_how_often(listening):
    heard, address = listening
    clock = ManualClock()
    given = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "7"}

    notifier_of(given, 7, clock).alive()
    assert reported(heard) == ["WATCHDOG=1"]
    notifier_of(given, 8, clock).alive()
    notifier_of({**given, "WATCHDOG_USEC": "often"}, 7, clock).alive()
    assert reported(heard) == []


def test_without_systemd_nothing_is_sent_and_nothing_fails(tmp_path):
    notifier_of({}, 1, ManualClock()).ready()
    Notifier(str(tmp_path / "nobody"), 1.0, ManualClock()).ready()
