"""The entry point of `hevcq` and `python -m hevcq`: open the standard streams, return an exit code."""

import os
import signal
import sys

from hevcq.util.processes import block_inspection

NOT_LINUX = (
    "hevcq needs Linux: it runs ffmpeg under limits that only Linux has. On macOS and Windows, use a"
    " Linux virtual machine or container.\n"
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
        from hevcq.cli.commands import run

        return run(sys.argv[1:])
    except KeyboardInterrupt:  # even while the program is being imported
        from hevcq.cli.exit_codes import ExitCode

        return ExitCode.INTERRUPTED
    finally:
        # The exit code is decided: another Ctrl-C while the interpreter ends must not change it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _open_closed_streams() -> None:
    """Open /dev/null for each standard stream that the process was started without.

    Otherwise the next opened file gets that descriptor, and a message could end up in a video.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is not None:
            continue
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, number)
        if null != number:
            os.close(null)
        setattr(sys, name, open(number, mode, encoding="utf-8"))  # noqa: SIM115 - kept for life
