"""What is installed is what was locked: every package with its hash, and bounds that mean something."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = {path.stem: path.read_text() for path in sorted((ROOT / "requirements").glob("*.txt"))}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNTIME = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
_EXTRAS = PROJECT["project"]["optional-dependencies"]
DEV = [
    need
    for extra in _EXTRAS.values()
    for need in map(Requirement, extra)
    if need.name != PROJECT["project"]["name"]
]
_LOCKED = re.compile(
    r"^([A-Za-z0-9_.-]+)(?:\[[^]]*\])?==([^ ;]+)(.*?)(?=^[A-Za-z0-9]|\Z)", re.M | re.S
)


def locked(name: str) -> dict[str, tuple[str, int]]:
    """Return the version and the number of hashes of each package of a lock."""
    return {
        canonicalize_name(package): (version, rest.count("--hash=sha256:"))
        for package, version, rest in _LOCKED.findall(LOCKS[name])
    }


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_held_to_hashes_and_no_registry_or_machine_is_named(name):
    packages = locked(name)

    assert packages
    assert all(hashes > 0 for _, hashes in packages.values())
    assert not re.search(r"https?://|file:|^-|@ ", LOCKS[name], re.M)
    assert not re.search(r"/(root|tmp|opt|home|work)/", LOCKS[name])


@pytest.mark.parametrize(("name", "wanted"), [("runtime", RUNTIME), ("dev", [*RUNTIME, *DEV])])
def test_a_lock_has_all_that_pyproject_asks_for_or_make_lock_is_due(name, wanted):
    packages = locked(name)
    stale = [
        str(need)
        for need in wanted
        if canonicalize_name(need.name) not in packages
        or not need.specifier.contains(packages[canonicalize_name(need.name)][0])
    ]

    assert stale == [], "requirements/ is older than pyproject.toml: run `make lock`"


def test_the_versions_that_are_tested_are_those_that_the_images_hold():
    tested, shipped = locked("dev"), locked("runtime")

    assert {name: tested[name][0] for name in shipped} == {
        name: version for name, (version, _) in shipped.items()
    }


def test_what_builds_the_wheel_is_pinned_in_one_version():
    (backend,) = map(Requirement, PROJECT["build-system"]["requires"])

    assert str(backend.specifier) == f"=={locked('build')[backend.name][0]}"
