"""Name the ffmpeg programs, and the options with which they open untrusted sources."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from hevcq.ffmpeg.process.limits import ChildLimits, Tail
from hevcq.ffmpeg.process.sandbox import Access
from hevcq.ports.store import PROXY_SCHEME, PROXY_USER
from hevcq.util.clock import Clock
from hevcq.util.text import printable

DEMUXERS = (
    # Video containers; no playlists, image sequences, texts or devices.
    "mov,matroska,mpegts,mpeg,avi,flv,asf,ogg,mxf,gxf,dv,rm,nut,ivf,wtv,yuv4mpegpipe,dhav,"
    # Bare video streams.
    "h264,hevc,m4v,mpegvideo,vc1,av1,obu,dirac,cavsvideo,"
    # Audio only: opened to report that there is no video.
    "mp3,aac,ac3,eac3,flac,wav,w64,aiff,caf,ape,wv,tta,tak,dts,dtshd,truehd,amr,au,mpc,mpc8"
)
"""ffmpeg's names of the demuxers that may read a source (`ffmpeg -demuxers`)."""
RELAY_TIMEOUT_US = "300000000"
"""Microseconds without a byte after which the local proxy is dead; it gives up on S3 before that."""
RELAY_BUFFER = "65536"
"""Receive buffer in bytes. Buffered data is fetched in vain when ffmpeg seeks or ends, and by default
the kernel lets the buffer grow to megabytes."""
PROBE_LIMITS = ChildLimits(nice=5, memory_mib=8192, output_bytes=0, cpu_s=120)
"""Limits of a child that only reads: it may not write any file."""
PROBE_DEADLINE_S = 120.0
FAR_BYTES, FAR_S = 256 << 20, 3 * 3600.0
"""Bytes and seconds into a recording in which a sound is looked for that it announces; usual are 5 MB and 5 s."""
NETWORK = ("[http", "[tcp")
"""Prefixes of the lines that ffmpeg's network protocols print."""


PREROLL_S = 10.0
"""Seconds by which to seek earlier in containers without an index, to pass a key frame on the way."""
FROM_START_S = 0.5
"""Seconds from the first picture below which a source is read from its start: FLV finds no key frame
there, because ffmpeg enters 0.13 s earlier where pictures are reordered."""
UNINDEXED = frozenset({"mpegts", "mpeg", "h264", "hevc", "mpegvideo", "m4v", "vc1"})
UNTIMED = frozenset({"avi", "h264", "hevc", "mpegvideo", "m4v", "vc1"})
"""Containers without presentation times: the times that ffmpeg derives depend on the decoder's delay."""


@dataclass(frozen=True, slots=True)
class FfmpegTools:
    """The ffmpeg and ffprobe programs (a name on the PATH, or a path), and a clock.

    `sandboxed` says whether they run in a sandbox (the setting `sandbox`), `metric` is an ffmpeg that
    measures VMAF, if the settings name one; `drivers` see `Access`.
    """

    ffmpeg: str
    ffprobe: str
    clock: Clock
    sandboxed: bool = True
    metric: str = ""
    drivers: tuple[tuple[str, str], ...] = ()


def is_url(location: str) -> bool:
    """Whether this process serves the location by its local proxy, which resumes broken reads by itself."""
    return location.startswith(PROXY_SCHEME)


def ffmpeg_url(location: str) -> str:
    """Return the URL to pass to ffmpeg, without its secret (see `access_to`)."""
    return location.removeprefix(PROXY_SCHEME.partition("http://")[0]).partition("?")[0]


def access_to(tools: FfmpegTools, *locations: str, writes: Iterable[Path] = ()) -> Access:
    """Return what a child needs that reads these locations and overwrites these existing files."""
    relay = ""
    for url in filter(is_url, locations):
        place = urlsplit(ffmpeg_url(url)).netloc
        relay = f"http://{PROXY_USER}:{url.partition('?')[2]}@{place}"
    return Access(
        reads=tuple(location for location in locations if not is_url(location)),
        writes=tuple(str(path) for path in writes),
        relay=relay,
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
    if is_url(location):
        bounds = ["-rw_timeout", RELAY_TIMEOUT_US, "-recv_buffer_size", RELAY_BUFFER]
        url = ffmpeg_url(location)
        return [*options, "-protocol_whitelist", "http,tcp", *bounds, "-i", url]
    return [*options, "-protocol_whitelist", "file", "-i", f"file:{location}"]


def looking_far(late_s: float) -> list[str]:
    """Return the options of an input that let ffmpeg look so many seconds into it for streams; 0: as usual."""
    if not late_s:
        return []
    return ["-analyzeduration", str(round((late_s + 2) * 1_000_000)), "-probesize", str(FAR_BYTES)]


def display_name(location: str) -> str:
    """Return a location for messages: printable, and without a URL's signature."""
    if is_url(location):
        # The address differs every time and means nothing to a reader.
        location = location.partition("?")[0].rpartition("/")[2]
    return printable(location)


def strip_name(lines: Iterable[str], location: str) -> str:
    """Return a program's lines, joined, without the name of the video.

    Many of ffmpeg's lines begin with the name, and a video may be called "No space left on device".
    """
    named = Tail()  # splits a name with line breaks as the program's output was split
    shown = display_name(location) if is_url(location) else f"file:{location}"
    named.feed(os.fsencode(shown))
    return "\n".join(lines).replace("\n".join(named.lines()), "")


FINE_TICK = "1:1000000"
"""Time base of pictures that are only decoded: frames of a coarser one would share a time, a line each."""


def seek_options(moment: float) -> list[str]:
    """Return the options that seek to the key frame at or before `moment`, in seconds.

    Adds half a millisecond, so that rounding a key frame's time does not lead to the one before.
    """
    if moment <= 0:
        return []
    return ["-noaccurate_seek", "-seek_timestamp", "1", "-ss", f"{moment + 0.0005:.6f}"]
