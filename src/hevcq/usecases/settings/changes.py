"""Change the settings file under a lock, and keep who changed what, so that each change can be undone."""

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hevcq.errors import ConfigError, Conflict
from hevcq.settings.edit import (
    CHANGED,
    LOOK_AGAIN,
    Table,
    parse_settings,
    read_text,
    replace_table,
    write,
)
from hevcq.settings.libraries import Library
from hevcq.settings.loader import load
from hevcq.settings.model import Settings
from hevcq.settings.profile_files import profile_folder
from hevcq.util import file_lock
from hevcq.util.clock import Clock
from hevcq.util.file_io import write_durably
from hevcq.util.text import reason_of

HISTORY = "settings-changes.json"
"""The file of the changes in the data folder. It may hold secrets, as the settings file may."""
SECRETS = "secrets"
"""The folder of the passwords that were typed in the page; they stay, so that a change can be undone."""
MAX_CHANGES = 200
PROFILE = "profile"
"""The place of a change of a profile's file, whose tables hold its `path` and `text`."""


@dataclass(frozen=True, slots=True)
class SettingsChange:
    """One change: `at` in Unix seconds, `place` the changed key, `before` and `after` its table.

    `undone` is who undid it.
    """

    number: int
    at: float
    who: str
    what: str
    place: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    undone: str = ""


class SettingsFile:
    """The settings file of this machine, and the history of its changes in the data folder."""

    def __init__(self, file: Path, data_dir: Path, clock: Clock) -> None:
        self.file, self._clock = file, clock
        self._history = data_dir / HISTORY

    def raw(self) -> dict[str, Any]:
        """Return what the file says, unchecked. Raises ConfigError."""
        return parse_settings(self.file, read_text(self.file))

    def digest(self) -> str:
        """Return a mark of the file's content, which a form sends back. Raises ConfigError."""
        return _digest(read_text(self.file))

    def settings(self) -> Settings:
        """Return the settings as a new start would read them. Raises ConfigError."""
        return load(config=self.file if self.file.exists() else None).settings

    def change(self, change: SettingsChange, known: str | None = None) -> None:
        """Make a change. Raises Conflict if the file is not the one with the digest `known`, ConfigError."""
        with self.locked():
            if known is not None and known != self.digest():
                raise Conflict(CHANGED, remedy=LOOK_AGAIN)
            with self._recorded(change):
                self._make(change)

    def _make(self, change: SettingsChange) -> None:
        if change.place != PROFILE:
            text = read_text(self.file)
            made = replace_table(self.file, text, change.place, change.before, change.after)
            write(self.file, made)
            return
        before, after = change.before or {}, change.after or {}
        path = Path(before.get("path") or after["path"])
        if read_text(path) != before.get("text", ""):
            raise Conflict(f"{path} was changed meanwhile; nothing was saved.", remedy=LOOK_AGAIN)
        put_text(path, after.get("text"))

    def new(
        self, who: str, what: str, place: str, before: Table | None, after: Table | None
    ) -> SettingsChange:
        """Return a change that is not made yet."""
        old, new = (None if each is None else dict(each) for each in (before, after))
        return SettingsChange(0, self._clock.now(), who, what, place, old, new)

    def keep_secret(self, words: str) -> Path:
        """Write a secret to a file of its own in the data folder, which only this user may read."""
        path = self._history.parent / SECRETS / secrets.token_hex(8)
        put_text(path, f"{words}\n", 0o600)
        return path

    def changes(self) -> list[SettingsChange]:
        """Return the changes, newest first. Raises ConfigError if the history cannot be read.

        A kill may have come before the newest one was made: it is then refused to be undone.
        """
        return self._read()[::-1]

    def undo(self, number: int, who: str) -> SettingsChange:
        """Undo one change, and leave later ones of other tables alone.

        Raises Conflict if what it changed was changed again, or it is undone already.
        """
        with self.locked():
            found = next((each for each in self._read() if each.number == number), None)
            if found is None or found.undone:
                raise Conflict("There is no such change to undo.")
            what = f"Undo: {found.what}"
            back = self.new(who, what, found.place, found.after, found.before)
            self._refuse_missing(back)
            self._refuse_sign_in(back)
            with self._recorded(back, undone=number):
                self._make(back)
            return found

    def _refuse_missing(self, back: SettingsChange) -> None:
        """Raise Conflict for a change after which a library named a profile that is not there."""
        settings = self.settings()
        if back.place == PROFILE and back.before is not None and back.after is None:
            name = Path(back.before["path"]).stem
            if users := users_of(settings, name):
                raise Conflict(f"The profile {name} is in use: {', '.join(users)}.")
        if back.place == "libraries" and back.after is not None:
            known = {path.stem for path in profile_folder(settings).glob("*.yaml")}
            if gone := set(Library.model_validate(back.after).chosen) - known:
                raise Conflict(f"There is no profile {min(gone)!r} any more.")

    def _refuse_sign_in(self, back: SettingsChange) -> None:
        """Raise Conflict for a change of how people sign in: whoever undoes it might not get in again."""
        before, after = back.before or {}, back.after or {}
        if back.place == "web" and before.get("auth") != after.get("auth"):
            raise Conflict(
                "How people sign in is not undone here: you might not get in again.",
                remedy=f"Change auth below [web] in {self.file}; `hevcq serve new-token` lets you in.",
            )

    @contextmanager
    def _recorded(self, change: SettingsChange, undone: int = 0) -> Iterator[None]:
        """Have the record of a change on the disk before it is made: on a full one, nothing is changed.

        `undone` is the number of the change that it undoes. Raises ConfigError.
        """
        former = self._read()
        known = [replace(e, undone=change.who) if e.number == undone else e for e in former]
        number = known[-1].number + 1 if known else 1
        self._keep([*known, replace(change, number=number)][-MAX_CHANGES:])
        try:
            yield
        except BaseException:
            with suppress(ConfigError):
                self._keep(former)
            raise

    def _keep(self, changes: list[SettingsChange]) -> None:
        put_text(self._history, json.dumps([asdict(each) for each in changes]), 0o600)

    def _read(self) -> list[SettingsChange]:
        if not self._history.exists():
            return []
        try:
            return [SettingsChange(**each) for each in json.loads(self._history.read_bytes())]
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"Cannot read the history of the settings {self._history}: {reason_of(error)}.",
                remedy="Move that file away.",
            ) from error

    def stamp(self) -> int:
        """Return what differs once a change was made here."""
        try:
            return self._history.stat().st_mtime_ns
        except OSError:
            return 0

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other change out. Raises ConfigError."""
        try:
            self._history.parent.mkdir(parents=True, exist_ok=True)
            descriptor = file_lock.acquire(self._history.with_suffix(".lock"))
        except OSError as error:
            raise ConfigError(
                f"Cannot write into {self._history.parent}: {reason_of(error)}."
            ) from error
        try:
            yield
        finally:
            os.close(descriptor)


def users_of(settings: Settings, profile: str) -> list[str]:
    """Return the libraries and settings that use a profile."""
    usual = settings.ingest.profiles
    found = [
        f"library {each.name}"
        for each in settings.libraries
        if profile in (*each.chosen, *(() if each.profiles else usual))
    ]
    return [*found, *(["ingest.profiles"] if profile in usual else [])]


def put_text(path: Path, text: str | None, mode: int = 0o644) -> None:
    """Write a whole small file durably, or remove it (None). Raises ConfigError."""
    try:
        if text is None:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, text, mode)
    except OSError as error:
        raise ConfigError(f"Cannot write {path}: {reason_of(error)}.") from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:24]
