"""Model a video in chunks: the key frame index of a packet pass, and the plan made from it.

Times are integer ticks of the video's time base where exactness matters. A chunk holds the frames
presented from its `start_pts` (inclusive) to its `end_pts` (exclusive); the chunks of a plan hold
every frame exactly once. `plan_chunks` makes a plan.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from math import floor

from pydantic import Field, ValidationError

from hevcq.domain.formats import SOFTWARE
from hevcq.domain.media.facts import MediaInfo, StreamKind, VideoFacts
from hevcq.domain.model import Frozen
from hevcq.domain.planning.encode_plan import EncodePlan, Ladder, Work
from hevcq.domain.planning.ladder import segment_starts
from hevcq.domain.profile import Profile
from hevcq.domain.profile_sections import Chunking, ChunkMode
from hevcq.errors import PartUnfit

_MASK = (1 << 64) - 1


def times_sum(ticks: Iterable[int]) -> int:
    """Return a 64-bit checksum of frame times, in ticks: equal for equal sets, additive over parts.

    Each time is mixed before it is added (the finaliser of SplitMix64), so that two errors do not
    cancel out. The sum detects mistakes, not forgery.
    """
    total = 0
    for tick in ticks:
        mixed = (tick + 0x9E3779B97F4A7C15) & _MASK
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        total += mixed ^ (mixed >> 31)
    return total & _MASK


class KeyFrame(Frozen):
    """A key frame, with the frames presented before the next key frame."""

    pts: int
    bytes_until_next: int
    frames_until_next: int
    last_pts: int = Field(default=0, description="of the last frame before the next key frame")
    times: int = Field(default=0, description="`times_sum` of those frames")
    seek_s: float | None = Field(
        default=None,
        description="seek target to start decoding at it; on a ladder's grid: at the key frame before it",
    )
    forced: tuple[int, ...] = Field(
        default=(), description="on a ladder's grid: the output's key frames before the next entry"
    )


class KeyIndex(Frozen):
    """Key frame index of a video, from one pass over its packets. Discarded frames are not counted.

    The first entry of `keys` is the first presented frame, which after an edit list need not be a key
    frame. `end_pts` is the end of the last frame, in ticks. For a ladder, `keys` are the points of its
    grid (`index_by_grid`).
    """

    stream_index: int
    time_base: str
    keys: tuple[KeyFrame, ...]
    end_pts: int
    frames: int
    problem: str = Field(default="", description="a stable word for why no cut would be exact")

    @property
    def tick(self) -> Fraction:
        """The time base as an exact fraction of a second."""
        return Fraction(self.time_base)


class Chunk(Frozen):
    """One chunk of a video; times in ticks, `end_pts` is None for the last chunk."""

    index: int = Field(ge=0)
    start_pts: int
    end_pts: int | None
    last_pts: int = Field(description="of the last frame in it")
    seek_s: float | None = Field(
        default=None, description="seek target to start decoding at its key frame; None: no seek"
    )
    duration_ticks: int = Field(gt=0, description="to the next chunk's start, or the video's end")
    frames: int = Field(gt=0)
    times: int = Field(default=0, description="`times_sum` of its frames")
    cost: float = Field(default=0.0, description="share of the video's expected encoding time")
    forced: tuple[int, ...] = Field(
        default=(), description="of a ladder: the key frames of every rung, in ticks"
    )


class ChunkPlan(Frozen):
    """Plan of a video in chunks. The identity of a part depends on `digest`."""

    stream_index: int
    time_base: str
    chunks: tuple[Chunk, ...]
    frames: int
    end_pts: int
    digest: str

    @property
    def tick(self) -> Fraction:
        """The time base as an exact fraction of a second."""
        return Fraction(self.time_base)

    def seconds(self, chunk: Chunk) -> float:
        """Return the duration of a chunk in seconds of video."""
        return float(chunk.duration_ticks * self.tick)


def plan_digest(revision: str, threads: int, index: KeyIndex, boundaries: Iterable[int]) -> str:
    """Return a plan's digest of 16 hexadecimal digits; parts of equal digests are interchangeable."""
    words = [revision, threads, index.stream_index, index.time_base, index.frames, index.end_pts]
    text = "\0".join(str(word) for word in [*words, *boundaries])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class SplitPlan(Work):
    """The work on a split job, written by the worker that split it and read by every part.

    It contains the whole recipe, so that a worker of another release neither mixes two recipes in
    one video nor makes a plan of its own.
    """

    chunks: ChunkPlan

    @classmethod
    def parse(cls, content: bytes) -> SplitPlan:
        """Parse a plan. Raises PartUnfit if this release cannot read it."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise PartUnfit("The plan of the split video cannot be read by this worker.") from error


ROUNDS = 4
"""Chunks for each worker, if the video is long enough. With recorded costs of real groups of pictures,
2 to 256 workers finish within 1.13 of the lower bound (the larger of the work divided equally and the
costliest chunk); 6 or 8 rounds, or chunks of equal work, gain nothing."""


def plan_chunks(
    profile: Profile,
    info: MediaInfo,
    plan: EncodePlan,
    index: KeyIndex,
    *,
    workers_hint: int = 0,
) -> ChunkPlan | str:
    """Decide the chunk plan, or return the word for why the video stays whole.

    The same arguments give the same plan on every machine.

    `workers_hint` is the number of workers that will share the video, or 0 if unknown.
    """
    if refused := why_not_split(profile, info, plan, index):
        return refused
    places = choose_boundaries(profile.chunking, index, workers_hint=workers_hint)
    if len(places) < 2:
        return "too_few_key_frames"
    return chunks_at(profile, plan, index, places)


def choose_boundaries(chunking: Chunking, index: KeyIndex, *, workers_hint: int) -> tuple[int, ...]:
    """Return the positions in `index.keys` at which chunks begin; the first is 0.

    They are equally long, as far as key frames allow, and none is shorter than `min_s` seconds.
    """
    first, tick = index.keys[0].pts, index.tick
    keys_s = [float((key.pts - first) * tick) for key in index.keys]
    length_s = float((index.end_pts - first) * tick)
    count, chosen = _chunk_count(chunking, length_s, workers_hint), [0]
    latest = bisect_left(keys_s, length_s - chunking.min_s + 1e-9)
    for number in range(1, count):
        ideal_s = length_s * number / count
        earliest = bisect_left(keys_s, keys_s[chosen[-1]] + chunking.min_s - 1e-9)
        if candidates := range(earliest, latest):
            chosen.append(min(candidates, key=lambda place: abs(keys_s[place] - ideal_s)))
    return tuple(chosen)


def _chunk_count(chunking: Chunking, length_s: float, workers: int) -> int:
    """Return the number of chunks, a multiple of the workers if there are more chunks than workers."""
    count = max(2, int(-(-length_s // chunking.target_s)))
    most = max(1, int(length_s / chunking.min_s))
    count = max(count, min(most, ROUNDS * workers))
    if 0 < workers < count:
        count -= count % workers
    return count


def costliest_first(plan: ChunkPlan) -> list[int]:
    """Return the numbers of the chunks, highest cost first; equal costs keep their order."""
    return [chunk.index for chunk in sorted(plan.chunks, key=lambda chunk: -chunk.cost)]


def chunks_at(
    profile: Profile, plan: EncodePlan, index: KeyIndex, places: tuple[int, ...]
) -> ChunkPlan:
    """Return the plan whose chunks begin at these positions in `index.keys`.

    Raises ValueError unless the positions start at 0 and increase.
    """
    if not places or places[0] != 0 or list(places) != sorted(set(places)):
        raise ValueError(f"chunks begin at 0 and rise, not at {places}")
    spans = pairwise([*places, len(index.keys)])
    chunks = [_make_chunk(index, span, number) for number, span in enumerate(spans)]
    threads = profile.bounds.threads
    boundaries = [chunk.start_pts for chunk in chunks]
    return ChunkPlan(
        stream_index=index.stream_index,
        time_base=index.time_base,
        chunks=tuple(chunks),
        frames=index.frames,
        end_pts=index.end_pts,
        digest=plan_digest(plan.revision, threads, index, boundaries),
    )


def _make_chunk(index: KeyIndex, span: tuple[int, int], number: int) -> Chunk:
    """Return the chunk of the key frames from `span[0]` to `span[1]` (exclusive)."""
    begin, end = span
    held = index.keys[begin:end]
    end_pts = index.keys[end].pts if end < len(index.keys) else None
    frames = sum(key.frames_until_next for key in held)
    size = sum(key.bytes_until_next for key in held)
    all_bytes = sum(key.bytes_until_next for key in index.keys)
    # A last frame of unknown duration counts as one tick.
    stop = end_pts if end_pts is not None else max(index.end_pts, held[-1].last_pts + 1)
    return Chunk(
        index=number,
        start_pts=held[0].pts,
        end_pts=end_pts,
        last_pts=held[-1].last_pts,
        seek_s=None if number == 0 else held[0].seek_s,
        duration_ticks=stop - held[0].pts,
        frames=frames,
        times=sum(key.times for key in held) & ((1 << 64) - 1),
        # The mean of frames (equal in size) and bytes: what cost the source's encoder much costs much again.
        cost=(frames / index.frames + size / all_bytes) / 2 if size else frames / index.frames,
        forced=tuple(pts for key in held for pts in key.forced),
    )


FINEST_TICK = Fraction(1, 1_000_000)
"""Finest usable time base in seconds: ffmpeg's concat demuxer positions parts in microseconds."""
_REPEATING = frozenset({"mpeg1video", "mpeg2video", "vc1", "wmv3"})
"""Codecs whose frames may repeat a field, which shifts the timestamps of later frames."""
_UNSEEKABLE = frozenset(
    {"avi", "asf", "rm", "flv", "ogg", "mpeg", "mpegts", "wtv", "dv", "nsv", "swf"}
)
"""Demuxers that cannot seek to a key frame by its presentation timestamp, or have none."""


def why_not_split(profile: Profile, info: MediaInfo, plan: EncodePlan, index: KeyIndex) -> str:
    """Return a stable word for the first reason not to split the video, or ""."""
    main = next((s for s in info.streams if s.index == index.stream_index), None)
    if main is None or main.video is None or plan.main_video.source_index != index.stream_index:
        return "no_video"
    rows = (
        *_choice_reasons(profile, index),
        *_picture_reasons(main.codec, main.video, plan),
        *_packet_reasons(info, index),
    )
    return next((word for holds, word in rows if holds), "")


Row = tuple[object, str]
"""Whether a video must stay whole for this reason, and the stable word for it."""


def _choice_reasons(profile: Profile, index: KeyIndex) -> Iterator[Row]:
    chunking, mode = profile.chunking, profile.chunking.mode
    yield mode is ChunkMode.OFF, "mode_off"
    yield profile.video.encoder != (SOFTWARE,), "hardware"  # one video has one encoder
    if not index.keys or not index.frames:
        yield True, "no_frames"
        return
    length = float((index.end_pts - index.keys[0].pts) * index.tick)
    auto = chunking.least_video_s if mode is ChunkMode.AUTO else 0.0
    yield length < max(auto, 2 * chunking.min_s), "too_short"


def _picture_reasons(codec: str, video: VideoFacts, plan: EncodePlan) -> Iterator[Row]:
    target = plan.video
    fields = video.marked_interlaced or target.deinterlace
    yield fields, "interlaced"  # a cut could separate a pair of fields
    yield target.fit, "size_changes"
    yield video.recoloured, "colours_change"  # a joined video has one header
    yield codec in _REPEATING, "repeated_fields"
    yield target.retimed, "wrong_times"  # corrected by counting pictures from the start
    yield target.rate, "one_rate"  # timestamps are counted from the start, too
    yield len(plan.encoded(StreamKind.VIDEO)) > 1, "more_videos"


def _packet_reasons(info: MediaInfo, index: KeyIndex) -> Iterator[Row]:
    yield _UNSEEKABLE.intersection(info.format_name.split(",")), "container"
    yield index.problem, index.problem
    yield index.tick < FINEST_TICK, "fine_time_base"


def index_by_grid(
    index: KeyIndex, shown: Sequence[int], sizes: Mapping[int, int], ladder: Ladder
) -> KeyIndex:
    """Return an index with the points where a ladder may be cut instead of the source's key frames.

    `shown` are the timestamps of all pictures in ticks, ascending; `sizes` their bytes in the source.
    Pictures that the ladder leaves out are not counted.
    """
    shown = shown[:: ladder.every]
    if not index.keys or not shown:
        return index
    forced = forced_key_frames(shown, index.tick, ladder.keyframe_s)
    step = Fraction(ladder.segment_s) / index.tick
    begins = [forced[n] for n in segment_starts([shown[place] for place in forced], step)]
    from_keys = [key.pts for key in index.keys]
    keys = []
    for begin, end in pairwise([*begins, len(shown)]):
        held = shown[begin:end]
        decoded_from = bisect_right(from_keys, held[0]) - 1
        keys.append(
            KeyFrame(
                pts=held[0],
                bytes_until_next=sum(sizes[at] for at in held),
                frames_until_next=len(held),
                last_pts=held[-1],
                times=times_sum(held),
                seek_s=index.keys[decoded_from].seek_s if decoded_from > 0 else None,
                forced=_forced_between(shown, forced, begin, end),
            )
        )
    return index.model_copy(update={"keys": tuple(keys), "frames": len(shown)})


def _forced_between(
    shown: Sequence[int], forced: Sequence[int], begin: int, end: int
) -> tuple[int, ...]:
    first, last = bisect_left(forced, begin), bisect_left(forced, end)
    return tuple(shown[place] for place in forced[first:last])


def forced_key_frames(shown: Sequence[int], tick: Fraction, keyframe_s: float) -> list[int]:
    """Return the indexes in `shown` at which a whole encode forces key frames.

    Like ffmpeg, this evaluates `floor(t/keyframe_s)` for each picture in floating point, which may round
    a picture exactly on the grid to just before it.
    """
    tick_s = tick.numerator / tick.denominator
    steps = [floor((pts - shown[0]) * tick_s / keyframe_s) for pts in shown]
    return [at for at, step in enumerate(steps) if not at or step > steps[at - 1]]
