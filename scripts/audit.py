"""Look for known vulnerabilities of the versions that the images install.

Run by `make audit`: asks PyPI's service through pip-audit, or reads an offline copy of the
advisories: a clone of github.com/pypa/advisory-database, or the file PyPI/all.zip of osv.dev. A
package that nobody can tell about counts as a failure, never as safe.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "runtime.txt"
RECORDS = (".json", ".yaml", ".yml")
LOCKED = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^]]*\])?==([^ ;\\]+)", re.M)
OFFLINE = (
    "Without the service, give a copy of the advisories: make audit ADVISORIES=FOLDER, with a clone "
    "of github.com/pypa/advisory-database, or PyPI/all.zip of osv.dev."
)
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Refused(Exception):
    """Why nothing can be said of the packages, for a person."""


class Finding(NamedTuple):
    """A locked package with a known vulnerability."""

    package: str
    version: str
    advisory: str
    fixed: str


def main(arguments: Sequence[str] | None = None, locks: Sequence[Path] = (LOCK,)) -> int:
    """Print what is known; return 0 if that is nothing, 1 for findings, 2 if it is unknown."""
    parser = argparse.ArgumentParser(description="Known vulnerabilities of the locked versions.")
    parser.add_argument("--advisories", default="", help="offline copy: a folder or a zip")
    parser.add_argument("--pip-audit", default="pip-audit", help="the program")
    wanted = parser.parse_args(arguments)
    try:
        packages = {each for lock in locks for each in locked(lock)}
        if wanted.advisories:
            found, source = offline(Path(wanted.advisories), packages)
        else:
            found, source = online(wanted.pip_audit, locks), "PyPI's service"
    except Refused as error:
        print(f"make audit: {error}", file=sys.stderr)
        return 2
    for each in found:
        fixed = f"; fixed in {each.fixed}" if each.fixed else "; no fix is known"
        print(f"{each.package} {each.version}: {each.advisory}{fixed}")
    print(f"{len(packages)} packages, {len(found) or 'no'} known vulnerabilities ({source}).")
    return 1 if found else 0


def locked(lock: Path) -> list[tuple[str, str]]:
    """Return name and version of each package of a lock."""
    found = LOCKED.findall(lock.read_text(encoding="utf-8"))
    if not found:
        raise Refused(f"{lock.name} names no package.")
    return [(canonicalize_name(name), version) for name, version in found]


def online(program: str, locks: Sequence[Path]) -> list[Finding]:
    """Ask the service; raise Refused unless it knows every package."""
    asked = [word for lock in locks for word in ("--requirement", str(lock))]
    command = [program, "--format", "json", "--progress-spinner", "off", "--require-hashes"]
    done = subprocess.run(
        [*command, "--disable-pip", *asked], check=False, capture_output=True, text=True
    )
    try:
        answers = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError) as error:
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        reason = reason.rpartition("Caused by ")[2]
        raise Refused(
            f"PyPI's service for advisories cannot be reached ({reason[:200]}). {OFFLINE}"
        ) from error
    unknown = [each["name"] for each in answers if "skip_reason" in each]
    if len(unknown) == len(answers):
        raise Refused(
            "The package index that answers here knows no advisories of any version (a mirror?). "
            + OFFLINE
        )
    if unknown:
        raise Refused(f"The service does not know these versions: {', '.join(sorted(unknown))}.")
    return [
        Finding(each["name"], each["version"], each_id["id"], ", ".join(each_id["fix_versions"]))
        for each in answers
        for each_id in each["vulns"]
    ]


def offline(place: Path, packages: set[tuple[str, str]]) -> tuple[list[Finding], str]:
    """Return what a copy of the advisories says, and what copy that is."""
    found, count, newest = set[Finding](), 0, ""
    for record in records(place):
        if record.get("withdrawn"):
            continue
        count += 1
        newest = max(newest, str(record.get("modified", ""))[:10])
        for affected in record.get("affected", ()):
            package = affected.get("package", {})
            name = canonicalize_name(str(package.get("name", "")))
            if package.get("ecosystem") != "PyPI":
                continue
            for version in (each for known, each in packages if known == name):
                if touches(affected, version):
                    fixed = sorted(_events(affected, "fixed"))
                    found.add(Finding(name, version, record["id"], ", ".join(fixed)))
    if not count:
        raise Refused(f"{place} holds no advisory. {OFFLINE}")
    return sorted(found), f"{count:,} advisories, the newest of {newest or 'unknown date'}"


def records(place: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the advisories of a folder or a zip; raise Refused if it cannot be read."""
    if not place.exists():
        raise Refused(f"{place}: no such file or folder.")
    try:
        if place.is_dir():
            for path in sorted(place.rglob("*")):
                if path.suffix in RECORDS and ".git" not in path.parts:
                    yield from _parsed(path.suffix, path.read_bytes())
            return
        with zipfile.ZipFile(place) as whole:
            for name in whole.namelist():
                if Path(name).suffix in RECORDS:
                    yield from _parsed(Path(name).suffix, whole.read(name))
    except (OSError, ValueError, yaml.YAMLError, zipfile.BadZipFile) as error:
        raise Refused(f"{place} cannot be read as advisories: {error}") from error


def _parsed(suffix: str, text: bytes) -> Iterator[Mapping[str, Any]]:
    record = json.loads(text) if suffix == ".json" else yaml.load(text, LOADER)
    if isinstance(record, dict) and "id" in record and "affected" in record:
        yield record


def touches(affected: Mapping[str, Any], version: str) -> bool:
    """Return whether an advisory is about a version; an unreadable bound counts as yes."""
    if version in affected.get("versions", ()):
        return True
    ranges = [each for each in affected.get("ranges", ()) if each.get("type") == "ECOSYSTEM"]
    return any(_within(each.get("events", ()), version) for each in ranges)


def _within(events: Sequence[Mapping[str, str]], version: str) -> bool:
    try:
        own, bounds = Version(version), [_bound(each) for each in events]
    except InvalidVersion:
        return True
    inside = False
    for at, kind in sorted(bounds, key=lambda bound: (bound[0], bound[1] == "introduced")):
        if kind == "last_affected":
            inside = inside and own <= at
        elif own >= at:
            inside = kind == "introduced"
    return inside


def _bound(event: Mapping[str, str]) -> tuple[Version, str]:
    ((kind, at),) = event.items()
    return Version(str(at)), kind


def _events(affected: Mapping[str, Any], kind: str) -> set[str]:
    return {
        str(event[kind])
        for each in affected.get("ranges", ())
        if each.get("type") == "ECOSYSTEM"
        for event in each.get("events", ())
        if kind in event
    }


if __name__ == "__main__":
    sys.exit(main())
