"""What a program in ffmpeg's place can still do: a hostile one tries, with rights and without."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hevcq.ffmpeg.process import sandbox

HOSTILE = Path(__file__).with_name("hostile.py")
CONFINED = """
import json, sys, threading
from hevcq.ffmpeg.process.child import run_child
from hevcq.ffmpeg.process.limits import ChildLimits
from hevcq.ffmpeg.process.sandbox import Access
from hevcq.util.processes import block_inspection
import os
block_inspection(os.environ)
told = json.loads(sys.argv[1])
relay = f"http://hevcq:word@127.0.0.1:{told['relay']}" if told["relayed"] else ""
access = Access(
    reads=(sys.prefix, sys.base_prefix, told["script"], told["video"]),
    writes=(told["output"],), relay=relay, confined=told["confined"],
)
told["parent"] = os.getpid()
done = run_child(
    [sys.executable, "-I", told["script"], json.dumps(told)],
    stop=threading.Event(), limits=ChildLimits(access=access),
)
assert done.returncode == 0, done
print(done.stdout.decode())
"""
HARMLESS = {"read its video", "write its output", "start a program"}
NO_RIGHTS = ("setpriv", "--inh-caps=-all", "--bounding-set=-all")
needs_landlock = pytest.mark.skipif(
    sandbox.landlock_version() < sandbox.SINCE_SCOPES,
    reason="this kernel's Landlock cannot do all of it",
)


@pytest.fixture
def told(tmp_path: Path) -> Iterator[dict[str, object]]:
    """Lay out a library with two videos, an output, a service, and two listening ports."""
    for name in ("video.mkv", "other.mkv", "output.mkv"):
        (tmp_path / name).write_bytes(b"content")
    with (
        socket.create_server(("127.0.0.1", 0)) as some,
        socket.create_server(("127.0.0.1", 0)) as relay,
        socket.socket(socket.AF_UNIX) as service,
    ):
        service.bind(str(tmp_path / "s"))
        service.listen()
        yield {
            "script": str(HOSTILE),
            "video": str(tmp_path / "video.mkv"),
            "other": str(tmp_path / "other.mkv"),
            "output": str(tmp_path / "output.mkv"),
            "service": str(tmp_path / "s"),
            "port": some.getsockname()[1],
            "relay": relay.getsockname()[1],
            "relayed": False,
            "confined": True,
        }


def tried(told: dict[str, object], *prefix: str) -> tuple[set[str], dict[str, str]]:
    """Let the hostile program try everything; return what it could do, and all its answers."""
    environment = {"PATH": os.environ["PATH"], "AWS_SECRET_ACCESS_KEY": "very-secret"}
    ran = subprocess.run(
        [*prefix, sys.executable, "-c", CONFINED, json.dumps(told)],
        env={**environment, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, str] = json.loads(ran.stdout)
    return {name for name, answer in found.items() if answer == "yes"}, found


def prefixes() -> list[tuple[str, ...]]:
    root = os.geteuid() == 0 and shutil.which("setpriv") is not None
    return [(), NO_RIGHTS] if root else [()]


@needs_landlock
@pytest.mark.parametrize("prefix", prefixes(), ids=lambda prefix: "no-rights" if prefix else "me")
def test_a_hostile_ffmpeg_reads_its_video_and_writes_its_output_and_that_is_all(told, prefix):
    could, found = tried(told, *prefix)

    assert could == HARMLESS, found
    assert "http_proxy" not in found["its environment"]
    assert Path(str(told["output"])).read_text() == "rendition"


@needs_landlock
def test_with_a_relay_it_may_connect_to_that_port_only(told):
    could, found = tried({**told, "relayed": True})

    assert could == {*HARMLESS, "connect to the relay"}, found
    assert "http_proxy" in found["its environment"]


@pytest.mark.skipif(
    not (os.geteuid() == 0 and shutil.which("setpriv")), reason="needs setpriv, and to be root"
)
def test_without_a_sandbox_the_parents_keys_are_still_closed_to_its_own_user(told):
    could, found = tried({**told, "confined": False}, *NO_RIGHTS)

    assert {"read another video", "create a file", "connect by TCP"} <= could, "as a control"
    for what in ("environment", "memory"):
        assert found[f"read the parent's {what}"] == "no: Permission denied"
    assert "trace the parent" not in could


def test_where_the_kernel_has_no_landlock_the_network_and_other_processes_stay_closed(
    told, monkeypatch, tmp_path
):
    if not sandbox.seccomp_available():
        pytest.skip("this system has no seccomp")
    old = "from hevcq.ffmpeg.process import sandbox; sandbox.landlock_version = lambda: 0\n"
    monkeypatch.setattr(sys.modules[__name__], "CONFINED", old + CONFINED)

    could, found = tried(told)

    assert {"read another video", "create a file"} <= could, "as a control"
    ways = {name for name in found if name.startswith(("connect", "send", "trace", "make a name"))}
    assert len(ways) == 7
    assert not could & ways, found


def test_where_the_system_has_neither_a_child_runs_and_the_doctor_says_so(told, monkeypatch):
    none = (
        "from hevcq.ffmpeg.process import sandbox\n"
        "sandbox.landlock_version = lambda: 0\nsandbox.seccomp_available = lambda: False\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "CONFINED", none + CONFINED)

    could, _ = tried(told)

    assert could >= HARMLESS
    monkeypatch.setattr(sandbox, "landlock_version", lambda: 0)
    monkeypatch.setattr(sandbox, "seccomp_available", lambda: False)
    kept, left_open = sandbox.protections()
    assert kept == []
    assert any("Landlock" in line for line in left_open)


@pytest.mark.parametrize("processor", sandbox.PROCESSORS.values(), ids=sandbox.PROCESSORS)
@pytest.mark.parametrize("ipv4", [False, True])
def test_the_filter_denies_by_number_and_lets_everything_else_pass(processor, ipv4):
    code = sandbox.build_filter(processor, ipv4=ipv4)

    def ask(number: int, first: int = 0, second: int = 0, arch: int | None = None) -> int:
        words = {0: number, 4: processor.architecture if arch is None else arch}
        return interpreted(code, {**words, 16: first, 24: second})

    assert ask(0) == ask(63) == sandbox.ALLOW
    assert ask(0, arch=0x4000_0003) == sandbox.DENY, "32-bit calls have other numbers"
    assert {ask(number) for number in processor.denied} == {sandbox.DENY}
    assert ask(425) == ask(438) == sandbox.DENY
    assert ask(436) == sandbox.ALLOW, "close_range"
    assert ask(sandbox.CLONE3) == sandbox.UNKNOWN_CALL
    assert ask(processor.clone, 0x003D_0F00) == sandbox.ALLOW, "a thread"
    assert ask(processor.clone, 0x1000_0000) == sandbox.DENY, "a namespace"
    assert ask(processor.socket, 2, 0x80001) == (sandbox.ALLOW if ipv4 else sandbox.DENY)
    for family, kind in ((2, 2), (2, 3), (10, 1), (1, 1), (16, 3)):
        assert ask(processor.socket, family, kind) == sandbox.DENY
    if processor is sandbox.PROCESSORS["x86_64"]:
        assert ask(0x4000_0000) == sandbox.DENY


def interpreted(code: bytes, seen: dict[int, int]) -> int:
    """Run a filter program over what it would see of a call; return its answer."""
    import struct

    at, value = 0, 0
    while True:
        kind, yes, no, constant = struct.unpack_from("HBBI", code, at * 8)
        at += 1
        if kind == sandbox.RETURN:
            return int(constant)
        if kind == sandbox.LOAD:
            value = seen[constant]
        elif kind == sandbox.AND:
            value &= constant
        else:
            met = {
                sandbox.JUMP_EQUAL: value == constant,
                sandbox.JUMP_FROM: value >= constant,
                sandbox.JUMP_SET: bool(value & constant),
            }[kind]
            at += yes if met else no


LOOK = """
import os
from hevcq.util.processes import block_inspection, is_inspection_blocked
before = is_inspection_blocked()
block_inspection(os.environ)
with open("/proc/self/fd/0"):
    pass
print(before, is_inspection_blocked(), os.environ["AWS_SECRET_ACCESS_KEY"], os.environ["LANG"])
print(os.getenv("AWS_SESSION_TOKEN") == "")
try:
    print(open("/proc/self/environ", "rb").read())
except PermissionError:
    print("closed even to itself")
"""


def test_what_the_kernel_shows_of_the_environment_holds_no_keys_and_the_process_still_has_them():
    source = str(Path(__file__).parents[3] / "src")
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
