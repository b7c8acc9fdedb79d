"""Carry out, roll back and undo a swap in steps that can be repeated after a kill at any point.

If the rendition takes the original's path: write the record → rename the rendition to `aside` →
exchange the two names atomically, so that the path is never empty → write the certificate → move
the original to `retained` → commit. If the name changes, or the file system cannot exchange: write
the record → move the original to `retained` → rename the rendition → write the certificate → commit.

Nothing is ever overwritten: each step is an exchange or a rename to a free name, so no file that
another program writes meanwhile is lost. At every point the original is complete at `source`,
`retained` or `aside`.
"""

import errno
import os
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from hevcq.domain.certificate import Certificate
from hevcq.errors import StorageError, SwapRefused, UndoRefused, VerificationFailed
from hevcq.library.filesystem import (
    FileSystem,
    fingerprint_of,
    holds,
    make_folders,
    move_new,
    same_bytes,
    temp_of,
)
from hevcq.library.own_files import aside_beside, certificate_path
from hevcq.library.place import holds_original, remove_sidecars, write_certificate
from hevcq.library.replacement.journal import Journal, Record, note_undone
from hevcq.library.replacement.retention import prune
from hevcq.util.text import printable


class RecoveryOutcome(StrEnum):
    """Outcome of recovering an interrupted swap or undo; stable words."""

    FINISHED = "finished"
    ROLLED_BACK = "rolled_back"
    HELD = "held"
    STUCK = "stuck"


class Steps:
    """Carry out, roll back and recover the swaps of one root. The caller holds the root's lock."""

    def __init__(self, fs: FileSystem, journal: Journal) -> None:
        self._fs = fs
        self._journal = journal

    def forward(self, record: Record) -> None:
        """Carry out a swap whose record is written.

        Raises SwapRefused if the original changed, and OSError. After an error the swap is
        incomplete: call `roll_back` now, or `recover` at the next start.
        """
        if record.aside is not None:
            if self._exchange(record, record.aside):
                self._finish(record)
                return
            record = replace(record, aside=None)
            self._journal.begin(record)
        record = self._move_aside(record)
        move_new(self._fs, record.new, record.target)
        self._finish(record)

    def roll_back(self, record: Record) -> None:
        """Move the original back to its path and drop the record; safe to repeat.

        Raises SwapRefused if another file is at the original's path, OSError if a call fails.
        """
        fs = self._fs
        record = self._reload(record)
        if self.is_original(record, record.source):
            self._drop_second_names(record)
        elif (holder := self._holder(record)) is not None:
            if not self.exchange_back(record, holder):
                self._withdraw_rendition(record)
                if fs.lstat(record.source) is not None:
                    raise SwapRefused(
                        f"Another file is at {printable(record.source)}; the original is kept at"
                        f" {printable(holder)}."
                    )
                self.move_back(record, holder)
            self._drop_second_names(record)
        if not record.had_certificate:
            self.drop_certificate(record)
        self.remove_temps(record)
        self._journal.drop(record)

    def recover(self, record: Record) -> tuple[RecoveryOutcome, str]:
        """Finish or roll back an interrupted swap; return the outcome and one sentence.

        Afterwards the original is at its path, or the rendition is and the original is retained.
        If another program's file took the original's path, the original is kept for an undo.
        Raises StorageError if the whole folder is gone, and OSError.
        """
        if self.is_original(record, record.source):
            self.roll_back(record)
            return (
                RecoveryOutcome.ROLLED_BACK,
                f"{printable(record.source)} is the original, unchanged.",
            )
        holder = self._holder(record)
        if holder is None:
            return self._recover_without_original(record)
        # Another program may have saved a file at the path just before the exchange.
        is_stranger = holder == record.aside and not self.is_original(record, holder)
        if not is_stranger and self._ensure_rendition_in_place(record, holder):
            self._finish(record)
            return (
                RecoveryOutcome.FINISHED,
                f"{printable(record.target)} is the rendition; the original is kept.",
            )
        if self._fs.lstat(record.source) is None or (
            is_stranger and self.is_rendition(record, record.source)
        ):
            self.roll_back(record)
            return (
                RecoveryOutcome.ROLLED_BACK,
                f"{printable(record.source)} is as it was before the swap.",
            )
        self._keep_original(record)
        return RecoveryOutcome.HELD, (
            f"Another file is at {printable(record.source)}; the original is kept, and"
            " `hevcq undo` restores it once that file is moved away."
        )

    def is_original(self, record: Record, path: Path) -> bool:
        return holds_original(self._fs, path, record.fingerprint, record.source_sha256)

    def is_rendition(self, record: Record, path: Path) -> bool:
        return holds(self._fs, path, record.rendition_size, record.rendition_sha256)

    def exchange_back(self, record: Record, holder: Path) -> bool:
        """Exchange original and rendition back, so that the path is never empty.

        Return False, with nothing changed, if the rendition is not at the original's path or the
        file system cannot exchange. Afterwards the rendition is at `holder`. Raises OSError.
        """
        fs = self._fs
        if record.source != record.target or not self.is_rendition(record, record.target):
            return False
        if not fs.exchange(holder, record.source):
            return False
        fs.fsync_dir(record.source.parent)
        if holder.parent != record.source.parent:
            fs.fsync_dir(holder.parent)
        return True

    def move_back(self, record: Record, holder: Path) -> None:
        """Move the original from `holder` back to its path, by a copy if on another device.

        Raises FileExistsError if the path is taken, and OSError.
        """
        fs = self._fs
        make_folders(fs, record.source.parent)
        try:
            move_new(fs, holder, record.source)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._copy(record, holder, record.source)
        self._drop_second_names(record)

    def _exchange(self, record: Record, aside: Path) -> bool:
        """Exchange rendition and original atomically; return False, with nothing changed, if the file
        system cannot.

        The rendition is renamed to `aside` first: after the exchange the original has that name, and
        a sweep would remove it under the rendition's temporary name.
        """
        fs = self._fs
        fs.rename_new(record.new, aside)
        if not fs.exchange(aside, record.source):
            move_new(fs, aside, record.new)
            return False
        fs.fsync_dir(record.source.parent)
        self._require_unchanged(record, aside)
        return True

    def _move_aside(self, record: Record) -> Record:
        fs = self._fs
        make_folders(fs, record.retained.parent)
        try:
            move_new(fs, record.source, record.retained)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            record = self._copy_aside(record)
        self._require_unchanged(record, record.aside or record.retained)
        return record

    def _require_unchanged(self, record: Record, path: Path) -> None:
        facts = self._fs.lstat(path)
        if facts is None or not same_bytes(fingerprint_of(facts), record.fingerprint):
            raise SwapRefused(f"{printable(record.source)} changed just before it was replaced.")

    def _copy_aside(self, record: Record) -> Record:
        """Keep a verified copy on the other device of the originals folder, then move the original."""
        fs = self._fs
        self._copy(record, record.source, record.retained)
        aside = aside_beside(record.source, record.job_id)
        record = replace(record, aside=aside)
        self._journal.begin(record)
        move_new(fs, record.source, aside)
        return record

    def _copy(self, record: Record, old: Path, new: Path) -> None:
        fs, part = self._fs, _part(record, new)
        fs.unlink(part)
        fs.copy(old, part)
        fs.copy_metadata(old, part)
        fs.fsync_file(part)
        if fs.digest(part) != record.source_sha256:
            raise OSError(errno.EIO, "the copy differs from the original", os.fspath(part))
        move_new(fs, part, new)

    def _finish(self, record: Record) -> None:
        write_certificate(self._fs, self._certificate(record), record.certificate.encode())
        self._keep_original(record)

    def has_certificate(self, record: Record) -> bool:
        return self._fs.lstat(self._certificate(record)) is not None

    def drop_certificate(self, record: Record) -> None:
        """Remove the rendition's certificate; safe to repeat. Raises OSError."""
        fs, path = self._fs, self._certificate(record)
        if self.has_certificate(record):
            fs.unlink(path)
            fs.fsync_dir(path.parent)

    def _certificate(self, record: Record) -> Path:
        sizes = record.rendition_size, record.fingerprint.size
        return certificate_path(self._journal.root, record.rendition_sha256, sizes, record.job_id)

    def _keep_original(self, record: Record) -> None:
        """Move the original to `retained`, remove its other names, and commit."""
        fs = self._fs
        if record.aside is not None and fs.lstat(record.aside) is not None:
            if fs.lstat(record.retained) is None:
                self._move_to_retained(record, record.aside)
            elif not self.is_original(record, record.retained):
                raise FileExistsError(
                    errno.EEXIST,
                    "another file is at the path where the original is kept",
                    record.retained,
                )
            fs.unlink(record.aside)
            fs.fsync_dir(record.aside.parent)
        self.remove_temps(record)
        self._journal.commit(record)

    def _move_to_retained(self, record: Record, aside: Path) -> None:
        """Move the original from `aside` to `retained`, by a verified copy if on another device."""
        make_folders(self._fs, record.retained.parent)
        try:
            move_new(self._fs, aside, record.retained)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._copy(record, aside, record.retained)

    def _ensure_rendition_in_place(self, record: Record, holder: Path | None) -> bool:
        """Place the rendition if it is not yet in place; return whether it is.

        It is not placed if the file that was moved aside is not the original but one that another
        program saved at the last moment: that file goes back.
        """
        if self.is_rendition(record, record.target):
            return True
        is_free = self._fs.lstat(record.target) is None
        is_original_kept = holder is None or self.is_original(record, holder)
        if is_free and is_original_kept and self.is_rendition(record, record.new):
            move_new(self._fs, record.new, record.target)
            return True
        return False

    def _withdraw_rendition(self, record: Record) -> None:
        fs = self._fs
        if not self.is_rendition(record, record.target):
            return
        if fs.lstat(record.new) is None:
            move_new(fs, record.target, record.new)
        else:
            fs.unlink(record.target)
            fs.fsync_dir(record.target.parent)

    def _recover_without_original(self, record: Record) -> tuple[RecoveryOutcome, str]:
        """Recover a swap whose original another program removed or changed; change as little as possible.

        Raises StorageError if the whole folder is gone, since it may hold the original at `aside`.
        """
        folder = record.source.parent
        if self._fs.lstat(folder) is None:
            raise StorageError(
                f"{printable(folder)} is gone, and a swap in it is unfinished.",
                remedy=f"Put the folder back and start again; if you removed it for good, also"
                f" remove the record {record.job_id}.json below .hevcq/journal.",
            )
        free = record.source == record.target or self._fs.lstat(record.source) is None
        if free and self._ensure_rendition_in_place(record, None):
            reason = f"{printable(record.source)} was removed by another program; the rendition is in place."
        else:
            reason = f"{printable(record.source)} was changed or removed by another program; left unchanged."
        self.remove_temps(record)
        self._journal.drop(record)
        return RecoveryOutcome.ROLLED_BACK, reason

    def _holder(self, record: Record) -> Path | None:
        """Return where the file from the original's path now is: `aside`, `retained`, or None.

        A file gets these names only by a rename or after its copy was verified, so it is complete.
        During an exchange the rendition has one of the names; it is skipped.
        """
        for path in (record.aside, record.retained):
            if path is None or self._fs.lstat(path) is None:
                continue
            if not self.is_rendition(record, path):
                return path
        return None

    def _reload(self, record: Record) -> Record:
        return (
            self._journal.find_under_way(record.job_id)
            or self._journal.find(record.job_id)
            or record
        )

    def _drop_second_names(self, record: Record) -> None:
        for path in (record.aside, record.retained):
            if path is not None and self._fs.lstat(path) is not None:
                self._fs.unlink(path)
                self._fs.fsync_dir(path.parent)

    def remove_temps(self, record: Record) -> None:
        """Remove, durably, every temporary file that a swap or undo of this record may have left.

        The record is removed next, and nothing else refers to these files. Raises OSError.
        """
        fs = self._fs
        temps = [
            record.new,
            _part(record, record.source),
            _part(record, record.retained),
            temp_of(self._certificate(record)),
        ]
        if record.aside is not None and self.is_rendition(record, record.aside):
            temps.append(record.aside)
        left = [path for path in temps if fs.lstat(path) is not None]
        for path in left:
            fs.unlink(path)
        for folder in {path.parent for path in left}:
            fs.fsync_dir(folder)


def _part(record: Record, final: Path) -> Path:
    return final.with_name(f".hevcq-{record.job_id}.copy")


class UndoSteps:
    """Carry out and recover the undos of one root. The caller holds the root's lock."""

    def __init__(self, fs: FileSystem, journal: Journal, steps: Steps) -> None:
        self._fs = fs
        self._journal = journal
        self._steps = steps

    def check(self, record: Record) -> None:
        """Raise UndoRefused unless the kept original is intact and its path is free. Raises OSError."""
        facts = self._fs.lstat(record.retained)
        if facts is None:
            raise UndoRefused(
                f"The original of {printable(record.source)} is no longer at {printable(record.retained)}."
            )
        if facts.st_size != record.fingerprint.size or (
            self._fs.digest(record.retained) != record.source_sha256
        ):
            raise UndoRefused(
                f"The kept original {printable(record.retained)} was changed (its SHA-256 differs).",
                remedy="Nothing was changed now; compare both files before you choose one.",
            )
        self._require_free(record)

    def forward(self, record: Record) -> None:
        """Carry out an undo whose record is written; safe to repeat after a kill.

        Raises UndoRefused if another file is at the original's path, or the original was removed
        since a kill, and OSError.
        """
        steps = self._steps
        if not steps.is_original(record, record.source):
            self._require_kept(record)
            self._require_free(record)
            if not steps.exchange_back(record, record.retained):
                self._remove_rendition(record)
                steps.move_back(record, record.retained)
        self._finish(record)

    def cancel(self, record: Record) -> None:
        """Put the rendition back after an undo that failed; safe to repeat. Raises OSError."""
        fs, steps = self._fs, self._steps
        if steps.is_original(record, record.source) or steps.is_rendition(record, record.retained):
            self._finish(record)
            return
        gone = _undone_path(record)
        if fs.lstat(gone) is not None:
            if fs.lstat(record.target) is None:
                move_new(fs, gone, record.target)
            else:
                # The rendition's path holds a second name of it, or another program's file.
                fs.unlink(gone)
        steps.remove_temps(record)
        self._journal.cancel_undo(record)

    def recover(self, record: Record) -> tuple[RecoveryOutcome, str]:
        """Finish an interrupted undo, or cancel it; return the outcome and one sentence. Raises OSError."""
        try:
            self.forward(record)
        except UndoRefused as error:
            self.cancel(record)
            return RecoveryOutcome.HELD, str(error)
        return RecoveryOutcome.FINISHED, f"{printable(record.source)} is the original again."

    def _require_kept(self, record: Record) -> None:
        """Raise UndoRefused if `retained` is missing, or is the rendition after an exchange."""
        kept = self._fs.lstat(record.retained) is not None
        if not kept or self._steps.is_rendition(record, record.retained):
            raise UndoRefused(
                f"The original of {printable(record.source)} was changed or removed by another program"
                " during the undo; it was left unchanged."
            )

    def _require_free(self, record: Record) -> None:
        if self._fs.lstat(record.source) is None:
            return
        if record.source == record.target and self._steps.is_rendition(record, record.target):
            return
        raise UndoRefused(
            f"{printable(record.source)} is not what hevcq put there, so it was not replaced; the"
            f" original stays at {printable(record.retained)}.",
            remedy="Move that file away and undo again.",
        )

    def _remove_rendition(self, record: Record) -> None:
        """Move the rendition away; a user's file at its path stays."""
        fs, gone = self._fs, _undone_path(record)
        if not self._steps.is_rendition(record, record.target):
            return
        if fs.lstat(gone) is None:
            move_new(fs, record.target, gone)
        else:
            fs.unlink(record.target)

    def _finish(self, record: Record) -> None:
        fs, gone = self._fs, _undone_path(record)
        self._steps.drop_certificate(record)
        self._steps.remove_temps(record)
        if fs.lstat(gone) is not None:
            fs.unlink(gone)
        with suppress(VerificationFailed):
            proof = Certificate.parse(record.certificate)
            remove_sidecars(fs, record.target, proof, record.fingerprint.mtime_ns)
        fs.fsync_dir(gone.parent)
        if fs.lstat(record.retained) is not None:
            # The rendition after an exchange, or a second name or copy of the original.
            fs.unlink(record.retained)
            fs.fsync_dir(record.retained.parent)
        note_undone(fs, self._journal.root, record)
        self._journal.end_undo(record)
        prune(fs, self._journal.root, record.retained)


def _undone_path(record: Record) -> Path:
    return record.target.with_name(f".hevcq-{record.job_id}.undone")
