"""Change one table of the settings file, and nothing else in it: comments and layout stay.

Only the lines of that table are written anew, and the whole is read back before it takes the old
file's place: it must be valid, and say what was wanted and nothing else.
"""

import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hevcq.errors import ConfigError, Conflict
from hevcq.settings.loader import load
from hevcq.util.file_io import replace_durably
from hevcq.util.text import reason_of

Table = Mapping[str, Any]
LISTS = frozenset({"libraries", "sync", "notify", "webhook", "media_server"})
CHANGED = "The settings file was changed meanwhile; nothing was saved."
LOOK_AGAIN = "Look at it again, and repeat your change."
BY_HAND = "Edit the file by hand."
_HEADER = re.compile(r"\s*\[")
_ASIDE = re.compile(r"\s*(#.*)?$")
"""A line that is empty or a comment: before the next table, it belongs to that one."""


def read_text(file: Path) -> str:
    """Return the text of a settings file, "" if there is none. Raises ConfigError."""
    try:
        return file.read_bytes().decode() if file.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read the settings file {file}: {reason_of(error)}.") from error


def parsed(file: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"Cannot read the settings file {file}: {reason_of(error)}.") from error


def changed(file: Path, text: str, key: str, before: Table | None, after: Table | None) -> str:
    """Return the text in which the table `before` of `key` is `after`.

    None is a table that is not there. `key` is one of LISTS (`[[key]]`), else a section (`[key]`).
    Raises Conflict if there is no table like `before`, or one already like a new `after`, and
    ConfigError if it cannot be changed here.
    """
    raw, listed = parsed(file, text), key in LISTS
    there, known = raw.get(key), before if listed else before or {}
    tables = (there if isinstance(there, list) else []) if listed else [there or {}]
    if known not in tables if known is not None else after in tables:
        raise Conflict(CHANGED, remedy=LOOK_AGAIN)
    at = len(tables) if known is None else tables.index(known)
    left = [*tables[:at], *([] if after is None else [after]), *tables[at + 1 :]]
    wanted = {name: value for name, value in raw.items() if name != key}
    if left:
        wanted[key] = left if listed else left[0]
    lines = text.splitlines(keepends=True)
    spans = _spans(lines, key, listed=listed)
    if before is None or (not listed and key not in raw):
        new = _written("", key, {}, after or {}, listed=listed)
        made = f"{text.rstrip()}\n\n{new}" if text.strip() else new
    else:
        start, end = spans[at] if at < len(spans) else (0, 0)
        old = "".join(lines[start:end])
        new = "" if after is None else _written(old, key, before, after, listed=listed)
        made = "".join([*lines[:start], new, *lines[end:]])
    if not _says(made, wanted):
        brackets = f"[[{key}]]" if listed else f"[{key}]"
        raise ConfigError(f"{key} in {file} is not written as {brackets}.", remedy=BY_HAND)
    return made


def _says(text: str, wanted: Table) -> bool:
    try:
        return tomllib.loads(text) == wanted
    except tomllib.TOMLDecodeError:
        return False


def _spans(lines: list[str], key: str, *, listed: bool) -> list[tuple[int, int]]:
    """Return the lines of each table of `key`, with its own tables, up to what belongs to the next."""
    name = rf"\s*\"?{key}\"?\s*"
    first = re.compile(rf"\s*\[\[{name}\]\]" if listed else rf"\s*\[{name}\]")
    own = re.compile(rf"\s*\[\[?{name}\.")
    headers = [number for number, line in enumerate(lines) if _HEADER.match(line)]
    found = []
    for start in headers:
        if not first.match(lines[start]):
            continue
        end = next((n for n in headers if n > start and not own.match(lines[n])), len(lines))
        while _ASIDE.match(lines[end - 1]):
            end -= 1
        found.append((start, end))
    return found


def _written(text: str, key: str, before: Table, after: Table, *, listed: bool) -> str:
    """Return the lines of one table after the change; what did not change stays as it is written."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document: Any = tomlkit.parse(text)
    except TOMLKitError:  # no table, only a line that looks like one's
        return text
    if not text and listed:
        document.append(key, tomlkit.aot())
        document[key].append(tomlkit.table())
    elif not text:
        document.append(key, tomlkit.table())
    if key not in document:
        return text
    table = document[key][0] if listed else document[key]
    for name in before.keys() - after.keys():
        del table[name]
    for name, value in after.items():
        if name not in before or before[name] != value:
            table[name] = _item(value)
    made = tomlkit.dumps(document)
    return made if made.endswith("\n") else f"{made}\n"


def _item(value: object) -> Any:
    import tomlkit

    if not (isinstance(value, list) and value and isinstance(value[0], Mapping)):
        return tomlkit.item(value)
    tables = tomlkit.aot()
    for each in value:
        table = tomlkit.table()
        table.update(each)
        tables.append(table)
    return tables


def write(file: Path, text: str) -> None:
    """Let a whole new text take the place of the settings file, or make one; a link stays a link.

    Raises ConfigError, and nothing has changed, if it is no valid settings file or cannot be written.
    """
    file = Path(os.path.realpath(file))  # a link in a folder of dotfiles stays a link
    temp: Path | None = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        mode = file.stat().st_mode & 0o777 if file.exists() else 0o644
        if not mode & 0o222 or (file.exists() and not os.access(file, os.W_OK)):
            raise ConfigError(f"The settings file {file} is read-only.", remedy=BY_HAND)
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".hevcq-", suffix=".toml")
        temp = Path(name)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as writing:
            writing.write(text)
        load(config=temp)  # a wrong value must not cost the settings
        temp.chmod(mode)
        replace_durably(temp, file)
    except ConfigError as error:
        raise ConfigError(str(error).replace(str(temp), str(file))) from error
    except UnicodeEncodeError as error:
        problem = "A settings file is UTF-8 text, which cannot hold a name that is not."
        raise ConfigError(problem, remedy="Rename that folder.") from error
    except OSError as error:
        raise ConfigError(f"Cannot write the settings file {file}: {error.strerror}.") from error
    finally:
        if temp is not None:
            with suppress(OSError):
                temp.unlink()
