"""The front door: answers `--help`, `--version` and plain `status` without loading the program.

Typer, pydantic and the rest cost about 200 ms to import; these three questions need none of them.
Every other call, and every case where this module is not sure to give the program's own answer,
goes to `hevcq.cli.app`. tests/cli/test_status.py holds the two together.
"""

# pathlib costs milliseconds that this module exists to save:
# ruff: noqa: PTH100, PTH112, PTH118, PTH120, PTH208
from __future__ import annotations

import os
import sys

from hevcq import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` itself would cost milliseconds
    from collections.abc import Sequence

HELP_COLUMNS = 80


def main() -> int:
    """Run the command line; return the exit code."""
    arguments = sys.argv[1:]
    try:
        _open_closed_streams()
        answer = _answer(arguments)
        if answer is not None:
            return _write(answer)
        from hevcq.cli.app import run

        return run(arguments)
    except KeyboardInterrupt:  # also while the program is still being loaded
        return 130  # ExitCode.INTERRUPTED


def _open_closed_streams() -> None:
    """Give a process that was started without stdin, stdout or stderr a null one.

    The next file that it opens would have that number, and a stray word would go into a film.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is not None:
            continue
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, number)
        if nothing != number:
            os.close(nothing)
        setattr(sys, name, open(number, mode, encoding="utf-8"))  # noqa: SIM115 - kept for life


def _write(answer: str) -> int:
    try:
        sys.stdout.write(answer)
        sys.stdout.flush()
    except OSError as error:
        # What is still in the buffer must not fail a second time when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if isinstance(error, BrokenPipeError):
            return 141  # ExitCode.PIPE
        from hevcq.cli.app import tell

        return tell(error)
    return 0


def _answer(arguments: Sequence[str]) -> str | None:
    if "_HEVCQ_COMPLETE" in os.environ:  # a shell asks for completions, not for help
        return None
    if arguments in ([], ["--help"], ["-h"]):
        return _help()
    if arguments == ["--version"]:
        return f"hevcq {__version__}\n"
    return _status(list(arguments))


def _help() -> str | None:
    try:
        if sys.stdout.isatty() and os.get_terminal_size().columns < HELP_COLUMNS:
            return None
        with open(
            os.path.join(os.path.dirname(__file__), "cli", "help.txt"), encoding="utf-8"
        ) as f:
            return f.read()
    except OSError:
        return None


def _status(arguments: list[str]) -> str | None:
    flag = None
    if arguments[:1] == ["--data-dir"] and len(arguments) > 1:
        flag, arguments = arguments[1], arguments[2:]
    if arguments != ["status"]:
        return None
    from hevcq.cli.data_dir import data_dir

    folder = data_dir(flag)
    if folder is None:
        return None
    try:
        return _snapshot(folder)
    except Exception:  # noqa: BLE001 - whatever it is, the program meets it too and explains it
        return None


def _snapshot(folder: str) -> str | None:
    import time

    from hevcq.cli.status_text import MAX_RUNNING, lines
    from hevcq.embedded.snapshot import read_snapshot

    seen = read_snapshot(folder, MAX_RUNNING, time.time())
    if not seen["exists"]:
        return None
    if any("split" in states for states in seen["jobs"].values()):
        return None  # how far a shared film is takes adding up, which the program does
    names = sorted({*_installed_profiles(), *seen["jobs"]})
    nothing = {"ready": 0, "in_flight": 0, "delayed": 0, "dead": 0}
    queues = []
    for name in names:
        depth = seen["queues"].get(name, nothing)
        counts = seen["jobs"].get(name, {})
        queues.append({**depth, "profile": name, "dead_letters": depth["dead"], "jobs": counts})
    return "\n".join(lines({"queues": queues, "running": seen["running"]})) + "\n"


def _installed_profiles() -> list[str]:
    """Name the profiles of `hevcq.profiles.installed_folder`, without reading them."""
    here = os.path.dirname(os.path.abspath(__file__))
    packaged = os.path.join(here, "workers")
    checkout = os.path.join(os.path.dirname(os.path.dirname(here)), "workers")
    folder = packaged if os.path.isdir(packaged) else checkout
    return [name[:-5] for name in os.listdir(folder) if name.endswith(".yaml")]
