"""`hevcq ingest` and `hevcq shrink`: find videos, encode them, put verified renditions in their place."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace as replace_fields
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hevcq.cli.context import (
    Cli,
    DryRun,
    EventsAsJson,
    ExcludeGlobs,
    IncludeGlobs,
    ProfileNames,
    QualityWanted,
    Quiet,
    Verbose,
    Yes,
    cli_of,
    confirmed,
    quantity,
    require_existing,
    require_queued,
)
from hevcq.errors import UsageError
from hevcq.settings.libraries import KEEP_DAYS, Library, library_of
from hevcq.settings.quantities import seconds, size_bytes
from hevcq.usecases.ingest.decide import TO_PROCESS, IngestPlan
from hevcq.usecases.ingest.request import IngestRequest, library_request
from hevcq.util.text import counted, printable, size

if TYPE_CHECKING:
    from hevcq.wiring.app import App

FreeSize = Annotated[
    str,
    typer.Option(
        metavar="SIZE",
        help="Only until the forecast frees this much, such as 500GB; most per CPU time first.",
    ),
]
FitSize = Annotated[
    str,
    typer.Option(
        metavar="SIZE",
        help="Choose the CRF by samples, so that all fits in this, such as 25GB (hevc: CRF 18 to 32).",
    ),
]
Half = Annotated[
    bool, typer.Option("--half", help="As --fit, with half of what the videos to encode take now.")
]
EVERYTHING = Path("/")
NOTHING_NAMED = "Name at least one folder or file to ingest, or set up a library with `hevcq libraries add PATH`."
SAMPLED_ELSEWHERE = (
    "--sample, --fit and --half only work with the embedded backend and PostgreSQL: on aws another"
    " ffmpeg encodes."
)
WORKERS_ELSEWHERE = "--workers only works with the embedded backend; on aws the fleet encodes."
FREE_HERE = "--max-cost only works on aws: here nobody bills the encodes."
CONFLICTS = (
    ("replace", "output", "choose where renditions go"),
    ("no_wait", "workers", "it runs no workers"),
    ("no_wait", "watch collect_only", "choose one"),
    ("dry_run", "watch no_wait collect_only", "it changes nothing"),
    ("collect_only", "watch include exclude", "it looks for no files"),
    ("collect_only", "output replace", "the destination was set with the job"),
    ("quality", "no_wait collect_only", "only this command's own encodes aim at it"),
    ("fit half", "no_wait collect_only", "only this command's own encodes have that CRF"),
    ("fit half", "fit half quality free budget max_cost", "choose one"),
    ("fit half", "watch", "it chooses once, for what is there now"),
    (
        "free budget max_cost",
        "watch collect_only order",
        "it chooses once what to encode, in its own order",
    ),
    ("quiet", "verbose", "choose one"),
)
"""Options of the first column that exclude each option of the second, and why."""
OF_A_LIBRARY = {
    "profile",
    "quality",
    "include",
    "exclude",
    "output",
    "replace",
    "keep_originals",
    "order",
    "free",
    "budget",
    "max_cost",
    "fit",
    "half",
}


def ingest(
    ctx: typer.Context,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH",
            help="Folders, files, or names of libraries (default: all libraries).",
        ),
    ] = None,
    *,
    profile: ProfileNames = None,
    quality: QualityWanted = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", "-w", metavar="N", min=1, help="Parallel encodes (default: automatic)."
        ),
    ] = None,
    include: IncludeGlobs = None,
    exclude: ExcludeGlobs = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Mirror the folder tree into DIR."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace originals by their renditions.")
    ] = False,
    keep_originals: Annotated[
        float | None,
        typer.Option(
            "--keep-originals",
            metavar="DAYS",
            min=0,
            help="Days to keep replaced originals (default 30).",
        ),
    ] = None,
    free: FreeSize = "",
    budget: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Only what should be done within this time, such as 20h; most saved per CPU time first.",
        ),
    ] = "",
    max_cost: Annotated[
        float | None,
        typer.Option(
            metavar="DOLLARS",
            min=0.01,
            help="On aws: only what costs at most this by the forecast; most saved per CPU time first.",
        ),
    ] = None,
    fit: FitSize = "",
    half: Half = False,
    sample: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Encode samples for about this long, such as 1m: with --dry-run for a closer forecast, "
            "with --fit or --half to choose the CRF (default: at most 15 % of the encodes' time, or 3m).",
        ),
    ] = "",
    order: Annotated[
        Literal["path", "saving"],
        typer.Option(metavar="ORDER", help="Work by path, or by saving (largest expected first)."),
    ] = "path",
    dry_run: DryRun = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Queue and exit.")] = False,
    collect_only: Annotated[
        bool,
        typer.Option("--collect-only", help="Put finished renditions in place, without waiting."),
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep running; ingest new files once they stop growing.")
    ] = False,
    as_json: EventsAsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Encode, verify and put in place every video below PATH.

    Without a PATH, every library of the settings, as its settings say. Uses the profiles in
    ingest.profiles (default: hevc) unless --profile names others. Renditions go beside their
    originals as <stem>.<profile>.<ext>, unless --output or --replace is given. After an
    interruption, run the same command to resume.
    """
    cli = cli_of(ctx)
    shown = replace_fields(cli, quiet=quiet or cli.quiet, verbose=verbose or cli.verbose)
    known = () if collect_only else cli.loaded().settings.libraries
    libraries, places = named_libraries(paths or (), known)
    _refuse_combinations({**ctx.params, "quiet": shown.quiet, "verbose": shown.verbose}, libraries)
    if not (libraries or places or collect_only):
        raise UsageError(NOTHING_NAMED)
    if not collect_only:  # what was queued may have been moved since
        require_existing(places)
    requests = [
        library_request(each, no_wait=no_wait, watch=watch and each.watch) for each in libraries
    ] or [
        IngestRequest(
            roots=tuple(map(_real, places)) or (EVERYTHING,),
            profiles=tuple(profile or ()),
            include=tuple(include or ()),
            exclude=tuple(exclude or ()),
            output=_real(output) if output is not None else None,
            replace=replace,
            keep_days=keep_originals,
            no_wait=no_wait,
            collect_only=collect_only,
            watch=watch,
            largest_saving_first=order == "saving",
            **_limits(free, fit, budget, max_cost),
            half=half,
        )
    ]
    sample_s = quantity("--sample", sample, seconds) / len(requests)
    requests = [replace_fields(each, sample_s=sample_s) for each in requests]
    from hevcq.cli.library.ingest_session import Session

    with cli.app(workers=("--workers", workers), **_log_level(cli, shown)) as app:
        sampled = sample_s or fit or half
        _require_backend(app, max_cost, (workers, WORKERS_ELSEWHERE), (sampled, SAMPLED_ELSEWHERE))
        if collect_only:
            require_queued(app, places)
        _aim(app, profile, quality)
        session = Session(app, shown, requests, as_json=as_json, dry_run=dry_run)
        raise typer.Exit(session.collect() if collect_only else session.run())


def shrink(
    ctx: typer.Context,
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A folder, or one video.")],
    *,
    profile: ProfileNames = None,
    quality: QualityWanted = None,
    free: FreeSize = "",
    fit: FitSize = "",
    half: Half = False,
    yes: Yes = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make the videos below FOLDER smaller, undoable for 30 days.

    Says what that will save, and asks once. The largest savings go first. `hevcq undo FOLDER` takes
    it back while the originals are kept: 30 days, or as long as the library's settings say. The
    same as `hevcq ingest FOLDER --replace --order saving`, which has more options.
    """
    cli = cli_of(ctx)
    shown = replace_fields(cli, quiet=quiet or cli.quiet, verbose=verbose or cli.verbose)
    _refuse_combinations(ctx.params | {"order": "path", "replace": True}, ())
    require_existing([Path(folder)])
    place = _real(Path(folder))
    library = library_of(cli.loaded().settings.libraries, place)
    request = IngestRequest(
        roots=(place,),
        profiles=tuple(profile or ()),
        replace=True,
        keep_days=KEEP_DAYS if library is None else library.keep_originals,
        largest_saving_first=not free,
        **_limits(free, fit),
        half=half,
    )
    from hevcq.cli.library.ingest_session import Session

    with cli.app(**_log_level(cli, shown)) as app:
        _require_backend(app, None, (fit or half, SAMPLED_ELSEWHERE))
        _aim(app, profile, quality)
        session = Session(app, shown, [request], as_json=False, dry_run=False)
        raise typer.Exit(session.run(lambda plan: yes or _agreed(plan, request)))


def _require_backend(app: App, max_cost: float | None, *local: tuple[object, str]) -> None:
    """Raise UsageError for options that do not work with this backend, each with why."""
    elsewhere = local if app.settings.on_aws else ((max_cost, FREE_HERE),)
    for given, why in elsewhere:
        if given:
            raise UsageError(why)


def _limits(free: str, fit: str, budget: str = "", max_cost: float | None = None) -> dict[str, Any]:
    return {
        "free_bytes": quantity("--free", free, size_bytes),
        "fit_bytes": quantity("--fit", fit, size_bytes),
        "budget_s": quantity("--budget", budget, seconds),
        "max_cost": max_cost or 0.0,
    }


def _agreed(plan: IngestPlan, request: IngestRequest) -> bool:
    """Say what shrinking saves, and ask whether to go on."""
    from hevcq.cli.output.ingest_report import plan_saving

    days, folder = request.keep_days, shlex.quote(printable(request.roots[0]))
    kept = f"for {days:g} days" if days and math.isfinite(days) else "until you free them"
    Cli.warn(
        f"This saves about {size(plan_saving(plan)) or '0 B'}. The originals are kept {kept}: so long you"
        f" need space for both, and `hevcq undo {folder}` restores them."
    )
    count = len({item.path for item in plan.of(*TO_PROCESS)})
    if not confirmed(f"Replace {counted(count, 'video')}?"):
        Cli.warn("Nothing was changed; --yes confirms without asking.")
        return False
    return True


def _aim(app: App, profiles: Sequence[str] | None, wanted: str | None) -> None:
    """Let the profiles of this run search their CRF for a quality. Raises UsageError, ConfigError."""
    if wanted is None:
        return
    from hevcq.settings.profile_files import pick, with_quality

    if app.settings.on_aws:
        raise UsageError("--quality is for this machine; on aws set video.quality in the profile.")
    named = pick(app.profiles, list(profiles or app.settings.ingest.profiles))
    app.aim_profiles(*(with_quality(each, wanted) for each in named))


def _log_level(cli: Cli, shown: Cli) -> dict[str, tuple[str, object]]:
    """Return the setting that keeps the log from saying again what the display shows."""
    return {} if shown.verbose else cli.log_level("(default with a display)", "error")


def _refuse_combinations(options: Mapping[str, object], libraries: Sequence[Library]) -> None:
    """Raise UsageError for options that exclude each other, or exclude these libraries."""
    given = {name for name, value in options.items() if value or isinstance(value, float)}
    if options["order"] == "path":
        given.remove("order")
    for left, right, why in CONFLICTS:
        for pair in product(left.split(), right.split()):
            if pair[0] != pair[1] and given.issuperset(pair):
                one, other = (f"--{name.replace('_', '-')}" for name in pair)
                raise UsageError(f"{one} and {other} cannot be combined: {why}.")
    if "keep_originals" in given and "replace" not in given and not libraries:
        raise UsageError(
            "--keep-originals only works with --replace; otherwise originals are never touched."
        )
    if "sample" in given and given.isdisjoint({"dry_run", "fit", "half"}):
        raise UsageError("--sample only works with --dry-run, --fit or --half.")
    if "free" in given and "replace" not in given and not libraries:
        raise UsageError("--free only works with --replace: what is put beside frees nothing.")
    if libraries and not OF_A_LIBRARY.isdisjoint(given):
        raise UsageError(
            "What a library makes, of which files and where to is in its settings; to ingest its"
            " folder in another way, name the folder's path."
        )
    limits = [each.name for each in libraries if each.schedule or each.max_hours_per_day]
    if limits and "no_wait" in given:
        raise UsageError(f"--no-wait cannot keep the schedule or budget of {', '.join(limits)}.")


def named_libraries(
    texts: Sequence[str], known: Sequence[Library]
) -> tuple[tuple[Library, ...], tuple[Path, ...]]:
    """Return the libraries that were named, or all of them if nothing was; else the paths.

    A word without a slash that is a library's name is that library; a folder of the same name is
    written `./NAME`. Raises UsageError where libraries and paths are mixed.
    """
    names = {each.name.casefold(): each for each in known}
    if not texts:
        return tuple(known), ()
    chosen = [names.get(text.casefold()) if "/" not in text else None for text in texts]
    found = tuple(dict.fromkeys(each for each in chosen if each is not None))
    if found and None in chosen:
        raise UsageError(
            "Name libraries or paths, not both; a folder that is called as a library is ./NAME."
        )
    return found, () if found else tuple(Path(text) for text in texts)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
