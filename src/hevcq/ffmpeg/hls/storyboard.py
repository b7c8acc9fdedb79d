"""Make the poster of a set and its storyboard: the small pictures that players show above the bar."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from hevcq.domain.planning.encode_plan import VideoTarget
from hevcq.domain.profile import Profile
from hevcq.errors import EncoderFailed
from hevcq.ffmpeg.command.build import QUIET
from hevcq.ffmpeg.command.filters import tone_map_filter
from hevcq.ffmpeg.containers.fragments import FragmentedFile
from hevcq.ffmpeg.hls.playlists import RANGES
from hevcq.ffmpeg.inputs import FfmpegTools, input_options, with_read_access
from hevcq.ffmpeg.inspect.texts import split_jpegs
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


class Images:
    """Makes the images of one set."""

    def __init__(self, tools: FfmpegTools, profile: Profile, stop: threading.Event) -> None:
        self._tools = tools
        self._profile = profile
        self._stop = stop

    def poster(self, path: Path, target: VideoTarget, content: FragmentedFile) -> None:
        """Write one key frame of a finished rung as `poster.jpg` beside it.

        Raises EncoderFailed if there is none.
        """
        fragments = content.fragments
        chosen = fragments[int(len(fragments) * POSTER_SHARE)]
        part = path.with_name("poster.part")
        try:
            with path.open("rb") as file:
                head = file.read(content.head)
                file.seek(chosen.start)
                part.write_bytes(head + file.read(chosen.end - chosen.start))
            found = self._pictures(part, ["-frames:v", "1", *self._filters(target)])
        finally:
            part.unlink(missing_ok=True)
        if len(found) != 1:
            raise EncoderFailed("No poster could be made of the highest rung.")
        path.with_name("poster.jpg").write_bytes(found[0])

    def storyboard(self, path: Path, target: VideoTarget, content: FragmentedFile) -> None:
        """Write the sheets of a finished rung beside it, and `storyboard.vtt`: where each time is.

        Raises EncoderFailed if other than the expected number of sheets comes out.
        """
        fragments = content.fragments
        every = -(-len(fragments) // MAX_PICTURES)
        shown = fragments[::every]
        wide, high = thumbnail_size(target)
        graph = [f"select=not(mod(n\\,{every}))", f"scale={wide}:{high}:flags=area"]
        sheets = self._pictures(
            path,
            self._filters(target, *graph, f"tile={ACROSS}x{DOWN}"),
            before=["-skip_frame", "nokey"],
        )
        if len(sheets) != -(-len(shown) // (ACROSS * DOWN)):
            raise EncoderFailed(
                f"The storyboard has {len(sheets)} sheets for {len(shown)} key frames."
            )
        names = [f"storyboard{number}.jpg" for number in range(1, len(sheets) + 1)]
        for name, sheet in zip(names, sheets, strict=True):
            path.with_name(name).write_bytes(sheet)
        scale = content.timescale
        times = [Fraction(max(0, f.shown), scale) for f in shown]
        last = fragments[-1]
        times.append(Fraction(last.shown_end, scale))
        text = storyboard_index(times, names, (wide, high))
        path.with_name("storyboard.vtt").write_text(text, encoding="utf-8")

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
            limits=with_read_access(limits_of(self._profile.bounds), self._tools, str(source)),
            deadline_s=DEADLINE_S,
        )
        if done.returncode != 0:
            why = done.stderr[-1] if done.stderr else done.ending
            raise EncoderFailed(f"The images of {source.name} cannot be made: {why}.")
        return list(split_jpegs(done.stdout))


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
