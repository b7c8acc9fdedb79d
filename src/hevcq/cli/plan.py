"""`hevcq plan`: what would become of a file, and how it would be split, without doing it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hevcq.cli import render
from hevcq.cli.context import cli_of
from hevcq.cli.options import AsJson, ProfileNames
from hevcq.cli.status_text import duration
from hevcq.domain.chunks import ChunkPlan, WholeFile, plan_chunks
from hevcq.domain.plan import EncodePlan, Plan, Refuse, Skip
from hevcq.domain.planner import make_plan
from hevcq.profiles import pick

if TYPE_CHECKING:
    from hevcq.domain.chunks import KeyIndex
    from hevcq.domain.media import MediaInfo
    from hevcq.domain.profile import Profile


def plan(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="The file to look at.")],
    profile: ProfileNames = None,
    as_json: AsJson = False,
) -> None:
    """Show what would become of a file.

    Skipped, refused or encoded, what happens to each stream, and how the film would be split.
    """
    location, stop = str(file.absolute()), threading.Event()
    with cli_of(ctx).app() as app:
        picked = pick(app.profiles, profile or sorted(app.profiles))
        info = app.encoder.probe(location, stop=stop)
        plans = [(each, make_plan(each, info)) for each in picked]
        encodes = any(isinstance(made, EncodePlan) for _, made in plans)
        index = app.encoder.keyframes(location, info, stop=stop) if encodes else None
    for each, made in plans:
        found = facts(each, info, made, index)
        if as_json:
            render.emit_json({"type": "plan", "path": str(file), **found})
        else:
            for line in _lines(found):
                render.emit(render.printable(line))


def facts(profile: Profile, info: MediaInfo, made: Plan, index: KeyIndex | None) -> dict[str, Any]:
    """Return one profile's plan as the JSON form has it."""
    found: dict[str, Any] = {"profile": profile.name, "revision": profile.revision}
    if isinstance(made, Skip):
        return {**found, "action": "skip", "reason": made.reason.value, "detail": made.detail}
    if isinstance(made, Refuse):
        return {**found, "action": "refuse", "reason": made.policy, "detail": made.detail}
    dumped = made.model_dump(mode="json", include={"extension", "streams", "chapters", "notices"})
    found |= {"action": "encode", **dumped}
    if index is None:
        return found
    split = plan_chunks(profile, info, made, index)
    if isinstance(split, WholeFile):
        return {**found, "chunks": [], "whole": split.model_dump(mode="json")}
    return {**found, "chunks": _chunks(split), "whole": None}


def _chunks(split: ChunkPlan) -> list[dict[str, Any]]:
    return [
        {
            "index": chunk.index,
            "start_s": round(chunk.start_s, 6),
            "duration_s": round(split.seconds(chunk), 6),
            "frames": chunk.frames,
            "bytes": chunk.bytes,
            "cost": round(chunk.cost, 6),
        }
        for chunk in split.chunks
    ]


def _lines(found: dict[str, Any]) -> Iterator[str]:
    head = f"{found['profile']}: {found['action']}"
    if found["action"] != "encode":
        yield f"{head} ({found['reason']}): {found['detail']}"
        return
    yield f"{head} to .{found['extension']}, {found['chapters']} chapters"
    for stream in found["streams"]:
        made = "" if stream["action"] == "drop" else f" {stream['codec']}".rstrip()
        yield f"  #{stream['source_index']} {stream['kind']}: {stream['action']}{made}"
    for notice in found["notices"]:
        yield f"  {notice}"
    if found.get("whole"):
        yield f"  in one piece ({found['whole']['reason']}): {found['whole']['detail']}"
    chunks = found.get("chunks", [])
    if chunks:
        yield f"  in {len(chunks)} chunks:"
    for chunk in chunks:
        begins = duration(chunk["start_s"]) or "0 s"
        yield (
            f"    {chunk['index'] + 1}: from {begins}, {chunk['duration_s']:.1f} s, "
            f"{chunk['frames']} frames, {chunk['cost']:.1%} of the work"
        )
