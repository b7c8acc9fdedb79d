"""`hevcq probe`: show what a media file contains."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hevcq.cli.context import cli_of, require_existing
from hevcq.cli.options import AsJson
from hevcq.cli.output import table as render
from hevcq.util.text import counted, timecode

if TYPE_CHECKING:
    from hevcq.domain.media.facts import MediaInfo, Stream


def probe(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="The file to inspect.")],
    as_json: AsJson = False,
) -> None:
    """Show what a media file contains.

    Container, streams, colour, HDR, rotation and chapters.
    """
    require_existing([file])
    with cli_of(ctx).app() as app:
        info = app.encoder.probe(str(file.absolute()), stop=threading.Event())
    if as_json:
        render.emit_json({"type": "media", "path": str(file), **info.model_dump(mode="json")})
        return
    for line in _lines(info):
        render.emit(render.printable(line))


def _lines(info: MediaInfo) -> list[str]:
    length = "unknown length" if info.duration_s is None else timecode(info.duration_s, 0)
    chapters = counted(len(info.chapters), "chapter")
    lines = [f"{info.format_name}, {length}, {render.size(info.size)}, {chapters}"]
    for stream in info.streams:
        parts = [f"#{stream.index} {stream.kind.value}", stream.codec, *_facts(stream)]
        parts += [part for part in (stream.language, stream.title) if part]
        parts += list(stream.dispositions)
        lines.append("  " + ", ".join(parts))
    return lines


def _facts(stream: Stream) -> list[str]:
    facts: list[str] = []
    if video := stream.video:
        wide, high = video.display_size
        facts += [f"{video.width}x{video.height}", f"shown {wide}x{high}", video.pixel_format]
        facts += [f"{video.average_rate} fps", video.field_order, video.colour.transfer]
        named = {
            "Dolby Vision": video.dolby_vision,
            "HDR10+": video.hdr10_plus,
            "HDR10": video.mastering_display is not None,
            "captions": video.closed_captions,
        }
        facts += [name for name, there in named.items() if there]
    if audio := stream.audio:
        facts += [counted(audio.channels, "channel"), audio.layout, f"{audio.sample_rate} Hz"]
    return [fact for fact in facts if fact]
