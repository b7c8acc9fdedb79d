"""`hevcq-health [DATA_DIR]`: whether the workers of this container or machine are well.

Exits 0 or 1 with one sentence, and 2 if it is called wrongly. It loads nothing but the standard
library where HEVCQ_DATA_DIR is set, so that it is quick beside encodes that use every core.
"""

# pathlib and typing would cost `hevcq-health` milliseconds of start-up time:
# ruff: noqa: PTH100, PTH103, PTH105, PTH108, PTH111, PTH118, PTH120, PTH208
from __future__ import annotations

import json
import os
import sys

from hevcq.util.clock import SystemClock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

USAGE = "usage: hevcq-health [DATA_DIR]"
FOLDER = "health"
"""A worker writes the file `<data_dir>/health/<node>-<pid>.json`: `node` (the name of the host or
container) and `pid` distinguish the processes that share a data folder. Times in it are seconds of
the monotonic clock, which all processes of a machine share and wall time corrections do not move."""
EVERY_S = 5.0
"""Seconds between two writes of the file."""
STALE_S = 120.0
"""Age in seconds from which a file means a hanging process: a busy CPU does not miss 24 writes."""
MAX_POLL_S = 300.0
"""Longest time in seconds without an answer from a queue while all slots are idle: 15 long polls."""


def main() -> int:
    """Check the workers of the data folder in the arguments or settings; return the exit code."""
    arguments = sys.argv[1:]
    if len(arguments) > 1 or any(word.startswith("-") for word in arguments):
        helped = arguments in (["-h"], ["--help"])
        return _print(f"{USAGE}\n{__doc__}" if helped else USAGE, 0 if helped else 2)
    folder = data_dir(arguments)
    if folder is None:
        return 1
    well, sentence = examine(folder_of(folder), node(), SystemClock().monotonic(), running)
    return _print(sentence, 0 if well else 1)


def data_dir(arguments: Sequence[str]) -> str | None:
    """Return the data folder from the arguments, HEVCQ_DATA_DIR, or else the settings.

    The variable overrides every settings file, and images set it; only without it are all settings
    loaded.
    """
    given = arguments[0] if arguments else os.environ.get("HEVCQ_DATA_DIR")
    if given:
        return os.path.abspath(os.path.expanduser(given))
    from hevcq.errors import ConfigError
    from hevcq.settings.loader import load

    try:
        loaded = load()
    except ConfigError as error:
        sys.stdout.write(f"{error}\n")
        return None
    for notice in loaded.notices:
        sys.stderr.write(f"{notice}\n")
    return str(loaded.settings.data_dir)


def _print(sentence: str, code: int) -> int:
    sys.stdout.write(f"{sentence}\n")
    return code


def folder_of(data_dir: str) -> str:
    """Return the folder of the health files."""
    return os.path.join(data_dir, FOLDER)


def file_of(data_dir: str, node: str, pid: int) -> str:
    """Return the health file of one process."""
    return os.path.join(folder_of(data_dir), f"{_safe(node)}-{pid}.json")


def write(file: str, vitals: Mapping[str, object]) -> None:
    """Write the health file atomically.

    Raises OSError.
    """
    os.makedirs(os.path.dirname(file), exist_ok=True)
    unfinished = f"{file}.new"
    with open(unfinished, "w", encoding="ascii") as out:
        json.dump(vitals, out)
    os.replace(unfinished, file)


def sweep(folder: str, node: str, alive: Callable[[int], bool]) -> None:
    """Remove the health files of this node's ended processes.

    Raises OSError.
    """
    for pid, name in _files(folder, node):
        if not alive(pid):
            os.unlink(os.path.join(folder, name))


def examine(folder: str, node: str, now: float, alive: Callable[[int], bool]) -> tuple[bool, str]:
    """Return whether every worker process of this node is healthy, and a sentence about it.

    `now` is in seconds of the monotonic clock.
    """
    living = [(pid, name) for pid, name in _files(folder, node) if alive(pid)]
    if not living:
        return False, f"No worker of this machine has left a sign of life in {folder}."
    handled = busy = 0
    for pid, name in living:
        try:
            with open(os.path.join(folder, name), encoding="ascii") as file:
                vitals = json.load(file)
            trouble = judge(vitals, now)
            handled, busy = handled + vitals["handled"], busy + vitals["busy"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            trouble = f"its file cannot be read: {error}"
        if trouble:
            return False, f"Worker {pid} is not well: {trouble}."
    return True, f"{len(living)} well: {busy} jobs running, {handled} handled."


def count(folder: str, node: str, now: float, alive: Callable[[int], bool]) -> int:
    """Return how many worker processes show signs of life in a folder of health files.

    Those of this node must exist. Of other nodes (containers that share the folder) the age of the
    file decides; `now` is in wall seconds.
    """
    mine = {name for pid, name in _files(folder, node) if alive(pid)}
    gone = {name for _, name in _files(folder, node)} - mine
    try:
        names = sorted(set(os.listdir(folder)) - gone)
    except OSError:
        return 0
    return sum(_is_fresh(os.path.join(folder, name), now) for name in names)


def _is_fresh(file: str, now: float) -> bool:
    """Return whether a health file was written in the last STALE_S seconds, by a worker that goes on."""
    if not file.endswith(".json"):
        return False
    try:
        with open(file, encoding="ascii") as content:
            vitals = json.load(content)
        return abs(now - vitals["written"]) <= STALE_S and not vitals["stopping"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def judge(vitals: Mapping[str, float], now: float) -> str:
    """Return a sentence about the fault of a process, or an empty string if it is healthy.

    `now` is in seconds of the monotonic clock. A long encode is never a fault: killing its worker
    would only lose the work, and the time limits of the encode end one that hangs.
    """
    age = now - vitals["at"]
    if age > STALE_S:
        return f"it last showed itself {age:.0f} s ago"
    if age < 0:
        return "its file is from before the machine started"
    if vitals["stopping"] or vitals["busy"]:
        return ""
    if not vitals["alive"]:
        return f"none of its {vitals['slots']:.0f} slots is alive"
    poll_s = vitals["oldest_poll_s"] + age
    if poll_s > MAX_POLL_S:
        return f"no queue has answered a slot of it for {poll_s:.0f} s"
    return ""


def running(pid: int) -> bool:
    """Return whether the process `pid` exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def node() -> str:
    """Return the name of this machine or container."""
    return os.uname().nodename


def _files(folder: str, name: str) -> list[tuple[int, str]]:
    """Return the process ids and file names of this node's health files."""
    start, end = f"{_safe(name)}-", ".json"
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    pids = [(found[len(start) : -len(end)], found) for found in names if found.startswith(start)]
    return [(int(pid), found) for pid, found in pids if pid.isdigit() and found.endswith(end)]


def _safe(name: str) -> str:
    return "".join(sign if sign.isascii() and sign.isalnum() else "_" for sign in name)
