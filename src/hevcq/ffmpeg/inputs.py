"""Name the ffmpeg programs, the options with which they open untrusted sources, and what versions differ in."""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from hevcq.domain.formats import HARDWARE
from hevcq.domain.media.facts import MediaInfo, Stream
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.errors import MediaRefused
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


KEYED = "compact=p=0:nk=0"
"""The writer of ffprobe that names each value: which values stand beside them differs by version."""
KEYED_BY_KIND = "compact=p=1:nk=0"
"""The same with the kind of each line (`packet`, `stream`) before its first `|`."""
SAME_RANGE = "setrange=full"
"""Call what was made of full range, and convert nothing.

Without it the full range of thumbnails would reach back through the splits to the pictures that are
encoded."""
CROPPING = "Frame Cropping"
"""The side data by which ffprobe says that the container crops, in the versions whose ffmpeg does so."""
UNOPENED_PLAYLIST = "Not detecting m3u8/hls"
"""What those versions say that open no playlist by another name, before anything is refused."""
REPEATING = frozenset({"theora"})
"""Codecs of which an empty packet repeats a picture."""
A53 = frozenset({"libx264", "libx265"})
"""The encoders that are told whether to write captions; a build whose libx265 cannot ignores it."""
DOLBY_OPTION = "-dolbyvision"
"""The option of encoders by which those versions write each picture's Dolby Vision metadata."""
UNCROPPED = ("-apply_cropping", "codec")
"""The option of those versions that lets pictures be decoded whole, as they are coded."""
_FIRST_INPUT = re.compile(r"\[in#0(?:/\S+)? @ ")


def keyed(line: str) -> dict[str, str]:
    """Return the values of a line of KEYED output by name; of a name that comes twice the first.

    What follows the values of a packet (its side data) has names of its own, and no name is asked for
    that both have.
    """
    found: dict[str, str] = {}
    for part in line.split("|"):
        name, equals, value = part.partition("=")
        if equals:
            found.setdefault(name, value)
    return found


def whole(text: str | None) -> int | None:
    """Return a whole number that ffprobe wrote, or None for `N/A` and what it left out."""
    try:
        return int(text or "")
    except ValueError:
        return None


def single(value: str) -> str:
    """Return a tag's value once where it is there twice: ffmpeg itself writes a MOV's time of creation so."""
    half, again = value[: len(value) // 2], value[len(value) // 2 + 1 :]
    return half if half and value == f"{half};{again}" and half == again else value


def about_input(line: str, location: str) -> bool:
    """Whether a line of ffmpeg is about the source, the first input of every command."""
    shown = f"file:{location}".encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return shown in line or _FIRST_INPUT.match(line) is not None


def component(name: str) -> str:
    """Return the demuxer, decoder or muxer that a line's brackets name, as version 5.1 calls it.

    Later ones put an input or stream before it, or what it does: `in#0/avi`, `dec:h264`.
    """
    return name.rpartition("/")[2].removeprefix("dec:")


def as_decoded(version: Callable[[], str], info: MediaInfo) -> MediaInfo:
    """Return facts that say of pictures whose aspect changes whether this build gives all of them one.

    `version` returns the first line of `ffmpeg -version`, and is asked only where an aspect changes;
    without a number the answer is that it may.
    """
    if not any(map(_aspect_changes, info.streams)):
        return info
    found = re.match(r"\S+ version n?(\d+)\.", version())
    one = {"one_aspect": found is None or int(found[1]) >= 7}
    streams = (
        s.model_copy(update={"video": s.video.model_copy(update=one)})
        if s.video is not None and _aspect_changes(s)
        else s
        for s in info.streams
    )
    return info.model_copy(update={"streams": tuple(streams)})


def _aspect_changes(stream: Stream) -> bool:
    shapes = stream.video.shapes if stream.video is not None else ()
    return len({shape.partition(" ")[2] for shape in shapes}) > 1


def as_written(ask: Callable[[str], str], info: MediaInfo) -> MediaInfo:
    """Return facts that say of Dolby Vision whether this build writes it; `ask` as in require_able."""
    writable = any(s.video is not None and s.video.dolby_writable for s in info.streams)
    if not writable or DOLBY_OPTION in ask("libx265"):
        return info
    streams = (
        s.model_copy(update={"video": s.video.model_copy(update={"dolby_writable": False})})
        if s.video is not None
        else s
        for s in info.streams
    )
    return info.model_copy(update={"streams": tuple(streams)})


def require_able(ask: Callable[[str], str], plan: EncodePlan) -> None:
    """Raise MediaRefused if a build's encoder lacks the bits or the Dolby Vision of the planned pictures.

    Of too few bits it would make all of them, of 8 bits, and only warn. `ask(encoder)` returns its help; an answer
    that names no formats settles nothing.
    """
    targets = [plan.video] if plan.ladder is None else [each.target for each in plan.ladder.rungs]
    for target in targets:
        if target.dolby_vision and DOLBY_OPTION not in ask(target.encoder):
            raise MediaRefused(
                f"It keeps Dolby Vision metadata, which {target.encoder} of this ffmpeg cannot write.",
                remedy="Install ffmpeg 7.1 or later, or set policies.dynamic_hdr to drop.",
            )
        if target.bit_depth > 8 and target.encoder not in HARDWARE:
            found = re.search(r"Supported pixel formats: (.*)", ask(target.encoder))
            if found is not None and target.pixel_format not in found[1].split():
                raise MediaRefused(
                    f"Its pictures have {target.bit_depth} bits, which {target.encoder} of this "
                    f"ffmpeg cannot write ({target.pixel_format}).",
                    remedy=f"Install an ffmpeg whose {target.encoder} can, or set HEVCQ_FFMPEG "
                    "to one.",
                )
