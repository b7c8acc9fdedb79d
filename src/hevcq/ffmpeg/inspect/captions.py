"""Make text of the closed captions inside a video (CEA-608 in A/53 user data), and check what was made.

ffmpeg finds captions where it decodes pictures. Its filter `movie` hands them on with the times of their
pictures, and its decoder makes text of one field at a time: CC1 in the first, CC3 in the second. CEA-708 is
not decoded by ffmpeg; broadcasters send the same text as CEA-608 beside it.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from hevcq.domain.media.facts import MediaInfo
from hevcq.errors import MediaRefused, SourceUnreadable, Unavailable
from hevcq.ffmpeg.inputs import (
    NETWORK,
    PROBE_LIMITS,
    RW_TIMEOUT_US,
    FfmpegTools,
    display_name,
    ffmpeg_url,
    is_url,
    reading,
)
from hevcq.ffmpeg.inspect.measure import LIMITS
from hevcq.ffmpeg.process.child import Finished, run_child
from hevcq.ports.encoder import EncodeRequest

FIELDS = {"CC1": "first", "CC3": "second"}
LATE_S = 0.02
"""Seconds that a cue may lie off its picture: containers round, and no frame of video is so short."""
REMEDY = "set policies.closed_captions to drop to encode without them"
_CUE = re.compile(r"^(?:(\d+):)?(\d\d):(\d\d\.\d{3}) --> .*\n((?:.+\n?)*)", re.MULTILINE)
_TAG = re.compile(r"</?[biu]>")
_MARK = re.compile(r"</?[biu]>|[&<>]")
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class CaptionedVideo:
    """A video with captions: its file, and the number of its stream."""

    location: str
    info: MediaInfo
    index: int


def found_captions(
    tools: FfmpegTools, video: CaptionedVideo, stop: threading.Event
) -> tuple[str, ...]:
    """Return the channels that hold text. Raises MediaRefused if there is text in CEA-708 only."""
    found = tuple(name for name in FIELDS if "-->" in _webvtt(tools, video, name, stop))
    if not found and _is_digital(tools, video, stop):
        raise MediaRefused(
            f"{display_name(video.location)}: its closed captions are in CEA-708 only, of which no text "
            f"can be made; {REMEDY} (policies.closed_captions)."
        )
    return found


def _webvtt(tools: FfmpegTools, video: CaptionedVideo, channel: str, stop: threading.Event) -> str:
    """Return the text of a channel; times count from the source's start."""
    start = video.info.start_s or 0.0
    output = [
        "-copyts",
        "-output_ts_offset",
        f"{-start:.6f}",
        "-c:s",
        "webvtt",
        "-f",
        "webvtt",
        "-",
    ]
    done = _read(tools, video, ["-data_field", FIELDS[channel]], output, stop)
    return done.stdout.decode("utf-8", "replace")


def _is_digital(tools: FfmpegTools, video: CaptionedVideo, stop: threading.Event) -> bool:
    """Whether a packet of CEA-708 has a block of text: a byte of marks, its header, and that of the block."""
    data = _read(tools, video, [], ["-c", "copy", "-f", "data", "-"], stop).stdout
    marks, blocks = data[::3], data[2::3]
    return any(
        mark & 7 == 7 and block >> 5 and block & 31
        for mark, block in zip(marks, blocks, strict=False)
    )


def _read(
    tools: FfmpegTools,
    video: CaptionedVideo,
    decoder: Sequence[str],
    output: Sequence[str],
    stop: threading.Event,
) -> Finished:
    """Decode a video for its captions.

    Raises SourceUnreadable, Unavailable if the network failed, or what a child raises.
    """
    graph = _graph(video.location, video.info, video.index)
    argv = [tools.ffmpeg, "-nostdin", "-v", "error", *decoder, "-f", "lavfi", "-i", graph]
    limits = reading(LIMITS, tools, video.location)
    done = run_child([*argv, "-map", "0:s", *output], stop=stop, limits=limits)
    name = display_name(video.location)
    if is_url(video.location) and any(line.startswith(NETWORK) for line in done.stderr):
        # To the filter a lost connection is the end of the video.
        raise Unavailable(f"{name} could not be read to its end for its captions.")
    if done.returncode != 0:
        raise SourceUnreadable(f"The captions of {name} cannot be read.")
    return done


def _graph(location: str, info: MediaInfo, index: int) -> str:
    """Return the filter that opens the source by the demuxer that the probe found, and nothing else."""
    protocols, name = ("file", f"file:{location}")
    options = {}
    if is_url(location):
        name = ffmpeg_url(location)
        protocols = "https,tls,tcp" if name.startswith("https") else "http,tcp"
        options["rw_timeout"] = str(RW_TIMEOUT_US * 10)
    options |= {"protocol_whitelist": protocols, "format_whitelist": info.format_name}
    format_options = ":".join(f"{key}={value}" for key, value in options.items())
    arguments = {
        "filename": name,
        "format_name": info.format_name.partition(",")[0],
        "stream_index": str(index),
        "format_opts": format_options,
    }
    words = ":".join(f"{key}={_escaped(value)}" for key, value in arguments.items())
    return f"movie={words}[out0+subcc]"


def _escaped(text: str) -> str:
    """Escape a value for the options of a filter, and that for a graph (ffmpeg-filters, "Notes on escaping")."""
    for special in ("\\':\t\n ", "\\'[],;\t\n "):
        text = "".join(f"\\{letter}" if letter in special else letter for letter in text)
    return text


@contextlib.contextmanager
def extracted_captions(
    tools: FfmpegTools, request: EncodeRequest, stop: threading.Event
) -> Iterator[list[Path]]:
    """Write a WebVTT file of each channel of the plan beside the output; remove the files at the end.

    Raises MediaRefused if a channel gives no text.
    """
    made = list[Path]()
    video = CaptionedVideo(request.location, request.info, request.plan.main_video.source_index)
    try:
        for name in request.plan.captions:
            text = _webvtt(tools, video, name, stop)
            if "-->" not in text:
                raise MediaRefused(
                    f"{display_name(request.location)}: no text could be made of its closed captions "
                    f"({name}); {REMEDY} (policies.closed_captions)."
                )
            made.append(request.output.with_name(f"{request.output.name}.{name}.vtt"))
            made[-1].write_text(_escaped_text(text), encoding="utf-8")
        yield made
    finally:
        for path in made:
            path.unlink(missing_ok=True)


def _escaped_text(text: str) -> str:
    """Return WebVTT with the marks inside its text escaped, which ffmpeg writes as they are."""
    lines = (
        line if "-->" in line else _MARK.sub(lambda mark: _ESCAPES.get(mark[0], mark[0]), line)
        for line in text.split("\n")
    )
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class CaptionTracks:
    """The text tracks of a file by the channels they were made of.

    `shift_s` is by how many seconds the file's picture is shown later than the source's, both counted from
    their starts.
    """

    path: str
    streams: Mapping[str, int]
    shift_s: float


def caption_problems(
    tools: FfmpegTools, video: CaptionedVideo, tracks: CaptionTracks, stop: threading.Event
) -> Iterator[str]:
    """Compare text tracks with the captions of the source, decoded once more."""
    for name, stream in tracks.streams.items():
        expected = _cues(_webvtt(tools, video, name, stop))
        found = _cues(_track(tools, tracks.path, stream, stop))
        problem = _difference(expected, found, tracks.shift_s)
        if problem:
            yield f"captions {name}: {problem}"


def _track(tools: FfmpegTools, path: str, stream: int, stop: threading.Event) -> str:
    """Return a text track, which ffmpeg decodes."""
    argv = [
        tools.ffmpeg, "-nostdin", "-v", "error", "-copyts", "-protocol_whitelist", "file", "-i",
        f"file:{path}", "-map", f"0:{stream}", "-c:s", "webvtt", "-f", "webvtt", "-",
    ]  # fmt: skip
    done = run_child(argv, stop=stop, limits=reading(PROBE_LIMITS, tools, path))
    if done.returncode != 0:
        raise SourceUnreadable(f"The text of {display_name(path)} cannot be read.")
    return done.stdout.decode("utf-8", "replace")


def _cues(text: str) -> list[tuple[float, list[str]]]:
    """Return when each cue begins, in seconds, and its words; without those that show none."""
    cues = [
        (int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds), _TAG.sub("", words))
        for hours, minutes, seconds, words in _CUE.findall(text)
    ]
    return [(begin, _WORD.findall(words)) for begin, words in cues if words.strip()]


def _difference(
    expected: list[tuple[float, list[str]]], found: list[tuple[float, list[str]]], shift_s: float
) -> str:
    """Return how the cues differ from those expected, as a clause, or ""."""
    if len(found) != len(expected) or not found:
        return f"{len(found)} captions of {len(expected)}"
    if any(other < one for (one, _), (other, _) in pairwise(found)):
        return "its captions are not in order"
    for (begin, words), (own_begin, own) in zip(expected, found, strict=True):
        if own != words:
            return f"{' '.join(own)!r} is shown in the place of {' '.join(words)!r}"
        if abs(own_begin - begin - shift_s) > LATE_S:
            return (
                f"{' '.join(own)!r} is shown at {own_begin:.3f} s, in the source at {begin:.3f} s"
            )
    return ""
