"""The real installed command in a subprocess, on generated clips, with profiles of its own."""

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support import forkserver
from support.clips import make_clip
from support.forkserver import HEVCQ

PATIENCE_S = 90.0
PROFILE = """
name: {name}
description: H.265 for tests
subscribe: true
container: source
video: {{codec: hevc, preset: {preset}, crf: 34, skip_codecs: [hevc]}}
gates: {{minimum_saving: 0.05}}
queue: {{visibility_s: 30, backoff_base_s: 1}}
"""


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.out.splitlines() if line.startswith("{")]

    def named(self, name: str) -> list[dict[str, object]]:
        return [event for event in self.events if event["event"] == name]


@dataclass
class Farm:
    """A media folder, a data folder and profiles; `run` waits, `start` does not."""

    folder: Path
    prefix: tuple[str, ...] = ()
    _running: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("media", "profiles"):
            (self.folder / name).mkdir(parents=True)
        self.add_profile("hevc", "ultrafast")

    @property
    def media(self) -> Path:
        return self.folder / "media"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def add_profile(self, name: str, preset: str) -> None:
        text = PROFILE.format(name=name, preset=preset)
        (self.folder / "profiles" / f"{name}.yaml").write_text(text)

    def clip(self, name: str, **options: object) -> Path:
        path = self.media / name
        return make_clip(path.parent, name=path.name, **options)

    def slow_clip(self, name: str) -> Path:
        """A clip whose encode with the preset `medium` takes some seconds."""
        return self.clip(name, size="640x360", seconds=6, crf=20)

    def start(
        self, *words: object, env: dict[str, str] | None = None, stderr: Any = subprocess.PIPE
    ) -> subprocess.Popen[str]:
        return self.launch([*self.prefix, HEVCQ, *words], env or {}, stderr)

    def launch(
        self, command: list[object], env: dict[str, str], stderr: Any
    ) -> subprocess.Popen[str]:
        """Start a program with the settings of this farm."""
        environment = {
            **os.environ,
            "HEVCQ_DATA_DIR": str(self.data),
            "HEVCQ_PROFILES_DIR": str(self.folder / "profiles"),
            "HEVCQ_MIN_FREE_MIB": "1",
            "HEVCQ_STOP_GRACE_S": "0",
            **env,
        }
        child = forkserver.start(
            [text_of(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            errors="surrogateescape",
            env=environment,
            cwd=self.folder,
        )
        self._running.append(child)
        return child

    def run(self, *words: object, env: dict[str, str] | None = None) -> Ran:
        return self.finish(self.start(*words, env=env))

    def finish(self, child: subprocess.Popen[str], *, timeout: float = PATIENCE_S) -> Ran:
        out, err = child.communicate(timeout=timeout)
        return Ran(child.returncode, out, err)

    def ingest(self, *words: object, env: dict[str, str] | None = None) -> Ran:
        return self.run("ingest", self.media, "--json", *words, env=env)

    def close(self) -> None:
        for child in self._running:
            if child.poll() is None:
                child.kill()
            child.communicate()

    def strays(self) -> list[str]:
        """Everything of hevcq's in the media folder and scratch that is not a finished file."""
        here = [p.name for p in self.media.rglob(".hevcq-*")]
        scratch = self.data / "scratch"
        left = [p.name for p in scratch.rglob("*")] if scratch.is_dir() else []
        return here + left


class Machine(Farm):
    """A computer with a data folder of its own, on the PostgreSQL and the share of all."""

    dsn = ""
    home: Farm

    def start(self, *words: object, env: dict[str, str] | None = None, **options: int):
        shared = {
            "HEVCQ_BACKEND": "postgres",
            "HEVCQ_POSTGRES__DSN": self.dsn,
            "HEVCQ_POSTGRES__FILES_DIR": os.fspath(self.home.folder / "files"),
            "HEVCQ_PROFILES_DIR": os.fspath(self.home.folder / "profiles"),
        }
        return super().start(*words, env={**shared, **(env or {})}, **options)


def bound_by_permissions() -> tuple[str, ...]:
    """Return the words before a command that make file permissions bind it, even as root."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("permissions do not bind root, and there is no setpriv to give that up")
    rights = "-dac_override,-dac_read_search"
    return ("setpriv", f"--inh-caps={rights}", f"--bounding-set={rights}")


def text_of(word: object) -> str:
    return os.fspath(word) if isinstance(word, Path) else str(word)


def first_event(child: subprocess.Popen[str], wanted: Callable[[dict], bool]) -> dict:
    """Read NDJSON lines from a running command until one is wanted."""
    assert child.stdout is not None
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        line = child.stdout.readline()
        assert line, f"it ended: {child.stderr.read() if child.stderr else ''}"
        event = json.loads(line)
        if wanted(event):
            return event
    raise AssertionError("the wanted event never came")


def encoding(event: dict) -> bool:
    return event["event"] == "job_progress" and event.get("phase") == "encode"


def until(done: Callable[[], bool], *, timeout: float = 30.0) -> None:
    """Wait for a condition outside this process; fails when it does not come true."""
    deadline = time.monotonic() + timeout
    while not done():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
