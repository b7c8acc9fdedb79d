"""What systemd is told, over a real datagram socket."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

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


LOOK = """
import os
from hevcq.util.host import close_to_others, is_closed
before = is_closed()
close_to_others(os.environ)
with open("/proc/self/fd/0"):
    pass
print(before, is_closed(), os.environ["AWS_SECRET_ACCESS_KEY"], os.environ["LANG"])
print(os.getenv("AWS_SESSION_TOKEN") == "")
try:
    print(open("/proc/self/environ", "rb").read())
except PermissionError:
    print("closed even to itself")
"""


def test_what_the_kernel_shows_of_the_environment_holds_no_keys_and_the_process_still_has_them():
    source = str(Path(__file__).parents[2] / "src")
    keys = {"AWS_SECRET_ACCESS_KEY": "very-secret", "AWS_SESSION_TOKEN": "", "MY_TOKEN": "hidden"}
    for name in ("HEVCQ_NOTIFY", "HEVCQ_WEBHOOK", "HEVCQ_MEDIA_SERVER", "HEVCQ_WEB__SESSION_KEY"):
        keys[name] = f"hidden in {name}"

    ran = subprocess.run(
        [sys.executable, "-c", LOOK],
        env={**keys, "LANG": "C.UTF-8", "PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )

    told, empty, shown = ran.stdout.splitlines()
    assert told == "False True very-secret C.UTF-8"
    assert empty == "True"
    assert "very-secret" not in shown
    assert "hidden" not in shown
    assert "LANG=C.UTF-8" in shown or "closed" in shown
