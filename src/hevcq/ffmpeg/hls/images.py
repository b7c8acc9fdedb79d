"""Make the poster, and the storyboard: sheets of small pictures that players show while seeking.

Both come from key frames of finished rungs, so little is decoded: the poster from one fragment of the
highest rung, the sheets from the lowest.
"""

import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from hevcq.domain.planning.encode_plan import VideoTarget
from hevcq.domain.profile import Profile
from hevcq.errors import EncoderFailed
from hevcq.ffmpeg.command.build import QUIET
from hevcq.ffmpeg.command.codecs import tone_map_filter
from hevcq.ffmpeg.containers.fragments import FragmentedFile
from hevcq.ffmpeg.hls.playlists import RANGES
from hevcq.ffmpeg.inputs import FfmpegTools, input_options, reading
from hevcq.ffmpeg.process.child import run_child
from hevcq.ffmpeg.process.limits import limits_of
from hevcq.util.text import webvtt_time

ACROSS, DOWN = 5, 5
SIDE = 160
"""Longer side in pixels of a picture of the storyboard."""
MAX_PICTURES = 500
"""Pictures of a storyboard; of a longer video every second, third … key frame is taken."""
POSTER_SHARE = 0.1
"""How far into the video the poster is."""
DEADLINE_S = 900.0
_START, _END = b"\xff\xd8", b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class RungFile:
    """A finished rung: its file, what it must be, and its fragments."""

    path: Path
    target: VideoTarget
    content: FragmentedFile


class Images:
    """Makes the images of one set."""

    def __init__(self, tools: FfmpegTools, profile: Profile, stop: threading.Event) -> None:
        self._tools = tools
        self._profile = profile
        self._stop = stop

    def poster(self, rung: RungFile, target: Path) -> None:
        """Write one key frame as a JPEG. Raises EncoderFailed if there is none."""
        fragments = rung.content.fragments
        chosen = fragments[int(len(fragments) * POSTER_SHARE)]
        part = target.with_suffix(".part")
        try:
            with rung.path.open("rb") as file:
                head = file.read(rung.content.head)
                file.seek(chosen.start)
                part.write_bytes(head + file.read(chosen.end - chosen.start))
            found = self._pictures(part, ["-frames:v", "1", *self._filters(rung.target)])
        finally:
            part.unlink(missing_ok=True)
        if len(found) != 1:
            raise EncoderFailed("No poster could be made of the highest rung.")
        target.write_bytes(found[0])

    def storyboard(self, rung: RungFile, folder: Path) -> list[Path]:
        """Write the sheets and `storyboard.vtt`, which says where each time is; return all files.

        Raises EncoderFailed if other than the expected number of sheets comes out.
        """
        fragments = rung.content.fragments
        every = -(-len(fragments) // MAX_PICTURES)
        shown = fragments[::every]
        wide, high = thumbnail_size(rung.target)
        graph = [f"select=not(mod(n\\,{every}))", f"scale={wide}:{high}:flags=area"]
        sheets = self._pictures(
            rung.path,
            self._filters(rung.target, *graph, f"tile={ACROSS}x{DOWN}"),
            before=["-skip_frame", "nokey"],
        )
        if len(sheets) != -(-len(shown) // (ACROSS * DOWN)):
            raise EncoderFailed(
                f"The storyboard has {len(sheets)} sheets for {len(shown)} key frames."
            )
        paths = [folder / f"storyboard{number}.jpg" for number in range(1, len(sheets) + 1)]
        for path, sheet in zip(paths, sheets, strict=True):
            path.write_bytes(sheet)
        scale = rung.content.timescale
        times = [Fraction(max(0, f.shown), scale) for f in shown]
        last = fragments[-1]
        times.append(Fraction(last.shown_end, scale))
        index = folder / "storyboard.vtt"
        index.write_text(
            storyboard_index(times, [path.name for path in paths], (wide, high)), encoding="utf-8"
        )
        return [*paths, index]

    def _filters(self, target: VideoTarget, *filters: str) -> list[str]:
        toned = target.colour.transfer in RANGES
        mapped = target.model_copy(
            update={"tone_map": target.colour.transfer, "pixel_format": "yuv420p"}
        )
        chain = [*([tone_map_filter(mapped)] if toned else []), *filters]
        return ["-filter:v", ",".join([*chain, "format=yuvj420p"])]

    def _pictures(
        self, source: Path, options: Sequence[str], before: Sequence[str] = ()
    ) -> list[bytes]:
        argv = [self._tools.ffmpeg, *QUIET, *before, *input_options(str(source)), "-an"]
        argv += [*options, "-fps_mode", "passthrough", "-c:v", "mjpeg", "-q:v", "4"]
        done = run_child(
            [*argv, "-f", "image2pipe", "pipe:1"],
            stop=self._stop,
            limits=reading(limits_of(self._profile.bounds), self._tools, str(source)),
            deadline_s=DEADLINE_S,
        )
        if done.returncode != 0:
            why = done.stderr[-1] if done.stderr else done.ending
            raise EncoderFailed(f"The images of {source.name} cannot be made: {why}.")
        return list(split_jpegs(done.stdout))


def split_jpegs(stream: bytes) -> Iterator[bytes]:
    """Yield the JPEG files that follow one another in a stream; their data never holds their marks."""
    at = 0
    while (begin := stream.find(_START, at)) >= 0:
        end = stream.find(_END, begin)
        if end < 0:
            return
        at = end + len(_END)
        yield stream[begin:at]


def thumbnail_size(target: VideoTarget) -> tuple[int, int]:
    """Return width and height of a storyboard's pictures: even, the longer side at most SIDE."""
    scale = Fraction(SIDE, max(SIDE, target.width, target.height))
    return max(2, round(target.width * scale / 2) * 2), max(2, round(target.height * scale / 2) * 2)


def storyboard_index(
    times: Sequence[Fraction], sheets: Sequence[str], size: tuple[int, int]
) -> str:
    """Return the WebVTT that says which part of which sheet shows each time, in seconds."""
    wide, high = size
    lines = ["WEBVTT", ""]
    for place, (begin, end) in enumerate(itertools.pairwise(times)):
        sheet, cell = divmod(place, ACROSS * DOWN)
        down, across = divmod(cell, ACROSS)
        lines.append(f"{webvtt_time(begin)} --> {webvtt_time(end)}")
        lines += [f"{sheets[sheet]}#xywh={across * wide},{down * high},{wide},{high}", ""]
    return "\n".join(lines)
