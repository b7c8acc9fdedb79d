"""`hevcq-health [DATA_DIR]`: whether the workers of this container or machine are well.

Exits 0 or 1 with one sentence, and 2 if it is called wrongly. It loads nothing but the standard
library where HEVCQ_DATA_DIR is set, so that it is quick beside encodes that use every core.
"""

from __future__ import annotations

import os
import sys

from hevcq import vitals
from hevcq.util.clock import SystemClock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

USAGE = "usage: hevcq-health [DATA_DIR]"


def main() -> int:
    """Answer for the data folder that is named, or else for the one of the settings."""
    arguments = sys.argv[1:]
    if len(arguments) > 1 or any(word.startswith("-") for word in arguments):
        helped = arguments in (["-h"], ["--help"])
        return _say(f"{USAGE}\n{__doc__}" if helped else USAGE, 0 if helped else 2)
    folder = data_dir(arguments)
    if folder is None:
        return 1
    well, sentence = vitals.examine(
        vitals.folder_of(folder), vitals.node(), SystemClock().monotonic(), vitals.running
    )
    return _say(sentence, 0 if well else 1)


def data_dir(arguments: Sequence[str]) -> str | None:
    """Return the data folder: named, from HEVCQ_DATA_DIR, or from the other settings.

    The variable outranks every file, and images set it; without it all the settings are loaded.
    """
    given = arguments[0] if arguments else os.environ.get("HEVCQ_DATA_DIR")
    if given:
        return os.path.join(os.getcwd(), os.path.expanduser(given))  # noqa: PTH109, PTH111, PTH118
    from hevcq.errors import ConfigError
    from hevcq.settings_load import load

    try:
        return str(load().settings.data_dir)
    except ConfigError as error:
        sys.stdout.write(f"{error}\n")
        return None


def _say(sentence: str, code: int) -> int:
    sys.stdout.write(f"{sentence}\n")
    return code
