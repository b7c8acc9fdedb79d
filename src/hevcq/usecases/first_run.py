"""Set hevcq up from the page: what was answered so far, and the settings that it becomes.

The answers are in a file of the data folder, so that a server that was killed goes on at the same
screen. Nothing but the sign-in changes before the last step, and after it the file says so for ever.
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
"""Of the code: none looks like another."""
CODE_LENGTH = 10
NIGHT = "22:00-07:00"


@dataclass(frozen=True, slots=True)
class Answers:
    """The screen to go on at, and what was answered; `code` is the digest of the code."""

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
        """Return the answers so far, or None where hevcq is set up or was never begun here."""
        try:
            if not self._file.exists():
                return None
            facts = json.loads(self._file.read_bytes())
            found = Answers(**{**facts, **{n: tuple(facts[n]) for n in ("folders", "hours")}})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StorageError(
                f"Cannot read {self._file}: {reason_of(error)}.", remedy="Delete it to begin again."
            ) from error
        return None if found.screen == DONE else found

    @property
    def begun(self) -> bool:
        """Whether the screens were ever offered here."""
        return self._file.exists()

    def begin(self, *, password: bool) -> str:
        """Open the screens, or go on; return a new code as long as the password is not chosen, else ""."""
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
        """Close the screens for ever, and forget the answers."""
        self.keep(Answers(screen=DONE))


def code_is(answers: Answers, given: str) -> bool:
    """Return whether a person typed the code, in whatever case and grouping."""
    plain = "".join(letter for letter in given.upper() if letter.isalnum())
    return bool(answers.code) and hmac.compare_digest(answers.code, _digest(plain))


def _digest(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()


def reached(answers: Answers, screen: str) -> bool:
    """Return whether a screen may be shown: those before are answered, the sign-in is not seen twice."""
    if screen not in SCREENS:
        return False
    now, wanted = SCREENS.index(answers.screen), SCREENS.index(screen)
    return wanted <= now and (wanted > 0 or now == 0)


def further(answers: Answers, screen: str, **facts: Any) -> Answers:
    """Return the answers with those of a screen; a screen reached before stays reached."""
    after = SCREENS[min(SCREENS.index(screen) + 1, len(SCREENS) - 1)]
    furthest = max(answers.screen, after, key=SCREENS.index)
    return replace(answers, screen=furthest, **facts)


def with_folder(answers: Answers, folder: Path, known: Iterable[Library]) -> Answers:
    """Add a folder. Raises UsageError if it is within another one's, or holds it."""
    if str(folder) in answers.folders:
        raise UsageError(f"{printable(folder)} is chosen already.")
    chosen = [
        Library(name=f"chosen-{n}", path=Path(each)) for n, each in enumerate(answers.folders)
    ]
    if words := overlap(folder, [*known, *chosen]):
        raise UsageError(re.sub(r"the library chosen-\d+", "the chosen folder", words))
    return replace(answers, folders=(*answers.folders, str(folder)))


def windows(choice: str, start: str, end: str, days: str) -> tuple[str, ...]:
    """Return the windows of a choice: always, night or window. Raises UsageError."""
    if choice == "always":
        return ()
    text = NIGHT if choice == "night" else f"{days} {start}-{end}".strip()
    try:
        Schedule.parse([text])
    except ValueError as error:
        raise UsageError(f"{error}.") from error
    return (text,)


def tables(answers: Answers, file: SettingsFile) -> list[dict[str, Any]]:
    """Return the library of each chosen folder as the settings file will hold it.

    A folder that is a library already, because a kill came between, is left out.
    """
    known = list(file.settings().libraries)
    made = []
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
        made.append(table)
    return made


def require_tables(answers: Answers, file: SettingsFile, profiles: Mapping[str, Profile]) -> None:
    """Raise UsageError for what the settings would refuse."""
    for table in tables(answers, file):
        require_valid(library_problems(file, table, profiles))


def finish(first: FirstRun, file: SettingsFile, profiles: Mapping[str, Profile], who: str) -> None:
    """Write the libraries, then close the screens. Raises UsageError, ConfigError."""
    answers = first.read()
    if answers is None:
        return
    if not answers.folders:
        raise UsageError("No folder is chosen.", remedy="Go back, and choose one.")
    require_tables(answers, file, profiles)
    for table in tables(answers, file):
        save_library(file, table, who, profiles=profiles)
    first.close()
