"""Videos that are split: what they are, what is wrong with some, and an encoder of their chunks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache, cached_property

from chaos.sim import chaos as rates
from chaos.sim.checks import require
from chaos.sim.parts import (
    ALREADY_INFO,
    BAD_GATE,
    ERRORS,
    Nature,
    SimEncoder,
    SimJob,
)
from hevcq.domain.chunking import ChunkPlan, KeyIndex
from hevcq.domain.job import JobState
from hevcq.domain.planning.encode_plan import Skip, SkipReason
from hevcq.domain.profile import Profile
from hevcq.domain.profile_sections import Chunking, ChunkMode
from hevcq.errors import PartUnfit
from hevcq.ports.encoder import EncodeProgress, EncodeReport
from support.fakes.encoder import fake_index, fake_plan

SLICES = 5
"""How often the encode of a chunk tells how far it is."""
SLOWED, MOST = 20.0, 1.5
"""A slow chunk takes so many times longer, and any at most so many times its share of the video."""
LOOKS = 2
"""An unwanted chunk must have ended by this many reports at which its worker reads its job's record.
Three hardly ever fit: a chunk reports SLICES - 1 times, and is cancelled somewhere among them."""
CHUNKING = Chunking(mode=ChunkMode.ALWAYS, target_s=20.0)


class Quirk(StrEnum):
    """What is wrong with a video only when it is split."""

    NONE = "none"
    UNFIT = "unfit"
    MISFIT = "misfit"
    BAD_JOIN = "bad_join"
    SLOW = "slow"


QUIRKS = {
    Quirk.NONE: 70,
    Quirk.UNFIT: 10,
    Quirk.MISFIT: 8,
    Quirk.BAD_JOIN: 4,
    Quirk.SLOW: 8,
}


@dataclass
class VideoJob(SimJob):
    """A source of a split world. `length` is in key frames, ten seconds of video apart.

    `place` is the chunk that the quirk is about, and `quirk_left` how often it shows. `lost` says
    that somebody removed or changed what was kept for it; `cancelled` that a person ended it.
    """

    length: int = 1
    quirk: Quirk = Quirk.NONE
    quirk_left: int = 0
    place: int = 0
    lost: bool = False
    cancelled: bool = False


class VideoProfile(Profile):
    """A profile whose revision, which is the real one, is computed once."""

    @cached_property
    def revision(self) -> str:
        return Profile.revision.fget(self)


@cache
def video_profile(name: str, number: int) -> VideoProfile:
    """Return the numbered variant of a profile, splitting whatever can be split."""
    plain = rates.PROFILES[name][number]
    same = {name: getattr(plain, name) for name in Profile.model_fields}
    return VideoProfile(**{**same, "chunking": CHUNKING})


@cache
def video_index(length: int) -> KeyIndex:
    """Return the index of a video of so many key frames, with one frame a second."""
    return fake_index(length_s=10 * length, every_s=10, rate=1)


_PLANS: dict[tuple[str, str], object] = {}


def video_plan(profile, info):
    """Plan once a profile and revision."""
    if info.format_name == ALREADY_INFO.format_name:
        return Skip(reason=SkipReason.ALREADY_TARGET, detail="hevc already")
    key = (profile.name, profile.revision)
    if key not in _PLANS:
        _PLANS[key] = fake_plan(profile, info)
    return _PLANS[key]


def part_content(job: SimJob, split: str, chunk: int, frames: int, salt: bytes) -> bytes:
    """Return the bytes of a part: they say whose they are."""
    return b"part|%d|%s|%d|%d|%s" % (job.number, split.encode(), chunk, frames, salt)


class VideoEncoder(SimEncoder):
    """Encodes chunks and joins them as well."""

    def verify(self, request, *, on_progress, stop):
        gates = super().verify(request, on_progress=on_progress, stop=stop)
        job = self._job(request.location)
        joined = request.output.read_bytes().startswith(b"joined|")
        bad = job.quirk is Quirk.BAD_JOIN and joined
        return BAD_GATE if bad else gates

    def keyframes(self, location: str, info, *, stop, ladder=None) -> KeyIndex:
        job = self._job(location)
        self._take(job.seconds / 100, stop)
        return video_index(job.length)

    def encode_chunk(self, request, chunk_plan, chunk, *, on_progress, stop) -> EncodeReport:
        job, world = self._job(request.location), self._machine.world
        assert not request.output.exists(), "the part must not exist yet"
        split = str(request.output).split("/")[1].split(".")[1]
        request.output.write_bytes(b"partial")
        began = world.sched.now
        try:
            self._chunk(_Turn(self, job, split, chunk, chunk_plan), on_progress, stop)
        except BaseException:
            request.output.unlink(missing_ok=True)
            raise
        salt = b"" if world.same_bytes else str(world.random.random()).encode()
        content = part_content(job, split, chunk.index, chunk.frames, salt)
        request.output.write_bytes(content)
        short = self._shows(job, Quirk.UNFIT, chunk.index, chunk_plan)
        took = world.sched.now - began
        return EncodeReport(
            arguments=("ffmpeg",),
            seconds=took,
            cpu_s=1.0,
            stderr=(),
            frames=chunk.frames - short,
            first_pts=chunk.start_pts,
            last_pts=chunk.last_pts,
        )

    def _shows(self, job: VideoJob, quirk: Quirk, chunk: int, plan: ChunkPlan) -> bool:
        """Whether the video's quirk shows at this chunk now; it is then used up once."""
        place = job.place % len(plan.chunks)
        if job.quirk is not quirk or job.quirk_left <= 0 or chunk != place:
            return False
        job.quirk_left -= 1
        return True

    def _chunk(self, turn: _Turn, on_progress, stop) -> None:
        job, machine, world = turn.job, self._machine, self._machine.world
        whole = job.seconds * turn.chunk.frames / turn.plan.frames
        whole *= MOST - 1.0 + world.random.random()
        if self._shows(job, Quirk.SLOW, turn.chunk.index, turn.plan):
            whole *= SLOWED
        for number in range(1, SLICES):
            self._take(whole / SLICES, stop)
            turn.report(on_progress, number / SLICES, whole, stop)
            if number > 1:
                continue
            if job.nature is Nature.KILLER and world.random.random() < 0.5:
                machine.die("killed by the source")
            kind = machine.encode_fault() or self._natural(job)
            if kind is not None:
                job.blamed.append(kind)
                raise ERRORS[kind]()
        self._take(whole / SLICES, stop)

    def join(self, request, chunk_plan, parts, *, on_progress, stop) -> EncodeReport:
        job = self._job(request.location)
        assert not request.output.exists(), "the output must not exist yet"
        self._take(job.seconds / 50, stop)
        on_progress(EncodeProgress(0.5, 5.0, chunk_plan.frames // 2, 100.0, 7))
        held = [part.read_bytes() for part in parts]
        for chunk in chunk_plan.chunks:
            if self._shows(job, Quirk.MISFIT, chunk.index, chunk_plan):
                raise PartUnfit("Its headers differ.", index=chunk.index)
        request.output.write_bytes(b"joined|%d|" % job.number + b";".join(held))
        return EncodeReport(("ffmpeg", "-f", "concat"), 0.1, 0.1, (), chunk_plan.frames)


class _Turn:
    """One encode of one chunk; it notices if nobody stops it although its job goes without it."""

    def __init__(self, encoder: VideoEncoder, job: VideoJob, split: str, chunk, plan) -> None:
        self._machine, self.job, self._split = encoder._machine, job, split
        self.chunk, self.plan = chunk, plan
        self._last = self._machine.world.sched.now
        self._unwanted = 0

    def report(self, on_progress, share: float, whole: float, stop) -> None:
        """Report how far it is, and count the looks that its job was not asked in vain."""
        world = self._machine.world
        record = world.ledger.get(self.job.job_id)
        wanted = record.state is JobState.SPLIT and record.split.name == self._split
        now, seconds = world.sched.now, float(self.chunk.duration_ticks * self.plan.tick)
        looked = now - self._last >= world.ledger.progress_every_s
        self._last = now if looked else self._last
        on_progress(EncodeProgress(share, share * seconds, 1, seconds / max(whole, 0.001), 7))
        if wanted or not looked or stop.is_set():
            return
        self._unwanted += 1
        excused = self._machine.suffered or world.wall_moved
        require(excused or self._unwanted < LOOKS, "a chunk goes on, and nobody wants it any more")
