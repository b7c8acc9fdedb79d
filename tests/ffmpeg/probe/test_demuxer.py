"""The process that answers in ffprobe's place: the same facts, or ffprobe itself; never another file's."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from ffmpeg.verify.conftest import ffmpeg
from hevcq.domain.media.facts import MediaInfo, StreamKind
from hevcq.errors import SourceUnreadable
from hevcq.ffmpeg import inputs
from hevcq.ffmpeg.inputs import Demuxed, Demuxers, FfmpegTools
from hevcq.ffmpeg.inspect.frame_times import frame_times
from hevcq.ffmpeg.inspect.measure import measure
from hevcq.ffmpeg.probe import demuxer
from hevcq.ffmpeg.probe.probe import PROBE_PACKETS, probe
from hevcq.ffmpeg.process import sandbox
from hevcq.util.clock import SystemClock
from support.clips import MEDIA, make_clip

FFPROBE = FfmpegTools("ffmpeg", "ffprobe", SystemClock(), served=False)
SERVED = FfmpegTools("ffmpeg", "ffprobe", SystemClock())
FORKED = FfmpegTools("ffmpeg", "ffprobe", SystemClock(), sandboxed=False)
"""By a fork of the tests, which `make coverage` sees; see `forked`."""
LOOK = {"packets": PROBE_PACKETS}
SMALL = 60_000
"""Bytes: what is smaller is compared by make test, the rest by make long."""


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Demuxers]:
    """One of the test's own, which may be broken."""
    made = Demuxers("ffprobe", sandboxed=True)
    monkeypatch.setattr(inputs, "demuxers", lambda *_, **__: made)
    yield made
    made.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each question was answered."""
    seen: list[bool] = []
    real = Demuxed.ask

    def ask(self, *rest, **options):
        answer = real(self, *rest, **options)
        seen.append(answer is not None)
        return answer

    monkeypatch.setattr(Demuxed, "ask", ask)
    return seen


def fork(idle_s: float = demuxer.IDLE_S) -> SimpleNamespace:
    """Fork what the child runs, before it could inherit the asker's end; `start` is as `start_child`."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            _, (channel,), *_ = socket.recv_fds(theirs, 1, 1)
            os.dup2(channel, 0)
            os.closerange(channel, channel + 1)
            demuxer.IDLE_S, demuxer.SENT_BYTES = idle_s, 1000
            demuxer.main()
            status = 0
        finally:
            os._exit(status)
    theirs.close()

    def start(_argv: object, _limits: object, _sink: object, stdin: int) -> SimpleNamespace:
        socket.send_fds(ours, [b"x"], [stdin])
        ours.close()
        return child

    child = SimpleNamespace(pid=pid, status=None, close=lambda: None, start=start)
    child.end_group = lambda: setattr(child, "status", os.waitpid(pid, 0)[1])
    return child


@pytest.fixture(scope="module")
def forked() -> Iterator[None]:
    """Let a fork of the tests answer FORKED: there the libraries run under coverage as well."""
    pool = inputs.demuxers("ffprobe", sandboxed=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "start_child", fork().start)
        assert pool.available(threading.Event()), pool.why_not
    yield
    pool.close()


def reported(tools: FfmpegTools, path: Path) -> MediaInfo | str:
    try:
        return probe(tools, str(path), threading.Event())
    except SourceUnreadable as error:
        return str(error)


def alike(path: Path) -> None:
    """Compare facts, packets and frame times."""
    info = reported(FFPROBE, path)
    if isinstance(info, str):
        assert reported(SERVED, path) == info
        return
    stop = threading.Event()
    other = measure(FFPROBE, str(path), info, stop)
    videos = [stream.index for stream in info.of_kind(StreamKind.VIDEO)]
    other_times = [frame_times(FFPROBE, str(path), video, stop)[0] for video in videos]
    for tools in (SERVED, FORKED):
        assert reported(tools, path) == info
        one = measure(tools, str(path), info, stop)
        assert one.tracks == other.tracks
        assert len(one.errors) == len(other.errors)  # which name addresses in memory
        assert [frame_times(tools, str(path), video, stop)[0] for video in videos] == other_times


def pid_of(pool: Demuxers) -> int:
    (one,) = pool._all
    return one._child.pid


def samples() -> list[object]:
    names = sorted(MEDIA.iterdir()) if MEDIA.is_dir() else []
    return [
        pytest.param(path, marks=[pytest.mark.slow] if path.stat().st_size > SMALL else [])
        for path in names
        if path.suffix != ".md"
    ]


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("path", samples(), ids=lambda path: path.name)
def test_the_facts_of_a_sample_are_those_of_ffprobe(path):
    alike(path)


XVID = {"codec": "mpeg4", "extra": ("-vtag", "XVID", "-bf", "2")}
MPEG2 = {"codec": "mpeg2video", "extra": ("-c:a", "mp2")}
LATER = {"seconds": 3}
TAGGED = ("-metadata", "title=Zürich \U0001f600\nand\ton", "-metadata:s:a", "language=deu")
MASTER = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
HDR = ("-x265-params", f"log-level=none:hdr10=1:max-cll=1000,400:master-display={MASTER}")
COLOURS = (
    "-colorspace", "bt709", "-color_trc", "bt709", "-color_primaries", "bt709", "-color_range", "tv",
)  # fmt: skip


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"extra": TAGGED, **LATER}),
        ("a.mov", {"extra": (*COLOURS, "-c:a", "pcm_s16le")}),
        ("b.mov", {"codec": "prores_ks", "pixel_format": "yuv422p10le"}),
        ("a.mkv", {"codec": "libx265", "pixel_format": "yuv420p10le", "extra": TAGGED, **LATER}),
        ("b.mkv", {"extra": ("-c:a", "flac", "-aspect", "16:9", "-disposition:a", "forced")}),
        ("a.webm", {"codec": "libvpx", "extra": ("-c:a", "libopus", "-deadline", "realtime")}),
        ("a.avi", {**XVID, **LATER}),
        ("a.ts", LATER),
        ("b.ts", {"codec": "mpeg2video"}),
        ("a.mpg", {**MPEG2, **LATER}),
        ("c.mkv", {"codec": "libx265", "pixel_format": "yuv420p10le", "extra": HDR}),
        ("c.mp4", {"codec": "libx265", "pixel_format": "yuv420p10le", "extra": (*HDR, *COLOURS)}),
        ("a.flv", {}),
        ("a.wmv", {"codec": "wmv2", "extra": ("-c:a", "wmav2")}),
    ],
)
def test_the_facts_of_each_container_are_those_of_ffprobe(tmp_path, asked, name, options):
    clip = make_clip(tmp_path, name=name, **options)
    alike(clip)
    assert any(asked), "it was ffprobe that answered"


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(
    "options",
    [
        {"extra": ("-metadata", "title=\ufffe")},
        {"codec": "libvpx-vp9", "extra": ("-row-mt", "1", "-deadline", "realtime")},
        {"codec": "ffv1", "pixel_format": "gray16le"},
        {"codec": "utvideo", "pixel_format": "yuv422p", "extra": ("-live", "1")},
        {"extra": ("-attach", __file__, "-metadata:s:t", "mimetype=font/ttf")},
    ],
)
def test_the_facts_of_odd_files_are_those_of_ffprobe(tmp_path, options):
    alike(make_clip(tmp_path, name="odd.mkv", **options))


@pytest.mark.usefixtures("forked")
def test_the_facts_of_chapters_and_broken_tags_are_those_of_ffprobe(tmp_path):
    clip = make_clip(tmp_path, name="clip.mkv", extra=("-metadata", "title=XXXXYYYY"))
    (tmp_path / "chapters").write_text(";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/10\nSTART=1\nEND=5\n")
    chapters = tmp_path / "chapters.mkv"
    ffmpeg("-i", clip, "-i", tmp_path / "chapters", "-map_chapters", "1", "-c", "copy", chapters)
    alike(chapters)
    clip.write_bytes(clip.read_bytes().replace(b"XXXXYYYY", b"a\xff\xfe\x80bcde"))
    alike(clip)


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("tools", [SERVED, FORKED], ids=["child", "fork"])
def test_damaged_sound_is_left_to_ffmpeg(tmp_path, tools):
    clip = make_clip(tmp_path, name="clip.mp4", extra=("-movflags", "+faststart"))
    packets = subprocess.run(
        ["ffprobe", "-v", "error", "-select_streams", "a", "-show_entries", "packet=pos", "-of",
         "csv=p=0", clip], capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    whole = clip.read_bytes()
    with Demuxed(tools, str(clip), threading.Event()) as file:
        assert file.ask("sound", {}) == {"packets": len(packets)}
    at = int(packets[9].strip(","))
    clip.write_bytes(whole[:at] + b"\xff" * 60 + whole[at + 60 :])
    with Demuxed(tools, str(clip), threading.Event()) as file:
        assert file.ask("sound", {}) is None


def test_a_busy_one_is_not_waited_for(tmp_path, pool, monkeypatch):
    clip = make_clip(tmp_path, name="clip.mp4")
    monkeypatch.setattr(inputs, "WAIT_S", 0.0)
    pool._most = 1
    with Demuxed(SERVED, str(clip), threading.Event()):
        assert reported(SERVED, clip) == reported(FFPROBE, clip)
    assert pid_of(pool)


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("name", ["clip.nut", "damaged.mp4"])
def test_what_was_not_compared_or_a_library_complains_of_is_left_to_ffprobe(tmp_path, asked, name):
    clip = make_clip(tmp_path, name=name)
    whole = clip.read_bytes()
    if name == "damaged.mp4":
        at = whole.index(b"mdat") + 5_000
        clip.write_bytes(whole[:at] + bytes(400) + whole[at + 400 :])
    facts = reported(FFPROBE, clip)
    assert [reported(tools, clip) for tools in (SERVED, FORKED)] == [facts] * 2
    assert len(asked) > 2
    assert not any(asked)


@pytest.mark.usefixtures("forked")
def test_a_file_is_opened_again_where_that_is_asked_and_never_guessed(tmp_path):
    clip = make_clip(tmp_path, name="clip.mp4")
    packets, lines = {"stream": 5, "named": "", "hashed": False}, list[bytes]()
    frames = {"stream": 0, "places": [[None, 1000]], "nokey": False, "again": True}
    with Demuxed(FORKED, str(clip), threading.Event()) as file:
        answer = file.ask("packets", {**packets, "stream": None}, on_lines=lines.append)
        assert answer["packets"] == b"".join(lines).count(b"\n") > 1
        first = file.ask("frames", frames)
        assert len(first["frames"]) == 1
        assert first == file.ask("frames", frames)
        assert file.ask("packets", packets) == {"packets": 0}
        file._put({"ask": "close"}, None)
        assert file.ask("packets", packets) is None


@pytest.mark.parametrize("name", ["two\nlines.mp4", os.fsdecode(b"\xff\xfe odd.mp4"), "-i %d.mp4"])
def test_any_name_is_asked_about(tmp_path, asked, name):
    clip = make_clip(tmp_path, name="clip.mp4").rename(tmp_path / name)
    assert reported(SERVED, clip) == reported(FFPROBE, clip)
    assert asked[0]


def test_all_answers_are_of_the_file_that_was_opened(tmp_path):
    clip = make_clip(tmp_path, name="clip.mp4", seconds=2)
    other = make_clip(tmp_path, name="other.mp4", size="64x64")
    with Demuxed(SERVED, str(clip), threading.Event()) as file:
        before = file.ask("look", LOOK)
        other.replace(clip)
        question = {"stream": 0, "places": [[1_000_000, 8]], "nokey": True, "again": False}
        later = file.ask("frames", question)
    assert before is not None
    assert later is not None
    assert {frame["width"] for frame in (*before["frames"], *later["frames"])} == {160}
    assert reported(SERVED, clip).streams[0].video.width == 64


def test_a_file_that_shrinks_is_left_to_ffprobe(tmp_path):
    clip = make_clip(tmp_path, name="clip.ts", seconds=3)
    with Demuxed(SERVED, str(clip), threading.Event()) as file:
        assert file.ask("look", LOOK) is not None
        os.truncate(clip, 1000)
    assert reported(SERVED, clip) == reported(FFPROBE, clip)


def test_one_that_dies_is_followed_by_ffprobe_and_then_by_another(tmp_path, pool):
    clip = make_clip(tmp_path, name="clip.mp4")
    with Demuxed(SERVED, str(clip), threading.Event()) as file:
        first = pid_of(pool)
        os.kill(first, signal.SIGKILL)
        assert file.ask("look", LOOK) is None
        assert file.ask("look", LOOK) is None
    assert not pool._all
    assert reported(SERVED, clip) == reported(FFPROBE, clip)
    assert pid_of(pool) != first


def test_one_that_nobody_asks_ends_by_itself(monkeypatch):
    child = fork(idle_s=0.0)
    monkeypatch.setattr(inputs, "start_child", child.start)
    served = inputs.Served([], inputs.SERVED_LIMITS)
    introduced = served.ask(None, stop=threading.Event(), deadline_s=60)
    child.end_group()
    served.channel.close()
    assert introduced["version"]
    assert child.status == 0


def test_without_enough_memory_ffprobe_is_asked(tmp_path, pool, monkeypatch):
    clip = make_clip(tmp_path, name="clip.mp4")
    monkeypatch.setattr(inputs, "SERVED_LIMITS", inputs.ChildLimits(memory_mib=64))
    assert reported(SERVED, clip) == reported(FFPROBE, clip)
    assert pool.why_not


def test_many_files_are_asked_about_at_once(tmp_path, pool):
    clip = make_clip(tmp_path, name="clip.mp4", size="64x64", audio=False)
    for number in range(300):
        os.link(clip, tmp_path / f"{number}.mp4")
    before = reported(SERVED, clip)
    with ThreadPoolExecutor(4) as askers:
        found = list(askers.map(lambda n: reported(SERVED, tmp_path / f"{n}.mp4"), range(300)))
    assert all(info == before for info in found)
    assert 0 < len(pool._all) <= len(os.sched_getaffinity(0))


def test_a_fork_starts_its_own(tmp_path, pool):
    clip = make_clip(tmp_path, name="clip.mp4")
    facts, first = reported(SERVED, clip), pid_of(pool)
    child = os.fork()
    if not child:
        status = 1
        try:
            status = 0 if reported(SERVED, clip) == facts and pid_of(pool) != first else 2
            pool.close()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert reported(SERVED, clip) == facts
    assert pid_of(pool) == first


HOSTILE = """
import json, os, resource, socket
def may(attempt, *arguments):
    try:
        attempt(*arguments)
    except OSError:
        return False
    return True
while resource.getrlimit(resource.RLIMIT_NOFILE)[0] != 256:
    pass  # limits are set from outside
kinds = resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE
found = {
    "may": [may(open, VIDEO), may(open, VIDEO + ".new", "wb"), may(os.listdir, "/"),
            may(socket.socket), may(socket.socket, socket.AF_UNIX)],
    "descriptors": [number for number in range(256) if may(os.fstat, number)],
    "limits": [resource.getrlimit(kind)[1] for kind in kinds], "variables": sorted({*os.environ} - {"PWD"}),
    "privileges": open("/proc/self/status").read().partition("NoNewPrivs:")[2].split()[0],
}
body = json.dumps(found).encode()
os.write(0, b"A" + len(body).to_bytes(4, "big") + body)
"""


@pytest.mark.skipif(
    not (sandbox.landlock_version() and sandbox.seccomp_available()),
    reason="this kernel has no Landlock or no seccomp",
)
def test_one_that_a_video_took_over_has_only_what_it_was_lent(tmp_path, pool, monkeypatch):
    video = tmp_path / "video.mkv"
    video.write_bytes(b"x")
    video.chmod(0o666)
    took_over = Mock(return_value="it was taken over")
    monkeypatch.setattr(inputs, "_unlike", took_over)
    monkeypatch.setattr(inputs, "BOOT", HOSTILE.replace("VIDEO", repr(str(video))))
    with video.open("rb") as kept:
        os.set_inheritable(kept.fileno(), True)
        assert not pool.available(threading.Event())
    assert took_over.call_args.args[1] == {
        "may": [False] * 5, "descriptors": [0, 1, 2], "limits": [2048 << 20, 0, 0],
        "variables": ["HOME", "LANG", "PATH", "SVT_LOG"], "privileges": "1",
    }  # fmt: skip


ASKING = """
import os, sys, threading
from hevcq.ffmpeg import inputs
pool = inputs.demuxers("ffprobe", sandboxed=True)
assert pool.available(threading.Event()), pool.why_not
(one,) = pool._all
print(one._child.pid, flush=True)
if sys.argv[1] == "kill":
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("how", ["kill", "exit"])
def test_it_ends_with_the_process_that_asks(how):
    asking = subprocess.Popen([sys.executable, "-c", ASKING, how], stdout=subprocess.PIPE)
    assert asking.stdout is not None
    served = int(asking.stdout.readline())
    try:
        watched = os.pidfd_open(served)
    except ProcessLookupError:
        watched = -1
    asking.wait(30)
    asking.stdout.close()
    if watched >= 0:
        ended = select.poll()
        ended.register(watched, select.POLLIN)
        assert ended.poll(30_000), "it outlived the asker"
        os.close(watched)
