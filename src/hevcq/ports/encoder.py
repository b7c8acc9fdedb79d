"""The encoder port: probe, measure, encode (whole or in chunks) and verify; ffmpeg implements it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from pathlib import Path

from hevcq.domain.certificate import GateResult, Sidecar
from hevcq.domain.chunking import Chunk, ChunkPlan, KeyIndex
from hevcq.domain.media.facts import Chapter, Measurement, MediaInfo
from hevcq.domain.planning.encode_plan import EncodePlan, Ladder
from hevcq.domain.profile import Profile
from hevcq.domain.quality import Aim, Comparison, Still
from hevcq.ports.catalog import Spot

UNMEASURED = Measurement(tracks=())


class StopEvent(threading.Event):
    """The stop of one delivery, which may also suspend its programs.

    While `held`, running programs are suspended, and their time limits do not run. `held_s` counts the
    seconds of earlier holds. One thread writes both.
    """

    held = False
    held_s = 0.0


@dataclass(frozen=True, slots=True)
class EncodeProgress:
    """Progress of an encode: times in seconds, `fraction` of the expected output time (0 to 1).

    `speed` is a multiple of real time, `size` the output so far in bytes.
    """

    fraction: float
    out_time_s: float
    frame: int
    speed: float | None
    size: int


OnPlace = Callable[[int, int], None]
"""Called with the number of sampled places done, and of all."""


class FramePairs(ABC):
    """The frames of a rendition beside its source's, scored by VMAF or SSIM.

    `lasting` says that the files are those of the request, not copies that are removed later. `folder` is
    for scratch files. `compare` and `around` raise WorkerUnfit, LimitExceeded or Stopped.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The metric."""

    @property
    def lasting(self) -> bool:
        return True

    @abstractmethod
    def compare(
        self, folder: Path, *, on_place: OnPlace, stop: threading.Event
    ) -> Comparison | None:
        """Score frames sampled over the whole rendition (see `Comparison`); None if none can be read."""

    @abstractmethod
    def around(
        self, at_s: float, count: int, folder: Path, *, stop: threading.Event
    ) -> Sequence[Still]:
        """Return at most `count` frames from `at_s` seconds after the first one; () if none can be read."""


@dataclass(frozen=True, slots=True)
class EncodeRequest:
    """A request to encode `location` (a path or URL) to `output`, which must not exist yet.

    `source_size` is in bytes; `max_seconds` limits the wall time; `threads` 0 leaves the number to
    the encoder. For a ladder `output` is a folder, `measured` is required, and `version` names the folder
    in it that holds everything but the master playlist, so that a later set of the same video shares no
    name with it. `on_share` is called with the approximate share of a search that is done, 0 to 1.
    """

    profile: Profile
    plan: EncodePlan
    info: MediaInfo
    location: str
    output: Path
    source_size: int
    max_seconds: float
    duration_s: float | None = None
    threads: int = 0
    measured: Measurement = UNMEASURED
    version: str = ""
    on_share: Callable[[float], object] | None = None

    def to_verify(self, report: EncodeReport) -> VerifyRequest:
        """Return the request to verify this encode's result."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return VerifyRequest(**values, report=report)


@dataclass(frozen=True, slots=True)
class SetFile:
    """One file of a set; `name` is relative to the set's folder, with `/` between its parts."""

    name: str
    content_type: str


@dataclass(frozen=True, slots=True)
class EncodeReport:
    """The result of an encode: wall and CPU time in seconds, and its error-level lines (for gate G1).

    `thumbnails` are files with a thumbnail of every encoded picture, one file for each encoded video.
    `levels` are files with the loudness of each encoded sound over time. Both are removed with the
    output's folder. `device` is the hardware encoder, "" for software. `files` are those of a set, the
    master playlist last; `notices` say what it leaves out. `first_pts` and `last_pts` are a chunk's, in
    ticks of the source's time base.
    """

    arguments: tuple[str, ...]
    seconds: float
    cpu_s: float
    stderr: tuple[str, ...]
    frames: int
    thumbnails: tuple[Path, ...] = ()
    levels: tuple[Path, ...] = ()
    device: str = ""
    files: tuple[SetFile, ...] = ()
    notices: tuple[str, ...] = ()
    first_pts: int = 0
    last_pts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRequest(EncodeRequest):
    """The input of the gates: the request of an encode, and its report."""

    report: EncodeReport


COPIED_AS = "recording"
"""The name, without its suffix, of the copy that `trim_recording` writes."""
TRIMMED = frozenset({"mpegts", "mpeg"})
"""Containers of recordings, which are trimmed to complete pictures on one clock before an encode."""
SpareFolder = Callable[[int], AbstractContextManager[Path]]
"""Creates an empty folder for so many bytes and removes it afterwards; raises DiskFull."""


@dataclass(frozen=True, slots=True)
class TrimmedSource:
    """A copy of a recording with only complete pictures on one clock; `notices` say what was changed."""

    path: Path
    notices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TextTrack:
    """A subtitle track: `content` is WebVTT, `language` a BCP 47 tag or "", `title` the track's."""

    content: str
    language: str = ""
    title: str = ""
    dispositions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Estimate:
    """A whole rendition's size in bytes as forecast from samples, its relative standard error, and its CPU."""

    size: float
    error: float
    cpu_s: float

    @property
    def within(self) -> float:
        """The relative error that four of five such size forecasts stay within."""
        return 1.28 * self.error


OnProgress = Callable[[EncodeProgress], None]


class Encoder(ABC):
    """Reads and writes media.

    Every method may raise Stopped once `stop` is set, and leaves no child process behind.
    """

    @abstractmethod
    def version(self) -> str:
        """Return the first line that the encoder prints as its version.

        Raises WorkerUnfit if it cannot run or is older than hevcq supports.
        """

    @abstractmethod
    def checks(self) -> Mapping[str, Callable[[], str]]:
        """Return the checks of `hevcq doctor` about the encoder by name.

        A check returns what it found ("" for nothing to say), or raises an error with a remedy.
        """

    @abstractmethod
    def write_test_clip(self, target: Path) -> None:
        """Write one second of generated picture and sound to `target`, which any profile encodes.

        Raises WorkerUnfit if the encoder cannot.
        """

    def still(self, location: str, *, width: int, stop: threading.Event) -> bytes:
        """Return one picture of a video as JPEG, at most `width` pixels wide and high, or b""."""
        return b""

    def cut_sample(
        self, location: str, target: Path, *, at_s: float, seconds: float, stop: threading.Event
    ) -> None:
        """Copy `seconds` of picture and sound, from the key frame before `at_s`, to a new Matroska file.

        Raises SourceUnreadable if there is nothing to copy.
        """
        raise NotImplementedError

    def texts(
        self, location: str, *, stop: threading.Event
    ) -> tuple[Sequence[TextTrack], Sequence[Chapter]]:
        """Return a video's text subtitles, for a browser to show, and its chapters.

        Raises Stopped, TransientError or PermanentError if they cannot be read.
        """
        return (), ()

    def read_sidecars(
        self, request: EncodeRequest, *, stop: threading.Event
    ) -> tuple[Sidecar, ...]:
        """Return the source's subtitles that the profile wants beside the rendition.

        Raises MediaRefused if they cannot be read.
        """
        return ()

    def build(self) -> str:
        """Return a text that changes when the programs are replaced. Raises WorkerUnfit."""
        return self.version()

    def self_test(
        self, profile: Profile, folder: Path, *, stop: threading.Event, again: bool = False
    ) -> None:
        """Encode and verify one second of test picture and sound, as a job of this profile would.

        `folder` is empty. A pass is remembered by the build and the profile's revision; `again` tests
        nevertheless. Raises WorkerUnfit with the reason in one sentence, or Stopped.
        """

    def proven(self, profiles: Iterable[Profile]) -> tuple[Profile, ...]:
        """Return the profiles that passed their self-test with this build of the programs."""
        return ()

    @abstractmethod
    def trim_recording(
        self,
        location: str,
        info: MediaInfo,
        folder: Path,
        *,
        stop: threading.Event,
    ) -> TrimmedSource | None:
        """Write a copy of a recording with only complete pictures on one clock; None if it needs none.

        Raises MediaRefused if its clock jumps and the parts cannot be put on one clock, SourceDamaged,
        DiskFull, or OSError if the source cannot be read.
        """

    @abstractmethod
    def probe(self, location: str, *, stop: threading.Event, quick: bool = False) -> MediaInfo:
        """Probe a file and return its typed facts.

        `quick` examines only the first pictures of an MP4 or MOV, in half the time. In other files,
        which are often recordings, it always examines pictures spread over the video.
        Raises SourceUnreadable if it is not media (or a playlist, text or empty file), SourceGone,
        Unavailable, or WorkerUnfit if the programs themselves fail.
        """

    def look(self, location: str, *, stop: threading.Event) -> tuple[MediaInfo, Measurement | None]:
        """Probe a file; also measure it and decode its sound, if that needs no further program.

        Raises what `probe` raises.
        """
        return self.probe(location, stop=stop), None

    @abstractmethod
    def measure(self, location: str, info: MediaInfo, *, stop: threading.Event) -> Measurement:
        """Read every packet once and measure each track.

        Raises SourceUnreadable, SourceGone, Unavailable or WorkerUnfit.
        """

    @abstractmethod
    def preflight(
        self,
        location: str,
        info: MediaInfo,
        profile: Profile,
        *,
        stop: threading.Event,
        looked: Measurement | None = None,
    ) -> Measurement:
        """Check the source as the profile says, and return its measurement; `looked` is `look`'s.

        Raises SourceDamaged with the evidence if packets are missing, timestamps do not match the
        header or decoding fails; MediaRefused if an edit list hides much of it and the profile does
        not drop that; and what `measure` raises.
        """

    def locate_damage(self, location: str, *, stop: threading.Event) -> tuple[Spot, ...]:
        """Return the damaged places of a file that a full decode finds."""
        return ()

    def find_quality(
        self, request: EncodeRequest, *, stop: threading.Event, exact: bool = False
    ) -> Aim | str:
        """Search the CRF at which the video reaches `video.quality`, by encoding samples.

        `request.output` is a scratch file, removed afterwards. With `exact`, more samples follow until
        the size is known within 10 %, or the whole of a short video. Returns a clause on why there is no
        search if quality does not apply to the video. Raises what `encode` raises, and WorkerUnfit if
        quality cannot be measured here. The default is an encoder that measures none.
        """
        return "this encoder measures no quality"

    def estimate(
        self,
        request: EncodeRequest,
        count: int,
        *,
        stop: threading.Event,
    ) -> Estimate | None:
        """Encode at most `count` samples, and forecast the whole rendition; None if that is impossible.

        It stops early once the samples suffice, and encodes a short video whole. It measures the source
        if it is not measured yet, and searches the profile's quality if it has one. It exceeds
        `max_seconds` by at most one sample. `request.output` is a scratch file, removed afterwards.
        Raises what `encode` raises.
        """
        return None

    def frame_pairs(self, request: VerifyRequest, *, stop: threading.Event) -> FramePairs:
        """Read the times of the frames of a rendition and its source, to compare them."""
        raise NotImplementedError

    def require_metric(self, profile: Profile) -> None:
        """Raise WorkerUnfit if the profile has a quality that cannot be measured here."""
        return

    def check_quality(self, request: VerifyRequest, *, stop: threading.Event) -> float | None:
        """Return a rendition's quality at places that `find_quality` did not sample; None if unknown.

        Raises WorkerUnfit.
        """
        raise NotImplementedError

    @abstractmethod
    def encode(
        self, request: EncodeRequest, *, on_progress: OnProgress, stop: threading.Event
    ) -> EncodeReport:
        """Encode to `request.output`, a file or the folder of a set; remove the output on any error.

        Raises EncoderFailed, EncoderStalled, OutOfMemory, LimitExceeded, DiskFull, SourceDamaged,
        SourceGone, WorkerUnfit or Stopped.
        """

    @abstractmethod
    def keyframes(
        self,
        location: str,
        info: MediaInfo,
        *,
        stop: threading.Event,
        ladder: Ladder | None = None,
    ) -> KeyIndex:
        """Read the packets of the first video stream once, without decoding, and index its key frames.

        For a `ladder`, index the points where its segments may begin. Raises SourceUnreadable if there is
        no such stream or it cannot be opened, SourceGone, Unavailable or Stopped.
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
    ) -> EncodeReport:
        """Encode the video frames of one chunk, and nothing else, to `request.output`.

        `request` is the whole job's except for its output; progress is the chunk's. For a ladder the
        output holds every rung as streams of one file, so that the source is decoded once. Compares
        frames and timestamps of the encoded chunk with the plan, and removes the output on any error.
        Raises what `encode` raises, and PartUnfit if the encoded chunk differs from the plan or the
        encode reported an error: the chunk is then encoded again, and if that does not help, the video
        is encoded whole.
        """

    @abstractmethod
    def join(
        self,
        request: EncodeRequest,
        chunk_plan: ChunkPlan,
        chunk_files: Sequence[Path],
        *,
        on_progress: OnProgress,
        stop: threading.Event,
    ) -> EncodeReport:
        """Join the chunk files, in the plan's order, with the source's other streams in `request.output`.

        Copies the pictures; handles all other streams as `encode` does. The report's frames are the
        video's. Removes the output on any error. Raises what `encode` raises, and PartUnfit if a chunk is
        missing or does not match the others.
        """

    @abstractmethod
    def verify(
        self, request: VerifyRequest, *, on_progress: OnProgress, stop: threading.Event
    ) -> tuple[GateResult, ...]:
        """Run gates G1 to G8 over the output, cheapest first, up to the first that fails.

        For a set, G1 to G8 run over each rung, and H1 to H5 over the whole set.

        Raises WorkerUnfit if the programs themselves fail, LimitExceeded past `max_seconds`, and
        SourceDamaged if a copied sound does not decode in the source either.
        """
