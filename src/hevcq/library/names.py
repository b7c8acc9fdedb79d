"""Name the files that hevcq creates in a user's folders, and recognise them.

- `.hevcq/` at a library root: lock, journal, certificates, kept originals and their records.
- `.hevcq-…`: a temporary file beside its final name; the next start removes leftovers.
"""

import os
from pathlib import Path

from hevcq.domain.keys import MASTER, is_set_version

OWN_FOLDER = ".hevcq"
OWN_PREFIX = ".hevcq-"
CERTIFICATE_NAME = r"[0-9a-f]{32}\.([0-9]{1,19})\.([0-9]{1,19})\.\w{1,64}\.json"
"""The name of a certificate in a library's `.hevcq`: the head of the rendition's SHA-256, the sizes
of rendition and source in bytes, and the job."""
SET_SUFFIX = ".hls"
"""The end of the name of a folder that holds a set of files."""
MAX_NAME_BYTES = 255
"""NAME_MAX of ext4, XFS, btrfs, APFS and NTFS."""


def shown_path(target: Path) -> Path:
    """Return what a person sees of a rendition: its file, or a set's folder instead of its playlist."""
    return target.parent if target.name == MASTER else target


def holds_own_set(folder: Path) -> bool:
    """Return whether a folder is a set of files that hevcq placed there: none of them is a video to take.

    By its name, and a master playlist beside the folder of a job's files.
    """
    if not folder.name.endswith(SET_SUFFIX):
        return False
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names only
    except OSError:
        return False
    return MASTER in names and any(is_set_version(name) for name in names)


def is_own(name: str) -> bool:
    """Return whether a name is one of hevcq's own folders or temporary files."""
    return name == OWN_FOLDER or name.startswith(OWN_PREFIX)


RECORDS = ("busy", "certificates", "journal", "kept", "undone")
"""Folders of records in `.hevcq`. `originals` is not among them: it may be a link to another disk."""


def own_folder(root: Path) -> Path:
    """Return the folder of hevcq's records at a library root."""
    return root / OWN_FOLDER


def kept_folder(root: Path) -> Path:
    """Return the folder of the records of a library's kept originals."""
    return own_folder(root) / "kept"


def temp_beside(target: Path, job_id: str) -> Path:
    """Return the temporary name of a job's rendition beside its target."""
    return target.with_name(f"{OWN_PREFIX}{job_id}.part")


def aside_beside(source: Path, job_id: str) -> Path:
    """Return the temporary name of an original that is being moved away."""
    return source.with_name(f"{OWN_PREFIX}{job_id}.original")


def certificates_folder(root: Path) -> Path:
    return own_folder(root) / "certificates"


def certificate_path(root: Path, sha256: str, sizes: tuple[int, int], job_id: str) -> Path:
    """Return the path of a rendition's certificate, named by its content (see CERTIFICATE_NAME).

    `sizes` are those of rendition and source in bytes. It stays right when the library is moved or
    its files are renamed.
    """
    return certificates_folder(root) / f"{sha256[:32]}.{sizes[0]}.{sizes[1]}.{job_id}.json"


def truncate(raw: bytes, size: int) -> bytes:
    """Return at most `size` bytes of a name, never splitting a UTF-8 character."""
    if len(raw) <= size:
        return raw
    while size > 0 and raw[size] & 0xC0 == 0x80:
        size -= 1
    return raw[:size]


def case_twin(name: str, names: list[str]) -> str | None:
    """Return a name of the folder that differs from `name` only by case, or None."""
    folded = name.casefold()
    return next((other for other in names if other != name and other.casefold() == folded), None)
