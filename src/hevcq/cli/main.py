"""The entry point of `hevcq` and `python -m hevcq`: sound standard streams in, an exit code out."""

import os
import signal
import sys

from hevcq.util.processes import block_inspection

NOT_LINUX = (
    "hevcq needs Linux: it starts ffmpeg under limits that only Linux has. On macOS and Windows a"
    " Linux virtual machine or container is the way.\n"
)


def main() -> int:
    """Run the command line; return the exit code."""
    if sys.platform != "linux":
        from hevcq.cli.exit_codes import ExitCode

        sys.stderr.write(NOT_LINUX)
        return ExitCode.UNFIT
    try:
        _open_closed_streams()
        block_inspection(os.environ)
        from hevcq.cli.app import run

        return run(sys.argv[1:])
    except KeyboardInterrupt:  # also while the program is still being imported
        from hevcq.cli.exit_codes import ExitCode

        return ExitCode.INTERRUPTED
    finally:
        # The exit code is decided: another Ctrl-C while the interpreter ends must not change it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _open_closed_streams() -> None:
    """Give a process that was started without stdin, stdout or stderr a null one.

    Otherwise the next file it opens gets that descriptor, and a message could end up in a video.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is not None:
            continue
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, number)
        if null != number:
            os.close(null)
        setattr(sys, name, open(number, mode, encoding="utf-8"))  # noqa: SIM115 - kept for life
