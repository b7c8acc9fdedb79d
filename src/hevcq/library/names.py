"""The names that hevcq itself makes in a person's folders, and how they are told from theirs.

- `.hevcq/` at a library root: lock, journal, kept originals and their records.
- `.hevcq-…`: a temporary file beside the file it is about to become; none survives a next start.
- `<name>.certificate.json` beside a rendition: its certificate.
"""

from __future__ import annotations

import os
from pathlib import Path

from hevcq.util.hashing import sha256_bytes

OWN_FOLDER = ".hevcq"
OWN_PREFIX = ".hevcq-"
CERTIFICATE_SUFFIX = ".certificate.json"
MAX_NAME_BYTES = 255
"""NAME_MAX of ext4, XFS, btrfs, APFS and NTFS."""


def is_own(name: str) -> bool:
    """Return whether a name is one of hevcq's own folders or temporary files."""
    return name == OWN_FOLDER or name.startswith(OWN_PREFIX)


def own_folder(root: Path) -> Path:
    """Return the folder of hevcq's own records at a library root."""
    return root / OWN_FOLDER


def temp_beside(target: Path, job_id: str) -> Path:
    """Return the one temporary name of a job beside its target."""
    return target.with_name(f"{OWN_PREFIX}{job_id}.part")


def aside_beside(source: Path, job_id: str) -> Path:
    """Return the temporary name by which an original leaves its path."""
    return source.with_name(f"{OWN_PREFIX}{job_id}.original")


def certificate_beside(target: Path) -> Path:
    """Return where the certificate of the rendition at `target` is.

    A name that would pass 255 bytes keeps its head before a digest of the whole.
    """
    raw = os.fsencode(target.name)
    if len(raw) + len(CERTIFICATE_SUFFIX) <= MAX_NAME_BYTES:
        return target.with_name(target.name + CERTIFICATE_SUFFIX)
    digest = "~" + sha256_bytes(raw)[:12]
    head = truncate(raw, MAX_NAME_BYTES - len(digest) - len(CERTIFICATE_SUFFIX))
    return target.with_name(os.fsdecode(head) + digest + CERTIFICATE_SUFFIX)


def truncate(raw: bytes, size: int) -> bytes:
    """Return at most `size` bytes of a name, never ending inside a UTF-8 character."""
    if len(raw) <= size:
        return raw
    while size > 0 and raw[size] & 0xC0 == 0x80:
        size -= 1
    return raw[:size]


def case_twin(name: str, names: list[str]) -> str | None:
    """Return the name in a folder that differs from `name` only by case, if there is one."""
    folded = name.casefold()
    return next((other for other in names if other != name and other.casefold() == folded), None)
