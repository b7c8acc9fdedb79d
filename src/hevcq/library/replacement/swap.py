"""Replace originals by verified renditions, and undo it; the originals are kept for a while.

A Swap is for one library root. It may be killed at any system call between a record and its commit;
`recover`, called at every start, finishes or rolls back (gates G9 to G11).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hevcq.domain.certificate import Gate
from hevcq.errors import HevcqError, LibraryError, SwapRefused, Unavailable, UndoRefused
from hevcq.library.filesystem import FileSystem, fingerprint_of, library_error, library_errors
from hevcq.library.own_files import aside_beside, has_records, own_folder, root_lock
from hevcq.library.place import Check, Fetch, ToPlace, holds_rendition, staged, sweep
from hevcq.library.replacement.journal import (
    Journal,
    Record,
    forget_undone,
)
from hevcq.library.replacement.refusals import (
    Replacement,
    require_certified_source,
    require_replaceable,
    require_untouched,
)
from hevcq.library.replacement.retention import (
    Expired,
    Renditions,
    expire,
    is_missing,
    moved_record,
    release,
    retained_path,
)
from hevcq.library.replacement.steps import RecoveryOutcome, Steps, UndoSteps
from hevcq.ports.catalog import Fingerprint
from hevcq.util.clock import Clock
from hevcq.util.log import get_logger
from hevcq.util.text import printable, reason_of


@dataclass(frozen=True, slots=True)
class Replaced:
    """A replaced original and where it is kept. `already`: by an earlier call."""

    target: Path
    retained: Path
    notices: tuple[str, ...] = ()
    already: bool = False


@dataclass(frozen=True, slots=True)
class Recovery:
    """The outcome for one swap or undo that a kill had interrupted."""

    job_id: str
    source: Path
    undo: bool
    outcome: RecoveryOutcome
    reason: str


class Swap:
    """The swaps of one root; several threads and processes may use one root at the same time."""

    def __init__(self, root: Path, clock: Clock, fs: FileSystem | None = None) -> None:
        self.root = root
        self._clock = clock
        self._fs = fs if fs is not None else FileSystem()
        self._journal = Journal(root, self._fs)
        self._steps = Steps(self._fs, self._journal)
        self._undo_steps = UndoSteps(self._fs, self._journal, self._steps)
        self._log = get_logger(root=str(root))

    def replace(self, change: Replacement, fetch: Fetch, check: Check | None = None) -> Replaced:
        """Replace an original by its rendition, and keep the original.

        `fetch` and `check` are as in `place.staged`. A job whose swap is already done changes
        nothing. Raises SwapRefused with the reason (the original is unchanged), VerificationFailed
        if the collected bytes are not the certified ones, DiskFull after rolling back, Stopped,
        and Unavailable if the file system failed, with the path of the original.
        """
        try:
            self._recover_job(change)
            done = self._journal.find(change.certificate.job_id)
            replaced = self._already_replaced(done, change) if done is not None else None
            if replaced is None:
                replaced = self._replace(change, fetch, check)
        except OSError as error:
            raise _as_refusal(change.source, error) from error
        return replaced

    def recover(self) -> list[Recovery]:
        """Finish or roll back interrupted swaps and undos, and remove their temporary files.

        Safe to repeat. One that cannot be recovered now (a failing disk, a damaged record) is
        reported as stuck, stays recorded, and does not stop the others. Raises SwapRefused if the
        root is not writable, and DiskFull, Unavailable or LibraryError.
        """
        with library_errors(own_folder(self.root)):
            if not has_records(self.root):
                return []
        with root_lock(self.root, self._fs), library_errors(own_folder(self.root)):
            self._journal.clean()
            settled = [self._recover_one(path, undo) for path, undo in self._journal.under_way()]
            stuck = {item.source for item in settled if item.outcome is RecoveryOutcome.STUCK}
            if not stuck:
                sweep(self.root, self._fs)
        return settled

    def undo(self, job_id: str) -> Record:
        """Restore a job's original byte for byte and remove its rendition; return the swap's record.

        Raises UndoRefused with the reason, with nothing changed, and DiskFull or Unavailable if
        the file system failed, after cancelling the undo where possible.
        """
        with root_lock(self.root, self._fs):
            record = self.check_undo(job_id)
            try:
                self._journal.begin_undo(record)
                self._undo_steps.forward(record)
            except (OSError, UndoRefused) as error:
                raise self._cancel_undo(record, error) from error
        self._log.info("original_restored", job=job_id, source=printable(record.source))
        return record

    def check_undo(self, job_id: str) -> Record:
        """Return the record that an undo would restore. Raises UndoRefused if it would be refused."""
        with library_errors(self.root):
            record = self._kept_of(job_id)
            self._undo_steps.check(record)
        return record

    def find(self, job_id: str) -> Record | None:
        """Return the finished swap of a job whose original is kept, or None."""
        return self._journal.find(job_id)

    def kept(self) -> Iterator[Record]:
        """Yield the finished swaps whose originals are kept."""
        yield from self._journal.kept()

    def expire(self, now: float, kept_s: Callable[[Record], float]) -> list[Expired]:
        """Remove the originals whose retention ended by `now` (wall seconds); see `retention.expire`."""
        with library_errors(own_folder(self.root)):
            if not has_records(self.root):
                return []
        with root_lock(self.root, self._fs), library_errors(own_folder(self.root)):
            return list(expire(self._fs, self._journal, now, kept_s))

    def free(self, asked: Callable[[Record], bool]) -> list[Expired]:
        """Remove the kept originals that `asked` selects, whatever their retention.

        Raises DiskFull, Unavailable or LibraryError.
        """
        with root_lock(self.root, self._fs), library_errors(own_folder(self.root)):
            return list(release(self._fs, self._journal, asked))

    def record_moves(self) -> None:
        """Record the new paths of renditions that a user renamed or moved within the library.

        Raises StorageError, SwapRefused, DiskFull, Unavailable or LibraryError.
        """
        with library_errors(own_folder(self.root)):
            if not any(is_missing(self._fs, record) for record in self._journal.kept()):
                return
        with root_lock(self.root, self._fs), library_errors(own_folder(self.root)):
            kept = list(self._journal.kept())
            renditions = Renditions(self._fs, self.root, kept)
            for record in kept:
                if is_missing(self._fs, record) and (path := renditions.moved_to(record)):
                    self._journal.rewrite(moved_record(record, path))

    def _replace(self, change: Replacement, fetch: Fetch, check: Check | None) -> Replaced:
        before = require_replaceable(self._fs, self.root, change)
        rendition = ToPlace(self.root, change.source, change.target, change.certificate)
        require_certified_source(self._fs, change)
        with staged(rendition, lambda _, path: fetch(path), self._fs, check) as (new, notices):
            # Read again here: bytes have been seen to change between a verdict and a swap.
            if not holds_rendition(self._fs, new, change.certificate):
                raise SwapRefused(
                    f"{printable(new)} is not the rendition that was checked ({Gate.G9.name}); nothing was replaced.",
                    remedy="Run the same command again.",
                )
            with root_lock(self.root, self._fs):
                require_untouched(change, before, require_replaceable(self._fs, self.root, change))
                record = self._record(change, new, fingerprint_of(before))
                self._carry_out(record)
                forget_undone(self._fs, self.root, record)
        self._log.info("original_replaced", job=record.job_id, retained=printable(record.retained))
        return Replaced(record.target, record.retained, notices)

    def _recover_job(self, change: Replacement) -> None:
        """Recover this job's interrupted swaps, whose record the new one would overwrite."""
        if not self._unfinished_of(change.certificate.job_id):
            return
        with root_lock(self.root, self._fs):
            for path, undo in self._unfinished_of(change.certificate.job_id):
                recovery = self._recover_one(path, undo)
                if recovery.outcome is RecoveryOutcome.STUCK:
                    raise SwapRefused(
                        f"{printable(change.source)} was not replaced: {recovery.reason}"
                    )

    def _unfinished_of(self, job_id: str) -> list[tuple[Path, bool]]:
        under_way = self._journal.under_way()
        return [(path, undo) for path, undo in under_way if path.name.split(".")[0] == job_id]

    def _already_replaced(self, done: Record, change: Replacement) -> Replaced:
        if holds_rendition(self._fs, done.target, change.certificate):
            return Replaced(done.target, done.retained, already=True)
        raise SwapRefused(
            f"{printable(change.source)} was replaced earlier, and {printable(done.target)} is no longer"
            f" that rendition; the original is kept at {printable(done.retained)}.",
            remedy="`hevcq undo` restores it.",
        )

    def _kept_of(self, job_id: str) -> Record:
        record = self._journal.find(job_id)
        if record is None:
            raise UndoRefused(f"No original of job {job_id} is kept in {printable(self.root)}.")
        return record

    def _record(self, change: Replacement, new: Path, seen: Fingerprint) -> Record:
        now, proof = self._clock.now(), change.certificate
        record = Record(
            job_id=proof.job_id,
            profile=proof.profile,
            source=change.source,
            target=change.target,
            new=new,
            retained=retained_path(self._fs, self._journal, change.source, proof.job_id, now),
            fingerprint=seen,
            source_sha256=proof.source_sha256,
            rendition_sha256=proof.rendition_sha256,
            rendition_size=proof.rendition_size,
            certificate=proof.to_json(),
            keep_days=change.keep_days if math.isfinite(change.keep_days) else None,
            created_at=now,
            aside=aside_beside(change.source, proof.job_id)
            if change.source == change.target
            else None,
        )
        return replace(record, had_certificate=self._steps.has_certificate(record))

    def _carry_out(self, record: Record) -> None:
        try:
            self._journal.begin(record)
            self._steps.forward(record)
        except (OSError, HevcqError) as error:
            self._roll_back(record, error)
            raise

    def _roll_back(self, record: Record, error: Exception) -> None:
        """Roll back. If that fails, raise Unavailable with the original's path; `recover` goes on later."""
        try:
            self._journal.clean()
            self._steps.roll_back(record)
        except SwapRefused:
            self._steps.recover(self._journal.find_under_way(record.job_id) or record)
            raise
        except OSError as worse:
            raise Unavailable(
                f"The swap of {printable(record.source)} was interrupted ({reason_of(error)}), and could not be"
                f" rolled back yet ({worse.strerror}); the original is intact, there or at"
                f" {printable(record.retained)}.",
                remedy="The next start of hevcq finishes or rolls back.",
            ) from worse

    def _cancel_undo(self, record: Record, error: OSError | UndoRefused) -> HevcqError:
        try:
            if self._journal.find(record.job_id) is None:
                self._undo_steps.cancel(record)
        except OSError as worse:
            return Unavailable(
                f"The undo of {printable(record.source)} was interrupted ({reason_of(error)}), and could not be"
                f" cancelled yet ({worse.strerror}); the original is intact.",
                remedy="The next start of hevcq finishes or cancels it.",
            )
        return library_error(record.source, error) if isinstance(error, OSError) else error

    def _recover_one(self, path: Path, undo: bool) -> Recovery:  # noqa: FBT001 - which folder it was in
        job_id = path.name.split(".")[0]
        source = path
        try:
            record = self._journal.load(path)
            source = record.source
            settle = self._undo_steps.recover if undo else self._steps.recover
            outcome, reason = settle(record)
        except OSError as error:
            outcome, reason = RecoveryOutcome.STUCK, str(library_error(source, error))
        except HevcqError as error:
            outcome, reason = RecoveryOutcome.STUCK, str(error)
        self._log.warning("swap_settled", job=job_id, undo=undo, outcome=outcome.value)
        return Recovery(job_id, source, undo, outcome, reason)


def _as_refusal(source: Path, error: OSError) -> HevcqError:
    meant = library_error(source, error)
    if not isinstance(meant, LibraryError):
        return meant
    return SwapRefused(f"{meant.message} The original is unchanged.", remedy=meant.remedy)
