"""The data folder alone, as the settings would say it, for the fast door: no pydantic, no pathlib.

Where anything else is configured, or anything is doubtful, the answer is to ask the settings.
"""

# ruff: noqa: PTH109, PTH111, PTH113, PTH117, PTH118, PTH120
from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` itself would cost milliseconds
    from collections.abc import Mapping
    from typing import Any

PLAIN_VARIABLES = frozenset({"HEVCQ_DATA_DIR", "HEVCQ_PROFILES"})
"""Variables that do not change what `status` says, but for the folder; others need the program."""
PLAIN_KEYS = frozenset({"data_dir", "backend"})


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
