"""Check that the files and packages named in the documents exist."""

import re
from pathlib import Path

import pytest

from hevcq.settings.loader import leaves
from hevcq.settings.model import Settings

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "hevcq"
MAP = ROOT / "docs" / "map.md"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
TICKED = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"\.?[\w-]+(?:/[\w.-]+)*/?(?:\.\w+)?")
FILE_TYPES = {".py", ".md", ".sql", ".tf", ".toml", ".tsv", ".yaml", ".sh"}
MODULE = re.compile(r"[a-z_0-9]+(?:\.[A-Za-z_0-9]+)+")
SETTINGS = {key for key, _ in leaves(Settings)} | {"web.oidc"}
"""A section of the settings may have the name of a room."""
MAY_BE_MISSING = {"CHANGELOG.md"}
"""The changelog names files of its time."""


def ticked(page: Path) -> list[str]:
    return TICKED.findall(page.read_text(encoding="utf-8"))


def is_there(name: str) -> bool:
    return (ROOT / name).exists() or (SOURCE / name).exists()


def looks_like_a_path(word: str) -> bool:
    if not PATH.fullmatch(word):
        return False
    first = word.split("/", maxsplit=1)[0]
    if "/" not in word:
        return Path(word).suffix == ".py"
    made_by_a_run = word.startswith(("benchmarks/out", "build/"))
    return not made_by_a_run and ((ROOT / first).is_dir() or (SOURCE / first).is_dir())


def missing_modules(page: Path) -> list[str]:
    rooms = {path.name for path in SOURCE.iterdir() if path.is_dir()}
    found = []
    for word in ticked(page):
        parts = word.split(".")
        if not MODULE.fullmatch(word) or parts[0] not in rooms or f".{parts[-1]}" in FILE_TYPES:
            continue
        if word in SETTINGS:
            continue
        whole, owner = SOURCE.joinpath(*parts), SOURCE.joinpath(*parts[:-1])
        if not (whole.is_dir() or whole.with_suffix(".py").is_file()):
            module = owner.with_suffix(".py")
            if not module.is_file() or not re.search(
                rf"\b{parts[-1]}\b", module.read_text(encoding="utf-8")
            ):
                found.append(word)
    return found


def rows_of_the_map() -> list[tuple[str, str]]:
    rows = [line.split("|") for line in MAP.read_text("utf-8").splitlines() if line[:3] == "| `"]
    return [(row[1], row[2]) for row in rows]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_and_module_of_a_page_is_there(page):
    if page.name in MAY_BE_MISSING:
        return
    paths = [word for word in ticked(page) if looks_like_a_path(word)]

    assert [word for word in paths if not is_there(word)] == []
    assert missing_modules(page) == []


def test_the_map_names_every_room_and_no_other_in_few_words():
    rooms = {
        f"{path.parent.relative_to(SOURCE).as_posix()}/"
        for path in SOURCE.rglob("__init__.py")
        if path.parent != SOURCE
    }
    rows = rows_of_the_map()
    named = [word for row in rows for word in TICKED.findall(row[0])]

    assert [name for name in named if not is_there(name)] == []
    assert sorted(rooms - set(named)) == []
    assert len(rows) <= 40
    assert [says for _, says in rows if len(says.split()) > 15] == []
