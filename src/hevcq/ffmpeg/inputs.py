"""The ffmpeg programs, the options that open untrusted sources, and the differences between versions."""

import math
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
    # Video containers, without playlists, image sequences, texts and devices.
    "mov,matroska,mpegts,mpeg,avi,flv,asf,ogg,mxf,gxf,dv,rm,nut,ivf,wtv,yuv4mpegpipe,dhav,"
    # Bare video streams.
    "h264,hevc,m4v,mpegvideo,vc1,av1,obu,dirac,cavsvideo,"
    # Audio only, so that the message can say that there is no video.
    "mp3,aac,ac3,eac3,flac,wav,w64,aiff,caf,ape,wv,tta,tak,dts,dtshd,truehd,amr,au,mpc,mpc8"
)
"""Demuxers that may read a source, by ffmpeg's names (`ffmpeg -demuxers`)."""
RELAY_TIMEOUT_US = "300000000"
"""Microseconds without a byte after which the local proxy counts as dead. The proxy gives up on S3 earlier."""
RELAY_BUFFER = "65536"
"""Receive buffer in bytes. Its content is wasted when ffmpeg seeks or ends, and by default the kernel lets
it grow to megabytes."""
PROBE_LIMITS = ChildLimits(nice=5, memory_mib=8192, output_bytes=0, cpu_s=120)
"""Limits of a child that reads and may not write any file."""
PROBE_DEADLINE_S = 120.0
LATE_PROBE_BYTES, LATE_PROBE_S = 256 << 20, 3 * 3600.0
"""How many bytes and seconds ffmpeg reads of a recording to find an announced sound. Its defaults are 5 MB and 5 s."""
NETWORK_PREFIXES = ("[http", "[tcp")
"""Prefixes of the lines that ffmpeg's network protocols print."""
PREROLL_S = 10.0
"""Seconds by which to seek earlier in a container without an index, so that a key frame comes before the target."""
FROM_START_S = 0.5
"""Up to this many seconds from the first picture a source is read from its start instead of by seeking.

With reordered pictures ffmpeg seeks 0.13 s earlier, and FLV has no key frame before its first picture."""
UNINDEXED_FORMATS = frozenset({"mpegts", "mpeg", "h264", "hevc", "mpegvideo", "m4v", "vc1"})
FORMATS_WITHOUT_PTS = frozenset({"avi", "h264", "hevc", "mpegvideo", "m4v", "vc1"})
"""Containers without presentation timestamps. ffmpeg derives them, and they depend on the decoder's delay."""


@dataclass(frozen=True, slots=True)
class FfmpegTools:
    """The ffmpeg and ffprobe programs, each a name on the PATH or a path, and a clock.

    `sandboxed` is the setting of that name. `metric` is an ffmpeg that measures VMAF, "" if the settings
    name none. For `drivers` see `Access`.
    """

    ffmpeg: str
    ffprobe: str
    clock: Clock
    sandboxed: bool = True
    metric: str = ""
    drivers: tuple[tuple[str, str], ...] = ()


def is_url(location: str) -> bool:
    """Whether this process serves the location by its local proxy, which resumes broken reads."""
    return location.startswith(PROXY_SCHEME)


def ffmpeg_url(location: str) -> str:
    """Return the URL to pass to ffmpeg, without its secret (see `access_to`)."""
    return location.removeprefix(PROXY_SCHEME.partition("http://")[0]).partition("?")[0]


def access_to(tools: FfmpegTools, *locations: str, writes: Iterable[Path] = ()) -> Access:
    """Return the access of a child that reads these locations and overwrites these existing files."""
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


def with_read_access(limits: ChildLimits, tools: FfmpegTools, *locations: str) -> ChildLimits:
    """Return the limits with access to read these locations and to write no file."""
    return replace(limits, access=access_to(tools, *locations))


def input_options(location: str) -> list[str]:
    """Return the options that open a source, `-i` included.

    The prefix `file:` keeps ffmpeg from reading a name as an option, a protocol or a pattern. Only the needed
    protocols and containers are allowed, so that no file can make ffmpeg open another one.
    """
    options = ["-format_whitelist", DEMUXERS]
    if is_url(location):
        bounds = ["-rw_timeout", RELAY_TIMEOUT_US, "-recv_buffer_size", RELAY_BUFFER]
        url = ffmpeg_url(location)
        return [*options, "-protocol_whitelist", "http,tcp", *bounds, "-i", url]
    return [*options, "-protocol_whitelist", "file", "-i", f"file:{location}"]


def late_stream_options(late_s: float) -> list[str]:
    """Return the input options that find streams which begin `late_s` seconds in; 0 means the defaults."""
    if not late_s:
        return []
    return [
        "-analyzeduration",
        str(round((late_s + 2) * 1_000_000)),
        "-probesize",
        str(LATE_PROBE_BYTES),
    ]


def display_name(location: str) -> str:
    """Return a location for messages: printable, and without a URL's signature."""
    if is_url(location):
        # The proxy's address differs every time and means nothing to a person.
        location = location.partition("?")[0].rpartition("/")[2]
    return printable(location)


def strip_name(lines: Iterable[str], location: str) -> str:
    """Join a program's lines and remove the video's name, which may be "No space left on device"."""
    named = Tail()  # splits a name with line breaks as it split the program's output
    shown = display_name(location) if is_url(location) else f"file:{location}"
    named.feed(os.fsencode(shown))
    return "\n".join(lines).replace("\n".join(named.lines()), "")


FINE_TICK = "1:1000000"
"""Time base for decoding only. In a coarser one frames share a timestamp, and ffmpeg warns of each."""


def seek_options(moment: float) -> list[str]:
    """Return the options that seek to the key frame at or before `moment`, in seconds.

    Half a millisecond is added, so that a key frame's rounded time does not lead to the one before it.
    """
    if moment <= 0:
        return []
    return ["-noaccurate_seek", "-seek_timestamp", "1", "-ss", f"{moment + 0.0005:.6f}"]


KEYED = "compact=p=0:nk=0"
"""ffprobe's writer that names each value, because versions print different values in a line."""
KEYED_BY_KIND = "compact=p=1:nk=0"
"""The same writer with the kind of each line (`packet`, `stream`) before its first `|`."""
SAME_RANGE = "setrange=full"
"""Marks pictures as full range without converting them.

Otherwise ffmpeg would carry the full range of the thumbnails back through the split to the encoded pictures."""
CROP_SIDE_DATA = "Frame Cropping"
"""ffprobe's side data for cropping by the container, in versions whose ffmpeg applies it."""
UNOPENED_PLAYLIST = "Not detecting m3u8/hls"
"""Printed by versions that refuse a playlist with another file extension, before the whitelist is checked."""
REPEATING_CODECS = frozenset({"theora"})
"""Codecs in which an empty packet repeats the picture before it."""
CAPTION_ENCODERS = frozenset({"libx264", "libx265"})
"""Encoders with an option for captions. A build whose libx265 cannot write them ignores it."""
DOLBY_OPTION = "-dolbyvision"
"""The encoders' option to write each picture's Dolby Vision metadata, where the version has it."""
DECODE_UNCROPPED = ("-apply_cropping", "codec")
"""The input option that ignores cropping by the container, where the version has it."""
_FIRST_INPUT = re.compile(r"\[in#0(?:/\S+)? @ ")


def parse_fields(line: str) -> dict[str, str]:
    """Return the values of a line of KEYED output by name; the first value of a repeated name counts.

    The side data of a packet follows its own values.
    """
    fields: dict[str, str] = {}
    for part in line.split("|"):
        name, equals, value = part.partition("=")
        if equals:
            fields.setdefault(name, value)
    return fields


def int_or_none(value: object) -> int | None:
    """Return an integer of ffprobe's output, or None for `N/A` and a value that it left out."""
    try:
        return int(str(value))
    except ValueError:
        return None


def float_or_none(value: object) -> float | None:
    """Return a number of ffprobe's output, or None for `N/A`, infinity and a value that it left out."""
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def is_about_input(line: str, location: str) -> bool:
    """Whether a line of ffmpeg is about the source, the first input of every command."""
    shown = f"file:{location}".encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return shown in line or _FIRST_INPUT.match(line) is not None


def component(name: str) -> str:
    """Return the demuxer, decoder or muxer in a line's brackets, by its name in version 5.1.

    Later versions print the input, stream or role before it: `in#0/avi`, `dec:h264`.
    """
    return name.rpartition("/")[2].removeprefix("dec:")


def with_aspect_support(version: Callable[[], str], info: MediaInfo) -> MediaInfo:
    """Set `one_aspect` of each video with changing aspects: whether this build gives all pictures one aspect.

    ffmpeg does so from 7 on, and an unknown version may. `version` returns the first line of
    `ffmpeg -version`; it is called only if an aspect changes.
    """
    if not any(map(_has_changing_aspect, info.streams)):
        return info
    number = re.match(r"\S+ version n?(\d+)\.", version())
    facts = {"one_aspect": number is None or int(number[1]) >= 7}
    streams = (
        s.model_copy(update={"video": s.video.model_copy(update=facts)})
        if s.video is not None and _has_changing_aspect(s)
        else s
        for s in info.streams
    )
    return info.model_copy(update={"streams": tuple(streams)})


def _has_changing_aspect(stream: Stream) -> bool:
    shapes = stream.video.shapes if stream.video is not None else ()
    return len({shape.partition(" ")[2] for shape in shapes}) > 1


def with_dolby_support(ask: Callable[[str], str], info: MediaInfo) -> MediaInfo:
    """Clear `dolby_writable` if this build cannot write Dolby Vision; for `ask` see require_encoder_support."""
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


def require_encoder_support(ask: Callable[[str], str], plan: EncodePlan) -> None:
    """Raise MediaRefused if a build's encoder cannot write the planned bit depth or Dolby Vision.

    Such an encoder would write 8 bits and only warn. `ask(encoder)` returns the encoder's help; a help without
    pixel formats refuses nothing.
    """
    targets = [plan.video] if plan.ladder is None else [each.target for each in plan.ladder.rungs]
    for target in targets:
        if target.dolby_vision and DOLBY_OPTION not in ask(target.encoder):
            raise MediaRefused(
                f"It keeps Dolby Vision metadata, which {target.encoder} of this ffmpeg cannot write.",
                remedy="Install ffmpeg 7.1 or later, or set policies.dynamic_hdr to drop.",
            )
        if target.bit_depth > 8 and target.encoder not in HARDWARE:
            formats = re.search(r"Supported pixel formats: (.*)", ask(target.encoder))
            if formats is not None and target.pixel_format not in formats[1].split():
                raise MediaRefused(
                    f"Its pictures have {target.bit_depth} bits, which {target.encoder} of this "
                    f"ffmpeg cannot write ({target.pixel_format}).",
                    remedy=f"Install an ffmpeg whose {target.encoder} can, or set HEVCQ_FFMPEG "
                    "to one.",
                )
