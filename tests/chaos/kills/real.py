"""Kill and freeze real ffmpeg processes, and the workers above them: `--real`."""

import hashlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from chaos.kills.campaign import Campaign, Child
from chaos.kills.places import Place, apart
from chaos.kills.videos import NUMBERS
from chaos.kills.worker import Orders
from hevcq.domain.certificate import Certificate
from hevcq.domain.job import JobState
from hevcq.domain.profile import Profile
from hevcq.domain.profile_sections import Bounds, Gates, VideoRecipe
from hevcq.ports.ledger import JobFilter
from hevcq.util.clock import SystemClock
from hevcq.worker.admission import Scratch
from support.clips import make_clip
from support.processes import descendants, is_alive

STALL_S = 2.0
MAX_ORPHAN_S = 5.0
"""How long a dead worker's ffmpeg may live: the kernel ends it at once, a busy machine sees it late."""
PATIENCE_S = 90.0
PROFILE = Profile(
    name="hevc",
    description="for kills",
    video=VideoRecipe(codec="hevc", preset="medium", crf=30),
    gates=Gates(minimum_saving=None),
    bounds=Bounds(stall_s=STALL_S),
    # Every kill of an ffmpeg counts one failure, and here one video may meet many.
    queue=NUMBERS.model_copy(update={"max_failures": 900}),
)
PROFILES = {PROFILE.name: PROFILE}
ZERO = ("lost", "unproven", "stray_children", "temp_files", "orphans", "never_noticed")


@dataclass
class RealKills:
    """Ends `count` processes, by turns the worker, its ffmpeg, or its ffmpeg frozen."""

    place: Place
    count: int
    seed: int
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._crew = Campaign(self.place, 0, 0, self.seed)
        self._seen: set[int] = set()
        self._videos = 0

    def run(self) -> dict[str, object]:
        """Return the counts; those in ZERO have to be 0."""
        try:
            for number in range(self.count):
                if self._videos <= number // 2:
                    self._submit()
                (self._kill_worker, self._kill_ffmpeg, self._freeze_ffmpeg)[number % 3]()
            self._finish()
        finally:
            self._crew._end_all()
        return self._reported()

    def _submit(self) -> None:
        path = make_clip(
            self.place.videos, name=f"video-{self._videos}.mp4", seconds=3, size="320x240"
        )
        # A video of its own, for what is found out about bytes is remembered.
        with path.open("ab") as file:
            file.write(b"\0\0\0\x10free" + os.urandom(8))
        self._videos += 1

        def bring() -> None:
            backend = self.place.open()
            self.place.submit(backend, path, PROFILE.name)
            backend.close()

        apart(bring)

    def _worker(self) -> Child:
        self._crew._look()
        if not self._crew.children:
            self._crew._spawn(Child(0, Orders(real=True), None))
        return self._crew.children[0]

    def _at_work(self, word: str) -> tuple[Child, int]:
        """Return the worker and a child of its job that is new and has `word` in its command."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            worker = self._worker()
            for pid, command in descendants(worker.pid).items():
                if pid not in self._seen and word in command and "self-test" not in command:
                    self._seen.add(pid)
                    return worker, pid
            time.sleep(0.005)
        raise RuntimeError(f"No child with {word!r} in {PATIENCE_S:.0f} s.")

    def _kill_worker(self) -> None:
        worker, _ = self._at_work(" -i ")
        time.sleep(self._random.uniform(0, 0.3))
        children = descendants(worker.pid)
        os.kill(worker.pid, signal.SIGKILL)
        self.counts["workers_killed"] += 1
        self.counts["orphans"] += not self._gone(children, MAX_ORPHAN_S)

    def _kill_ffmpeg(self) -> None:
        _, pid = self._at_work(" -i ")
        time.sleep(self._random.uniform(0, 0.3))
        if kill(pid, signal.SIGKILL):
            self.counts["ffmpeg_killed"] += 1

    def _freeze_ffmpeg(self) -> None:
        _, pid = self._at_work("-progress")  # an encode
        if kill(pid, signal.SIGSTOP):
            self.counts["ffmpeg_frozen"] += 1
            self.counts["never_noticed"] += not self._gone([pid], 10 * STALL_S + 10)

    def _gone(self, pids: Iterable[int], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while any(map(is_alive, pids)):
            if time.monotonic() > end:
                return False
            time.sleep(0.005)
        return True

    def _finish(self) -> None:
        end = time.monotonic() + 300
        while time.monotonic() < end and self._crew._left()[0]:
            self._worker()
            time.sleep(0.3)
        for child in self._crew.children:
            os.kill(child.pid, signal.SIGTERM)
        late = time.monotonic() + 40
        while self._crew.children and time.monotonic() < late:
            self._crew._look()

    def _reported(self) -> dict[str, object]:
        notes = [line.split() for line in (self.place.folder / "notes").read_text().splitlines()]
        classes = Counter(w[3] for w in notes if w[0] in {"job_retry", "job_buried"})
        answer = self.place.folder / "tally.json"
        apart(lambda: answer.write_text(json.dumps(self._seen_ends())))
        names = ("workers_killed", "ffmpeg_killed", "ffmpeg_frozen", "orphans", "never_noticed")
        return {
            **{name: self.counts[name] for name in names},
            "retried_as": dict(classes),
            "stray_children": sum(map(is_alive, self._seen)),
            **json.loads(answer.read_text()),
        }

    def _seen_ends(self) -> dict[str, int]:
        backend = self.place.open()
        Scratch(self.place.scratch, SystemClock()).sweep()
        videos = {path.name: path for path in self.place.videos.iterdir()}
        done = [j for j in backend.ledger.jobs(JobFilter()) if j.state is JobState.DONE]
        unproven = 0
        for job in done:
            with backend.store.open(job.rendition.certificate_key) as stream:
                proof = Certificate.parse(stream.read())
            with backend.store.open(job.rendition.key) as stream:
                made = hashlib.sha256(stream.read()).hexdigest()
            own = hashlib.sha256(videos[Path(job.source.key).name].read_bytes()).hexdigest()
            unproven += (proof.source_sha256, proof.rendition_sha256) != (own, made)
        backend.close()
        left = len(list(self.place.scratch.iterdir())) if self.place.scratch.is_dir() else 0
        return {
            "jobs": len(videos),
            "lost": len(videos) - len(done),
            "unproven": unproven,
            "temp_files": left,
        }


def kill(pid: int, number: int) -> bool:
    """Send a signal; False if the process had ended before."""
    if not is_alive(pid):
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
