"""The options of `hevcq ingest`, with the combinations that are refused."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hevcq.errors import UsageError
from hevcq.settings.libraries import Library
from hevcq.usecases.ingest.request import IngestRequest, library_request

EVERYTHING = Path("/")


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one ingest, as typed; `keep_originals` is in days."""

    paths: tuple[Path, ...] = ()
    profiles: tuple[str, ...] = ()
    workers: int | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    output: Path | None = None
    replace: bool = False
    keep_originals: float | None = None
    dry_run: bool = False
    no_wait: bool = False
    skip_upload: bool = False
    collect_only: bool = False
    watch: bool = False
    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    libraries: tuple[Library, ...] = ()
    order: Literal["path", "saving"] = "path"

    @property
    def queued_only(self) -> bool:
        """Whether only jobs that are queued already count, and no folder is scanned."""
        return self.skip_upload or self.collect_only

    def requests(self) -> list[IngestRequest]:
        """Return a request for each library, or the one of the paths."""
        if not self.libraries:
            return [self.request()]
        return [
            library_request(each, no_wait=self.no_wait, watch=self.watch and each.watch)
            for each in self.libraries
        ]

    def request(self) -> IngestRequest:
        """Return the request, with links in paths resolved; no path means everything."""
        return IngestRequest(
            roots=tuple(_real(path) for path in self.paths) or (EVERYTHING,),
            profiles=self.profiles,
            include=self.include,
            exclude=self.exclude,
            output=_real(self.output) if self.output is not None else None,
            replace=self.replace,
            keep_days=self.keep_originals,
            no_wait=self.no_wait,
            skip_upload=self.queued_only,
            watch=self.watch,
            largest_saving_first=self.order == "saving",
        )

    def check(self) -> None:
        """Raise UsageError for a combination that makes no sense."""
        for wrong, sentence in (*self._library_rules(), *self._rules(), *self._waiting_rules()):
            if wrong:
                raise UsageError(sentence)

    @property
    def _queued_only(self) -> str:
        return "--collect-only" if self.collect_only else "--skip-upload"

    def _rules(self) -> list[tuple[bool, str]]:
        return [
            (
                not (self.paths or self.libraries or self.queued_only),
                (
                    "Name at least one folder or file to ingest, or set up a library with `hevcq libraries"
                    " add PATH`."
                ),
            ),
            (
                self.replace and self.output is not None,
                ("--replace and --output cannot be combined: choose where renditions go."),
            ),
            (
                self.keep_originals is not None and not self.replace,
                (
                    "--keep-originals only works with --replace; otherwise originals are never"
                    " touched."
                ),
            ),
            (
                self.no_wait and self.queued_only,
                f"--no-wait and {self._queued_only} cannot be combined.",
            ),
            (
                self.collect_only and self.skip_upload,
                "--collect-only waits for nothing, --skip-upload does: choose one.",
            ),
            (
                self.no_wait and self.watch,
                "--no-wait and --watch cannot be combined: choose one.",
            ),
            (
                self.dry_run and (self.watch or self.no_wait or self.queued_only),
                f"--dry-run cannot be combined with --watch, --no-wait or {self._queued_only}.",
            ),
            (
                self.queued_only and self.watch,
                f"{self._queued_only} and --watch cannot be combined.",
            ),
        ]

    def _library_rules(self) -> list[tuple[bool, str]]:
        own = (
            self.order == "saving",
            self.profiles,
            self.include,
            self.exclude,
            self.output,
            self.replace,
        )
        limits = [each.name for each in self.libraries if each.schedule or each.max_hours_per_day]
        return [
            (
                bool(self.libraries) and (any(own) or self.keep_originals is not None),
                (
                    "What a library makes, of which files and where to is in its settings; to ingest its"
                    " folder in another way, name the folder's path."
                ),
            ),
            (
                bool(limits) and self.no_wait,
                f"--no-wait cannot keep the schedule or budget of {', '.join(limits)}.",
            ),
        ]

    def _waiting_rules(self) -> list[tuple[bool, str]]:
        filters = bool(self.include or self.exclude)
        places = self.output is not None or self.replace
        return [
            (
                self.queued_only and filters,
                f"--include and --exclude do not work with {self._queued_only}: it looks for no files.",
            ),
            (
                self.queued_only and places,
                (
                    f"--output and --replace do not work with {self._queued_only}: the destination was"
                    " set when the job was queued."
                ),
            ),
            (
                self.no_wait and self.workers is not None,
                "--workers does not work with --no-wait: it runs no workers.",
            ),
            (self.quiet and self.verbose, "--quiet and --verbose cannot be combined."),
        ]


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
