"""`hevcq profiles plan`: show what files contain and how they would be encoded, or search a CRF."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hevcq.cli.context import AsJson, ProfileNames, QualityWanted, cli_of, require_existing
from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.library.compare import curve_lines
from hevcq.cli.output import render
from hevcq.domain.media.facts import MediaInfo, Stream
from hevcq.domain.profile import Profile
from hevcq.domain.quality import SCALES, Aim
from hevcq.errors import PermanentError, TransientError, UsageError
from hevcq.settings.profile_files import pick, with_quality
from hevcq.usecases.compare import curve_svg
from hevcq.usecases.plan_one_file import plan_one_file, search_quality
from hevcq.util.text import counted, printable, size, timecode

if TYPE_CHECKING:
    from hevcq.wiring.app import App


def plan(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="The files to inspect.")],
    profile: ProfileNames = None,
    search: Annotated[
        bool,
        typer.Option(
            "--search", help="Instead, try CRFs on samples and plot size against quality."
        ),
    ] = False,
    quality: QualityWanted = None,
    svg: Annotated[
        Path | None, typer.Option(metavar="SVG", help="Write the plot of --search to a file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what files contain, and how they would be encoded.

    Prints the container and streams, whether each profile skips, refuses or encodes the file, and what
    happens to each stream. Uses the profiles in ingest.profiles unless --profile names others. One bad
    file does not stop the rest. --search aims at --quality, else at the profile's, else at "good".
    """
    _require_valid(files, search=search, others=(quality, svg))
    cli, failed = cli_of(ctx), 0
    with cli.app() as app:
        usual = [name for name in app.settings.ingest.profiles if name in app.profiles]
        picked = pick(app.profiles, profile or usual or sorted(app.profiles))
        if search:
            status_line = render.StatusLine(live=not cli.quiet and not as_json)
            search_options = quality, svg
            raise typer.Exit(
                _search_all(app, files, picked, search_options, status_line, as_json=as_json)
            )
        for file in files:
            place, stop = str(file.absolute()), threading.Event()
            try:
                info = app.encoder.probe(place, stop=stop)
                plans = [plan_one_file(info, each) for each in picked]
            except (PermanentError, TransientError) as error:
                if len(files) == 1:
                    raise
                failed += 1
                reason = {"reason": type(error).__name__, "detail": str(error)}
                info, plans = None, [{"action": "fail", **reason}]
            if as_json:
                if info is not None:
                    _emit("media", file, info.model_dump(mode="json"))
                for each in plans:
                    _emit("plan", file, each)
                continue
            lines = [f"{file}:"] if len(files) > 1 else []
            lines += [] if info is None else _contents(info)
            for each in plans:
                lines += _lines(each)
            for line in lines:
                render.emit(printable(line))
    raise typer.Exit(ExitCode.SOME_FAILED if failed else ExitCode.OK)


def _require_valid(files: Sequence[Path], *, search: bool, others: Sequence[object]) -> None:
    if len(files) == 1:
        require_existing(files)
    if any(others) and not search:
        raise UsageError("--quality and --svg need --search.")


def _search_all(
    app: App,
    files: Sequence[Path],
    profiles: Sequence[Profile],
    options: tuple[str | None, Path | None],
    status_line: render.StatusLine,
    *,
    as_json: bool,
) -> ExitCode:
    quality, svg = options
    aimed = [with_quality(each, quality or f"{each.video.quality or 'good'}") for each in profiles]
    pairs = list(product(files, aimed))
    if svg is not None and len(pairs) > 1:
        raise UsageError("--svg takes one search: name one FILE and one --profile.")
    failed = False
    for file, each in pairs:
        app.encoder.require_metric(each)
        try:
            _search(app, file, each, svg, status_line, as_json=as_json)
        except (PermanentError, TransientError) as error:
            if len(pairs) == 1:
                raise
            failed = True
            reason = {"reason": type(error).__name__, "detail": str(error)}
            if as_json:
                _emit("search", file, {"profile": each.name, "action": "fail", **reason})
            else:
                render.emit(printable(f"{file}, {each.name}: cannot be searched: {error}"))
    return ExitCode.SOME_FAILED if failed else ExitCode.OK


def _search(
    app: App,
    file: Path,
    profile: Profile,
    svg: Path | None,
    status_line: render.StatusLine,
    *,
    as_json: bool,
) -> None:
    """Search the CRF for a quality, and print what was tried."""
    place, stop = str(file.absolute()), threading.Event()
    info = app.encoder.probe(place, stop=stop)

    def on_share(share: float) -> None:
        status_line.show(file.name, f"search {100 * share:.0f} %  ")

    on_share(0.0)
    try:
        with app.scratch(0) as folder:
            aim = search_quality(app.encoder, place, profile, folder, stop, on_share)
    finally:
        status_line.clear()
    saving, why_kept = profile.gates.minimum_saving, ""
    if isinstance(aim, Aim) and saving is not None:
        if aim.is_unreachable(SCALES[profile.video.codec]):
            why_kept = "the quality cannot be reached"
        elif (aim.size or 0) > (1 - saving) * info.size:
            why_kept = f"less than {100 * saving:g} % would be saved"
    if as_json:
        facts = {"why_not": aim} if isinstance(aim, str) else aim.model_dump(mode="json")
        _emit("search", file, {"profile": profile.name, **facts, "original_kept": bool(why_kept)})
    elif isinstance(aim, str):
        render.emit(printable(f"{file}, {profile.name}: no search: {aim}."))
    else:
        render.emit(printable(f"{file}, {profile.name}: {aim.metric}, {aim.cpu_s:.0f} CPU seconds"))
        for line in curve_lines(aim, info.size):
            render.emit(line)
        if why_kept:
            render.emit(f"  An ingest would keep the original: {why_kept}.")
    if svg is not None and isinstance(aim, Aim):
        svg.write_text(curve_svg(aim), encoding="utf-8")


def _emit(kind: str, file: Path, facts: Mapping[str, object]) -> None:
    render.emit_json({"type": kind, "path": str(file), **facts})


def _ladder(rungs: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each rung, and one for the sum. Sizes are rough, since they follow from the rates."""
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


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    if facts["action"] == "fail":
        yield f"  cannot be planned: {facts['detail']}"
        return
    head = f"{facts['profile']}: {facts['action']}"
    if facts["action"] != "encode":
        yield f"{head} ({facts['reason']}): {facts['detail']}"
        return
    chapters = f", {facts['chapters']} chapters" if facts["chapters"] else ""
    result = "an HLS ladder" if facts.get("rungs") else f".{facts['extension']}"
    yield f"{head} to {result}{chapters}"
    yield from _ladder(facts.get("rungs", []))
    for stream in facts["streams"]:
        result = "" if stream["action"] == "drop" else f" {stream['codec']}".rstrip()
        yield f"  #{stream['source_index']} {stream['kind']}: {stream['action']}{result}"
    for notice in facts["notices"]:
        yield f"  {notice}"


def _contents(info: MediaInfo) -> list[str]:
    length = "unknown length" if info.duration_s is None else timecode(info.duration_s, 0)
    chapters = counted(len(info.chapters), "chapter")
    lines = [f"{info.format_name}, {length}, {size(info.size)}, {chapters}"]
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
