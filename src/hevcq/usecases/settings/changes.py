"""Change the settings file under a lock, and record each change so that it can be undone."""

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
"""The history file in the data folder. Like the settings file, it may hold secrets."""
SECRETS = "secrets"
"""The folder of passwords typed in the page; they are kept, so that a change can be undone."""
MAX_CHANGES = 200
PROFILE = "profile"
"""The `place` of a change of a profile's file; its tables hold the file's `path` and `text`."""


@dataclass(frozen=True, slots=True)
class SettingsChange:
    """One change: `at` is in Unix seconds, `place` the changed key, `before` and `after` its table.

    `undone` is the person who undid it, or "".
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
        """Return the file's tables, unchecked. Raises ConfigError."""
        return parse_settings(self.file, read_text(self.file))

    def digest(self) -> str:
        """Return a digest of the file's content, which a form sends back. Raises ConfigError."""
        return _digest(read_text(self.file))

    def settings(self) -> Settings:
        """Return the settings as a new process would read them. Raises ConfigError."""
        return load(config=self.file if self.file.exists() else None).settings

    def change(self, change: SettingsChange, known: str | None = None) -> None:
        """Make a change. Raises Conflict if the file's digest is no longer `known`, ConfigError."""
        with self.locked():
            if known is not None and known != self.digest():
                raise Conflict(CHANGED, remedy=LOOK_AGAIN)
            with self._recorded(change):
                self._make(change)

    def _make(self, change: SettingsChange) -> None:
        if change.place != PROFILE:
            text = read_text(self.file)
            write(
                self.file, replace_table(self.file, text, change.place, change.before, change.after)
            )
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

        After a kill, the newest change may not have been made; undoing it is refused.
        """
        return self._read()[::-1]

    def undo(self, number: int, who: str) -> SettingsChange:
        """Undo one change; later changes of other tables stay.

        Raises Conflict if its table was changed again, or if it is undone already.
        """
        with self.locked():
            change = next((each for each in self._read() if each.number == number), None)
            if change is None or change.undone:
                raise Conflict("There is no such change to undo.")
            what = f"Undo: {change.what}"
            back = self.new(who, what, change.place, change.after, change.before)
            self._refuse_missing(back)
            self._refuse_sign_in(back)
            with self._recorded(back, undone=number):
                self._make(back)
            return change

    def _refuse_missing(self, back: SettingsChange) -> None:
        """Raise Conflict if a library would name a missing profile after this change."""
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
        """Raise Conflict for a change of the sign-in, which could lock out the person who undoes it."""
        before, after = back.before or {}, back.after or {}
        if back.place == "web" and before.get("auth") != after.get("auth"):
            raise Conflict(
                "How people sign in is not undone here: you might not get in again.",
                remedy=f"Change auth below [web] in {self.file}; `hevcq serve new-token` lets you in.",
            )

    @contextmanager
    def _recorded(self, change: SettingsChange, undone: int = 0) -> Iterator[None]:
        """Write the record of a change before the change is made, and remove it if the change fails.

        So nothing is changed on a full disk. `undone` is the number of the change that it undoes. Raises
        ConfigError.
        """
        former = self._read()
        changes = [replace(e, undone=change.who) if e.number == undone else e for e in former]
        number = changes[-1].number + 1 if changes else 1
        self._keep([*changes, replace(change, number=number)][-MAX_CHANGES:])
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
        """Return a number that differs after each change made here."""
        try:
            return self._history.stat().st_mtime_ns
        except OSError:
            return 0

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock for changes. Raises ConfigError."""
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
    usual = settings.ingest.profiles
    libraries = [
        f"library {each.name}"
        for each in settings.libraries
        if profile in (*each.chosen, *(() if each.profiles else usual))
    ]
    return [*libraries, *(["ingest.profiles"] if profile in usual else [])]


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
