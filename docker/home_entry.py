#!/usr/bin/python3 -I
"""Start hevcq in the home image as the user of PUID and PGID, never as root.

It stands before hevcq's own commands in PATH under each of their names, so that `docker compose exec`
too leaves no file of root's in the data folder.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

DATA = Path("/data")
PROGRAMS = Path("/opt/hevcq/bin")
FIRST_SETTINGS = """\
# The libraries of this container: folders below /media. For example
#
# [[libraries]]
# name = "shows"
# path = "/media/Shows"
# place = "replace"
#
# or: docker compose exec home hevcq libraries add /media/Shows --place replace
# Read again after a change by: docker compose kill --signal HUP home
"""
LARGEST_ID = 2**31 - 1


class Wrong(Exception):
    """A variable or a volume that cannot be used; one sentence."""


def number(variables: Mapping[str, str], name: str, usual: str, base: int, most: int) -> int:
    """Return the number of a variable. Raises Wrong."""
    text = variables.get(name) or usual
    try:
        found = int(text, base)
    except ValueError:
        found = -1
    if not 0 <= found <= most:
        example = "022" if base == 8 else "1000"
        raise Wrong(f"{name} must be a number such as {example}, got {text!r}.")
    return found


def become(variables: Mapping[str, str], data: Path) -> None:
    """Give up root for the user of PUID and PGID, who then owns the data folder. Raises Wrong."""
    mask = number(variables, "UMASK", "022", 8, 0o777)
    user = number(variables, "PUID", "1000", 10, LARGEST_ID)
    group = number(variables, "PGID", "1000", 10, LARGEST_ID)
    if os.geteuid() == 0:
        if user == 0:
            raise Wrong("PUID must not be 0: videos of strangers are not opened by root.")
        there = data.stat()
        if there.st_uid == 0 and not any(data.iterdir()):  # a volume that was just made
            os.chown(data, user, group)
        # Groups of `group_add`, such as that of /dev/dri, stay; root's own goes.
        os.setgroups([each for each in os.getgroups() if each != 0])
        os.setgid(group)
        os.setuid(user)
    os.umask(mask)


def prepare(data: Path) -> None:
    """Write the first settings file into a writable data folder. Raises Wrong."""
    if not os.access(data, os.W_OK | os.X_OK):
        owner = data.stat()
        raise Wrong(
            f"{data} cannot be written by user {os.geteuid()}, group {os.getegid()}: it belongs to"
            f" {owner.st_uid}:{owner.st_gid}. Set PUID and PGID to these, or give it away with chown."
        )
    settings = data / "hevcq.toml"
    if not settings.exists():
        settings.write_text(FIRST_SETTINGS, encoding="utf-8")


def main(words: list[str]) -> int:
    """Become the user and turn into the program called; returns only if that cannot be."""
    data = Path(os.environ.get("HEVCQ_DATA_DIR", str(DATA)))
    program = PROGRAMS / Path(words[0]).name
    try:
        become(os.environ, data)
        prepare(data)
        os.execv(program, [str(program), *words[1:]])  # noqa: S606 - no shell is wanted
    except (Wrong, OSError) as error:
        sys.stderr.write(f"hevcq: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv))
