"""Check that the same version is named everywhere, or print its section of the changelog.

python scripts/release.py check [TAG]   a line for each place that differs, and exit code 1
python scripts/release.py notes         the changelog's section, for the page of the release
"""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)
HEADING = re.compile(
    r"^## \[(?P<version>[^]]+)\](?: - (?P<date>\d{4}-\d{2}-\d{2}))?$", re.MULTILINE
)
NAMED = re.compile(
    r"(?:hevcq-(?:worker|home|ingest|emulator):|hevcq-(?=\d)|^ARG VERSION=)(\d+\.\d+\.\d+)",
    re.MULTILINE,
)
NAMING = ("Makefile", "docker/*", "docs/**/*.md", "README.md")
"""Files that name the images or the wheel of a release."""


def version(root: Path = ROOT) -> str:
    """Return the version of the package, which the wheel and `hevcq --version` use too."""
    found = VERSION.search((root / "src/hevcq/__init__.py").read_text(encoding="utf-8"))
    return found.group(1) if found else ""


def differences(tag: str = "", root: Path = ROOT) -> Iterator[str]:
    """Yield each place that names another version than the package, or no day of the release."""
    own, newest = version(root), HEADING.search(_changelog(root))
    if tag and tag != f"v{own}":
        yield f"the tag {tag}: the package is {own}, so it must be v{own}"
    if newest is None or newest["version"] != own:
        listed = newest["version"] if newest else "nothing"
        yield f"CHANGELOG.md: its newest section is {listed}, the package is {own}"
    elif newest["date"] is None:
        yield f"CHANGELOG.md: the section {own} has no date"
    for pattern in NAMING:
        for path in sorted(root.glob(pattern)):
            named = (
                set(NAMED.findall(path.read_text(encoding="utf-8"))) if path.is_file() else set()
            )
            if named - {own}:
                yield f"{path.relative_to(root)}: names {', '.join(sorted(named - {own}))}"


def notes(root: Path = ROOT) -> str:
    """Return the changelog's section of this version, without the heading."""
    text = _changelog(root)
    for found in HEADING.finditer(text):
        if found["version"] == version(root):
            after = HEADING.search(text, found.end())
            return text[found.end() : after.start() if after else len(text)].strip()
    return ""


def _changelog(root: Path) -> str:
    return (root / "CHANGELOG.md").read_text(encoding="utf-8")


def main(arguments: Sequence[str]) -> int:
    """Run `check` or `notes`; return the exit code."""
    if list(arguments[:1]) == ["notes"]:
        print(notes())
        return 0
    wrong = list(differences("".join(arguments[1:2])))
    print("\n".join(wrong) if wrong else f"{version()} everywhere")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
