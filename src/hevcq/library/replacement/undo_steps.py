"""Undo a swap: restore the original byte for byte and remove the rendition."""

from contextlib import suppress
from pathlib import Path

from hevcq.domain.certificate import Certificate
from hevcq.errors import UndoRefused, VerificationFailed
from hevcq.library.filesystem import FileSystem, move_new
from hevcq.library.place import remove_sidecars
from hevcq.library.replacement.journal import Journal, Record
from hevcq.library.replacement.restored_originals import note_undone
from hevcq.library.replacement.retention import prune
from hevcq.library.replacement.steps import RecoveryOutcome, Steps
from hevcq.util.text import printable


class UndoSteps:
    """Carry out and recover the undos of one root. The caller holds the root's lock."""

    def __init__(self, fs: FileSystem, journal: Journal, steps: Steps) -> None:
        self._fs = fs
        self._journal = journal
        self._steps = steps

    def check(self, record: Record) -> None:
        """Check that the kept original is intact and that its path is free.

        Raises UndoRefused if not, and OSError.
        """
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
        """Put the rendition back after an undo that could not be finished; safe to repeat.

        Raises OSError.
        """
        fs, steps = self._fs, self._steps
        if steps.is_original(record, record.source) or steps.is_rendition(record, record.retained):
            self._finish(record)
            return
        gone = _undone_path(record)
        if fs.lstat(gone) is not None:
            if fs.lstat(record.target) is None:
                move_new(fs, gone, record.target)
            else:
                # A second name of the rendition, or another program's file is there: keep the original.
                fs.unlink(gone)
        steps.remove_temps(record)
        self._journal.cancel_undo(record)

    def recover(self, record: Record) -> tuple[RecoveryOutcome, str]:
        """Finish an interrupted undo, or cancel it; return the outcome and one sentence.

        Raises OSError.
        """
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
        """Move the rendition away; a file that a user put in its place stays."""
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
