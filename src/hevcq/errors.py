"""Every error that hevcq raises on purpose, in one tree; adapters translate foreign errors into it.

An error carries data. Its message is one sentence about the problem and the file, its remedy another
about what to do.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hevcq.util.text import printable

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Error numbers of a disk, or a quota, that has no space left."""
DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class HevcqError(Exception):
    """Base of every error that hevcq raises on purpose."""

    def __init__(self, message: str = "", *, remedy: str = "") -> None:
        doc = (type(self).__doc__ or "").strip().splitlines()[0]
        self.message = message or doc
        self.remedy = remedy
        super().__init__(self.message)

    def __str__(self) -> str:
        """Return the sentence, followed by the remedy where there is one."""
        return f"{self.message} {self.remedy}".strip()


class UsageError(HevcqError):
    """The request cannot be carried out as given."""


class ConfigError(UsageError):
    """The configuration is invalid."""


class UnknownProfile(UsageError):
    """No profile of that name is installed."""


class BadKey(UsageError):
    """An object key is empty, absolute, too long or leaves its folder."""


class NoSuchVideo(UsageError):
    """There is no such video, or it is another owner's."""


class QuotaExceeded(UsageError):
    """An upload would exceed a limit of its owner or of the farm."""


class BadUpload(UsageError):
    """An upload is not what was declared, or cannot go on like this."""


class PermanentError(HevcqError):
    """Trying the same task again can only fail again."""


class BadMessage(PermanentError):
    """A queue message cannot be read."""


class SourceGone(PermanentError):
    """The source no longer exists."""


class SourceChanged(PermanentError):
    """The source is not the version that was queued: it was replaced or is still growing."""


class SourceUnreadable(PermanentError):
    """The source cannot be opened or is not a video."""


INTACT_COPY = "Replace it with an intact copy and ingest it again."
"""What to do about a damaged file of a library."""


class SourceDamaged(PermanentError):
    """The source is damaged: packets are missing or do not decode."""


class MediaRefused(PermanentError):
    """A named policy of the profile forbids encoding this source."""


class VerificationFailed(PermanentError):
    """The rendition failed a gate and was discarded; the original is untouched."""


class NeedsReview(PermanentError):
    """The rendition may not replace another that is in its place; a person should check it."""


class LimitExceeded(PermanentError):
    """The encode exceeded its limit of time, CPU or output size."""


class TransientError(HevcqError):
    """The same task may well succeed later or elsewhere."""


class EncoderFailed(TransientError):
    """ffmpeg failed with an error that is not the source's fault."""

    def __init__(
        self,
        message: str = "",
        *,
        returncode: int | None = None,
        tail: Sequence[str] = (),
        command: str = "",
        remedy: str = "",
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.returncode = returncode
        self.tail = tuple(tail)
        self.command = command


class EncoderStalled(EncoderFailed):
    """ffmpeg made no output-time progress for longer than the profile allows."""


class PartUnfit(EncoderFailed):
    """A part of a split video is not what its plan says; it is thrown away and made again.

    `index` is the number of the chunk, where one alone is to blame.
    """

    def __init__(
        self, message: str = "", *, index: int | None = None, tail: Sequence[str] = ()
    ) -> None:
        super().__init__(message, tail=tail)
        self.index = index


class OutOfMemory(EncoderFailed):
    """ffmpeg ran out of memory."""


class DiskFull(TransientError):
    """The disk has too little free space for this work."""


def is_full(error: BaseException) -> bool:
    """Return whether an error says that a disk, or a quota, has no space left."""
    return isinstance(error, OSError) and error.errno in FULL


class Conflict(TransientError):
    """A record was changed by somebody else meanwhile."""


class Unavailable(TransientError):
    """A service or file system that hevcq needs did not answer."""


class AccessDenied(Unavailable):
    """A service refused a request: the account or role lacks a right for it."""


class SourceAway(Unavailable):
    """What holds the source is away as a whole: the disk of a library, or a store in an outage."""


class WorkerUnfit(HevcqError):
    """This worker cannot do any job: ffmpeg is missing, too old or lacks an encoder."""


class Interruption(HevcqError):
    """The work was interrupted; it is neither a failure nor poison."""


class Stopped(Interruption):
    """The worker was asked to stop."""


class Paused(Interruption):
    """Work is paused, and this was to stop at once."""


class LeaseLost(Interruption):
    """The lease on the delivery ran out or was taken; nothing may be published or settled."""


class StaleFence(Interruption):
    """The ledger granted a newer fence; this worker is a zombie for the job."""


class Superseded(Interruption):
    """The split job that this part belongs to ended, or goes on without it."""


class StorageError(HevcqError):
    """The data folder's own records cannot be used."""


class DatabaseBusy(StorageError):
    """The database stayed locked by another process for too long."""


class LibraryError(HevcqError):
    """A step on a person's media folder was refused."""


class SwapRefused(LibraryError):
    """The original was not replaced, and is untouched."""


class UndoRefused(LibraryError):
    """The original was not restored."""


@contextmanager
def file_errors(what: str, path: Path) -> Iterator[None]:
    """Translate OSError inside the block; `what` completes the sentence "… cannot be <what>"."""
    try:
        yield
    except OSError as error:
        raise file_error(error, what, path) from error


def file_error(error: OSError, what: str, path: Path) -> HevcqError:
    """Return the HevcqError for a failed step on a file of the data folder or a target."""
    why = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in {errno.EEXIST, errno.ENOTDIR}:
        why = "it, or a folder above it, is a file"
    sentence = f"{printable(path)} cannot be {what}: {why}."
    if error.errno in FULL | {errno.EFBIG}:
        return DiskFull(sentence, remedy="Free some space.")
    if error.errno in DENIED:
        return StorageError(sentence, remedy="Check the rights of the folder.")
    return Unavailable(sentence)
