"""Check the house: what is committed, and who reads time and environment."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRACKED = subprocess.run(
    ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
).stdout.splitlines()


def test_every_benchmark_and_script_can_be_imported() -> None:
    names = [
        name.removesuffix(".py").replace("/", ".")
        for name in TRACKED
        if name.startswith(("benchmarks/", "scripts/"))
        and name.endswith(".py")
        and not name.endswith("__main__.py")
    ]
    code = f"import importlib\nfor name in {names}: importlib.import_module(name)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert names
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "pattern",
    [
        r"/work/(main|shared)",
        r"/root/",
        r"AKIA[0-9A-Z]{16}",
        r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}:\d+/simple",
    ],
)
def test_no_machine_path_key_or_registry_is_committed(pattern: str) -> None:
    found = []
    for name in TRACKED:
        path = ROOT / name
        if not path.is_file() or path == Path(__file__):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{name}: {line}" for line in text.splitlines() if re.search(pattern, line)]

    assert found == []


def test_only_the_clock_reads_time() -> None:
    reads = re.compile(
        r"\btime\.(time|monotonic|sleep|perf_counter)\(|datetime\.(now|utcnow|today)\("
    )
    allowed = {"util/clock.py"}
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted((ROOT / "src").rglob("*.py"))
        if path.relative_to(ROOT / "src" / "hevcq").as_posix() not in allowed
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if reads.search(line)
    ]

    assert found == []


def test_nothing_below_settings_reads_the_environment() -> None:
    above = ("cli", "alive", "settings", "wiring")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted((ROOT / "src").rglob("*.py"))
        if not path.relative_to(ROOT / "src" / "hevcq").as_posix().startswith(above)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"os\.(environ|getenv)", line)
    ]

    assert found == []


def test_every_guard_has_the_test_that_fails_without_it() -> None:
    """Each condition was taken away once, and its test failed; a test that is merged takes its row."""
    text = (ROOT / "tests/architecture/guards.txt").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if not line.startswith("#")]
    defined = {
        f"{name}::{test}"
        for name in TRACKED
        if name.startswith("tests/") and name.endswith(".py") and (ROOT / name).is_file()
        for test in re.findall(r"^def (test_\w+)\(", (ROOT / name).read_text("utf-8"), re.M)
    }

    assert len(rows) >= 100
    assert [row for row in rows if len(row) != 3 or row[2] not in defined] == []
