"""Name the ffmpeg programs, and the options with which they open untrusted sources."""

from __future__ import annotations

import atexit
import json
import os
import select
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from hevcq.errors import Stopped, WorkerUnfit
from hevcq.ffmpeg.process.child import TICK_S, ChildLimits, find_program, nowhere, start_child
from hevcq.ffmpeg.process.limits import MAX_STDOUT_BYTES, Tail, usage
from hevcq.ffmpeg.process.sandbox import Access
from hevcq.ports.store import PROXY_SCHEME, PROXY_USER
from hevcq.util.clock import Clock, SystemClock
from hevcq.util.log import get_logger
from hevcq.util.text import printable, reason_of

DEMUXERS = (
    # Video containers; no playlists, image sequences, texts or devices.
    "mov,matroska,mpegts,mpeg,avi,flv,asf,ogg,mxf,gxf,dv,rm,nut,ivf,wtv,yuv4mpegpipe,dhav,"
    # Bare video streams.
    "h264,hevc,m4v,mpegvideo,vc1,av1,obu,dirac,cavsvideo,"
    # Audio only: opened to report that there is no video.
    "mp3,aac,ac3,eac3,flac,wav,w64,aiff,caf,ape,wv,tta,tak,dts,dtshd,truehd,amr,au,mpc,mpc8"
)
"""ffmpeg's names of the demuxers that may read a source (`ffmpeg -demuxers`)."""
RW_TIMEOUT_US = 30_000_000
"""Microseconds without a byte after which a connection is dead; ffmpeg's default is to wait for ever."""
RELAY_TIMEOUT_US = 300_000_000
"""The same for the local proxy, which gives up on S3 before that."""
RELAY_BUFFER = "65536"
"""Receive buffer in bytes. Buffered data is fetched in vain when ffmpeg seeks or ends, and by default
the kernel lets the buffer grow to megabytes."""
PROBE_LIMITS = ChildLimits(nice=5, memory_mib=8192, output_bytes=0, cpu_s=120)
"""Limits of a child that only reads: it may not write any file."""
PROBE_DEADLINE_S = 120.0
FAR_BYTES, FAR_S = 256 << 20, 3 * 3600.0
"""Bytes and seconds into a recording in which a sound is looked for that it announces; usual are 5 MB and 5 s."""
NETWORK = ("[https", "[http", "[tcp", "[tls")
"""Prefixes of the lines that ffmpeg's network protocols print."""

_CLOCK = SystemClock()


@dataclass(frozen=True, slots=True)
class FfmpegTools:
    """The ffmpeg and ffprobe programs (a name on the PATH, or a path), and a clock.

    `sandboxed` says whether they run in a sandbox (the setting `sandbox`), `served` whether questions
    about files may go to a process that stays (see `Demuxers`) and not to an ffprobe of their own.
    """

    ffmpeg: str
    ffprobe: str
    clock: Clock
    sandboxed: bool = True
    served: bool = True


def is_url(location: str) -> bool:
    """Whether the location is fetched over HTTP rather than opened as a file."""
    return location.startswith(("https://", "http://", PROXY_SCHEME))


def is_local_proxy(location: str) -> bool:
    """Whether this process serves the location; its proxy resumes broken reads by itself."""
    return location.startswith(PROXY_SCHEME)


def ffmpeg_url(location: str) -> str:
    """Return the URL to pass to ffmpeg; of the local proxy without its secret (see `access_to`)."""
    url = location.removeprefix(PROXY_SCHEME.partition("http://")[0])
    return url.partition("?")[0] if is_local_proxy(location) else url


def access_to(tools: FfmpegTools, *locations: str, writes: Iterable[Path] = ()) -> Access:
    """Return what a child needs that reads these locations and overwrites these existing files."""
    urls = [location for location in locations if is_url(location)]
    relay = ""
    for url in filter(is_local_proxy, urls):
        place = urlsplit(ffmpeg_url(url)).netloc
        relay = f"http://{PROXY_USER}:{url.partition('?')[2]}@{place}"
    return Access(
        reads=tuple(location for location in locations if not is_url(location)),
        writes=tuple(str(path) for path in writes),
        relay=relay,
        network=any(not is_local_proxy(url) for url in urls),
        confined=tools.sandboxed,
    )


def reading(limits: ChildLimits, tools: FfmpegTools, *locations: str) -> ChildLimits:
    """Return the limits of a child that reads these locations and writes no file."""
    return replace(limits, access=access_to(tools, *locations))


def input_options(location: str) -> list[str]:
    """Return the options that open a source, up to and with `-i`.

    A file gets the prefix `file:`, so that no name can be an option, a protocol or a pattern. Only the
    protocols and containers that are needed are allowed, so that no file can make ffmpeg open
    another one.
    """
    options = ["-format_whitelist", DEMUXERS]
    if is_local_proxy(location):
        # The proxy may retry a read for longer than a dead connection is silent.
        bounds = ["-rw_timeout", str(RELAY_TIMEOUT_US), "-recv_buffer_size", RELAY_BUFFER]
        url = ffmpeg_url(location)
        return [*options, "-protocol_whitelist", "http,tcp", *bounds, "-i", url]
    if is_url(location):
        timeout = ["-rw_timeout", str(RW_TIMEOUT_US)]
        protocols = "https,tls,tcp" if location.startswith("https://") else "http,tcp"
        return [*options, "-protocol_whitelist", protocols, *timeout, "-i", location]
    return [*options, "-protocol_whitelist", "file", "-i", f"file:{location}"]


def looking_far(late_s: float) -> list[str]:
    """Return the options of an input that let ffmpeg look so many seconds into it for streams; 0: as usual."""
    if not late_s:
        return []
    return ["-analyzeduration", str(round((late_s + 2) * 1_000_000)), "-probesize", str(FAR_BYTES)]


def display_name(location: str) -> str:
    """Return a location for messages: printable, and without a URL's signature."""
    if is_local_proxy(location):
        # The address differs every time and means nothing to a reader.
        location = location.partition("?")[0].rpartition("/")[2]
    elif is_url(location):
        location = location.partition("?")[0]
    return printable(location)


def strip_name(lines: Iterable[str], location: str) -> str:
    """Return a program's lines, joined, without the name of the video.

    Many of ffmpeg's lines begin with the name, and a video may be called "No space left on device".
    """
    named = Tail()  # splits a name with line breaks as the program's output was split
    shown = display_name(location) if is_url(location) else f"file:{location}"
    named.feed(os.fsencode(shown))
    return "\n".join(lines).replace("\n".join(named.lines()), "")


BOOT = """
import sys, types
for name in "hevcq", "hevcq.ffmpeg", "hevcq.ffmpeg.probe":
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = sys.argv[1:]
from hevcq.ffmpeg.probe.demuxer import main
main()
"""
"""Runs `probe/demuxer.py` without the packages above it, of which the sandbox shows nothing."""
LIBRARY = b"libavformat.so.59"
"""The library whose structures `probe.libav` describes, as a program names it that uses it."""
SERVED_LIMITS = ChildLimits(nice=5, memory_mib=2048, output_bytes=0, cpu_s=7200)
SERVED_DEADLINE_S = 30.0
"""Seconds for an answer, after which ffprobe is asked, with a deadline of its own."""
START_S = 15.0
WAIT_S = 1.0
"""Seconds to wait for one that is busy, as with the sound of a long video."""
RETIRED_S, RETIRED_MIB = 1800.0, 512
"""CPU seconds, and memory it keeps, after which such a process is followed by a new one: what the
libraries leak would else come near its limit, where they may leave facts out."""


class Served:
    """A child that stays, and answers one question after another on a socket, its standard input.

    A message is its length in 4 bytes, the most significant first, and JSON; before the length of an
    answer stands `L` for lines that belong to it, or `A` for its end. Used by one thread at a time.
    """

    def __init__(self, argv: Sequence[str], limits: ChildLimits) -> None:
        """Start it. Raises WorkerUnfit if that is not possible."""
        self.channel, theirs = socket.socketpair()
        try:
            self._child = start_child(argv, limits, nowhere, theirs.fileno())
        except BaseException:
            self.channel.close()
            raise
        finally:
            theirs.close()

    def ask(
        self,
        question: Mapping[str, object] | None,
        descriptor: int | None = None,
        *,
        stop: threading.Event,
        deadline_s: float | None,
        on_lines: Callable[[bytes], None] = nowhere,
        check: Callable[[], None] | None = None,
    ) -> dict[str, Any] | None:
        """Send a question, or none, and return the answer; None if it is dead, or says what it should not.

        `descriptor` is lent to it. Raises Stopped, or what `on_lines` or `check` raises; it has to be
        ended after that, as after None.
        """
        until = None if deadline_s is None else _CLOCK.monotonic() + deadline_s
        try:
            if question is not None:
                message = json.dumps(question).encode()
                lent = [] if descriptor is None else [descriptor]
                socket.send_fds(self.channel, [len(message).to_bytes(4, "big") + message], lent)
            while True:
                head = self._receive(5, stop, until, check)
                body = self._receive(int.from_bytes(head[1:], "big"), stop, until, check)
                if head[:1] == b"A":
                    answer = json.loads(body)
                    return answer if isinstance(answer, dict) else None
                if head[:1] != b"L":
                    return None
                on_lines(body)
        except (OSError, EOFError, ValueError, RecursionError):
            return None

    def _receive(
        self,
        size: int,
        stop: threading.Event,
        until: float | None,
        check: Callable[[], None] | None,
    ) -> bytes:
        if size > MAX_STDOUT_BYTES:
            raise EOFError
        data = bytearray()
        # select.select takes no descriptor above 1,023, as a farm's page may have.
        spoken = select.poll()
        spoken.register(self.channel, select.POLLIN)
        while len(data) < size:
            says = spoken.poll(TICK_S * 1000)
            # Also of one that never falls silent: it could speak for ever, byte by byte.
            if stop.is_set():
                raise Stopped
            if until is not None and _CLOCK.monotonic() >= until:
                raise EOFError
            if check is not None:
                check()
            if says:
                piece = self.channel.recv(size - len(data))
                if not piece:
                    raise EOFError
                data += piece
        return bytes(data)

    def is_spent(self) -> bool:
        """Whether it has used so much CPU, or keeps so much memory, that a new one shall follow."""
        used = usage(self._child.pid)
        return used is None or used.cpu_s >= RETIRED_S or used.resident_mib >= RETIRED_MIB

    def end(self) -> None:
        """End it, whatever it does."""
        self.channel.close()
        try:
            self._child.end_group()
        finally:
            self._child.close()

    def forget(self) -> None:
        """Leave it to the process that forked this one."""
        self.channel.close()
        self._child.forget()


class Demuxers:
    """The processes that stay and answer questions about files; at most one for each processor.

    They load the libraries that ffprobe would load each time (see `probe.demuxer`). One is used by one
    asker at a time, ends with this process, by itself when it is not asked any more, and at once when
    it does not answer as it should.
    """

    def __init__(self, ffprobe: str, *, sandboxed: bool) -> None:
        """Start none yet. They must be of the very build of `ffprobe`."""
        self._ffprobe, self._sandboxed = ffprobe, sandboxed
        self.why_not = ""
        self._most = len(os.sched_getaffinity(0))
        self._forget()
        os.register_at_fork(after_in_child=self._forget)
        atexit.register(self.close)

    def _forget(self) -> None:
        for served in getattr(self, "_all", ()):
            served.forget()
        self._free: list[Served] = []
        self._all: set[Served] = set()
        self._starting = 0
        self._changed = threading.Condition()

    def close(self) -> None:
        """End those that nobody uses."""
        with self._changed:
            ended, self._free = self._free, []
            self._all.difference_update(ended)
        for served in ended:
            served.end()

    def available(self, stop: threading.Event) -> bool:
        """Whether there is one; `why_not` is the reason why there is none."""
        served = self.borrow(stop)
        if served is not None:
            self.give_back(served, well=True)
        return not self.why_not

    def borrow(self, stop: threading.Event) -> Served | None:
        """Return one to ask, for this thread only; None if ffprobe has to be asked. Raises Stopped."""
        until = _CLOCK.monotonic() + WAIT_S
        with self._changed:
            while True:
                if stop.is_set():
                    raise Stopped
                if self._free or self.why_not or len(self._all) + self._starting < self._most:
                    break
                if _CLOCK.monotonic() >= until:
                    return None
                self._changed.wait(TICK_S)
            if self.why_not:
                return None
            if self._free:
                return self._free.pop()
            self._starting += 1
        served = None
        try:
            served = self._started(stop)
        finally:
            with self._changed:
                self._starting -= 1
                if served is not None:
                    self._all.add(served)
                self._changed.notify()
        return served

    def give_back(self, served: Served, *, well: bool) -> None:
        """Take one back; end it unless it is well."""
        with self._changed:
            if served not in self._all:
                return  # borrowed before a fork
            if well:
                self._free.append(served)
            else:
                self._all.discard(served)
            self._changed.notify()
        if not well:
            served.end()

    def _started(self, stop: threading.Event) -> Served | None:
        home = str(Path(__file__).parent / "probe")
        access = Access(reads=(home,), confined=self._sandboxed)
        argv = [os.path.realpath(sys.executable), "-I", "-S", "-c", BOOT, home]
        try:
            program = Path(find_program(self._ffprobe)).read_bytes()
            if LIBRARY not in program:
                raise WorkerUnfit(f"{self._ffprobe} does not use {LIBRARY.decode()}")
            served = Served(argv, replace(SERVED_LIMITS, access=access))
        except (OSError, WorkerUnfit) as error:
            self.why_not = reason_of(error)
            return None
        try:
            self.why_not = _unlike(program, served.ask(None, stop=stop, deadline_s=START_S))
        except BaseException:
            served.end()
            raise
        if self.why_not:
            served.end()
            return None
        return served


def _unlike(program: bytes, answer: Mapping[str, object] | None) -> str:
    """Return why the libraries are not those that ffprobe loads, or ""."""
    if answer is None:
        return "ffprobe's libraries cannot be loaded by themselves"
    told = [answer.get(what) for what in ("version", "configuration")]
    if all(isinstance(one, str) and one and os.fsencode(one) in program for one in told):
        return ""
    return "ffprobe is of another build than the system's libraries"


@cache
def demuxers(ffprobe: str, *, sandboxed: bool) -> Demuxers:
    """Return the processes of this process that answer in this program's place."""
    return Demuxers(ffprobe, sandboxed=sandboxed)


class Demuxed:
    """A file that is open in one of the `Demuxers` as long as this lasts, to be asked about."""

    def __init__(self, tools: FfmpegTools, location: str, stop: threading.Event) -> None:
        """Open the file here, so that all answers are of the same one. Raises Stopped."""
        self._stop, self._name = stop, os.fsencode(f"file:{location}").hex()
        self._served: Served | None = None
        self._well, self._open, self._over = True, False, False
        may = tools.served and not is_url(location)
        self._descriptor = _opened(location) if may else None
        if self._descriptor is None:
            return
        self._pool = demuxers(tools.ffprobe, sandboxed=tools.sandboxed)
        try:
            self._served = self._pool.borrow(stop)
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._open and self._well:
                self._put({"ask": "close"}, SERVED_DEADLINE_S)
        finally:
            if self._descriptor is not None:
                os.close(self._descriptor)
            if self._served is not None:
                well = self._well and not self._served.is_spent()
                self._pool.give_back(self._served, well=well)

    def ask(
        self,
        ask: str,
        question: Mapping[str, object],
        *,
        deadline_s: float | None = SERVED_DEADLINE_S,
        on_lines: Callable[[bytes], None] = nowhere,
        check: Callable[[], None] | None = None,
    ) -> dict[str, Any] | None:
        """Return the answer; None if ffprobe has to be asked this, and whatever else of the file.

        Raises Stopped, and what `on_lines` or `check` raises.
        """
        if self._served is None or self._over:
            return None
        whole = {"ask": ask, **question}
        if not self._open:
            whole |= {"name": self._name, "formats": DEMUXERS}
        answer = self._put(whole, deadline_s, on_lines, check)
        self._over = answer is None or "unsure" in answer
        return None if self._over else answer

    def _put(
        self,
        question: Mapping[str, object],
        deadline_s: float | None,
        on_lines: Callable[[bytes], None] = nowhere,
        check: Callable[[], None] | None = None,
    ) -> dict[str, Any] | None:
        assert self._served is not None
        lent, self._open, self._well = None if self._open else self._descriptor, True, False
        answer = self._served.ask(
            question, lent, stop=self._stop, deadline_s=deadline_s, on_lines=on_lines, check=check
        )
        self._well = answer is not None and _is_answer(str(question["ask"]), answer)
        if not self._well:
            get_logger().warning("demuxer_lost", question=question["ask"])
            return None
        return answer


def _is_answer(ask: str, answer: Mapping[str, object]) -> bool:
    """Whether it holds what the reader of the answer takes for granted."""
    if "unsure" in answer or ask == "close":
        return True
    if ask in {"sound", "packets"}:
        return isinstance(answer.get("packets"), int)
    frames = answer.get("frames")
    return isinstance(frames, list) and all(isinstance(frame, dict) for frame in frames)


def _opened(location: str) -> int | None:
    try:
        descriptor = os.open(location, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError):
        return None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None
