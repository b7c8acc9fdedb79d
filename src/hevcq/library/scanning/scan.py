"""Find candidate video files below library roots, filtered by gitignore patterns."""

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from hevcq.domain.keys import MASTER
from hevcq.errors import UsageError
from hevcq.library.filesystem import fingerprint_of
from hevcq.library.own_files import Certificates, holds_own_set, is_own
from hevcq.ports.catalog import Fingerprint
from hevcq.util.text import printable

Matcher = Callable[[str], bool]
_ENDINGS = (
    "!qb !ut aria2 bc! crdownload download fdmdownload filepart opdownload part partial td tmp"
    " unfinished ytdl"
)
UNFINISHED_SUFFIXES = frozenset(_ENDINGS.split())
"""What browsers, torrent and file-transfer programs append to a file until it is complete."""
_INNER = frozenset({"temp", "tmp"})
"""The same before the video's suffix, as yt-dlp writes it: `name.temp.mp4`."""
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


_SUFFIXES = (
    "360 3g2 3gp amv asf avi divx dv dvr-ms evo f4v flv gxf h264 h265 hevc insv ivf lrv m1v m2p m2t "
    "m2ts m2v m4v mjpeg mjpg mkv mod mov mp4 mp4v mpe mpeg mpg mpv mts mxf nsv nut nuv obu ogm ogv "
    "pmp qt rm rmvb rv tod tp trp ts vob vro webm wm wmv wtv xvid y4m"
)
VIDEO_SUFFIXES = frozenset(_SUFFIXES.split())
"""Suffixes that are probed: those of ffmpeg's video demuxers
(https://ffmpeg.org/ffmpeg-formats.html) and of cameras and recorders."""
_OTHERS = (
    "7z aac ac3 ape ass aup bak bif bmp bz2 cbr cbz cr2 cr3 csv db dmg dng doc docx dts epub exe flac "
    "gif gz heic htm html idx jar jpeg jpg json log lrf m3u m3u8 m4a m4b mka mks mobi mp2 mp3 msi nef "
    "nfo odt oga ogg opus par2 pdf png pptx psd rar raw sqlite srt ssf ssa sub sup tar tgz thm tif "
    "tiff torrent txt vtt wav webp wma wv xlsx xml xz zip"
)
OTHER_SUFFIXES = frozenset(_OTHERS.split())
"""Suffixes of files that are never videos; a scan ignores them silently."""
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
"""Causes that a user is told as problems."""


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
LEFT_OUT = (
    "Bins, previews and snapshots of a NAS or Windows are left out; name the folder to take it."
)


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
    root: Path
    include: Matcher | None
    exclude: Matcher
    skip: frozenset[Path]
    certificates: Certificates
    seen: set[tuple[int, int]] = field(default_factory=set)


def find(roots: Sequence[Path], chosen: Filter | None = None) -> Iterator[FoundFile | Rejected]:
    """Yield every candidate and every rejected path below the roots, sorted.

    A root is a folder or one file; a file's root is its folder, and it is found whatever its suffix.
    Nested roots yield each file once. No path raises: an unreadable one becomes a Rejected.
    """
    rules = chosen if chosen is not None else Filter()
    seen: set[tuple[int, int]] = set()
    single: set[Path] = set()
    certificates = Certificates()
    places = [_resolve_root(given) for given in roots]
    for place in places:
        walk = _Walk(
            root=place,
            include=matcher(rules.include) if rules.include else None,
            exclude=matcher(rules.exclude),
            skip=frozenset(Path(os.path.realpath(folder)) for folder in rules.skip),
            certificates=certificates,
            seen=seen,
        )
        yield from _scan_root(walk, single, frozenset(places))


def readable(path: Path) -> bool:
    """Return whether this process's effective user may read the file."""
    return os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids)


def _resolve_root(given: Path) -> Path:
    """Return a root with the links in its parent folders resolved and its own name kept."""
    return Path(os.path.realpath(given.parent)) / given.name if given.name else given.resolve()


def _scan_root(
    walk: _Walk, single: set[Path], named: frozenset[Path]
) -> Iterator[FoundFile | Rejected]:
    """Yield the paths below one root; `named` are all roots, `single` the root files yielded."""
    try:
        facts = walk.root.stat()
    except OSError as error:
        yield _reject_unopened(walk.root, error)
        return
    if stat.S_ISDIR(facts.st_mode):
        walk.root = Path(os.path.realpath(walk.root))
        for item in _scan_folder(walk, walk.root, ""):
            if item.path not in named:
                yield item
            elif item.path not in single and isinstance(item, FoundFile):
                single.add(item.path)
                yield item
        return
    path, walk.root = walk.root, walk.root.parent
    if path not in single:
        single.add(path)
        yield _check_file(path, walk)


def _scan_folder(walk: _Walk, folder: Path, prefix: str) -> Iterator[FoundFile | Rejected]:
    try:
        facts = folder.stat()
        if (facts.st_dev, facts.st_ino) in walk.seen:
            return
        walk.seen.add((facts.st_dev, facts.st_ino))
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
        yield Rejected(Path(entry.path), RejectionCause.SYSTEM_FOLDER, LEFT_OUT)


def _check_entry(
    entry: os.DirEntry[str], walk: _Walk, relative: str, names: set[str]
) -> FoundFile | Rejected | None:
    path = Path(entry.path)
    if unfinished_by_name(entry.name, names):
        return _reject_unfinished(path, walk, relative)
    if entry.is_symlink() and _leads_to_folder(entry):
        if walk.include is not None and not walk.include(relative):
            return None
        return Rejected(
            path,
            RejectionCause.LINK,
            f"{printable(path)} links to a folder; links are not followed.",
        )
    if not _is_selected(walk, relative):
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


def _is_selected(walk: _Walk, relative: str) -> bool:
    if walk.include is not None:
        return walk.include(relative)
    return _suffix(relative) in VIDEO_SUFFIXES


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
    problem = _find_problem(path, facts)
    if problem is not None:
        return Rejected(path, *problem)
    return FoundFile(path, walk.root, fingerprint_of(facts))


def _find_problem(path: Path, facts: os.stat_result) -> tuple[RejectionCause, str] | None:
    name = printable(path)
    if stat.S_ISLNK(facts.st_mode):
        return (
            RejectionCause.LINK,
            f"{name} is a symbolic link; pass the file it points to instead.",
        )
    if not stat.S_ISREG(facts.st_mode):
        return RejectionCause.NOT_A_FILE, f"{name} is not a regular file."
    if facts.st_size == 0:
        return RejectionCause.EMPTY, f"{name} is empty; copy it here again."
    if not readable(path):
        return (
            RejectionCause.UNREADABLE,
            f"{name} cannot be read: give this user read permission.",
        )
    return None


def _reject_unopened(path: Path, error: OSError) -> Rejected:
    if isinstance(error, FileNotFoundError):
        return Rejected(path, RejectionCause.GONE, f"{printable(path)}: No such file or folder.")
    sentence = f"{printable(path)} cannot be opened: {(error.strerror or str(error)).lower()}."
    return Rejected(path, RejectionCause.UNREADABLE, sentence)


def unfinished_by_name(name: str, beside: Collection[str]) -> bool:
    """Return whether its name, or the other names of its folder (`beside`), show that a file is unfinished."""
    parts = name.lower().split(".")
    if len(parts) > 1 and parts[-1] in UNFINISHED_SUFFIXES:
        return True
    if len(parts) > 2 and parts[-2] in _INNER:
        return True
    return any(f"{name}{ending}" in beside for ending in _COMPANIONS)
