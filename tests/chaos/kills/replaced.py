"""Kill any process of three machines while they replace originals: `--replace`.

Two have the share and PostgreSQL, which crashes as well; the third joined the page of the first. The
lines of the second to the server, and of the third to the page, fail between the kills.
"""

import hashlib
import os
import random
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from e2e.embedded.farm import Farm, Machine, digest, until
from hevcq.domain.certificate import Certificate
from hevcq.library.own_files import certificates_folder
from support.clips import make_clip
from support.faulty import FaultyLine
from support.postgres import Server
from support.processes import free_port, is_listening

ZERO = ("lost", "unproven", "doubled", "not_given_back", "open_jobs", "temp_files")
NUMBERS = "queue: {visibility_s: 4, max_receives: 900, max_crashes: 100,"
NUMBERS += " backoff_base_s: 0.5}"
DOUBLED = """SELECT count(*) FROM (SELECT 1 FROM event WHERE name IN ('job.done', 'video.placed')
GROUP BY job_id, name HAVING count(*) > 1) AS doubled"""
OPEN = "SELECT (SELECT count(*) FROM job WHERE state <> 'done') + (SELECT count(*) FROM message)"


@dataclass
class ReplaceKills:
    """Kills one of the commands `count` times, and the server `crashes` times meanwhile."""

    folder: Path
    server: Server
    count: int
    crashes: int
    seed: int
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._nas, self._desktop = Machine(self.folder / "nas"), Machine(self.folder / "desktop")
        self._lap = Farm(self.folder / "lap")
        socket_path = f"{self.server.folder}/.s.PGSQL.5432"
        recipe = self._nas.folder / "profiles" / "hevc.yaml"
        text = recipe.read_text()
        recipe.write_text(text[: text.index("queue:")] + NUMBERS)
        self._port = free_port()
        self._lines = [FaultyLine(socket_path), FaultyLine(("127.0.0.1", self._port))]
        there = f"127.0.0.1 port={self._lines[0].port}"
        self._nas.dsn = self.server.dsn
        self._desktop.dsn = self.server.dsn.replace(str(self.server.folder), there)
        self._nas.home = self._desktop.home = self._nas
        ingest = ("ingest", self._nas.media, "--replace")
        self._commands: dict[str, tuple[Farm, tuple[object, ...]]] = {
            "page": (self._nas, ("serve", "--port", self._port)),
            "ingest": (self._nas, ingest),
            "ingest_elsewhere": (self._desktop, ingest),
            "worker": (self._desktop, ("worker",)),
            "joined": (self._lap, ("worker",)),
        }
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._originals: dict[Path, bytes] = {}

    def run(self) -> dict[str, object]:
        """Return the counts; those in ZERO have to be 0."""
        try:
            self._join()
            while self._kills < self.count:
                self._bring()
                self._kill_one()
            for child in self._running.values():
                child.kill()
            self._nas.ingest("--replace")
            for each in (self._nas, self._desktop):
                each.run("worker", "--drain")  # which clears its scratch folder
            return {**self.counts, **self._tally()}
        finally:
            for each in (self._nas, self._desktop, self._lap):
                each.close()
            for line in self._lines:
                line.close()

    @property
    def _kills(self) -> int:
        return self.counts.total() - self.counts["crashes"] - self.counts["lines_failed"]

    def _join(self) -> None:
        self._start("page")
        at = f"http://127.0.0.1:{self._lines[1].port}"
        line = self._nas.run("workers", "invite", "--address", at).out.split()
        until(lambda: is_listening(self._port), timeout=60)
        self._running["joined"] = self._lap.start(*line[1:], stderr=subprocess.DEVNULL)
        until((self._lap.data / "joined.json").exists, timeout=60)

    def _start(self, name: str) -> None:
        farm, words = self._commands[name]
        self._running[name] = farm.start(*words, stderr=subprocess.DEVNULL)

    def _bring(self) -> None:
        """Bring a video in while fewer than six are as they came, and start what does not run."""
        left = [p for p, content in self._originals.items() if p.stat().st_size == len(content)]
        if len(left) < 6:
            path = self.folder / f"video {len(self._originals)}.mp4"
            make_clip(path.parent, name=path.name)
            with path.open("ab") as file:  # a video of its own
                file.write(b"\0\0\0\x10free" + os.urandom(8))
            self._originals[self._nas.media / path.name] = path.read_bytes()
            path.rename(self._nas.media / path.name)
        for name in self._commands:
            if name not in self._running or self._running[name].poll() is not None:
                self._start(name)

    def _kill_one(self) -> None:
        time.sleep(self._random.uniform(0.1, 1.0))
        line = self._random.choice(self._lines)
        self._random.choice([line.cut, line.stick, line.deafen])()
        self.counts["lines_failed"] += 1
        time.sleep(self._random.uniform(0.1, 1.0))
        name = self._random.choice([n for n, each in self._running.items() if each.poll() is None])
        if self.counts["crashes"] * self.count < self.crashes * self._kills:
            (self.server.kill, lambda: self.server.stop("immediate"))[self.counts["crashes"] % 2]()
            self.server.start()
            self.counts["crashes"] += 1
        self._running[name].kill()
        self._running[name].wait()
        self.counts[f"{name}_killed"] += 1

    def _tally(self) -> dict[str, int]:
        replaced = [p for p, content in self._originals.items() if p.read_bytes() != content]
        folder = certificates_folder(self._nas.media)
        proofs = {
            (proof.source_sha256, proof.rendition_sha256): str(proof)
            for proof in (Certificate.parse(p.read_bytes()) for p in folder.rglob("*.json"))
        }
        pairs = [(hashlib.sha256(self._originals[p]).hexdigest(), digest(p)) for p in replaced]
        with psycopg.connect(self.server.dsn, options="-c search_path=hevcq") as connection:
            (doubled,), (left,) = (connection.execute(q).fetchone() for q in (DOUBLED, OPEN))
        strays = self._nas.strays() + self._desktop.strays()
        self._desktop.run("undo", self._nas.media)
        back = sum(p.read_bytes() == content for p, content in self._originals.items())
        return {
            "videos": len(self._originals),
            "replaced": len(replaced),
            "made_by_the_joined": sum(
                str(self._lap.data) in proofs.get(pair, "") for pair in pairs
            ),
            "lost": sum(not path.is_file() for path in self._originals),
            "unproven": sum(pair not in proofs for pair in pairs),
            "doubled": doubled,
            "open_jobs": left,
            "temp_files": len(strays),
            "not_given_back": len(self._originals) - back,
        }
