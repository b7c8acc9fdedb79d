"""Find video files below library roots: select candidates by name, then probe each changed one once.

`domain.media.containers` lists the suffixes of videos and of other files.
"""

import itertools
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from hevcq.domain.keys import MASTER
from hevcq.domain.media.containers import OTHER_SUFFIXES, UNFINISHED_SUFFIXES, VIDEO_SUFFIXES
from hevcq.domain.media.facts import MediaInfo
from hevcq.errors import (
    HevcqError,
    Interruption,
    MediaRefused,
    SourceDamaged,
    SourceUnreadable,
    UsageError,
    WorkerUnfit,
)
from hevcq.library.filesystem import fingerprint_of, same_bytes
from hevcq.library.own_files import Certificates, holds_own_set, is_own
from hevcq.ports.catalog import Fingerprint
from hevcq.sql.catalog import Catalog
from hevcq.util.clock import Clock, SystemClock
from hevcq.util.text import printable

Matcher = Callable[[str], bool]
_INNER = frozenset({"temp", "tmp"})
"""Marks of an unfinished file before its suffix, as yt-dlp writes them: `name.temp.mp4`."""
_COMPANIONS = (".aria2", ".part", ".st", ".!qB")
"""Endings of the file that a program keeps beside an incomplete one."""


def matcher(patterns: Iterable[str]) -> Matcher:
    """Return a function that checks a path relative to its root against gitignore patterns.

    `*` and `?` stay inside one folder, `**` crosses folders, `[…]` is a set of characters, `!`
    reverses an earlier match, and a match of a folder covers everything in it. The path of a folder
    ends in `/`. Without patterns nothing matches. Unlike gitignore, a pattern applies at any depth
    unless it begins with `/`, case is ignored, and `#` is an ordinary character (`#old`).

    Raises UsageError for a pattern that cannot be read.
    """
    import pathspec

    lines = [_as_gitignore(pattern) for pattern in patterns]
    try:
        spec = pathspec.GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        wrong = " ".join(printable(pattern) for pattern in patterns)
        raise UsageError(f"Not a gitignore pattern: {wrong}.") from error

    def matches(relative: str) -> bool:
        # The regular expressions of pathspec do not cross a line end, which a name may hold.
        return bool(lines) and spec.match_file(relative.replace("\n", "\r").lower())

    return matches


def _as_gitignore(pattern: str) -> str:
    """Return the gitignore pattern that applies at any depth, unless `pattern` begins with `/`."""
    negated = pattern.startswith("!")
    body = pattern[negated:].replace("\n", "\r").lower()
    if body.startswith("*/"):
        body = f"*{body}"
    elif "/" in body.rstrip("/") and not body.startswith(("/", "**/")):
        body = f"**/{body}"
    body = f"\\{body}" if body.startswith("#") else body
    return f"{'!' * negated}{body}"


LARGE = 10 * 1024 * 1024
"""Bytes from which a scan mentions a file of an unknown suffix: it may be a video or a disc image."""


class RejectionCause(StrEnum):
    """Why a path is rejected; stable words."""

    LINK = "link"
    NOT_A_FILE = "not_a_file"
    EMPTY = "empty"
    UNREADABLE = "unreadable"
    GONE = "gone"
    GROWING = "growing"
    NOT_VIDEO = "not_video"
    OWN_RENDITION = "own_rendition"
    OTHER_SUFFIX = "other_suffix"
    SYSTEM_FOLDER = "system_folder"


PROBLEMS = frozenset(
    {RejectionCause.UNREADABLE, RejectionCause.GONE, RejectionCause.EMPTY, RejectionCause.NOT_VIDEO}
)
"""Causes that are reported to a user as problems."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    path: Path
    root: Path
    fingerprint: Fingerprint


@dataclass(frozen=True, slots=True)
class Rejected:
    """A rejected path, with one sentence for the user."""

    path: Path
    cause: RejectionCause
    reason: str


SYSTEM_FOLDERS = frozenset(
    ("#recycle", "@recycle", "$recycle.bin", "@eadir", "#snapshot", "lost+found")
) | {"system volume information"}
"""Recycle bins, previews and snapshots that NAS systems and Windows keep in shared folders; lower case."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Select files by gitignore patterns (see `matcher`); the folders in `skip` are not entered.

    With `include`, only matching files are found, whatever their suffix; `exclude` takes precedence
    and prunes folders. Hidden names and SYSTEM_FOLDERS are skipped.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    skip: Collection[Path] = ()


@dataclass(slots=True)
class _Walk:
    """The walk of all `roots`, at present below `root`; folders and files in `seen_…` were yielded."""

    roots: frozenset[Path]
    root: Path
    include: Matcher | None
    exclude: Matcher
    skip: frozenset[Path]
    certificates: Certificates = field(default_factory=Certificates)
    seen_folders: set[tuple[int, int]] = field(default_factory=set)
    seen_root_files: set[Path] = field(default_factory=set)


def find(roots: Sequence[Path], chosen: Filter | None = None) -> Iterator[FoundFile | Rejected]:
    """Yield every candidate and every rejected path below the roots, sorted.

    A root is a folder or one file; a file's root is its folder, and it is found whatever its suffix.
    Nested roots yield each file once. No path raises: an unreadable one becomes a Rejected.
    """
    rules = chosen or Filter()
    places = [_resolve_root(given) for given in roots]
    walk = _Walk(
        roots=frozenset(places),
        root=Path(),
        include=matcher(rules.include) if rules.include else None,
        exclude=matcher(rules.exclude),
        skip=frozenset(Path(os.path.realpath(folder)) for folder in rules.skip),
    )
    for place in places:
        walk.root = place
        yield from _scan_root(walk)


def _resolve_root(given: Path) -> Path:
    """Return a root with the links in its parent folders resolved and its own name kept."""
    return Path(os.path.realpath(given.parent)) / given.name if given.name else given.resolve()


def _scan_root(walk: _Walk) -> Iterator[FoundFile | Rejected]:
    try:
        facts = walk.root.stat()
    except OSError as error:
        yield _reject_unopened(walk.root, error)
        return
    if stat.S_ISDIR(facts.st_mode):
        walk.root = Path(os.path.realpath(walk.root))
        for item in _scan_folder(walk, walk.root, ""):
            if item.path not in walk.roots:
                yield item
            elif item.path not in walk.seen_root_files and isinstance(item, FoundFile):
                walk.seen_root_files.add(item.path)
                yield item
        return
    path, walk.root = walk.root, walk.root.parent
    if path not in walk.seen_root_files:
        walk.seen_root_files.add(path)
        yield _check_file(path, walk)


def _scan_folder(walk: _Walk, folder: Path, prefix: str) -> Iterator[FoundFile | Rejected]:
    try:
        facts = folder.stat()
        if (facts.st_dev, facts.st_ino) in walk.seen_folders:
            return
        walk.seen_folders.add((facts.st_dev, facts.st_ino))
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        yield _reject_unopened(folder, error)
        return
    names = {entry.name for entry in entries}
    for entry in entries:
        relative = prefix + entry.name
        is_folder = entry.is_dir(follow_symlinks=False)
        if walk.exclude(f"{relative}/" if is_folder else relative):
            continue
        if _is_hidden(entry, is_folder=is_folder):
            yield from _reject_system_folder(entry)
            continue
        if is_folder:
            if Path(entry.path) in walk.skip:
                continue
            if holds_own_set(Path(entry.path)):
                yield _reject_own_rendition(Path(entry.path) / MASTER)
            else:
                yield from _scan_folder(walk, Path(entry.path), relative + "/")
        elif item := _check_entry(entry, walk, relative, names):
            yield item


def _is_hidden(entry: os.DirEntry[str], *, is_folder: bool) -> bool:
    is_system_folder = is_folder and entry.name.lower() in SYSTEM_FOLDERS
    return is_system_folder or is_own(entry.name) or entry.name.startswith(".")


def _reject_system_folder(entry: os.DirEntry[str]) -> Iterator[Rejected]:
    """Yield a rejection for one of SYSTEM_FOLDERS that contains a file with a video's suffix."""
    if entry.name.lower() not in SYSTEM_FOLDERS:
        return
    names = (name for _, _, files in os.walk(entry.path) for name in files)
    if any(_suffix(name) in VIDEO_SUFFIXES for name in names):
        sentence = "Bins, previews and snapshots of a NAS or Windows are left out; name the folder to take it."
        yield Rejected(Path(entry.path), RejectionCause.SYSTEM_FOLDER, sentence)


def _check_entry(
    entry: os.DirEntry[str], walk: _Walk, relative: str, names: set[str]
) -> FoundFile | Rejected | None:
    path = Path(entry.path)
    if is_unfinished_by_name(entry.name, names):
        return _reject_unfinished(path, walk, relative)
    if entry.is_symlink() and _leads_to_folder(entry):
        if walk.include is not None and not walk.include(relative):
            return None
        return Rejected(
            path,
            RejectionCause.LINK,
            f"{printable(path)} links to a folder; links are not followed.",
        )
    is_selected = walk.include(relative) if walk.include else _suffix(relative) in VIDEO_SUFFIXES
    if not is_selected:
        return _mention_large_file(entry, walk)
    if _is_own_rendition(path, walk.certificates):
        return _reject_own_rendition(path)
    return _check_file(path, walk)


def _reject_own_rendition(path: Path) -> Rejected:
    sentence = f"{printable(path)} is a rendition made by hevcq."
    return Rejected(path, RejectionCause.OWN_RENDITION, sentence)


def _reject_unfinished(path: Path, walk: _Walk, relative: str) -> Rejected | None:
    """Return a rejection for a video that is still being written, as its name says."""
    inner = relative.lower().rpartition(".")[0].rpartition(".")[2]
    if walk.include is None and not {inner, _suffix(relative)} & VIDEO_SUFFIXES:
        return None
    sentence = f"{printable(path)} is still being written, by its name; taken once it is renamed."
    return Rejected(path, RejectionCause.GROWING, sentence)


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether a link leads to a folder; one that cannot be resolved (a loop) does not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _suffix(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _mention_large_file(entry: os.DirEntry[str], walk: _Walk) -> Rejected | None:
    """Return a rejection for a large file with an unknown suffix, which may be a video."""
    suffix = _suffix(entry.name)
    if walk.include is not None or suffix in OTHER_SUFFIXES:
        return None
    try:
        large = entry.is_file(follow_symlinks=False) and entry.stat().st_size >= LARGE
    except OSError:
        return None
    if not large:
        return None
    path = Path(entry.path)
    what = f".{printable(suffix)}" if "." in entry.name else "no suffix"
    sentence = f"Not looked at ({what}); name the file or use --include."
    return Rejected(path, RejectionCause.OTHER_SUFFIX, sentence)


def _is_own_rendition(path: Path, certificates: Certificates) -> bool:
    """Return whether `path` is a certified rendition beside its source or in a mirror.

    A rendition that replaced its original has no profile in its name. It is the video itself now, and
    other profiles may encode it.
    """
    try:
        size = path.lstat().st_size
    except OSError:
        return False
    stem = path.stem.casefold()
    proofs = certificates.of_rendition(path, size)
    return any(stem.endswith(f".{proof.profile}") for proof in proofs)


def _check_file(path: Path, walk: _Walk) -> FoundFile | Rejected:
    try:
        facts = os.lstat(path)
    except OSError as error:
        return _reject_unopened(path, error)
    name = printable(path)
    if stat.S_ISLNK(facts.st_mode):
        sentence = f"{name} is a symbolic link; pass the file it points to instead."
        return Rejected(path, RejectionCause.LINK, sentence)
    if not stat.S_ISREG(facts.st_mode):
        return Rejected(path, RejectionCause.NOT_A_FILE, f"{name} is not a regular file.")
    if facts.st_size == 0:
        return Rejected(path, RejectionCause.EMPTY, f"{name} is empty; copy it here again.")
    return _reject_unreadable(path) or FoundFile(path, walk.root, fingerprint_of(facts))


def _reject_unreadable(path: Path) -> Rejected | None:
    if os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        return None
    sentence = f"{printable(path)} cannot be read: give this user read permission."
    return Rejected(path, RejectionCause.UNREADABLE, sentence)


def _reject_unopened(path: Path, error: OSError) -> Rejected:
    if isinstance(error, FileNotFoundError):
        return Rejected(path, RejectionCause.GONE, f"{printable(path)}: No such file or folder.")
    sentence = f"{printable(path)} cannot be opened: {(error.strerror or str(error)).lower()}."
    return Rejected(path, RejectionCause.UNREADABLE, sentence)


def is_unfinished_by_name(name: str, beside: Collection[str]) -> bool:
    """Return whether its name, or the other names of its folder (`beside`), show that a file is unfinished."""
    parts = name.lower().split(".")
    if len(parts) > 1 and parts[-1] in UNFINISHED_SUFFIXES:
        return True
    if len(parts) > 2 and parts[-2] in _INNER:
        return True
    return any(f"{name}{ending}" in beside for ending in _COMPANIONS)


BATCH = 500
"""Files per catalog query: well below SQLite's 32,766 variables
(https://www.sqlite.org/limits.html)."""
KEEP_EVERY_S = 2.0
"""Seconds between two writes of probe results to the catalog."""
PROBES_PER_SLOT = 2
"""Files probed at once for each slot of this machine."""
LASTING = (SourceUnreadable, SourceDamaged, MediaRefused)
"""Errors caused by the file's content: the same bytes are not probed again."""

Inspect = Callable[[Path], MediaInfo]


@dataclass(frozen=True, slots=True)
class FoundVideo(FoundFile):
    """A file that is a video, with its facts."""

    info: MediaInfo


def probe_files(
    found: Iterable[FoundFile | Rejected],
    catalog: Catalog,
    inspect: Inspect,
    *,
    threads: int,
    batch: int = BATCH,
    clock: Clock | None = None,
) -> Iterator[FoundVideo | Rejected]:
    """Yield each file with its media info, or its rejection, in the order of `found`.

    `inspect` probes one path and raises a HevcqError. It is called from `threads` threads, only for
    bytes that the catalog does not know. Up to `batch` files are looked up together. The results are
    cached every KEEP_EVERY_S seconds, so that a kill loses no more than that.

    Raises Interruption or WorkerUnfit from `inspect`, after the results so far are cached; any other
    error rejects only that file.
    """
    with ThreadPoolExecutor(max_workers=max(1, threads), thread_name_prefix="probe") as pool:
        remaining = iter(found)
        while items := list(itertools.islice(remaining, batch)):
            yield from _probe_batch(items, catalog, inspect, pool, clock or SystemClock())


def _probe_batch(
    batch: list[FoundFile | Rejected],
    catalog: Catalog,
    inspect: Inspect,
    pool: ThreadPoolExecutor,
    clock: Clock,
) -> Iterator[FoundVideo | Rejected]:
    files = [item for item in batch if isinstance(item, FoundFile)]
    cached = catalog.cached([item.path for item in files]) if files else {}
    known = {
        item.path: entry[1]
        for item in files
        if (entry := cached.get(item.path)) and same_bytes(entry[0], item.fingerprint)
    }
    unknown = [item for item in files if item.path not in known]
    futures = {item.path: pool.submit(_probe_file, item, inspect) for item in unknown}
    unsaved: list[tuple[Path, Fingerprint, MediaInfo | str]] = []
    due = clock.monotonic() + KEEP_EVERY_S
    try:
        for item in batch:
            if isinstance(item, Rejected):
                yield item
            elif item.path in futures:
                result = futures[item.path].result()
                if isinstance(result, FoundVideo):
                    unsaved.append((item.path, item.fingerprint, result.info))
                elif result.cause is RejectionCause.NOT_VIDEO:
                    unsaved.append((item.path, item.fingerprint, result.reason))
                if unsaved and clock.monotonic() >= due:
                    catalog.cache(unsaved)
                    unsaved.clear()
                    due = clock.monotonic() + KEEP_EVERY_S
                yield result
            else:
                yield _as_result(item, known[item.path])
    finally:
        for future in futures.values():
            future.cancel()
        if unsaved:
            catalog.cache(unsaved)


def _as_result(item: FoundFile, facts: MediaInfo | str) -> FoundVideo | Rejected:
    if isinstance(facts, str):
        return Rejected(item.path, RejectionCause.NOT_VIDEO, facts)
    return FoundVideo(item.path, item.root, item.fingerprint, facts)


def _probe_file(item: FoundFile, inspect: Inspect) -> FoundVideo | Rejected:
    try:
        info = inspect(item.path)
    except (Interruption, WorkerUnfit):
        raise
    except HevcqError as error:
        return _reject_changed(item) or _reject_unprobed(item, error)
    return _reject_changed(item) or _as_result(item, info)


def _reject_unprobed(item: FoundFile, error: HevcqError) -> Rejected:
    if not isinstance(error, LASTING):
        # Not caused by the content (a busy disk, a killed child): probe again next time.
        return Rejected(item.path, RejectionCause.UNREADABLE, str(error))
    return _reject_unreadable(item.path) or Rejected(
        item.path, RejectionCause.NOT_VIDEO, str(error)
    )


def _reject_changed(item: FoundFile) -> Rejected | None:
    """Return a rejection if the file changed since the scan, which makes the probe result invalid."""
    try:
        now = fingerprint_of(os.lstat(item.path))
    except OSError:
        sentence = f"{printable(item.path)} was removed while it was being probed."
        return Rejected(item.path, RejectionCause.GONE, sentence)
    if same_bytes(now, item.fingerprint):
        return None
    sentence = (
        f"{printable(item.path)} is still being written; it is queued once it stops changing."
    )
    return Rejected(item.path, RejectionCause.GROWING, sentence)
