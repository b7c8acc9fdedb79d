"""`hevcq profiles plan`: show what files contain, and how they would be encoded and split."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hevcq.cli.context import cli_of, require_existing
from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.options import AsJson, ProfileNames, Verbose
from hevcq.cli.output import table as render
from hevcq.errors import HevcqError, PermanentError, TransientError
from hevcq.settings.profile_files import pick
from hevcq.usecases.plan_one_file import plan_one_file
from hevcq.util.text import counted, size, timecode

if TYPE_CHECKING:
    from hevcq.domain.media.facts import MediaInfo, Stream
    from hevcq.wiring.app import App


def plan(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="The files to inspect.")],
    profile: ProfileNames = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Show what files contain, and how they would be encoded.

    Prints the container and streams, whether each profile skips, refuses or encodes the file, what
    happens to each stream, and the chunks; with --verbose also why it is not split. Uses the profiles
    in ingest.profiles unless --profile names others. One bad file does not stop the rest.
    """
    if len(files) == 1:
        require_existing(files)
    cli, failed = cli_of(ctx), 0
    with cli.app() as app:
        picked = pick(app.profiles, profile or _usual(app))
        for file in files:
            try:
                info = app.encoder.probe(str(file.absolute()), stop=threading.Event())
                plans = plan_one_file(
                    app.encoder,
                    str(file.absolute()),
                    info,
                    picked,
                    threading.Event(),
                    app.slots_per_job,
                )
            except (PermanentError, TransientError) as error:
                if len(files) == 1:
                    raise
                failed += 1
                _show_failure(file, error, as_json=as_json)
                continue
            if len(files) > 1 and not as_json:
                render.emit(f"{render.printable(file)}:")
            _show_contents(file, info, as_json=as_json)
            for each in plans:
                _show(file, each, as_json=as_json, verbose=verbose or cli.verbose)
    raise typer.Exit(ExitCode.SOME_FAILED if failed else ExitCode.OK)


def _show_failure(file: Path, error: HevcqError, *, as_json: bool) -> None:
    if as_json:
        found = {"action": "fail", "reason": type(error).__name__, "detail": str(error)}
        render.emit_json({"type": "plan", "path": str(file), **found})
    else:
        render.emit(f"{render.printable(file)}:")
        render.emit(render.printable(f"  cannot be planned: {error}"))


def _usual(app: App) -> list[str]:
    """Return the profiles of an ingest, or all where none of those is installed."""
    return [name for name in app.settings.ingest.profiles if name in app.profiles] or sorted(
        app.profiles
    )


def _show(file: Path, found: dict[str, Any], *, as_json: bool, verbose: bool) -> None:
    if as_json:
        render.emit_json({"type": "plan", "path": str(file), **found})
        return
    for line in _lines(found, verbose=verbose):
        render.emit(render.printable(line))


def _ladder(rungs: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each rung, and the sum; sizes follow from the rates, so they are rough."""
    for rung in rungs:
        picture = f"{rung['name']:9}{rung['width']}x{rung['height']}"
        yield (
            f"  {picture:20}{rung['codec']}, crf {rung['crf']:g}, at most "
            f"{rung['max_kbps'] / 1000:g} Mbit/s: about {size(rung['bytes'])}, "
            f"at most {size(rung['most_bytes'])}"
        )
    if rungs:
        whole, most = (sum(rung[key] for rung in rungs) for key in ("bytes", "most_bytes"))
        count = "1 rung" if len(rungs) == 1 else f"{len(rungs)} rungs"
        yield f"  {count}: about {size(whole)}, at most {size(most)}"


def _lines(found: dict[str, Any], *, verbose: bool) -> Iterator[str]:
    head = f"{found['profile']}: {found['action']}"
    if found["action"] != "encode":
        yield f"{head} ({found['reason']}): {found['detail']}"
        return
    chapters = f", {found['chapters']} chapters" if found["chapters"] else ""
    made = "an HLS ladder" if found.get("rungs") else f".{found['extension']}"
    yield f"{head} to {made}{chapters}"
    yield from _ladder(found.get("rungs", []))
    for stream in found["streams"]:
        made = "" if stream["action"] == "drop" else f" {stream['codec']}".rstrip()
        yield f"  #{stream['source_index']} {stream['kind']}: {stream['action']}{made}"
    for notice in found["notices"]:
        yield f"  {notice}"
    if verbose and found.get("whole"):
        yield f"  in one piece ({found['whole']['reason']}): {found['whole']['detail']}"
    chunks = found.get("chunks", [])
    if chunks:
        yield f"  in {len(chunks)} chunks:"
    for chunk in chunks:
        begins = timecode(chunk["start_s"], 0)
        yield (
            f"    {chunk['index'] + 1}: from {begins}, {chunk['duration_s']:.1f} s, "
            f"{chunk['frames']} frames, {chunk['cost']:.1%} of the work"
        )


def _show_contents(file: Path, info: MediaInfo, *, as_json: bool) -> None:
    if as_json:
        render.emit_json({"type": "media", "path": str(file), **info.model_dump(mode="json")})
        return
    for line in _contents(info):
        render.emit(render.printable(line))


def _contents(info: MediaInfo) -> list[str]:
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
