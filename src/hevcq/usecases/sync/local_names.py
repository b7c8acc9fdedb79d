"""Choose the local name of a file on a server; no name leads out of the target.

A server may send any name. What a file system or a terminal cannot hold is replaced; two files never
share a name, also where the file system does not tell upper from lower case.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import PurePosixPath

from hevcq.library.names import MAX_NAME_BYTES, OWN_PREFIX, is_own, truncate
from hevcq.ports.sync import RemoteFile
from hevcq.util.file_io import sha256_bytes

ROOM = 8
"""Bytes kept free for a number: ` (9999)` and one more."""
MAX_SUFFIX = 16
MAX_NUMBER = 9999


def local_parts(path: str, folder: str) -> tuple[str, ...]:
    """Return the parts of a server path below the synced `folder`, each safe as a local name.

    Raises ValueError for a path that is not below it.
    """
    inside = f"{folder}/" if folder else ""
    if not path.startswith(inside):
        raise ValueError("not below the folder")
    parts = path.removeprefix(inside).split("/")
    if not all(parts) or any(part in {".", ".."} for part in parts):
        raise ValueError("not a path of names")
    return tuple(map(safe_name, parts))


def safe_name(name: str) -> str:
    """Return a name that any Linux file system takes, on one line, and that is not one of hevcq's own."""
    clean = "".join("_" if _harmful(character) else character for character in name)
    if is_own(clean) or clean in {"", ".", ".."}:
        clean = f"_{clean}"
    raw = os.fsencode(clean)
    if len(raw) <= MAX_NAME_BYTES - ROOM:
        return clean
    # The whole name decides on the digest, so that two long names never become one.
    suffix = PurePosixPath(clean).suffix.encode("utf-8", "surrogateescape")
    suffix = suffix if len(suffix) <= MAX_SUFFIX else b""
    tail = f"~{sha256_bytes(raw)[:12]}".encode() + suffix
    return os.fsdecode(truncate(raw, MAX_NAME_BYTES - ROOM - len(tail)) + tail)


def _harmful(character: str) -> bool:
    """Return whether a character controls a terminal or reverses the text after it."""
    surrogate = "\ud800" <= character <= "\udfff"
    return character in {"/", "\0"} or not (
        character.isprintable() or character == " " or surrogate
    )


def numbered(name: str) -> Iterator[str]:
    """Yield the name, then `name (2).ext`, `name (3).ext` and so on."""
    yield name
    stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix
    for number in range(2, MAX_NUMBER + 1):
        yield f"{stem} ({number}){suffix}"


def parts_prefix(account: str) -> str:
    """Return how the names of an account's temporary files begin."""
    return f"{OWN_PREFIX}sync-{_digest(account)[:12]}-"


def arriving(account: str, boot: str, file: RemoteFile) -> str:
    """Return the temporary name of one version of a server's file while it is fetched.

    Another version has another name, so that bytes of two never mix. So has each start of the machine:
    after a power cut the end of a file that nobody made durable may be zeros.
    """
    identity = "\0".join((file.path, file.version, str(file.size), boot))
    return f"{parts_prefix(account)}{_digest(identity)[:32]}.part"


def _digest(text: str) -> str:
    return sha256_bytes(text.encode("utf-8", "surrogatepass"))
