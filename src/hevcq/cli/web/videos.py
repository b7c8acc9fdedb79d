"""`hevcq serve videos`: list, show, share and delete uploaded videos."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from hevcq.cli.context import cli_of, confirmed, current_user
from hevcq.cli.exit_codes import ExitCode
from hevcq.cli.options import AsJson, Limit, PlainCommand, Yes, group
from hevcq.cli.output import table as render
from hevcq.domain.videos.record import Video, VideoStatus
from hevcq.usecases.videos import manage
from hevcq.usecases.videos.manage import (
    ProfileRow,
    VideoFarm,
    every,
    refresh,
    rows,
    settled_rows,
    video_json,
)
from hevcq.util.text import ago, printable, size
from hevcq.wiring.contexts import video_farm

app = group("List, show, share and delete uploaded videos.")

VideoId = Annotated[str, typer.Argument(metavar="VIDEO", help="Id of the video.")]


@app.command("list", cls=PlainCommand)
def list_videos(
    ctx: typer.Context,
    owner: Annotated[
        str | None, typer.Option("--owner", metavar="NAME", help="Only this owner's.")
    ] = None,
    status: Annotated[
        VideoStatus | None,
        typer.Option(
            "--status", metavar="STATUS", help=f"Only in this state: {', '.join(VideoStatus)}."
        ),
    ] = None,
    search: Annotated[
        str, typer.Option("--search", metavar="TEXT", help="Only with this in title or name.")
    ] = "",
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """List uploaded videos, newest first."""
    with _farm(ctx) as farm:
        found = (
            refresh(farm, each)
            for each in every(farm, owner=owner, status=status, text=search, limit=limit)
        )
        if as_json:
            for each in found:
                render.emit_json(video_json(each, settled_rows(each)))
            return
        now = farm.clock.now()
        shown = [_row(each, now) for each in found]
        if not shown:
            cli_of(ctx).echo("No videos.")
            return
        render.emit_table(("video", "status", "size", "uploaded", "owner", "name", "reason"), shown)


@app.command(cls=PlainCommand)
def show(ctx: typer.Context, video: VideoId, as_json: AsJson = False) -> None:
    """Show a video, and what became of each of its formats."""
    with _farm(ctx) as farm:
        found = refresh(farm, farm.find(video, None))
        formats = rows(farm, found)
        if as_json:
            render.emit_json(video_json(found, formats))
            return
        _show(found, formats)


@app.command(cls=PlainCommand)
def publish(
    ctx: typer.Context,
    video: VideoId,
    private: Annotated[
        bool, typer.Option("--private", help="Make a public video private again.")
    ] = False,
    tags: Annotated[
        bool, typer.Option("--tags", help="Also share what the files tell of people and places.")
    ] = False,
    original: Annotated[
        bool, typer.Option("--original", help="Also share the uploaded file, with all it holds.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Let everybody with its address watch a video.

    The address cannot be guessed. A video made private and public again gets another one.
    """
    with _farm(ctx) as farm:
        found = farm.find(video, None)
        found = (
            manage.unpublish(farm, found)
            if private
            else manage.publish(farm, found, tags=tags, original=original)
        )
        if as_json:
            render.emit_json(video_json(found, settled_rows(found)))
        elif found.slug is None:
            cli_of(ctx).echo("The video is private.")
        else:
            render.emit(f"/p/{found.slug}")


@app.command(cls=PlainCommand)
def delete(
    ctx: typer.Context,
    videos: Annotated[list[str], typer.Argument(metavar="VIDEO", help="Ids of the videos.")],
    yes: Yes = False,
) -> None:
    """Delete videos with all that belongs to them.

    The uploaded file, every rendition and its certificate are deleted, and running encodes are
    cancelled. This cannot be undone.
    """
    cli = cli_of(ctx)
    with _farm(ctx) as farm:
        found = [farm.find(each, None) for each in videos]
        names = ", ".join(printable(each.title) for each in found)
        if not yes and not confirmed(f"Permanently delete {names}, with all renditions?"):
            cli.echo("Nothing deleted.")
            raise typer.Exit(ExitCode.SOME_FAILED)
        for each in found:
            manage.delete(farm, each, current_user())
            cli.echo(f"Deleted {each.video_id} ({printable(each.title)}).")


@contextmanager
def _farm(ctx: typer.Context) -> Iterator[VideoFarm]:
    with cli_of(ctx).app() as opened:
        yield video_farm(opened)


def _row(video: Video, now: float) -> list[str]:
    taken, age = size(video.upload.size), ago(video.created_at, now)
    who = [video.owner, video.title, video.reason]
    return [video.video_id, video.status.value, taken, age, *who]


def _show(video: Video, formats: list[ProfileRow]) -> None:
    facts = {
        "video": video.video_id,
        "title": video.title,
        "owner": video.owner,
        "file": f"{video.upload.name} ({size(video.upload.size)})",
        "status": video.status.value,
        "reason": video.reason,
        "remedy": video.remedy,
        "public": f"/p/{video.slug}" if video.slug else "no",
        "uploaded file": "deleted" if video.raw_deleted_at else "kept" if video.source else "",
    }
    for name, value in facts.items():
        if value:
            render.emit(f"{name}: {printable(value)}")
    if formats:
        render.emit()
        table = []
        for each in formats:
            progress = f"{each.phase} {each.percent:.0f} %" if each.phase else ""
            taken = size(each.size) if each.size else ""
            saved = f"{each.saved * 100:.0f} %" if each.saved is not None else ""
            state = (each.profile, each.state.value, progress)
            table.append((*state, taken, saved, each.key, each.reason))
        heads = ("profile", "state", "progress", "size", "saved", "file", "reason")
        render.emit_table(heads, table)
