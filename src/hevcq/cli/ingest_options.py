"""What `hevcq ingest` was asked for: checked as a whole, senseless combinations refused at once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hevcq.domain.profile import Profile
from hevcq.errors import UsageError
from hevcq.ports.catalog import Mode
from hevcq.usecases.ingest_targets import Destination

KEEP_DAYS = 30.0
"""How long a replaced original is kept, unless --keep-originals says otherwise."""
EVERYTHING = Path("/")


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one ingest, as typed."""

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
    watch: bool = False
    as_json: bool = False
    quiet: bool = False
    verbose: bool = False

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders and files named, with links in them resolved; everything where none is."""
        if not self.paths:
            return (EVERYTHING,)
        return tuple(_real(path) for path in self.paths)

    def check(self) -> None:
        """Raise UsageError with one sentence for a combination that makes no sense."""
        for wrong, sentence in (*self._rules(), *self._waiting_rules()):
            if wrong:
                raise UsageError(sentence)

    def _rules(self) -> list[tuple[bool, str]]:
        return [
            (
                not self.paths and not self.skip_upload,
                "Name at least one folder or file to ingest.",
            ),
            (
                self.replace and self.output is not None,
                (
                    "--replace puts renditions in their originals' place and --output puts them"
                    " elsewhere; choose one."
                ),
            ),
            (
                self.keep_originals is not None and not self.replace,
                (
                    "--keep-originals has a meaning only with --replace: otherwise originals are"
                    " never touched."
                ),
            ),
            (
                self.no_wait and self.skip_upload,
                "--no-wait only queues and --skip-upload only waits; together they do nothing.",
            ),
            (
                self.no_wait and self.watch,
                "--no-wait leaves at once and --watch stays; choose one.",
            ),
            (
                self.dry_run and (self.watch or self.no_wait or self.skip_upload),
                (
                    "--dry-run changes nothing, so --watch, --no-wait and --skip-upload have no"
                    " meaning with it."
                ),
            ),
            (self.skip_upload and self.watch, "--skip-upload takes up no files and --watch does."),
        ]

    def _waiting_rules(self) -> list[tuple[bool, str]]:
        filters = bool(self.include or self.exclude)
        places = self.output is not None or self.replace
        return [
            (
                self.skip_upload and filters,
                "--skip-upload looks for no files, so --include and --exclude have no meaning.",
            ),
            (
                self.skip_upload and places,
                (
                    "Where a rendition goes was settled when it was queued; leave --output and"
                    " --replace out with --skip-upload."
                ),
            ),
            (
                self.no_wait and self.workers is not None,
                "--no-wait runs no workers; leave --workers out.",
            ),
            (self.quiet and self.verbose, "--quiet and --verbose contradict each other."),
        ]

    def destination(self, profiles: list[Profile]) -> Destination:
        """Return where renditions go; raise UsageError if these profiles cannot go there."""
        if self.replace:
            if len(profiles) != 1:
                names = ", ".join(profile.name for profile in profiles)
                raise UsageError(
                    f"--replace can put one rendition in an original's place, not {len(profiles)}"
                    f" ({names}); name one with --profile."
                )
            days = KEEP_DAYS if self.keep_originals is None else self.keep_originals
            return Destination(Mode.REPLACE, keep_days=days)
        if self.output is not None:
            return Destination(Mode.MIRROR, output=self._mirror())
        return Destination(Mode.BESIDE)

    def _mirror(self) -> Path:
        output = _real(self.output or Path())
        if output.exists() and not output.is_dir():
            raise UsageError(f"--output {output} is not a folder.")
        for root in self.roots:
            if root == output or output in root.parents:
                raise UsageError(
                    f"--output {output} is, or holds, the folder {root} that is ingested; leave it"
                    " out to put renditions beside their originals, or choose another folder."
                )
        return output


def chosen_profiles(names: tuple[str, ...], known: dict[str, Profile]) -> list[Profile]:
    """Return the named profiles, or every subscribed one; raise UsageError if there is none."""
    from hevcq.profiles import pick

    if names:
        return pick(known, list(dict.fromkeys(names)))
    subscribed = [profile for profile in known.values() if profile.subscribe]
    if not subscribed:
        raise UsageError("No profile has `subscribe: true`; name one with --profile.")
    return subscribed


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
