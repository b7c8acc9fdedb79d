"""Refuse to replace an original: the reasons against a swap, each checked before anything is renamed (G10).

An original is refused that changed, has hard links, is a link itself or is behind one, or whose
certificate does not prove a smaller rendition without forbidden losses. So is a target path that is taken.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from hevcq.domain.certificate import Certificate, Gate, require_passed
from hevcq.domain.planning.metadata import ACCEPT_LOSS
from hevcq.errors import SwapRefused, VerificationFailed
from hevcq.library.filesystem import FileSystem, fingerprint_of, is_behind_link, same_bytes
from hevcq.library.own_files import case_twin
from hevcq.ports.catalog import Fingerprint
from hevcq.util.text import printable


@dataclass(frozen=True, slots=True)
class Replacement:
    """One original to replace. `fingerprint` is from the scan; `keep_days` counts from the swap.

    `target` is in the same folder as `source`, and the same path unless the suffix changes.
    An infinite `keep_days` keeps the original until the swap is undone.
    """

    source: Path
    target: Path
    fingerprint: Fingerprint
    certificate: Certificate
    keep_days: float


def require_replaceable(fs: FileSystem, root: Path, change: Replacement) -> os.stat_result:
    """Return the original's status. Raises SwapRefused with the first reason to refuse, and OSError."""
    _require_proof(change)
    _require_one_folder_below(root, change)
    facts = _require_unchanged(fs, change.source, change.fingerprint)
    _require_no_link(root, change)
    require_no_hard_links(change.source, facts)
    _require_free_target(fs, change, facts)
    return facts


def _require_unchanged(fs: FileSystem, source: Path, seen: Fingerprint) -> os.stat_result:
    """Return the original's status. Raises SwapRefused unless it is the file that was scanned (gate G0)."""
    facts = fs.lstat(source)
    if facts is None:
        raise SwapRefused(f"{printable(source)} no longer exists, so there is nothing to replace.")
    if stat.S_ISLNK(facts.st_mode):
        raise SwapRefused(f"{printable(source)} is a symbolic link; only real files are replaced.")
    if not stat.S_ISREG(facts.st_mode):
        raise SwapRefused(f"{printable(source)} is not a regular file.")
    if not same_bytes(fingerprint_of(facts), seen):
        raise SwapRefused(
            f"{printable(source)} changed since it was scanned ({Gate.G0.name}); it was left as it is.",
            remedy="Run the same command again to encode it as it is now.",
        )
    return facts


def require_no_hard_links(source: Path, facts: os.stat_result) -> None:
    """Raise SwapRefused if the file with this status has hard links besides `source`."""
    if facts.st_nlink > 1:
        raise SwapRefused(
            f"{printable(source)} has {facts.st_nlink} names (hard links), so replacing one"
            " would save nothing.",
            remedy="Remove the other names, or encode beside it.",
        )


def require_certified_source(fs: FileSystem, change: Replacement) -> None:
    """Raise SwapRefused unless the original's bytes are those that were encoded (gate G0); reads them."""
    if fs.digest(change.source) != change.certificate.source_sha256:
        raise SwapRefused(
            f"{printable(change.source)} is not the file that was encoded (its SHA-256 differs,"
            f" {Gate.G0.name}); it was left as it is.",
            remedy="Run the same command again to encode it as it is now.",
        )


def require_untouched(change: Replacement, before: os.stat_result, now: os.stat_result) -> None:
    """Raise SwapRefused if the file was written to: size and mtime can be reset, ctime cannot."""
    if now.st_ctime_ns != before.st_ctime_ns:
        raise SwapRefused(
            f"{printable(change.source)} was modified while it was being replaced ({Gate.G0.name});"
            " it was left as it is.",
            remedy="Run the same command again.",
        )


def _require_proof(change: Replacement) -> None:
    proof = change.certificate
    try:
        require_passed(proof.gates)
    except VerificationFailed as error:
        raise SwapRefused(
            f"The certificate does not prove the rendition of {printable(change.source)}: {error}"
        ) from error
    if proof.losses:
        raise SwapRefused(
            f"{printable(change.source)} is not replaced, its rendition lacks: {', '.join(proof.losses)}.",
            remedy=f"Keep both files, or {ACCEPT_LOSS}.",
        )
    if proof.source.size != change.fingerprint.size:
        raise SwapRefused(
            f"The certificate is for another source: {proof.source.size} bytes, but"
            f" {printable(change.source)} has {change.fingerprint.size}."
        )
    if proof.rendition_size >= change.fingerprint.size:
        raise SwapRefused(
            f"The rendition of {printable(change.source)} is not smaller ({proof.rendition_size} bytes,"
            f" the original has {change.fingerprint.size}), so replacing it would save nothing.",
            remedy="Set gates.minimum_saving in the profile to skip such videos, or encode beside them.",
        )


def _require_one_folder_below(root: Path, change: Replacement) -> None:
    if root not in change.source.parents:
        raise SwapRefused(
            f"{printable(change.source)} is not below the library root {printable(root)}."
        )
    if change.target.parent != change.source.parent:
        raise SwapRefused(
            f"{printable(change.target)} is in another folder than {printable(change.source)}, so it cannot"
            " replace it."
        )


def _require_no_link(root: Path, change: Replacement) -> None:
    folder = change.source.parent
    # A record with a path outside the root would be rejected later, so an undo would be impossible.
    if is_behind_link(folder, root):
        raise SwapRefused(
            f"{printable(folder)} is behind a link, so it is not below {printable(root)}; it was"
            " left unchanged.",
            remedy="Pass the folder itself.",
        )


def _require_free_target(fs: FileSystem, change: Replacement, facts: os.stat_result) -> None:
    source, target = change.source, change.target
    if target == source:
        return
    existing = fs.lstat(target)
    same = existing is not None and os.path.samestat(existing, facts)
    if same or target.name.casefold() == source.name.casefold():
        raise SwapRefused(
            f"{printable(target)} and {printable(source)} differ only by case or are one file, so one would"
            " overwrite the other.",
            remedy="Rename the original so that its suffix is in lower case.",
        )
    twin = case_twin(target.name, fs.names(target.parent))
    if existing is not None or twin is not None:
        other = target if existing is not None else target.with_name(str(twin))
        raise SwapRefused(
            f"{printable(other)} already exists and is another file than {printable(source)}.",
            remedy="Move or rename one of them.",
        )
