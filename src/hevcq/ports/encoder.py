"""The encoder port: probe, measure, encode (whole or in chunks) and verify; ffmpeg is one of it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hevcq.domain.certificate import GateResult
from hevcq.domain.chunking.planner import Chunk, ChunkPlan, KeyIndex
from hevcq.domain.media.facts import Measurement, MediaInfo
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.profile import Profile


@dataclass(frozen=True, slots=True)
class EncodeProgress:
    """How far a child is. Times in seconds; `fraction` of the expected output time, 0 to 1."""

    fraction: float
    out_time_s: float
    frame: int
    speed: float | None
    size: int


@dataclass(frozen=True, slots=True)
class EncodeRequest:
    """What to encode. `location` is a path or URL; `output` must not exist yet.

    `max_seconds` bounds the wall time; `threads` 0 means the encoder's own choice.
    """

    profile: Profile
    plan: EncodePlan
    info: MediaInfo
    location: str
    output: Path
    duration_s: float | None
    source_size: int
    max_seconds: float
    threads: int = 0


@dataclass(frozen=True, slots=True)
class EncodeReport:
    """What an encode did. `stderr` holds its error-level lines; any line is suspect (gate G1)."""

    arguments: tuple[str, ...]
    seconds: float
    cpu_s: float
    stderr: tuple[str, ...]
    frames: int


@dataclass(frozen=True, slots=True)
class ChunkReport:
    """What the encode of one chunk did; its frames and times were those of the plan.

    `first_pts` and `last_pts` are in ticks of the source's time base. `headers` is a digest of
    the decoder's set-up, which all parts of a video must share. Complaints on stderr were judged:
    what is left in `stderr` is harmless.
    """

    arguments: tuple[str, ...]
    seconds: float
    cpu_s: float
    stderr: tuple[str, ...]
    frames: int
    first_pts: int
    last_pts: int
    size: int
    headers: str


@dataclass(frozen=True, slots=True)
class VerifyRequest:
    """Everything the gates compare.

    `chunks` is the plan of a rendition that was joined: then every frame's time is compared (G5),
    and the pictures at each seam (G8).
    """

    profile: Profile
    plan: EncodePlan
    location: str
    info: MediaInfo
    measured: Measurement
    source_size: int
    output: Path
    report: EncodeReport
    max_seconds: float
    chunks: ChunkPlan | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One line of `hevcq doctor` about the encoder."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


OnProgress = Callable[[EncodeProgress], None]


class Encoder(ABC):
    """Reads and writes media. Every method may raise Stopped when `stop` is set, and leaves no
    child process behind however it ends."""

    @abstractmethod
    def version(self) -> str:
        """Return the first line of the encoder's own version.

        Raises WorkerUnfit if it cannot run, or is too old for what hevcq asks of it.
        """

    @abstractmethod
    def doctor(self) -> list[Check]:
        """Return what works and what does not, with a remedy for each."""

    def self_test(self, profile: Profile, *, stop: threading.Event) -> None:  # noqa: B027 - a hint
        """Encode something tiny that no source can spoil; raise WorkerUnfit if not even that works.

        Asked right after a job failed in a way that may be this machine's fault. An encoder that
        cannot tell does nothing.
        """

    @abstractmethod
    def probe(self, location: str, *, stop: threading.Event) -> MediaInfo:
        """Return the typed facts of a file.

        Raises SourceUnreadable if it is not media (or is a playlist, a text, an empty file).
        """

    @abstractmethod
    def measure(self, location: str, info: MediaInfo, *, stop: threading.Event) -> Measurement:
        """Read every packet once and count what is really there."""

    @abstractmethod
    def preflight(
        self, location: str, info: MediaInfo, profile: Profile, *, stop: threading.Event
    ) -> Measurement:
        """Check the source as the profile asks, and measure it; raise SourceDamaged with the
        evidence if packets are missing, timestamps do not fit the header, or decoding fails, and
        MediaRefused if much of it is hidden and the profile does not drop that."""

    @abstractmethod
    def encode(
        self, request: EncodeRequest, *, on_progress: OnProgress, stop: threading.Event
    ) -> EncodeReport:
        """Encode to `request.output`; on any error the output is removed.

        Raises EncoderFailed, EncoderStalled, OutOfMemory, LimitExceeded, DiskFull, SourceDamaged,
        SourceGone, WorkerUnfit or Stopped.
        """

    @abstractmethod
    def keyframes(self, location: str, info: MediaInfo, *, stop: threading.Event) -> KeyIndex:
        """Read the video's packets once, without decoding, and index its key frames.

        The video is the first video stream. Raises SourceUnreadable if there is none or it cannot
        be opened, SourceGone, Unavailable or Stopped.
        """

    @abstractmethod
    def encode_chunk(
        self,
        request: EncodeRequest,
        chunk_plan: ChunkPlan,
        chunk: Chunk,
        *,
        on_progress: OnProgress,
        stop: threading.Event,
    ) -> ChunkReport:
        """Encode the video's frames of one chunk, and nothing else, to the part `request.output`.

        `request` is that of the whole job but for its output. Progress is that of the chunk.
        Frames and times of the part are compared with the plan before this returns. On any error
        the output is removed. Raises what `encode` raises, and PartUnfit if the part is not what
        the plan says, or the encode complained: then it is made again, and if that does not help
        the video is encoded whole.
        """

    @abstractmethod
    def join(
        self,
        request: EncodeRequest,
        chunk_plan: ChunkPlan,
        parts: Sequence[Path],
        *,
        on_progress: OnProgress,
        stop: threading.Event,
    ) -> EncodeReport:
        """Make `request.output` of the parts, in the plan's order, and of the source's other streams.

        The picture is copied; sound, subtitles, tags and all else are carried as `encode` would.
        The report's frames are those of the video. On any error the output is removed. Raises what
        `encode` raises, and PartUnfit if a part is missing or does not fit the others.
        """

    @abstractmethod
    def verify(
        self, request: VerifyRequest, *, on_progress: OnProgress, stop: threading.Event
    ) -> tuple[GateResult, ...]:
        """Run gates G1 to G8 over the output, cheapest first; stops at the first that fails."""
