"""`hevcq libraries`: list the media folders of the settings, add one, and show savings."""

import csv
import shlex
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from hevcq.cli.context import AsJson, PlainCommand, ProfileNames, cli_of, current_user, group
from hevcq.cli.output import render
from hevcq.cli.output.render import day
from hevcq.errors import UsageError
from hevcq.settings.loader import settings_path
from hevcq.settings.profile_files import load_profiles, profile_folder
from hevcq.usecases import stats as sums
from hevcq.usecases.context import count_videos, folder_state, watch_words
from hevcq.usecases.settings.changes import SettingsFile
from hevcq.usecases.settings.libraries import free_name, save_library
from hevcq.usecases.stats import Line, Originals, Report
from hevcq.util.clock import SystemClock
from hevcq.util.text import counted, duration, printable, size
from hevcq.wiring.contexts import up_to_date_log

app = group("List and add libraries, and show savings.")


@app.command("list", cls=PlainCommand)
def list_libraries(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the libraries: folder, place, profiles and priority."""
    cli = cli_of(ctx)
    settings, rows = cli.loaded().settings, []
    for each in settings.libraries:
        profiles = ", ".join(each.profiles or settings.ingest.profiles)
        watched = "yes" if each.watch else "no"
        rows.append((each.name, each.path, each.place, profiles, each.priority, watched))
        if as_json:
            render.emit_json({"type": "library", **each.model_dump(mode="json")})
    if not rows:
        cli.echo("No libraries yet; add one with `hevcq libraries add PATH`.")
    elif not as_json:
        render.emit_table(("library", "folder", "place", "profiles", "priority", "watched"), rows)


@app.command("add", cls=PlainCommand)
def add(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The folder.")],
    *,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its name (default: the folder's).")
    ] = None,
    place: Annotated[
        Literal["beside", "mirror", "replace"],
        typer.Option(metavar="PLACE", help="Where renditions go: beside, mirror or replace."),
    ] = "beside",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="The target folder of mirror."),
    ] = None,
    profile: ProfileNames = None,
    keep_originals: Annotated[
        float | None,
        typer.Option(metavar="DAYS", min=0, help="Days to keep replaced originals (default 30)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add a library to your settings file.

    Asks nothing, and keeps comments in the file. Add rules, an order or a budget by editing the file.
    """
    cli, folder = cli_of(ctx), path.expanduser().absolute()
    if not folder.is_dir():
        raise UsageError(f"No such folder: {printable(path)}.")
    settings = cli.loaded().settings
    file = SettingsFile(settings_path(cli.config), settings.data_dir, SystemClock())
    values: dict[str, object] = {
        "name": name or free_name(folder, settings.libraries),
        "path": str(folder),
        "place": place,
    }
    if output is not None:
        values["output"] = str(output.expanduser().absolute())
    if profile:
        values["profiles"] = list(profile)
    if keep_originals is not None:
        days = int(keep_originals) if keep_originals.is_integer() else keep_originals
        values["keep_originals"] = days
    library = save_library(
        file, values, current_user(), profiles=load_profiles(profile_folder(settings))
    )
    count, total_size = count_videos(folder, settings.data_dir)
    state = folder_state(library)
    if as_json:
        facts = {
            "file": str(file.file),
            "videos": count,
            "size": total_size,
            "problem": state.problem,
        }
        render.emit_json({"type": "library", **library.model_dump(mode="json"), **facts})
        return
    videos = counted(count, "video file")
    cli.echo(f"Added library {library.name} to {file.file}.")
    cli.echo(f"{printable(folder)}: {videos}, {size(total_size)}; {watch_words(state)}.")
    if state.problem:
        cli.warn(state.problem)
    cli.echo(f"See what would be encoded: hevcq ingest {shlex.quote(library.name)} --dry-run")


WIDTH = 80
FEW_DAYS = 45
"""Up to this many days a line is a day, otherwise a month."""
MAX_LINES = 24
NOTHING = "No encodes are recorded in this data folder yet."


@app.command(cls=PlainCommand)
def stats(
    ctx: typer.Context,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="WHEN", help="First day: 90d, 6m, 2y or 2026-01-31."),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the daily sums as CSV.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show savings over time, by library, profile and codec.

    "Smaller" compares renditions with their sources; only replaced originals free space. Reads daily
    totals, which are kept permanently. On AWS this machine keeps them; the ledger forgets finished jobs
    after half a year, so run this at least that often. Days are in UTC.
    """
    if as_csv and as_json:
        raise UsageError("--csv and --json exclude each other.")
    with cli_of(ctx).app() as app:
        now = app.clock.now()
        first = sums.FIRST if since is None else sums.since_of(since, now)
        log, last = up_to_date_log(app), sums.day_of(now)
        library = sums.library_names(app.settings)
        if as_csv:
            rows = sums.rows(log, first, last)
            csv.writer(sys.stdout, lineterminator="\n").writerows(
                [sums.CSV_COLUMNS, *sums.csv_rows(rows, library)]
            )
            return
        result = sums.report(log, first, last, library)
        result = replace(result, originals=sums.originals_now(app.library_ports))
    if as_json:
        render.emit_json(result.to_dict())
        return
    for line in _text(result):
        render.emit(line)


def _text(result: Report) -> list[str]:
    total, kept = result.total, _kept(result.originals)
    if not (total.renditions or total.failed or result.skipped):
        return [NOTHING, *kept]
    out = [
        (
            f"Since {result.since}: {counted(total.renditions, 'rendition')} made, "
            f"{size(total.before)} became "
            f"{size(total.after)}{_share(total)}, {_cpu(total)} of CPU."
        )
    ]
    if result.replaced:
        were = "was" if result.undone == 1 else "were"
        back = f"; {result.undone} {were} restored" if result.undone else ""
        freed = _saved(result.freed)
        if result.freed >= 0:
            freed = f"{size(result.freed)} free once their originals are deleted"
        out.append(f"Replaced {counted(result.replaced, 'video')}: {freed}{back}.")
    elif total.renditions:
        out.append("No original was replaced, so no space is freed.")
    classes = ", ".join(f"{name or 'other'} {n}" for name, n in result.failures.items())
    failed = f"failed {total.failed} ({classes})" if total.failed else "failed none"
    out.append(f"Skipped {result.skipped}, {failed}, retried {result.retries}.")
    if total.scored:
        out.append(
            f"Quality: VMAF {total.verified:.1f} measured, {total.target:.1f} was the target (means of "
            f"{counted(total.scored, 'rendition')})."
        )
    out = [line for sentence in out for line in textwrap.wrap(sentence, WIDTH)]
    days = (result.until - result.since).days < FEW_DAYS
    for title, lines in (
        ("day", result.days[-MAX_LINES:]) if days else ("month", result.months[-MAX_LINES:]),
        ("library", result.libraries),
        ("profile", result.profiles),
        ("codec", result.codecs),
    ):
        out += ["", *_table(title, lines)]
    return [*out, *kept]


def _kept(kept: Originals) -> list[str]:
    """Return a line with the size of the kept originals and their expiry dates; none without any."""
    if not kept.count:
        return []
    ends = "they are kept until you delete them"
    if kept.first_end is not None and kept.last_end is not None:
        ends = f"the first expires on {day(kept.first_end)}, the last on {day(kept.last_end)}"
    return ["", f"Kept: {counted(kept.count, 'original')}, {size(kept.size)}; {ends}."]


def _table(title: str, lines: Sequence[Line]) -> list[str]:
    cells, scored = [], any(line.scored for line in lines)
    for line in lines:
        sizes = (size(line.before), size(line.after), _saved(line.saved))
        quality = f"{line.verified:.1f}/{line.target:.0f}" if line.scored else ""
        row = [line.name, str(line.renditions), *sizes, _cpu(line), str(line.failed)]
        cells.append([*row, quality] if scored else row)
    columns = [title, "made", "before", "after", "smaller", "CPU", "failed"]
    columns += ["VMAF"] if scored else []
    return list(render.fit_table(columns, cells, WIDTH))


def _cpu(line: Line) -> str:
    return duration(line.cpu_h * 3600)


def _saved(count: int) -> str:
    return size(count) if count >= 0 else f"{size(-count)} more"


def _share(line: Line) -> str:
    if not line.before:
        return ""
    percent = 100 * line.saved / line.before
    return f" ({percent:.0f} % less)" if percent >= 0 else f" ({-percent:.0f} % more)"
