"""A stored folder in a test's own place, and the installed command as a person runs it there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from e2e.stored.relocate import relocate
from support import forkserver
from support.forkserver import HEVCQ

PATIENCE_S = 120


@dataclass(frozen=True)
class StoredFolder:
    """What the release left, below `root`."""

    root: Path

    def __post_init__(self) -> None:
        relocate(self.root)

    @property
    def library(self) -> Path:
        return self.root / "lib"

    def run(self, *words: object, code: int = 0) -> str:
        """Run a command to its end; return what it printed."""
        return self._finished(*words, code=code).stdout

    def _finished(self, *words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "HEVCQ_DATA_DIR": str(self.root / "data"),
            "HEVCQ_PROFILES_DIR": str(self.root / "profiles"),
            "HEVCQ_MIN_FREE_MIB": "1",
            "HEVCQ_LOG_STYLE": "json",
        }
        command = [str(HEVCQ), *(str(word) for word in words)]
        done = forkserver.run(command, PATIENCE_S, env=environment, text=True)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done

    def lines(self, *words: object, code: int = 0) -> list[dict[str, object]]:
        """Run a command that prints JSON, one object a line."""
        return [json.loads(line) for line in self.run(*words, "--json", code=code).splitlines()]

    def work(self, profile: str) -> list[dict[str, object]]:
        """Let a worker do what there is for a profile; return its log."""
        log = self._finished("worker", profile, "--drain", "--workers", 1).stderr.splitlines()
        return [json.loads(line) for line in log if line.startswith("{")]

    def jobs(self, profile: str) -> dict[str, int]:
        """Return how many jobs of a profile are in which state; states without any are left out."""
        (status,) = self.lines("status")
        (found,) = [each for each in status["queues"] if each["profile"] == profile]
        return {state: count for state, count in found["jobs"].items() if count}

    def same(self, one: str, other: str) -> bool:
        return (self.root / one).read_bytes() == (self.root / other).read_bytes()

    def mend(self, name: str) -> None:
        """Give a damaged video its bytes back as they were, its times too."""
        path = self.library / name
        before = path.stat()
        with path.open("r+b") as there, (self.root / "mended.mkv").open("rb") as intact:
            shutil.copyfileobj(intact, there)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
