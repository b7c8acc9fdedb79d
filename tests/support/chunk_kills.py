"""What kills cost a video that is encoded in chunks: the real handler, a stub encoder, virtual time.

A video of ten minutes, encoded as fast as it plays,
is worked off by one worker after another; five of them are killed, in the middle of a chunk or at
one of the steps around its encode. Lost is what was encoded more than once.
"""

import random
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from hevcq.domain.chunking.planner import Chunk, ChunkPlan
from hevcq.domain.job import JobState
from hevcq.domain.profile_sections import Chunking, ChunkMode
from hevcq.ports.encoder import ChunkReport, EncodeRequest, OnProgress
from support.fakes.encoder import fake_index
from support.fakes.farm import DoomedScratch, Killed
from support.fakes.videofarm import CHUNKED, VideoFarm

VIDEO_S, KILLS = 600, 5
STEPS = (
    "encoder.encode_chunk:after", "store.check#2:after", "store.put:before", "store.put:after",
    "store.publish:before", "store.publish:after", "ledger.complete:before",
    "ledger.complete:after",
)  # fmt: skip
TEN_MINUTES = CHUNKED.model_copy(update={"chunking": Chunking(mode=ChunkMode.ALWAYS)})


@dataclass(frozen=True)
class Life:
    """What one video's life took, in seconds of encoding."""

    spent: dict[int, float]
    lengths: dict[int, float]

    @property
    def lost(self) -> list[float]:
        """What each kill cost, as a share of the longest chunk; no chunk is killed in twice."""
        longest = max(self.lengths.values())
        return [(self.spent[n] - self.lengths[n]) / longest for n in self.lengths]

    @property
    def in_vain(self) -> float:
        """What was encoded in vain, as a share of the video."""
        return sum(self.spent.values()) / sum(self.lengths.values()) - 1


class Mortal:
    """A stub whose chunks take as long as they play, and whose worker dies once in each of `doom`.

    `doom` tells for a chunk how much of it is encoded by then, or after it, at which step.
    """

    def __init__(self, farm: VideoFarm) -> None:
        self.farm = farm
        self.spent: dict[int, float] = {}
        self.lengths: dict[int, float] = {}
        self.doom: dict[int, float | str] = {}
        self._now = -1
        self._encode = farm.encoder.encode_chunk
        farm.encoder.index = fake_index(length_s=VIDEO_S, every_s=2)
        farm.encoder.encode_chunk = self.encode_chunk
        farm.with_context(slots_per_job=lambda _profile: 2)
        farm.come_to(self.step)

    def encode_chunk(
        self,
        request: EncodeRequest,
        chunk_plan: ChunkPlan,
        chunk: Chunk,
        *,
        on_progress: OnProgress,
        stop: threading.Event,
    ) -> ChunkReport:
        """Take the time that the chunk plays, or die in it."""
        length = chunk_plan.seconds(chunk)
        self._now, self.lengths[chunk.index] = chunk.index, length
        end = self.doom.get(chunk.index)
        if isinstance(end, float):
            del self.doom[chunk.index]
            self._pass(length * end)
            raise Killed
        self._pass(length)
        return self._encode(request, chunk_plan, chunk, on_progress=on_progress, stop=stop)

    def _pass(self, seconds: float) -> None:
        self.spent[self._now] = self.spent.get(self._now, 0.0) + seconds
        self.farm.clock.advance(seconds)

    def step(self, point: str) -> None:
        if point == f"chunk/{self.doom.get(self._now)}":
            del self.doom[self._now]
            raise Killed

    def handle(self) -> bool:
        """Handle one delivery; True if its worker was killed."""
        scratch = DoomedScratch(self.farm.folder / "scratch", self.farm.clock)
        self.farm.with_context(scratch=scratch)
        try:
            self.farm.handle()
        except Killed:
            return True
        finally:
            scratch.die()
        return False


def life(farm: VideoFarm, seed: int) -> Life:
    """Work one video off, with kills at random; it must end well."""
    draw, mortal = random.Random(seed), Mortal(farm)
    source = farm.split()
    split = farm.record(source).split
    assert split is not None
    for chunk in draw.sample(range(split.chunks), KILLS):
        mortal.doom[chunk] = draw.random() if draw.random() < 0.5 else draw.choice(STEPS)
    kills = 0
    for _ in range(20 * split.chunks):
        if farm.state(source) is not JobState.SPLIT:
            break
        if farm.queue.depth().ready == 0:
            farm.clock.advance(farm.profile.queue.visibility_s + 1)
        kills += mortal.handle()
    assert (farm.state(source), kills) == (JobState.DONE, KILLS)
    assert farm.renditions() == [farm.key(source)]
    return Life(mortal.spent, mortal.lengths)


def lives(kind: type[VideoFarm], count: int) -> list[Life]:
    """Return what so many videos took on one kind of farm."""
    found = []
    for seed in range(count):
        with tempfile.TemporaryDirectory() as name:
            farm = kind(Path(name), TEN_MINUTES)
            found.append(life(farm, seed))
            farm.backend.close()
    return found
