"""Change one table of the settings file, and nothing else in it: comments and layout stay.

Only the lines of that table are rewritten. The new text is parsed before it replaces the file: it must
be valid, and differ from the old one by exactly that change.
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
_EMPTY_OR_COMMENT = re.compile(r"\s*(#.*)?$")
"""Such lines just before a table belong to that table."""


def read_text(file: Path) -> str:
    """Return the text of a settings file, "" if there is none. Raises ConfigError."""
    try:
        return file.read_bytes().decode() if file.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read the settings file {file}: {reason_of(error)}.") from error


def parse_settings(file: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"Cannot read the settings file {file}: {reason_of(error)}.") from error


def replace_table(
    file: Path, text: str, key: str, before: Table | None, after: Table | None
) -> str:
    """Return the text in which `after` replaces the table `before` of `key`.

    `before` None adds a table, `after` None removes it. `key` is one of LISTS (`[[key]]`), else a
    section (`[key]`). Raises Conflict if no table equals `before`, or one already equals the added
    `after`, and ConfigError if the text is written in a way that this cannot change.
    """
    raw, listed = parse_settings(file, text), key in LISTS
    value, old = raw.get(key), before if listed else before or {}
    tables = (value if isinstance(value, list) else []) if listed else [value or {}]
    if old not in tables if old is not None else after in tables:
        raise Conflict(CHANGED, remedy=LOOK_AGAIN)
    at = len(tables) if old is None else tables.index(old)
    new_tables = [*tables[:at], *([] if after is None else [after]), *tables[at + 1 :]]
    expected = {name: table for name, table in raw.items() if name != key}
    if new_tables:
        expected[key] = new_tables if listed else new_tables[0]
    lines = text.splitlines(keepends=True)
    spans = _table_spans(lines, key, listed=listed)
    if before is None or (not listed and key not in raw):
        new_lines = _rewrite_table("", key, {}, after or {}, listed=listed)
        new_text = f"{text.rstrip()}\n\n{new_lines}" if text.strip() else new_lines
    else:
        start, end = spans[at] if at < len(spans) else (0, 0)
        old_lines = "".join(lines[start:end])
        new_lines = ""
        if after is not None:
            new_lines = _rewrite_table(old_lines, key, before, after, listed=listed)
        new_text = "".join([*lines[:start], new_lines, *lines[end:]])
    if not _parses_to(new_text, expected):
        brackets = f"[[{key}]]" if listed else f"[{key}]"
        raise ConfigError(f"{key} in {file} is not written as {brackets}.", remedy=BY_HAND)
    return new_text


def _parses_to(text: str, expected: Table) -> bool:
    try:
        return tomllib.loads(text) == expected
    except tomllib.TOMLDecodeError:
        return False


def _table_spans(lines: list[str], key: str, *, listed: bool) -> list[tuple[int, int]]:
    """Return (start, end) of the lines of each table of `key`, with its subtables.

    Comments and empty lines before the next table are not included.
    """
    name = rf"\s*\"?{key}\"?\s*"
    first = re.compile(rf"\s*\[\[{name}\]\]" if listed else rf"\s*\[{name}\]")
    own = re.compile(rf"\s*\[\[?{name}\.")
    headers = [number for number, line in enumerate(lines) if _HEADER.match(line)]
    spans = []
    for start in headers:
        if not first.match(lines[start]):
            continue
        end = next((n for n in headers if n > start and not own.match(lines[n])), len(lines))
        while _EMPTY_OR_COMMENT.match(lines[end - 1]):
            end -= 1
        spans.append((start, end))
    return spans


def _rewrite_table(text: str, key: str, before: Table, after: Table, *, listed: bool) -> str:
    """Return the lines of one table after the change; unchanged values stay as they are written."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document: Any = tomlkit.parse(text)
    except TOMLKitError:  # not a table, only a line that looks like a header
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
            table[name] = _toml_item(value)
    return tomlkit.dumps(document).removesuffix("\n") + "\n"


def _toml_item(value: object) -> Any:
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
    """Replace the whole settings file, or create it; a link stays a link.

    Raises ConfigError and changes nothing if the text is not valid or the file cannot be written.
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
