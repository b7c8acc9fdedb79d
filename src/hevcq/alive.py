"""`hevcq-health [DATA_DIR]`: check whether the workers of this container or machine are well.

Exits 0 or 1 with one sentence, and 2 if it is called wrongly. With HEVCQ_DATA_DIR set it loads only
the standard library, so that it is quick beside encodes that use every core.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hevcq.util.clock import SystemClock
from hevcq.util.processes import node, process_rows

USAGE = "usage: hevcq-health [DATA_DIR]"
EVERY_S = 5.0
"""Seconds between two signs of life of a worker, in its row of `<data_dir>/processes`. Their times are
seconds of the monotonic clock: all processes of a machine share it, and corrections of the wall time do
not move it."""
STALE_S = 120.0
"""Age in seconds from which a row means a hanging process: even a busy CPU does not miss 24 writes."""
MAX_POLL_S = 300.0
"""Longest time in seconds without an answer from a queue while all slots are idle: 15 long polls."""


def main() -> int:
    """Check the workers of the data folder in the arguments or settings; return the exit code."""
    arguments = sys.argv[1:]
    if len(arguments) > 1 or any(word.startswith("-") for word in arguments):
        asks_help = arguments in (["-h"], ["--help"])
        return _print(f"{USAGE}\n{__doc__}" if asks_help else USAGE, 0 if asks_help else 2)
    folder = data_dir(arguments)
    if folder is None:
        return 1
    is_well, sentence = check_workers(folder, SystemClock().monotonic())
    return _print(sentence, 0 if is_well else 1)


def data_dir(arguments: Sequence[str]) -> Path | None:
    """Return the data folder from the arguments, HEVCQ_DATA_DIR, or else the settings.

    The variable overrides every settings file, and images set it; only without it are all settings
    loaded.
    """
    given = arguments[0] if arguments else os.environ.get("HEVCQ_DATA_DIR")
    if given:
        return Path(given).expanduser()
    from hevcq.errors import ConfigError
    from hevcq.settings.loader import load

    try:
        loaded = load()
    except ConfigError as error:
        sys.stdout.write(f"{error}\n")
        return None
    return loaded.settings.data_dir


def _print(sentence: str, code: int) -> int:
    sys.stdout.write(f"{sentence}\n")
    return code


def check_workers(data_dir: Path, now: float) -> tuple[bool, str]:
    """Return whether every worker of this machine or container is well, and a sentence about them.

    `now` is in seconds of the monotonic clock.
    """
    workers = [
        row for row in process_rows(data_dir) if row.get("slots") and row.get("node") == node()
    ]
    if not workers:
        return False, f"No worker of this machine runs with the data folder {data_dir}."
    for row in workers:
        if problem := problem_of(row, now):
            return False, f"Worker {row['pid']} is not well: {problem}."
    busy, handled = sum(row["busy"] for row in workers), sum(row["handled"] for row in workers)
    waiting = sorted({why for row in workers for why in row.get("unfit", {}).values()})
    words = [f"{len(workers)} well: {busy} jobs running, {handled} handled.", *waiting]
    return True, " ".join(words)


def problem_of(row: Mapping[str, Any], now: float) -> str:
    """Return what is wrong with a worker, or "" if it is well.

    `now` is in seconds of the monotonic clock. A long encode is no problem: killing its worker would
    only lose the work, and its time limits end an encode that hangs.
    """
    age = now - row["at"]
    if age > STALE_S:
        return f"it last showed itself {age:.0f} s ago"
    if row["stopping"] or row["busy"]:
        return ""
    if not row["alive"]:
        return f"none of its {row['slots']} slots is alive"
    poll_s = row["oldest_poll_s"] + age
    if poll_s > MAX_POLL_S:
        return f"no queue has answered a slot of it for {poll_s:.0f} s"
    return ""
