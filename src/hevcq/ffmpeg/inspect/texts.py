"""Read what lists and players show of a video: one picture, a sample, chapters, and text.

Text is in subtitle tracks, and in closed captions inside the picture (CEA-608 in A/53 user data). ffmpeg finds
captions while it decodes pictures. Its filter `movie` passes them on with their pictures' times, and its decoder
turns one field into text: CC1 in the first, CC3 in the second. ffmpeg does not decode CEA-708; broadcasters send
the same text as CEA-608 beside it.
"""

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from hevcq.domain.certificate import Sidecar
from hevcq.domain.formats import bcp47
from hevcq.domain.media.facts import Chapter, MediaInfo, StreamKind
from hevcq.domain.planning.streams import sidecar_marks
from hevcq.errors import (
    LimitExceeded,
    MediaRefused,
    SourceUnreadable,
    TransientError,
    Unavailable,
)
from hevcq.ffmpeg.inputs import (
    NETWORK_PREFIXES,
    PROBE_LIMITS,
    RELAY_TIMEOUT_US,
    FfmpegTools,
    access_to,
    display_name,
    ffmpeg_url,
    input_options,
    is_url,
    with_read_access,
)
from hevcq.ffmpeg.inspect.measure import LIMITS
from hevcq.ffmpeg.probe.probe import probe
from hevcq.ffmpeg.process.child import Finished, run_child
from hevcq.ports.encoder import EncodeRequest, TextTrack, VerifyRequest

FIELDS = {"CC1": "first", "CC3": "second"}
LATE_S = 0.02
"""Seconds by which a cue may miss its time: containers round, and no video frame is so short."""
REMEDY = "set policies.closed_captions to drop to encode without them"
_TIME = r"(?:(\d+):)?(\d\d):(\d\d)[.,](\d{3})"
_CUE = re.compile(rf"^{_TIME} --> {_TIME}.*\n(?=.*\S)", re.MULTILINE)
_MARK = re.compile(r"</?[biu]>|[&<>]")
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
PICTURE_SUBTITLES = frozenset(
    {"hdmv_pgs_subtitle", "dvd_subtitle", "dvb_subtitle", "xsub", "unknown"}
)
"""Subtitles that are pictures: a browser shows text only."""
MAX_TRACKS = 40
MAX_CHARACTERS = 4 << 20
"""Largest text of a track; a day of speech is less than half of it."""
DEADLINE_S = 120.0
CUE = "-->"
TIMES_S = (5.0, 0.0)
"""Where to take a still. Videos often begin black; one that is shorter gives its first picture."""
STILL_S = 30.0
JPEG, JPEG_END = b"\xff\xd8", b"\xff\xd9"
"""The marks around a JPEG. In its data 0xff is followed by 0 or by a restart mark."""
MAX_STILL_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class CaptionedVideo:
    """A video with captions: its file, and the index of its stream."""

    location: str
    info: MediaInfo
    index: int


def find_caption_channels(
    tools: FfmpegTools, video: CaptionedVideo, stop: threading.Event
) -> tuple[str, ...]:
    """Return the channels with text. Raises MediaRefused if only CEA-708 has text."""
    channels = tuple(name for name in FIELDS if CUE in _caption_text(tools, video, name, stop))
    if not channels and _has_cea708_text(tools, video, stop):
        raise MediaRefused(
            f"{display_name(video.location)}: its closed captions are in CEA-708 only, of which no text "
            f"can be made; {REMEDY} (policies.closed_captions)."
        )
    return channels


def _caption_text(
    tools: FfmpegTools, video: CaptionedVideo, channel: str, stop: threading.Event
) -> str:
    """Return the text of a channel as WebVTT, with times from the source's start."""
    output = ["-copyts", "-output_ts_offset", f"{-(video.info.start_s or 0.0):.6f}"]
    output += ["-c:s", "webvtt", "-f", "webvtt", "-"]
    done = _read_captions(tools, video, ["-data_field", FIELDS[channel]], output, stop)
    return done.stdout.decode("utf-8", "replace")


def _has_cea708_text(tools: FfmpegTools, video: CaptionedVideo, stop: threading.Event) -> bool:
    """Whether a CEA-708 packet has a block of text: three bytes with marks, packet header and block header."""
    data = _read_captions(tools, video, [], ["-c", "copy", "-f", "data", "-"], stop).stdout
    marks, blocks = data[::3], data[2::3]
    return any(
        mark & 7 == 7 and block >> 5 and block & 31
        for mark, block in zip(marks, blocks, strict=False)
    )


def _read_captions(
    tools: FfmpegTools,
    video: CaptionedVideo,
    decoder: Sequence[str],
    output: Sequence[str],
    stop: threading.Event,
) -> Finished:
    """Decode a video for its captions.

    Raises SourceUnreadable, Unavailable if the network failed, and what `run_child` raises.
    """
    argv = [tools.ffmpeg, "-nostdin", "-v", "error", *decoder]
    argv += ["-f", "lavfi", "-i", _caption_graph(video)]
    limits = with_read_access(LIMITS, tools, video.location)
    done = run_child([*argv, "-map", "0:s", *output], stop=stop, limits=limits)
    name = display_name(video.location)
    if is_url(video.location) and any(line.startswith(NETWORK_PREFIXES) for line in done.stderr):
        # The filter takes a lost connection for the end of the video.
        raise Unavailable(f"{name} could not be read to its end for its captions.")
    if done.returncode != 0:
        raise SourceUnreadable(f"The captions of {name} cannot be read.")
    return done


def _caption_graph(video: CaptionedVideo) -> str:
    """Return the filter that opens the source with the probed demuxer only."""
    form, options = video.info.format_name, {"protocol_whitelist": "file"}
    name = f"file:{video.location}"
    if is_url(video.location):
        name = ffmpeg_url(video.location)
        options = {"protocol_whitelist": "http,tcp", "rw_timeout": RELAY_TIMEOUT_US}
    options["format_whitelist"] = form
    arguments = {
        "filename": name,
        "format_name": form.partition(",")[0],
        "stream_index": str(video.index),
        "format_opts": ":".join(f"{key}={value}" for key, value in options.items()),
    }
    words = ":".join(f"{key}={_escape_option(value)}" for key, value in arguments.items())
    return f"movie={words}[out0+subcc]"


def _escape_option(text: str) -> str:
    """Escape a value for a filter's options, then for the graph (ffmpeg-filters, "Notes on escaping")."""
    for special in ("\\':\t\n ", "\\'[],;\t\n "):
        text = "".join(f"\\{letter}" if letter in special else letter for letter in text)
    return text


@contextlib.contextmanager
def extracted_captions(
    tools: FfmpegTools, request: EncodeRequest, stop: threading.Event
) -> Iterator[list[Path]]:
    """Write a WebVTT file of each planned channel beside the output; remove the files at the end.

    Raises MediaRefused if a channel has no text.
    """
    paths = list[Path]()
    video = CaptionedVideo(request.location, request.info, request.plan.main_video.source_index)
    try:
        for name in request.plan.captions:
            text = _caption_text(tools, video, name, stop)
            if CUE not in text:
                raise MediaRefused(
                    f"{display_name(request.location)}: no text could be made of its closed captions "
                    f"({name}); {REMEDY} (policies.closed_captions)."
                )
            paths.append(request.output.with_name(f"{request.output.name}.{name}.vtt"))
            paths[-1].write_text(_escape_webvtt(text), encoding="utf-8")
        yield paths
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def _escape_webvtt(text: str) -> str:
    """Escape `&`, `<` and `>` in the cues' text, which ffmpeg writes as they are."""
    lines = (
        line if CUE in line else _MARK.sub(lambda mark: _ESCAPES.get(mark[0], mark[0]), line)
        for line in text.split("\n")
    )
    return "\n".join(lines)


def caption_problems(
    tools: FfmpegTools,
    video: CaptionedVideo,
    path: str,
    tracks: Mapping[str, int],
    shift_s: float,
    stop: threading.Event,
) -> Iterator[str]:
    """Compare number and times of the cues of a file's text tracks with the source's captions.

    `tracks` are the tracks' stream indexes by channel. `shift_s` is by how many seconds the file's picture is
    later than the source's, each counted from its file's start.
    """
    for name, stream in tracks.items():
        expected = _cue_starts(_caption_text(tools, video, name, stop))
        actual = _cue_starts(_track_text(tools, path, stream, stop))
        problem = _cue_difference(expected, actual, shift_s)
        if problem:
            yield f"captions {name}: {problem}"


def _track_text(tools: FfmpegTools, location: str, stream: int, stop: threading.Event) -> str:
    argv = [tools.ffmpeg, "-nostdin", "-v", "error", "-copyts", *input_options(location)]
    argv += ["-map", f"0:{stream}", "-c:s", "webvtt", "-f", "webvtt", "-"]
    limits = with_read_access(PROBE_LIMITS, tools, location)
    done = run_child(argv, stop=stop, limits=limits, deadline_s=DEADLINE_S)
    if done.returncode != 0:
        raise SourceUnreadable(f"The text of {display_name(location)} cannot be read.")
    return done.stdout.decode("utf-8", "replace")


def _cue_difference(expected: list[float], actual: list[float], shift_s: float) -> str:
    """Return how number, order or times of cues differ, as a clause, or ""."""
    if len(actual) != len(expected) or not actual:
        return f"{len(actual)} captions of {len(expected)}"
    if actual != sorted(actual):
        return "its captions are not in order"
    delays = (own - begin - shift_s for begin, own in zip(expected, actual, strict=True))
    worst = max(delays, key=abs)
    return f"its captions are {worst:+.3f} s off the source's" if abs(worst) > LATE_S else ""


def _cue_starts(text: str) -> list[float]:
    return [start for start, _ in _cue_spans(text)]


def _cue_spans(text: str) -> list[tuple[float, float]]:
    """Return start and end of the cues of WebVTT or SubRip, in seconds."""

    def seconds(hours: str, minutes: str, whole: str, thousandths: str) -> float:
        return int(hours or 0) * 3600 + int(minutes) * 60 + int(whole) + int(thousandths) / 1000

    return [(seconds(*fields[:4]), seconds(*fields[4:])) for fields in _CUE.findall(text)]


def read_sidecars(
    tools: FfmpegTools, request: EncodeRequest, stop: threading.Event
) -> tuple[Sidecar, ...]:
    """Return the source's text tracks with cues, as SubRip with the rendition's times.

    Raises MediaRefused if they cannot be read as text.
    """
    shift = ("-output_ts_offset", f"{-request.info.origin_s(request.plan.mapped):.6f}")
    texts = _sidecar_texts(tools, request, "srt", shift, stop)
    return tuple(
        Sidecar(marks=marks, cues=len(cues), text=text)
        for marks, text in texts.items()
        if (cues := _cue_spans(text))
    )


def sidecar_problems(
    tools: FfmpegTools, request: VerifyRequest, stop: threading.Event
) -> Iterator[str]:
    """Compare number and times of the cues of files beside a rendition with the source's tracks."""
    origin_s = request.info.origin_s(request.plan.mapped)
    sidecars = {each.marks: _cue_spans(each.text) for each in request.plan.sidecars}
    for marks, text in _sidecar_texts(tools, request, "webvtt", (), stop).items():
        cues = _cue_spans(text), sidecars.get(marks, [])
        for side in (0, 1) if any(cues) else ():
            expected, actual = (sorted(span[side] for span in spans) for spans in cues)
            if problem := _cue_difference(expected, actual, -origin_s):
                yield f"{marks or 'no language'}: {problem}"


def _sidecar_texts(
    tools: FfmpegTools,
    request: EncodeRequest | VerifyRequest,
    form: str,
    options: Sequence[str],
    stop: threading.Event,
) -> dict[str, str]:
    """Read the texts for files beside the rendition, by the marks in the files' names, in one pass over the source."""
    marks = sidecar_marks(request.profile, request.info)
    files = {n: request.output.with_name(f"{request.output.name}.{n}.{form}") for n in marks}
    if not files:
        return {}
    argv = [tools.ffmpeg, "-nostdin", "-v", "error", "-y", "-copyts"]
    argv += input_options(request.location)
    for stream, path in files.items():
        argv += ["-map", f"0:{stream}", *options, "-c:s", form, "-f", form, f"file:{path}"]
    access = access_to(tools, request.location, writes=files.values())
    limits = replace(LIMITS, output_bytes=MAX_CHARACTERS, access=access)
    try:
        for path in files.values():
            path.touch()
        done = run_child(argv, stop=stop, limits=limits, deadline_s=request.max_seconds)
        if done.returncode != 0:
            raise MediaRefused(
                f"{display_name(request.location)}: its subtitles cannot be read as text; set "
                "subtitles.beside to false to encode it without files of them."
            )
        return {marks[n]: path.read_text("utf-8", "replace") for n, path in files.items()}
    finally:
        for path in files.values():
            path.unlink(missing_ok=True)


def read_texts(
    tools: FfmpegTools, location: str, stop: threading.Event
) -> tuple[Sequence[TextTrack], Sequence[Chapter]]:
    """Return the text tracks with cues, in file order, and the chapters.

    Raises Stopped, SourceUnreadable, LimitExceeded and what a probe raises.
    """
    info = probe(tools, location, stop)
    tracks = []
    streams = (s for s in info.of_kind(StreamKind.SUBTITLE) if s.codec not in PICTURE_SUBTITLES)
    for stream in islice(streams, MAX_TRACKS):
        text = _track_text(tools, location, stream.index, stop)
        if CUE in text and len(text) <= MAX_CHARACTERS:
            tags = bcp47(stream.language), stream.title, stream.dispositions
            tracks.append(TextTrack(text, *tags))
    return tuple(tracks), info.chapters


def read_still(tools: FfmpegTools, location: str, width: int, stop: threading.Event) -> bytes:
    """Return the picture near one of TIMES_S as JPEG, or b"" if none can be read.

    ffmpeg's errors are ignored here: the worker's gates verify the video. Raises Stopped.
    """
    box = f"scale={width}:{width}:force_original_aspect_ratio=decrease:force_divisible_by=2"
    filters = f"scale=iw*sar:ih,setsar=1,{box},format=yuvj420p"
    for at_s in TIMES_S:
        command = [tools.ffmpeg, "-nostdin", "-v", "error", "-threads", "1", "-noaccurate_seek"]
        command += ["-ss", str(at_s), *input_options(location), "-map", "0:v:0", "-frames:v", "1"]
        command += ["-vf", filters, "-c:v", "mjpeg", "-q:v", "4", "-f", "image2pipe", "-"]
        limits = with_read_access(PROBE_LIMITS, tools, location)
        try:
            done = run_child(command, stop=stop, limits=limits, deadline_s=STILL_S)
        except (LimitExceeded, TransientError):
            return b""
        if done.stdout.startswith(JPEG) and len(done.stdout) <= MAX_STILL_BYTES:
            return done.stdout
    return b""


def split_jpegs(stream: bytes) -> Iterator[bytes]:
    """Yield the JPEG files of a stream. Their data never contains JPEG's own marks."""
    at = 0
    while (begin := stream.find(JPEG, at)) >= 0:
        end = stream.find(JPEG_END, begin)
        if end < 0:
            return
        at = end + len(JPEG_END)
        yield stream[begin:at]


def copy_sample(
    tools: FfmpegTools,
    location: str,
    target: Path,
    span: tuple[float, float],
    stop: threading.Event,
) -> None:
    """Copy picture and sound to the new Matroska file `target`; `span` is start and length in seconds.

    Raises SourceUnreadable, Stopped and LimitExceeded.
    """
    target.touch(exist_ok=False)
    command = [tools.ffmpeg, "-nostdin", "-v", "error", "-y", "-ss", f"{span[0]:g}"]
    command += [*input_options(location), "-t", f"{span[1]:g}", "-map", "0:v:0", "-map", "0:a?"]
    command += ["-c", "copy", "-map_metadata", "-1", "-map_chapters", "-1"]
    command += ["-avoid_negative_ts", "make_zero", "-f", "matroska", f"file:{target}"]
    limits = replace(LIMITS, output_bytes=None, access=access_to(tools, location, writes=[target]))
    done = run_child(command, stop=stop, limits=limits, deadline_s=DEADLINE_S)
    if done.returncode or not target.stat().st_size:
        raise SourceUnreadable(f"No sample could be cut from {display_name(location)}.")
