"""`make audit` says what is known of the locked versions, or that it cannot be known."""

import json
from pathlib import Path
from typing import Any

import pytest
from scripts import audit

JINJA = {
    "id": "PYSEC-2021-66",
    "modified": "2021-03-22T16:34:00Z",
    "affected": [
        {
            "package": {"name": "Jinja2", "ecosystem": "PyPI"},
            "ranges": [
                {
                    "type": "ECOSYSTEM",
                    "events": [{"introduced": "0"}, {"fixed": "2.11.3"}, {"introduced": "3.0"}],
                },
                {"type": "GIT", "events": [{"introduced": "0"}]},
            ],
            "versions": ["2.11.2"],
        }
    ],
}


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "runtime.txt"
    path.write_text("jinja2==2.11.2 \\\n    --hash=sha256:aa\n    # via hevcq\n")
    return path


def ran(lock: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = audit.main(arguments, [lock])
    said = capsys.readouterr()
    return code, said.out + said.err


def copy(tmp_path: Path, record: dict[str, Any]) -> str:
    folder = tmp_path / "advisories" / "vulns" / "jinja2"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "PYSEC-2021-66.yaml").write_text(json.dumps(record))  # JSON is YAML as well
    return str(tmp_path / "advisories")


def test_an_offline_copy_tells_of_a_version_and_what_mends_it(tmp_path, lock, capsys):
    code, said = ran(lock, capsys, "--advisories", copy(tmp_path, JINJA))

    assert code == 1
    assert "jinja2 2.11.2: PYSEC-2021-66; fixed in 2.11.3" in said
    assert "1 advisories, the newest of 2021-03-22" in said


@pytest.mark.parametrize(
    ("version", "bounds", "expected"),
    [
        ("2.11.2", [("introduced", "0"), ("fixed", "2.11.3")], True),
        ("2.11.3", [("introduced", "0"), ("fixed", "2.11.3")], False),
        ("2.11.3", [("introduced", "0"), ("last_affected", "2.11.3")], True),
        ("2.11.4", [("introduced", "0"), ("last_affected", "2.11.3")], False),
        ("3.1", [("introduced", "0"), ("fixed", "2.11.3"), ("introduced", "3.0")], True),
        ("2.12", [("introduced", "0"), ("fixed", "2.11.3"), ("introduced", "3.0")], False),
        ("3.0", [("introduced", "0"), ("fixed", "3.0"), ("introduced", "3.0")], True),
        ("1.0", [("introduced", "2.0")], False),
        ("1.0", [("introduced", "no version")], True),
    ],
)
def test_versions_are_compared_as_versions(version, bounds, expected):
    events = [{kind: at} for kind, at in bounds]
    affected = {"ranges": [{"type": "ECOSYSTEM", "events": events}]}

    assert audit.touches(affected, version) is expected


@pytest.mark.parametrize("text", ["", "id: [", None])
def test_a_copy_without_advisories_is_no_proof(tmp_path, lock, capsys, text: str | None):
    folder = tmp_path / "empty"
    if text is not None:
        folder.mkdir()
        (folder / "a.yaml").write_text(text)

    code, said = ran(lock, capsys, "--advisories", str(folder))

    assert code == 2
    assert said.startswith("make audit: ")


def service(tmp_path: Path, answer: str, error: str = "") -> str:
    """Return a program in pip-audit's place that gives this answer."""
    program = tmp_path / "pip-audit"
    program.write_text(f"#!/bin/sh\ncat <<'A'\n{answer}\nA\necho '{error}' >&2\nexit 1\n")
    program.chmod(0o755)
    return str(program)


KNOWN = {"name": "jinja2", "version": "2.11.2", "vulns": []}
UNKNOWN = {"name": "humanize", "skip_reason": "Dependency not found on PyPI"}
BAD = {**KNOWN, "vulns": [{"id": "PYSEC-2021-66", "fix_versions": ["2.11.3"]}]}


@pytest.mark.parametrize(
    ("dependencies", "code", "sentence"),
    [
        ([KNOWN], 0, "1 packages, no known vulnerabilities (PyPI's service)."),
        ([BAD], 1, "jinja2 2.11.2: PYSEC-2021-66; fixed in 2.11.3"),
        ([KNOWN, UNKNOWN], 2, "make audit: The service does not know these versions: humanize."),
        ([UNKNOWN], 2, "knows no advisories of any version (a mirror?). Without the service, give"),
    ],
)
def test_what_the_service_does_not_know_is_a_failure(
    tmp_path, lock, capsys, dependencies, code: int, sentence: str
):
    program = service(tmp_path, json.dumps({"dependencies": dependencies}))

    found, said = ran(lock, capsys, "--pip-audit", program)

    assert found == code
    assert sentence in said


def test_a_service_out_of_reach_is_one_sentence(tmp_path, lock, capsys):
    program = service(tmp_path, "", "Traceback\nConnectionError: no route")

    code, said = ran(lock, capsys, "--pip-audit", program)

    assert code == 2
    assert said.count("\n") == 1
    assert "cannot be reached (ConnectionError: no route). Without the service" in said
