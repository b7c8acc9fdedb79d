"""Exit codes, their meanings, and the mapping from errors to them."""

from enum import IntEnum

from hevcq.errors import (
    ConfigError,
    DiskFull,
    HevcqError,
    Interruption,
    LibraryError,
    PermanentError,
    StorageError,
    TransientError,
    UsageError,
    WorkerUnfit,
    is_full,
)


class ExitCode(IntEnum):
    """The exit status of hevcq; `MEANING` describes each."""

    OK = 0
    SOME_FAILED = 1
    USAGE = 2
    CONFIG = 3
    UNFIT = 4
    STORAGE = 5
    REFUSED = 6
    UNAVAILABLE = 7
    INTERNAL = 70
    INTERRUPTED = 130
    PIPE = 141


MEANING: dict[ExitCode, str] = {
    ExitCode.OK: "everything is done; skipped files count as done",
    ExitCode.SOME_FAILED: (
        "some files failed or were refused (listed, or kept as dead letters), the others are done; or you"
        " answered a question with no"
    ),
    ExitCode.USAGE: "wrong command line, or no such profile, job or file",
    ExitCode.CONFIG: "invalid setting or profile file",
    ExitCode.UNFIT: (
        "this machine cannot encode: ffmpeg is missing, too old or lacks an encoder, or its role on AWS"
        " may not read any queue"
    ),
    ExitCode.STORAGE: "the data folder's database is damaged, too new or locked, or the disk is full",
    ExitCode.REFUSED: "a replace or undo was refused; originals are untouched",
    ExitCode.UNAVAILABLE: "a service or file system did not answer; try again",
    ExitCode.INTERNAL: "a bug in hevcq; --verbose shows the traceback",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C, SIGTERM); running work went back to its queue",
    ExitCode.PIPE: "the reader of the output closed it",
}

_CODES: tuple[tuple[type[HevcqError], ExitCode], ...] = (
    (ConfigError, ExitCode.CONFIG),
    (UsageError, ExitCode.USAGE),
    (WorkerUnfit, ExitCode.UNFIT),
    (StorageError, ExitCode.STORAGE),
    (DiskFull, ExitCode.STORAGE),
    (LibraryError, ExitCode.REFUSED),
    (TransientError, ExitCode.UNAVAILABLE),
    (PermanentError, ExitCode.SOME_FAILED),
    (Interruption, ExitCode.INTERRUPTED),
)


def exit_code(error: BaseException) -> ExitCode:
    """Return the exit code of an error that ends the program; INTERNAL if it is unknown."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    if isinstance(error, OSError):  # e.g. stdout is a file on a full disk
        return ExitCode.STORAGE if is_full(error) else ExitCode.UNAVAILABLE
    return ExitCode.INTERNAL


def table() -> str:
    rows = [f"| {code.value} | {code.name.lower()} | {MEANING[code]} |" for code in ExitCode]
    return "\n".join(["| code | name | meaning |", "|---|---|---|", *rows])
