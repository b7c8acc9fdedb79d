"""Set hevcq up from the page: keep the answers, and turn them into settings.

The answers are in a file of the data folder, so that a killed server resumes at the same screen. Only the
sign-in changes before the last screen; after it the file says for ever that setup is done.
"""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hevcq.domain.profile import Profile
from hevcq.domain.schedule import Schedule
from hevcq.errors import StorageError, UsageError
from hevcq.settings.libraries import KEEP_DAYS, Library, overlap
from hevcq.usecases.settings.changes import SettingsFile, put_text
from hevcq.usecases.settings.libraries import (
    free_name,
    library_problems,
    require_valid,
    save_library,
)
from hevcq.util.text import printable, reason_of

SCREENS = ("password", "folders", "output", "hours", "sample")
DONE = "done"
FILE = "first-run.json"
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""The letters of the code; no two look alike."""
CODE_LENGTH = 10
NIGHT = "22:00-07:00"


@dataclass(frozen=True, slots=True)
class Answers:
    """The screen to resume at, and the answers; `code` is the digest of the code."""

    screen: str = SCREENS[0]
    code: str = ""
    folders: tuple[str, ...] = ()
    profile: str = ""
    place: str = "beside"
    output: str = ""
    keep_days: float = KEEP_DAYS
    hours: tuple[str, ...] = ()


class FirstRun:
    """The answers of one data folder. Every method may raise StorageError."""

    def __init__(self, data_dir: Path) -> None:
        self._file = data_dir / FILE

    def read(self) -> Answers | None:
        """Return the answers so far; None if setup is done or never began here."""
        try:
            if not self._file.exists():
                return None
            facts = json.loads(self._file.read_bytes())
            answers = Answers(**{**facts, **{n: tuple(facts[n]) for n in ("folders", "hours")}})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StorageError(
                f"Cannot read {self._file}: {reason_of(error)}.", remedy="Delete it to begin again."
            ) from error
        return None if answers.screen == DONE else answers

    @property
    def begun(self) -> bool:
        """Whether the screens were ever offered here."""
        return self._file.exists()

    def begin(self, *, password: bool) -> str:
        """Open or resume the screens; return a new code until the password is chosen, then ""."""
        answers = self.read() or Answers(screen=SCREENS[0] if password else SCREENS[1])
        if answers.screen != SCREENS[0]:
            self.keep(answers)
            return ""
        code = "".join(secrets.choice(LETTERS) for _ in range(CODE_LENGTH))
        self.keep(replace(answers, code=_digest(code)))
        return f"{code[:5]}-{code[5:]}"

    def keep(self, answers: Answers) -> None:
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        put_text(self._file, json.dumps(asdict(answers)), 0o600)

    def close(self) -> None:
        """Close the screens for ever, and delete the answers."""
        self.keep(Answers(screen=DONE))


def code_is(answers: Answers, given: str) -> bool:
    """Return whether `given` is the code, in any case and grouping."""
    plain = "".join(letter for letter in given.upper() if letter.isalnum())
    return bool(answers.code) and hmac.compare_digest(answers.code, _digest(plain))


def _digest(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()


def may_show(answers: Answers, screen: str) -> bool:
    """Return whether a screen may be shown: all before it are answered, and the sign-in only once."""
    if screen not in SCREENS:
        return False
    now, index = SCREENS.index(answers.screen), SCREENS.index(screen)
    return index <= now and (index > 0 or now == 0)


def with_answers(answers: Answers, screen: str, **facts: Any) -> Answers:
    """Add a screen's answers and open the next screen; screens opened before stay open."""
    after = SCREENS[min(SCREENS.index(screen) + 1, len(SCREENS) - 1)]
    furthest = max(answers.screen, after, key=SCREENS.index)
    return replace(answers, screen=furthest, **facts)


def with_folder(answers: Answers, folder: Path, known: Iterable[Library]) -> Answers:
    """Add a folder. Raises UsageError if it overlaps a library or a chosen folder."""
    if str(folder) in answers.folders:
        raise UsageError(f"{printable(folder)} is chosen already.")
    chosen = [
        Library(name=f"chosen-{n}", path=Path(each)) for n, each in enumerate(answers.folders)
    ]
    if words := overlap(folder, [*known, *chosen]):
        raise UsageError(re.sub(r"the library chosen-\d+", "the chosen folder", words))
    return replace(answers, folders=(*answers.folders, str(folder)))


def chosen_windows(choice: str, start: str, end: str, days: str) -> tuple[str, ...]:
    """Return the schedule's windows for a choice: always, night or window. Raises UsageError."""
    if choice == "always":
        return ()
    text = NIGHT if choice == "night" else f"{days} {start}-{end}".strip()
    try:
        Schedule.parse([text])
    except ValueError as error:
        raise UsageError(f"{error}.") from error
    return (text,)


def library_tables(answers: Answers, file: SettingsFile) -> list[dict[str, Any]]:
    """Return the library of each chosen folder as a table of the settings file.

    Folders that are libraries already, because a kill came between, are left out.
    """
    known = list(file.settings().libraries)
    new = []
    for each in map(Path, answers.folders):
        if any(each == library.path for library in known):
            continue
        name = free_name(each, known)
        table: dict[str, Any] = {"name": name, "path": str(each), "place": answers.place}
        if answers.profile:
            table["profiles"] = [answers.profile]
        if answers.place == "mirror":
            table["output"] = str(Path(answers.output) / name)
        if answers.place == "replace":
            days = answers.keep_days
            table["keep_originals"] = int(days) if days.is_integer() else days
        if answers.hours:
            table["schedule"] = list(answers.hours)
        known.append(Library(name=name, path=each))
        new.append(table)
    return new


def require_tables(answers: Answers, file: SettingsFile, profiles: Mapping[str, Profile]) -> None:
    for table in library_tables(answers, file):
        require_valid(library_problems(file, table, profiles))


def finish(first: FirstRun, file: SettingsFile, profiles: Mapping[str, Profile], who: str) -> None:
    """Write the libraries, then close the screens. Raises UsageError, ConfigError."""
    answers = first.read()
    if answers is None:
        return
    if not answers.folders:
        raise UsageError("No folder is chosen.", remedy="Go back, and choose one.")
    require_tables(answers, file, profiles)
    for table in library_tables(answers, file):
        save_library(file, table, who, profiles=profiles)
    first.close()
