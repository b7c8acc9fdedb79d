"""An encoder that runs no child: it writes bytes derived from the source, or fails on command."""

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

from hevcq.domain.certificate import OF_SETS, Gate, GateResult, Outcome
from hevcq.domain.chunking import Chunk, ChunkPlan, KeyFrame, KeyIndex, times_sum
from hevcq.domain.media.facts import Measurement, MediaInfo, StreamKind, TrackMeasure
from hevcq.domain.planning.encode_plan import (
    Action,
    EncodePlan,
    Ladder,
    Rung,
    StreamPlan,
    VideoTarget,
)
from hevcq.domain.profile import Container, Profile
from hevcq.domain.quality import Aim
from hevcq.errors import PartUnfit, SourceUnreadable, Stopped
from hevcq.ports.encoder import (
    EncodeProgress,
    Encoder,
    EncodeReport,
    EncodeRequest,
    Estimate,
    OnProgress,
    SetFile,
    TrimmedSource,
    VerifyRequest,
)
from hevcq.ports.store import PROXY_SCHEME
from support.media_facts import audio, media, video
from support.relay import open_relay

INFO = media(video(320, 180), audio(), duration_s=10.0, size=1000)
CHECKED = (Gate.G1, Gate.G2, Gate.G3, Gate.G4, Gate.G5, Gate.G6, Gate.G8)
RUNGS = ("v360", "v240")


def fake_plan(profile: Profile, info: MediaInfo) -> EncodePlan:
    """Return a plan of this profile: enough for a fake."""
    plan = plain_plan(profile.name, profile.revision)
    if profile.container is not Container.HLS:
        return plan
    rungs = tuple(Rung(name=name, target=plan.video, crf=22.0, max_kbps=900) for name in RUNGS)
    ladder = Ladder(rungs=rungs, segment_s=4.0, keyframe_s=2.0)
    return plan.model_copy(update={"extension": "m3u8", "ladder": ladder})


def plain_plan(
    profile: str, revision: str, *, width: int = 320, height: int = 180, extension: str = "mp4"
) -> EncodePlan:
    """Return a plan that encodes the first stream and copies the second."""
    target = VideoTarget(
        encoder="libx265", codec="hevc", sample_aspect="1:1", rotation=0,
        width=width, height=height, pixel_format="yuv420p", bit_depth=8,
    )  # fmt: skip
    picture = StreamPlan(
        source_index=0, kind=StreamKind.VIDEO, action=Action.ENCODE, position=0,
        codec="hevc", encoder="libx265", video=target,
    )  # fmt: skip
    sound = StreamPlan(
        source_index=1, kind=StreamKind.AUDIO, action=Action.COPY, position=1,
        codec="aac", encoder="copy",
    )  # fmt: skip
    return EncodePlan(
        profile=profile,
        revision=revision,
        muxer={"mkv": "matroska"}.get(extension, extension),
        extension=extension,
        streams=(picture, sound),
        personal=(),
    )


@cache
def fake_index(length_s: int = 1200, every_s: int = 10, rate: int = 25) -> KeyIndex:
    """Return the index of a video with a key frame every so often, in ticks of 1/1000 s."""
    step = 1000 // rate
    keys = []
    for at in range(0, length_s, every_s):
        shown = range(at * 1000, min(at + every_s, length_s) * 1000, step)
        keys.append(
            KeyFrame(
                pts=shown[0], seek_s=float(at), bytes_until_next=1000 * len(shown),
                frames_until_next=len(shown), last_pts=shown[-1], times=times_sum(shown),
            )
        )  # fmt: skip
    return KeyIndex(
        stream_index=0,
        time_base="1/1000",
        keys=tuple(keys),
        end_pts=length_s * 1000,
        frames=sum(key.frames_until_next for key in keys),
    )


def content_of(location: str) -> bytes:
    """Return a source's bytes, as an encoder reads them: of a file, or of a relay."""
    if not location.startswith(PROXY_SCHEME):
        return Path(location).read_bytes()
    with open_relay(location) as answer:
        return answer.read()


def passed(*but: GateResult) -> tuple[GateResult, ...]:
    """Return the results of gates G1 to G8, all passed but for those given."""
    other = {result.gate: result for result in but}
    return tuple(other.get(g, GateResult(gate=g, outcome=Outcome.PASSED)) for g in CHECKED)


class FakeEncoder(Encoder):
    """Counts its calls, and does what a test tells it.

    `errors[step]` is a list taken from the front on each call of that step: an exception is
    raised, None passes. `during[step]` is called in the middle of the step, e.g. to move the
    clock. `index` is what keyframes answers, `gates` what verify answers. The output depends only
    on the source's bytes, plus `salt` where two encodes must differ, as two runs of a real encoder may.
    """

    def __init__(self, *, info: MediaInfo = INFO) -> None:
        self.info, self.seconds = info, 1.0
        self.calls: list[str] = []
        self.errors: dict[str, list[BaseException | None]] = {}
        self.during: dict[str, Callable[[], None]] = {}
        self.index = fake_index()
        self.gates = passed()
        self.measured_s: float | None = None
        self.aim: Aim | str = "nothing is measured"
        self.estimates: list[Estimate | None] = []
        self.verified: list[float] = []
        self.crfs: list[float | None] = []
        self.salt = ""
        self.trimmed: tuple[bytes, tuple[str, ...]] | None = None
        self.set_notices: tuple[str, ...] = ()
        self._lock = threading.Lock()

    def _step(self, name: str, stop: threading.Event) -> None:
        with self._lock:
            self.calls.append(name)
            waiting = self.errors.get(name, [])
            error = waiting.pop(0) if waiting else None
        if name in self.during:
            self.during[name]()
        if stop.is_set():
            raise Stopped
        if error is not None:
            raise error

    def version(self) -> str:
        self._step("version", threading.Event())
        return "ffmpeg version fake"

    def write_test_clip(self, target: Path) -> None:
        target.write_bytes(b"a clip")

    def checks(self) -> dict[str, Callable[[], str]]:
        return {"ffmpeg": lambda: "fake"}

    def probe(self, location: str, *, stop: threading.Event, quick: bool = False) -> MediaInfo:
        self._step("probe", stop)
        if Path(location).stat().st_size == 0:
            raise SourceUnreadable(f"{location} is empty.")
        return self.info

    def trim_recording(
        self,
        location: str,
        info: MediaInfo,
        folder: Path,
        *,
        stop: threading.Event,
    ) -> TrimmedSource | None:
        """Write `trimmed`, the bytes and notices of a recording's whole pictures, where a test set it."""
        self._step("trim", stop)
        if self.trimmed is None:
            return None
        (folder / "recording.ts").write_bytes(self.trimmed[0])
        return TrimmedSource(folder / "recording.ts", self.trimmed[1])

    def measure(self, location: str, info: MediaInfo, *, stop: threading.Event) -> Measurement:
        self._step("measure", stop)
        return _measured(info, self.measured_s)

    def preflight(
        self,
        location: str,
        info: MediaInfo,
        profile: Profile,
        *,
        stop: threading.Event,
        looked: Measurement | None = None,
    ) -> Measurement:
        self._step("preflight", stop)
        return _measured(info, self.measured_s)

    def find_quality(
        self, request: EncodeRequest, *, stop: threading.Event, exact: bool = False
    ) -> Aim | str:
        """Answer `aim`; see ports.encoder."""
        self._step("search", stop)
        return self.aim

    def estimate(
        self, request: EncodeRequest, count: int, *, stop: threading.Event
    ) -> Estimate | None:
        """Answer the next of `estimates`, or what half the source takes; see ports.encoder."""
        self._step("estimate", stop)
        return self.estimates.pop(0) if self.estimates else Estimate(request.source_size / 2, 0, 9)

    def check_quality(self, request: VerifyRequest, *, stop: threading.Event) -> float:
        """Answer the next of `verified`; see ports.encoder."""
        return self.verified.pop(0)

    def encode(
        self, request: EncodeRequest, *, on_progress: OnProgress, stop: threading.Event
    ) -> EncodeReport:
        self.crfs.append(request.plan.video.crf)
        with _begun(request.output, of_set=request.plan.ladder is not None):
            for number in range(4):
                share = number / 4
                on_progress(EncodeProgress(share, share * 10, number, 1.0, 7))
            self._step("encode", stop)
        digest = hashlib.sha256(Path(request.location).read_bytes() + self.salt.encode())
        report = EncodeReport(("ffmpeg", "-i", "source"), self.seconds, self.seconds, (), 250)
        return self._written(request, digest.hexdigest(), report)

    def _written(self, request: EncodeRequest, digest: str, report: EncodeReport) -> EncodeReport:
        """Write what depends on `digest`: a file, or the files of a set of two rungs."""
        folder = request.output
        if request.plan.ladder is None:
            folder.write_bytes(b"rendition " + digest.encode())
            return report
        names = [f"{request.version}/{rung}" for rung in RUNGS]
        (folder / request.version).mkdir()
        for name in names:
            (folder / f"{name}.mp4").write_bytes(f"{name[-4:]} {digest}".encode())
            (folder / f"{name}.m3u8").write_text(f"#EXTM3U\n{name[-4:]}.mp4\n")
        master = "".join(f"#EXT-X-STREAM-INF:BANDWIDTH=1\n{name}.m3u8\n" for name in names)
        (folder / "master.m3u8").write_text(f"#EXTM3U\n{master}")
        files = [SetFile(f"{name}.mp4", "video/mp4") for name in names]
        playlists = [f"{name}.m3u8" for name in names] + ["master.m3u8"]
        files += [SetFile(name, "application/vnd.apple.mpegurl") for name in playlists]
        return replace(report, files=tuple(files), notices=self.set_notices)

    def keyframes(
        self,
        location: str,
        info: MediaInfo,
        *,
        stop: threading.Event,
        ladder: Ladder | None = None,
    ) -> KeyIndex:
        self._step("keyframes", stop)
        return self.index

    def encode_chunk(
        self,
        request: EncodeRequest,
        chunk_plan: ChunkPlan,
        chunk: Chunk,
        *,
        on_progress: OnProgress,
        stop: threading.Event,
    ) -> EncodeReport:
        assert chunk in chunk_plan.chunks, "the chunk is one of the plan's"
        self.crfs.append(request.plan.video.crf)
        with _begun(request.output):
            on_progress(EncodeProgress(0.5, 1.0, chunk.frames // 2, 1.0, 7))
            self._step("encode_chunk", stop)
        digest = hashlib.sha256(content_of(request.location) + self.salt.encode())
        content = f"part {chunk.index} {chunk_plan.digest} {digest.hexdigest()}".encode()
        request.output.write_bytes(content)
        return EncodeReport(
            arguments=("ffmpeg", "-i", "source", f"part {chunk.index}"),
            seconds=self.seconds,
            cpu_s=self.seconds,
            stderr=(),
            frames=chunk.frames,
            first_pts=chunk.start_pts,
            last_pts=chunk.last_pts,
        )

    def join(
        self,
        request: EncodeRequest,
        chunk_plan: ChunkPlan,
        parts: Sequence[Path],
        *,
        on_progress: OnProgress,
        stop: threading.Event,
    ) -> EncodeReport:
        with _begun(request.output, of_set=request.plan.ladder is not None):
            self._step("join", stop)
            whole = _joined(chunk_plan, parts)
        on_progress(EncodeProgress(0.5, 5.0, chunk_plan.frames // 2, 100.0, 7))
        report = EncodeReport(("ffmpeg", "-f", "concat"), 0.1, 0.1, (), chunk_plan.frames)
        return self._written(request, whole, report)

    def verify(
        self, request: VerifyRequest, *, on_progress: OnProgress, stop: threading.Event
    ) -> tuple[GateResult, ...]:
        self._step("verify", stop)
        on_progress(EncodeProgress(0.5, 5.0, 125, 10.0, 0))
        if request.plan.ladder is None:
            return self.gates
        for file in request.report.files:
            assert (request.output / file.name).is_file(), file.name
        return (*self.gates, *(GateResult(gate=g, outcome=Outcome.PASSED) for g in OF_SETS))


@contextmanager
def _begun(output: Path, *, of_set: bool = False) -> Iterator[None]:
    """Begin an output that must not be there yet: an error leaves nothing of it."""
    assert not output.exists(), "the output must not exist yet"
    if of_set:
        output.mkdir()
    else:
        output.write_bytes(b"partial")
    try:
        yield
    except BaseException:
        (output.rmdir if of_set else output.unlink)()
        raise


def _joined(chunk_plan: ChunkPlan, parts: Sequence[Path]) -> str:
    """Return a digest of all parts; raise PartUnfit if one is not what the plan says."""
    for chunk, part in zip(chunk_plan.chunks, parts, strict=True):
        expected = f"part {chunk.index} {chunk_plan.digest} ".encode()
        if not part.is_file() or not part.read_bytes().startswith(expected):
            raise PartUnfit(f"{part.name} is not part {chunk.index}.", index=chunk.index)
    return hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()


def _measured(info: MediaInfo, seconds: float | None = None) -> Measurement:
    end_s = info.duration_s if seconds is None else seconds
    tracks = tuple(
        TrackMeasure(index=s.index, kind=s.kind, packets=250, first_pts_s=0.0, end_s=end_s)
        for s in info.streams
    )
    return Measurement(tracks=tracks)
