"""Make a set's poster and its storyboard: the small pictures that players show above the seek bar."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from hevcq.domain.planning.encode_plan import VideoTarget
from hevcq.domain.profile import Profile
from hevcq.errors import EncoderFailed
from hevcq.ffmpeg.command.build import QUIET
from hevcq.ffmpeg.command.filters import tone_map_filter
from hevcq.ffmpeg.containers.fragments import FragmentedFile
from hevcq.ffmpeg.hls.playlists import VIDEO_RANGES
from hevcq.ffmpeg.inputs import FfmpegTools, input_options, with_read_access
from hevcq.ffmpeg.inspect.texts import split_jpegs
from hevcq.ffmpeg.process.child import run_child
from hevcq.ffmpeg.process.limits import limits_of
from hevcq.util.text import webvtt_time

COLUMNS, ROWS = 5, 5
MAX_SIDE = 160
"""Longer side of a storyboard's picture in pixels."""
MAX_PICTURES = 500
"""Pictures of a storyboard. A longer video gives every second, third … key frame."""
POSTER_SHARE = 0.1
"""Share of the video before the poster's frame."""
DEADLINE_S = 900.0


@dataclass(frozen=True, slots=True)
class Images:
    tools: FfmpegTools
    profile: Profile
    stop: threading.Event

    def poster(self, path: Path, target: VideoTarget, content: FragmentedFile) -> None:
        """Write one key frame of a finished rung as `poster.jpg` beside it; raise EncoderFailed if it cannot."""
        fragments = content.fragments
        chosen = fragments[int(len(fragments) * POSTER_SHARE)]
        part = path.with_name("poster.part")
        try:
            with path.open("rb") as file:
                head = file.read(content.head)
                file.seek(chosen.start)
                part.write_bytes(head + file.read(chosen.end - chosen.start))
            jpegs = self._jpegs(part, ["-frames:v", "1", *self._filters(target)])
        finally:
            part.unlink(missing_ok=True)
        if len(jpegs) != 1:
            raise EncoderFailed("No poster could be made of the highest rung.")
        path.with_name("poster.jpg").write_bytes(jpegs[0])

    def storyboard(self, path: Path, target: VideoTarget, content: FragmentedFile) -> None:
        """Write the sheets of a finished rung beside it, and their index `storyboard.vtt`.

        Raises EncoderFailed if the number of sheets is not the expected one.
        """
        fragments = content.fragments
        every = -(-len(fragments) // MAX_PICTURES)
        shown = fragments[::every]
        scale = Fraction(MAX_SIDE, max(MAX_SIDE, target.width, target.height))
        sides = target.width, target.height
        wide, high = (max(2, round(side * scale / 2) * 2) for side in sides)  # even
        graph = [f"select=not(mod(n\\,{every}))", f"scale={wide}:{high}:flags=area"]
        sheets = self._jpegs(
            path,
            self._filters(target, *graph, f"tile={COLUMNS}x{ROWS}"),
            before=["-skip_frame", "nokey"],
        )
        if len(sheets) != -(-len(shown) // (COLUMNS * ROWS)):
            raise EncoderFailed(
                f"The storyboard has {len(sheets)} sheets for {len(shown)} key frames."
            )
        names = [f"storyboard{number}.jpg" for number in range(1, len(sheets) + 1)]
        for name, sheet in zip(names, sheets, strict=True):
            path.with_name(name).write_bytes(sheet)
        ticks = [*(max(0, f.shown) for f in shown), fragments[-1].shown_end]
        times = [Fraction(tick, content.timescale) for tick in ticks]
        text = storyboard_index(times, names, (wide, high))
        path.with_name("storyboard.vtt").write_text(text, encoding="utf-8")

    def _filters(self, target: VideoTarget, *filters: str) -> list[str]:
        toned = target.colour.transfer in VIDEO_RANGES
        mapped = target.model_copy(
            update={"tone_map": target.colour.transfer, "pixel_format": "yuv420p"}
        )
        chain = [*([tone_map_filter(mapped)] if toned else []), *filters]
        return ["-filter:v", ",".join([*chain, "format=yuvj420p"])]

    def _jpegs(
        self, source: Path, options: Sequence[str], before: Sequence[str] = ()
    ) -> list[bytes]:
        argv = [self.tools.ffmpeg, *QUIET, *before, *input_options(str(source)), "-an"]
        argv += [*options, "-fps_mode", "passthrough", "-c:v", "mjpeg", "-q:v", "4"]
        done = run_child(
            [*argv, "-f", "image2pipe", "pipe:1"],
            stop=self.stop,
            limits=with_read_access(limits_of(self.profile.bounds), self.tools, str(source)),
            deadline_s=DEADLINE_S,
        )
        if done.returncode != 0:
            why = done.stderr[-1] if done.stderr else done.ending
            raise EncoderFailed(f"The images of {source.name} cannot be made: {why}.")
        return list(split_jpegs(done.stdout))


def storyboard_index(
    times: Sequence[Fraction], sheets: Sequence[str], size: tuple[int, int]
) -> str:
    """Return the WebVTT that maps times in seconds to a part of a sheet."""
    wide, high = size
    lines = ["WEBVTT", ""]
    for place, (begin, end) in enumerate(itertools.pairwise(times)):
        sheet, cell = divmod(place, COLUMNS * ROWS)
        down, across = divmod(cell, COLUMNS)
        lines.append(f"{webvtt_time(begin)} --> {webvtt_time(end)}")
        lines += [f"{sheets[sheet]}#xywh={across * wide},{down * high},{wide},{high}", ""]
    return "\n".join(lines)
