"""Read what lists and players show of a video: one picture, text subtitles as WebVTT, and chapters."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from hevcq.domain.media.facts import Chapter, Stream, StreamKind
from hevcq.domain.media.languages import bcp47
from hevcq.errors import LimitExceeded, SourceUnreadable, TransientError
from hevcq.ffmpeg.inputs import PROBE_LIMITS, FfmpegTools, input_options, reading
from hevcq.ffmpeg.probe.probe import probe
from hevcq.ffmpeg.process.child import run_child
from hevcq.ports.encoder import TextTrack

PICTURES = frozenset({"hdmv_pgs_subtitle", "dvd_subtitle", "dvb_subtitle", "xsub", "unknown"})
"""Subtitles that are pictures: a browser shows text only."""
MOST_TRACKS = 40
MOST_CHARACTERS = 4 << 20
"""Of one track: a day of speech is less than half of it."""
DEADLINE_S = 120.0
CUE = "-->"
TIMES_S = (5.0, 0.0)
"""Where a picture is looked for: videos often begin black; shorter ones have their first picture."""
STILL_S = 30.0
JPEG = b"\xff\xd8"
LARGEST = 4 << 20
"""Bytes; a picture of this size is far smaller."""


def read_texts(
    tools: FfmpegTools, location: str, stop: threading.Event
) -> tuple[Sequence[TextTrack], Sequence[Chapter]]:
    """Return the tracks that have a cue, in file order, and the chapters.

    ffmpeg skips the bytes of every other stream, so that a long video costs little. Raises Stopped,
    SourceUnreadable, LimitExceeded or what a probe raises.
    """
    info = probe(tools, location, stop)
    streams = [each for each in info.of_kind(StreamKind.SUBTITLE) if each.codec not in PICTURES]
    found = (_track(tools, location, each, stop) for each in streams[:MOST_TRACKS])
    return tuple(track for track in found if CUE in track.content), info.chapters


def _track(tools: FfmpegTools, location: str, stream: Stream, stop: threading.Event) -> TextTrack:
    command = [tools.ffmpeg, "-nostdin", "-v", "error", "-copyts", *input_options(location)]
    command += ["-map", f"0:{stream.index}", "-c:s", "webvtt", "-f", "webvtt", "-"]
    ended = run_child(
        command, stop=stop, limits=reading(PROBE_LIMITS, tools, location), deadline_s=DEADLINE_S
    )
    if ended.returncode != 0:
        raise SourceUnreadable(f"The subtitles of track {stream.index} cannot be read.")
    text = ended.stdout.decode("utf-8", "replace")
    return TextTrack(
        text if len(text) <= MOST_CHARACTERS else "",
        bcp47(stream.language),
        stream.title,
        stream.dispositions,
    )


def still(tools: FfmpegTools, location: str, width: int, stop: threading.Event) -> bytes:
    """Return the picture near one of TIMES_S as JPEG, or b"" if none can be read.

    What ffmpeg says of the video does not matter here: the worker's gates judge it. Raises Stopped.
    """
    box = f"scale={width}:{width}:force_original_aspect_ratio=decrease:force_divisible_by=2"
    filters = f"scale=iw*sar:ih,setsar=1,{box},format=yuvj420p"
    for at_s in TIMES_S:
        command = [tools.ffmpeg, "-nostdin", "-v", "error", "-threads", "1", "-noaccurate_seek"]
        command += ["-ss", str(at_s), *input_options(location), "-map", "0:v:0", "-frames:v", "1"]
        command += ["-vf", filters, "-c:v", "mjpeg", "-q:v", "4", "-f", "image2pipe", "-"]
        limits = reading(PROBE_LIMITS, tools, location)
        try:
            ended = run_child(command, stop=stop, limits=limits, deadline_s=STILL_S)
        except (LimitExceeded, TransientError):
            return b""
        if ended.stdout.startswith(JPEG) and len(ended.stdout) <= LARGEST:
            return ended.stdout
    return b""
