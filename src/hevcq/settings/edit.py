"""Change a person's settings file: comments and layout stay, and the file is whole at any moment."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT

from hevcq.errors import ConfigError
from hevcq.settings.loader import load
from hevcq.util.file_io import replace_durably
from hevcq.util.text import reason_of


def append_table(file: Path, key: str, values: Mapping[str, object]) -> None:
    """Append `[[key]]` with these values to a settings file, which is made if there is none.

    The new text is read as settings before it takes the old one's place.
    Raises ConfigError if the file cannot be read or written, or the settings would be wrong.
    """
    file = Path(os.path.realpath(file))  # a link in a folder of dotfiles stays a link
    try:
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        document = tomlkit.parse(text)
    except (OSError, UnicodeDecodeError, TOMLKitError) as error:
        raise ConfigError(f"Cannot read the settings file {file}: {reason_of(error)}.") from error
    if not isinstance(document.get(key, tomlkit.aot()), AoT):
        raise ConfigError(f"{key} in {file} is not written as [[{key}]]; add the table by hand.")
    added = tomlkit.document()
    added.append(key, tomlkit.aot())
    table = tomlkit.table()
    table.update(values)
    added[key].append(table)
    before = f"{text.rstrip()}\n\n" if text.strip() else ""
    _write(file, before + tomlkit.dumps(added))


def _write(file: Path, text: str) -> None:
    temp: Path | None = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        mode = file.stat().st_mode & 0o777 if file.exists() else 0o644
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".hevcq-", suffix=".toml")
        temp = Path(name)
        with os.fdopen(descriptor, "w", encoding="utf-8") as writing:
            writing.write(text)
        load(config=temp)  # a wrong value must not cost the settings
        temp.chmod(mode)
        replace_durably(temp, file)
    except ConfigError as error:
        raise ConfigError(str(error).replace(str(temp), str(file))) from error
    except OSError as error:
        raise ConfigError(f"Cannot write the settings file {file}: {error.strerror}.") from error
    finally:
        if temp is not None:
            with suppress(OSError):
                temp.unlink()
