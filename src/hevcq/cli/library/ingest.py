"""`hevcq ingest` and `hevcq shrink`: their options, which of them exclude each other, and libraries."""

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
    confirm,
    parse_option,
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
        help="Encode only until the forecast frees this much, such as 500GB; most per CPU time first.",
    ),
]
FitSize = Annotated[
    str,
    typer.Option(
        metavar="SIZE",
        help="Choose the CRF by samples so that all renditions fit in SIZE, such as 25GB (hevc: CRF 18 to 32).",
    ),
]
Half = Annotated[
    bool,
    typer.Option("--half", help="Like --fit, with half of what the videos to encode take now."),
]
EVERYTHING = Path("/")
NOTHING_NAMED = (
    "Name at least one folder or file, or add a library with `hevcq libraries add PATH`."
)
SAMPLED_ELSEWHERE = (
    "--sample, --fit and --half only work with the embedded backend and PostgreSQL: on aws another"
    " machine's ffmpeg encodes."
)
WORKERS_ELSEWHERE = "--workers only works with the embedded backend; on aws the fleet encodes."
FREE_HERE = "--max-cost only works on aws; here, `prices.max_per_day` limits what a day may cost."
CONFLICTS = (
    ("replace", "output", "choose where renditions go"),
    ("no_wait", "workers", "it runs no workers"),
    ("no_wait", "watch collect_only", "choose one"),
    ("dry_run", "watch no_wait collect_only", "it changes nothing"),
    ("collect_only", "watch include exclude", "it does not look for files"),
    ("collect_only", "output replace", "the destination was set with the job"),
    ("quality", "no_wait collect_only", "it only applies to this command's own encodes"),
    ("fit half", "no_wait collect_only", "it only applies to this command's own encodes"),
    ("fit half", "fit half quality free budget max_cost", "choose one"),
    ("fit half", "watch", "it chooses once, for the files that exist now"),
    (
        "free budget max_cost",
        "watch collect_only order",
        "it chooses once what to encode, in its own order",
    ),
    ("quiet", "verbose", "choose one"),
)
"""Each option of the first column excludes those of the second; the third tells why."""
SET_BY_LIBRARY = "profile quality include exclude output replace keep_originals order free budget max_cost fit half"
"""Options that a library's settings replace."""


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
        bool, typer.Option("--replace", help="Replace originals with their renditions.")
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
            help="Encode only what should finish within this time, such as 20h; most saved per CPU time first.",
        ),
    ] = "",
    max_cost: Annotated[
        float | None,
        typer.Option(
            metavar="DOLLARS",
            min=0.01,
            help="On aws: encode only up to this forecast cost; most saved per CPU time first.",
        ),
    ] = None,
    fit: FitSize = "",
    half: Half = False,
    sample: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Encode samples for about this long, such as 1m: with --dry-run for a better forecast, "
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
        typer.Option("--collect-only", help="Only move finished renditions to their place."),
    ] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Keep running, and ingest new files once they stop growing."),
    ] = False,
    as_json: EventsAsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Encode and verify every video below PATH.

    Without a PATH, ingests every library as its settings say. Uses the profiles in ingest.profiles
    (default: hevc) unless --profile names others. Renditions go beside their originals as
    <stem>.<profile>.<ext>, unless --output or --replace is given. After an interruption, run the same
    command to resume.
    """
    cli = cli_of(ctx)
    shown = replace_fields(cli, quiet=quiet or cli.quiet, verbose=verbose or cli.verbose)
    configured = () if collect_only else cli.loaded().settings.libraries
    libraries, places = split_libraries(paths or (), configured)
    _refuse_combinations({**ctx.params, "quiet": shown.quiet, "verbose": shown.verbose}, libraries)
    if not (libraries or places or collect_only):
        raise UsageError(NOTHING_NAMED)
    if not collect_only:  # queued files may have been moved since
        require_existing(places)
    requests = [
        library_request(each, no_wait=no_wait, watch=watch and each.watch) for each in libraries
    ] or [
        IngestRequest(
            roots=tuple(map(_resolve, places)) or (EVERYTHING,),
            profiles=tuple(profile or ()),
            include=tuple(include or ()),
            exclude=tuple(exclude or ()),
            output=_resolve(output) if output is not None else None,
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
    sample_s = parse_option("--sample", sample, seconds) / len(requests)
    requests = [replace_fields(each, sample_s=sample_s) for each in requests]
    from hevcq.cli.library.ingest_session import Session

    with cli.app(workers=("--workers", workers), **_quiet_log(cli, shown)) as app:
        sampled = sample_s or fit or half
        _require_backend(app, max_cost, (workers, WORKERS_ELSEWHERE), (sampled, SAMPLED_ELSEWHERE))
        if collect_only:
            require_queued(app, places)
        _set_quality(app, profile, quality)
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

    Shows the expected saving, and asks once. The largest savings come first. `hevcq undo FOLDER`
    restores the originals while they are kept: 30 days, or as set for the library. The same as
    `hevcq ingest FOLDER --replace --order saving`, which has more options.
    """
    cli = cli_of(ctx)
    shown = replace_fields(cli, quiet=quiet or cli.quiet, verbose=verbose or cli.verbose)
    _refuse_combinations(ctx.params | {"order": "path", "replace": True}, ())
    require_existing([Path(folder)])
    place = _resolve(Path(folder))
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

    with cli.app(**_quiet_log(cli, shown)) as app:
        _require_backend(app, None, (fit or half, SAMPLED_ELSEWHERE))
        _set_quality(app, profile, quality)
        session = Session(app, shown, [request], as_json=False, dry_run=False)
        raise typer.Exit(session.run(lambda plan: yes or _confirm_shrink(plan, request)))


def _require_backend(app: App, max_cost: float | None, *local: tuple[object, str]) -> None:
    """Raise UsageError for options that do not work with this backend; `local` has each with the reason."""
    elsewhere = local if app.settings.on_aws else ((max_cost, FREE_HERE),)
    for given, why in elsewhere:
        if given:
            raise UsageError(why)


def _limits(free: str, fit: str, budget: str = "", max_cost: float | None = None) -> dict[str, Any]:
    return {
        "free_bytes": parse_option("--free", free, size_bytes),
        "fit_bytes": parse_option("--fit", fit, size_bytes),
        "budget_s": parse_option("--budget", budget, seconds),
        "max_cost": max_cost or 0.0,
    }


def _confirm_shrink(plan: IngestPlan, request: IngestRequest) -> bool:
    """Print the expected saving, and ask whether to continue."""
    from hevcq.cli.output.ingest_report import plan_saving

    days, folder = request.keep_days, shlex.quote(printable(request.roots[0]))
    duration = f"for {days:g} days" if days and math.isfinite(days) else "until you free them"
    Cli.warn(
        f"This saves about {size(plan_saving(plan)) or '0 B'}. The originals are kept {duration}: until then"
        f" you need space for both, and `hevcq undo {folder}` restores them."
    )
    count = len({item.path for item in plan.of(*TO_PROCESS)})
    if not confirm(f"Replace {counted(count, 'video')}?"):
        Cli.warn("Nothing was changed; use --yes to confirm without asking.")
        return False
    return True


def _set_quality(app: App, profiles: Sequence[str] | None, wanted: str | None) -> None:
    """Make the profiles of this run search the CRF for a quality. Raises UsageError, ConfigError."""
    if wanted is None:
        return
    from hevcq.settings.profile_files import pick, with_quality

    if app.settings.on_aws:
        raise UsageError(
            "--quality only works on this machine; on aws set video.quality in the profile."
        )
    named = pick(app.profiles, list(profiles or app.settings.ingest.profiles))
    app.aim_profiles(*(with_quality(each, wanted) for each in named))


def _quiet_log(cli: Cli, shown: Cli) -> dict[str, tuple[str, object]]:
    """Return a log level at which the log does not repeat what the display shows."""
    return {} if shown.verbose else cli.log_level("(default with a display)", "error")


def _refuse_combinations(options: Mapping[str, object], libraries: Sequence[Library]) -> None:
    """Raise UsageError for options that cannot be combined with each other, or with libraries."""
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
        raise UsageError(
            "--free only works with --replace: renditions beside originals free no space."
        )
    if libraries and not given.isdisjoint(SET_BY_LIBRARY.split()):
        raise UsageError(
            "A library's profiles, files and destination are in its settings; to ingest its folder"
            " differently, give the folder's path."
        )
    limits = [each.name for each in libraries if each.schedule or each.max_hours_per_day]
    if limits and "no_wait" in given:
        raise UsageError(
            f"--no-wait ignores the schedule or budget of {', '.join(limits)}; run without it."
        )


def split_libraries(
    texts: Sequence[str], configured: Sequence[Library]
) -> tuple[tuple[Library, ...], tuple[Path, ...]]:
    """Return the named libraries, or all if nothing is named; otherwise return the paths.

    A text without a slash that is a library's name means that library; a folder of the same name is
    written `./NAME`. Raises UsageError if libraries and paths are mixed.
    """
    by_name = {library.name.casefold(): library for library in configured}
    if not texts:
        return tuple(configured), ()
    matches = [by_name.get(text.casefold()) if "/" not in text else None for text in texts]
    libraries = tuple(dict.fromkeys(library for library in matches if library is not None))
    if libraries and None in matches:
        raise UsageError(
            "Name libraries or paths, not both; write ./NAME for a folder with a library's name."
        )
    return libraries, () if libraries else tuple(Path(text) for text in texts)


def _resolve(path: Path) -> Path:
    return Path(os.path.realpath(path))
