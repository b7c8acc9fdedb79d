"""The front door: answers `--help`, `--version` and plain `status` without loading the program.

Typer, pydantic and the rest cost about 200 ms to import; these three questions need none of them.
Every other call, and every case where this module is not sure to give the program's own answer,
goes to `hevcq.cli.app`. tests/cli/test_front.py holds the two together.
"""

# pathlib costs milliseconds that this module exists to save:
# ruff: noqa: PTH109, PTH111, PTH100, PTH112, PTH113, PTH117, PTH118, PTH120, PTH208
from __future__ import annotations

import os
import sys

from hevcq import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` itself would cost milliseconds
    from collections.abc import Mapping, Sequence
    from typing import Any

HELP_COLUMNS = 80
PLAIN_VARIABLES = frozenset({"HEVCQ_DATA_DIR", "HEVCQ_PROFILES"})
"""Variables that do not change what `status` says, but for the folder; others need the program."""
PLAIN_KEYS = frozenset({"data_dir", "backend"})


def main() -> int:
    """Run the command line; return the exit code."""
    arguments = sys.argv[1:]
    try:
        answer = _answer(arguments)
        if answer is not None:
            sys.stdout.write(answer)
            sys.stdout.flush()
            return 0
        from hevcq.cli.app import run

        return run(arguments)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141  # ExitCode.PIPE
    except KeyboardInterrupt:  # also while the program is still being loaded
        return 130  # ExitCode.INTERRUPTED


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
    folder = data_dir(flag)
    if folder is None:
        return None
    try:
        return _snapshot(folder)
    except Exception:  # noqa: BLE001 - whatever it is, the program meets it too and explains it
        return None


def _snapshot(folder: str) -> str | None:
    from hevcq.cli.status_text import MAX_RUNNING, lines
    from hevcq.embedded.snapshot import read_snapshot

    seen = read_snapshot(folder, MAX_RUNNING)
    if not seen["exists"]:
        return None
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


def data_dir(flag: str | None = None) -> str | None:
    """Return the data folder as the full settings would say, or None to ask them."""
    in_file = _from_file() if _plain() else None
    given = os.environ.get("HEVCQ_DATA_DIR") if flag is None else flag
    if in_file is None or given == "":
        return None
    if given is not None:
        return os.path.join(os.getcwd(), os.path.expanduser(given))
    return in_file or os.path.join(_xdg("XDG_DATA_HOME", "~/.local/share"), "hevcq")


def _plain() -> bool:
    """Return whether nothing but the data folder can be configured by the environment."""
    if not sys.platform.startswith("linux"):
        return False
    if any(
        name.upper().startswith("HEVCQ_") and name not in PLAIN_VARIABLES for name in os.environ
    ):
        return False
    bases = (os.environ.get("XDG_DATA_HOME"), os.environ.get("XDG_CONFIG_HOME"))
    return all(not base or os.path.isabs(base) for base in bases)


def _from_file() -> str | None:
    """Return the settings file's data folder, "" if it names none, None if it says more."""
    user = os.path.join(_xdg("XDG_CONFIG_HOME", "~/.config"), "hevcq", "hevcq.toml")
    for path in (os.path.join(os.getcwd(), "hevcq.toml"), user):
        if os.path.isfile(path):
            return _data_dir_in(path)
    return ""


def _data_dir_in(path: str) -> str | None:
    import tomllib

    try:
        with open(path, "rb") as file:
            found: Mapping[str, Any] = tomllib.load(file)
    except (OSError, ValueError):
        return None
    folder = found.get("data_dir", "")
    if not PLAIN_KEYS.issuperset(found) or found.get("backend", "embedded") != "embedded":
        return None
    if not isinstance(folder, str) or ("data_dir" in found and not folder):
        return None
    return folder and os.path.join(os.path.dirname(path), os.path.expanduser(folder))


def _xdg(variable: str, default: str) -> str:
    return os.environ.get(variable) or os.path.expanduser(default)
