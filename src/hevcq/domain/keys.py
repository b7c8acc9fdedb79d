"""Check object keys, route uploads to profiles, and name the keys of renditions and work files.

A key is a `/`-separated Unicode path of at most 1,024 UTF-8 bytes, S3's limit
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html).
"""

import hashlib
import os
import re
from collections.abc import Collection
from functools import lru_cache
from pathlib import PurePosixPath
from urllib.parse import unquote_to_bytes

from hevcq.errors import BadKey

MAX_KEY_BYTES = 1024
INBOX = "TODO"
UPLOADS = "UPLOAD"
"""The folder of uploads through the page and the API. It is outside the inbox, so no event queues its
files, and only a video's record decides when its file is deleted."""
OUTBOX = "DONE"
WORK = "work"
SETS = "sets"
"""The folder of notes about sets below WORK; it is too short to be a job id."""
EVERY_PROFILE = "all"
MACHINE = "machine."
"""Prefix of the key component that names the machine or owner of the path behind it."""
LIBRARY_BUCKET = "library"
MASTER = "master.m3u8"
"""The name of a set's master playlist, which is published last and makes the set visible."""
SET_EXTENSION = "m3u8"
"""The extension of a rendition that is a set: a folder with its master playlist in it."""
SET_VERSION = r"[0-9a-f]{8}-[0-9]{1,19}(-[0-9]{1,19})?"
"""The form of `set_version`'s results."""
SET_FOLDER = "set"
"""The metadata key of a master playlist for the folder of its files."""
ROOM_IN_SET = 160
"""Bytes of a key reserved for names below a set's folder."""


@lru_cache(maxsize=1024)
def check_key(key: str) -> str:
    """Return `key` unchanged if it is a safe path below a folder.

    Raises BadKey if it is empty, absolute or over 1,024 bytes, or has a NUL byte, a lone surrogate,
    or an empty, `.` or `..` component.
    """
    try:
        size = len(key.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise BadKey(f"The key {key!a} is not valid Unicode.") from error
    if not 0 < size <= MAX_KEY_BYTES:
        raise BadKey(f"The key {key[:40]!r} has {size} bytes; 1 to {MAX_KEY_BYTES} are allowed.")
    if "\0" in key:
        raise BadKey(f"The key {key!r} contains a NUL byte.")
    if any(part in {"", ".", ".."} for part in key.split("/")):
        raise BadKey(f"The key {key!r} is absolute or has an empty, '.' or '..' component.")
    return key


def is_routed_to(key: str, profile: str, *, subscribed: bool, known: Collection[str]) -> bool:
    """Return whether an upload at `key` is for `profile`: the only routing decision.

    `TODO/<profile>/…` is for that profile only, where `known` holds every profile's name;
    `TODO/all/…` and anything else below `TODO/` is for every subscribed profile. Folder markers
    (keys that end in `/`) and keys outside `TODO/` (renditions, work files) are for no profile.
    """
    parts = key.split("/")
    if len(parts) < 2 or parts[0] != INBOX or not parts[-1]:
        return False
    if len(parts) > 2 and parts[1] != EVERY_PROFILE and parts[1] in known:
        return parts[1] == profile
    return subscribed


def rendition_key(source_key: str, profile: str, extension: str) -> str:
    """Return the rendition's key for `source_key`: `DONE/<profile>/<same path>.<extension>`.

    The inbox and its routing folder are removed; the source's own suffix stays in the name
    (`a.mov` becomes `a.mov.mp4`), so that `a.mov` and `a.avi` never collide. A set of files has a
    folder, whose master playlist is the key: `DONE/<profile>/a.mov/master.m3u8`. A key over 1,024
    bytes is shortened to a digest of the whole key and its tail. Raises BadKey if the key is unsafe.
    """
    parts = source_key.split("/")
    if parts[0] == INBOX and len(parts) > 1:
        parts = parts[1:]
        if len(parts) > 1 and parts[0] in {EVERY_PROFILE, profile}:
            parts = parts[1:]
    prefix, path = f"{OUTBOX}/{profile}/", "/".join(parts)
    if extension == SET_EXTENSION:
        return check_key(f"{_fit_key(prefix, path, ROOM_IN_SET)}/{MASTER}")
    return check_key(_fit_key(prefix, f"{path}.{extension}"))


def is_set(key: str) -> bool:
    """Return whether a rendition's key is the master playlist of a set of files."""
    return key.endswith(f"/{MASTER}")


def set_version(job_id: str, fence: int, join: int = 0) -> str:
    """Return the name of the folder of all files of a set except its master playlist.

    No other attempt writes there, so files that a player reads never change.
    """
    return f"{job_id[:8]}-{_attempt_name(fence, join)}"


def _attempt_name(fence: int, join: int) -> str:
    """Return an attempt's name; joins of a split job share its fence, so their own fence is added."""
    return f"{fence}-{join}" if join else f"{fence}"


def is_set_version(name: str) -> bool:
    return re.fullmatch(SET_VERSION, name) is not None


def member_key(master: str, name: str) -> str:
    """Return the key of a set's file, given relative to its master playlist's folder.

    Raises BadKey if the key is unsafe.
    """
    return check_key(f"{master.removesuffix(MASTER)}{check_key(name)}")


def certificate_key(rendition: str, digest: str) -> str:
    """Return the key of a rendition's certificate. Raises BadKey if the key is unsafe.

    It contains the certificate's digest, so a stale worker never replaces the one the ledger knows.
    """
    return check_key(_fit_key("", f"{rendition}.{digest[:16]}.certificate.json"))


def key_for_path(path: str, folder: str = EVERY_PROFILE, namespace: str = "") -> str:
    """Return the inbox key of a library file, from its absolute path (as `os.fspath` gives it).

    `folder` is the routing folder: `all`, or the file's only profile. `namespace` names the machine or
    owner if several share a store, so that one path on two machines gives two keys. Bytes that are not
    UTF-8 become `%XX` and a literal `%` becomes `%25`, so that two names never collide; a path too long
    for a key is shortened to a digest of the whole path and its tail. Raises BadKey if the key is unsafe.
    """
    raw = os.fsencode(path)
    text = raw.replace(b"%", b"%25").decode("utf-8", "surrogateescape")
    safe = "".join(f"%{ord(c) - 0xDC00:02X}" if "\udc80" <= c <= "\udcff" else c for c in text)
    parts = [part for part in PurePosixPath(safe).parts if part != "/"]
    own = f"{MACHINE}{namespace}/" if namespace else ""
    return check_key(_fit_key(f"{INBOX}/{folder}/{own}", "/".join(parts)))


def tail_of_key(key: str) -> str:
    """Return a key without inbox, routing folder and machine, so that one file's keys compare equal."""
    tail = key.split("/", 2)[-1]
    return tail.partition("/")[2] if tail.startswith(MACHINE) else tail


def path_of_key(key: str) -> str | None:
    """Return the path from which `key_for_path` made this key for all profiles; None for other keys."""
    prefix = f"{INBOX}/{EVERY_PROFILE}/"
    if not key.startswith(prefix) or key.startswith(f"{prefix}{MACHINE}"):
        return None
    return os.fsdecode(unquote_to_bytes(f"/{key.removeprefix(prefix)}"))


def _fit_key(prefix: str, tail: str, kept_free: int = 0) -> str:
    room = MAX_KEY_BYTES - kept_free - len(prefix.encode())
    raw = tail.encode()
    if len(raw) <= room:
        return prefix + tail
    digest = hashlib.sha256(raw).hexdigest()[:32]
    kept = raw[-(room - len(digest) - 2) :].decode("utf-8", "ignore")
    return f"{prefix}{digest}~{kept.replace('/', '_')}"


def set_notes_prefix(profile: str) -> str:
    """Return the key prefix of the notes on sets of a profile that may have to be removed."""
    return f"{WORK}/{profile}/{SETS}/"


def set_note_key(profile: str, job_id: str, fence: int, join: int = 0) -> str:
    """Return the key of the note that an attempt writes about sets it may leave behind."""
    return check_key(f"{set_notes_prefix(profile)}{job_id}-{_attempt_name(fence, join)}.json")


def work_folder(job_id: str, profile: str) -> str:
    """Return the key prefix of all objects that a split job keeps until it ends.

    It begins with the profile, so that a worker's role can be limited to its own profile's objects.
    """
    return f"{WORK}/{profile}/{job_id}/"


def work_key(folder: str, split: str, name: str) -> str:
    """Return the key of a split job's plan or part. Raises BadKey if it is unsafe."""
    return check_key(f"{folder}{split}/{name}")


def parse_work_key(key: str) -> tuple[str, str]:
    """Return the job id and the split of a key that `work_key` made."""
    names = key.split("/")
    return (names[-3], names[-2]) if len(names) in {4, 5} else ("", "")


def chunk_name(chunk: int) -> str:
    """Return the last component of a part's key; names sort in the order of the chunks."""
    return f"{chunk:05d}.part"
