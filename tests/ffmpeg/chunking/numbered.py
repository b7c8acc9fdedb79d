"""Clips whose frames carry their own number in black and white blocks, and everything to split them."""

import shutil
import subprocess
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

from ffmpeg.verify.conftest import ffmpeg
from hevcq.domain.certificate import GateResult
from hevcq.domain.chunking import Chunk, ChunkPlan, KeyIndex
from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Profile, VideoCodec
from hevcq.domain.profile_sections import (
    Chunking,
    ChunkMode,
    Gates,
    VideoRecipe,
)
from hevcq.ffmpeg.inspect.measure import frame_packets
from hevcq.ports.encoder import EncodeReport, EncodeRequest
from support.once import made_once
from support.rendition import ENCODER, TOOLS, request_of

MAX_S = 3600.0
"""A pass over the longest sample clip, on a machine that others use too; a test ends sooner."""
BITS, BLOCK, FRAMES = 12, 16, 240
PROFILE = Profile(
    name="chunks",
    description="for tests",
    video=VideoRecipe(codec=VideoCodec.HEVC, preset="ultrafast", crf=20),
    gates=Gates(minimum_saving=None),
    chunking=Chunking(mode=ChunkMode.ALWAYS, target_s=1.5),
)
# Drawn small and enlarged: geq reckons each pixel, which took most of the time of making a clip.
NUMBER = "geq=lum='255*mod(floor(N/pow(2,floor(X/2))),2)':cb=128:cr=128"
LARGE = f"scale={BITS * BLOCK}:64:flags=neighbor,setsar=1"
BASE = f"color=black:size={BITS * 2}x2:rate=25:duration={FRAMES / 25},{NUMBER},{LARGE}"
GAPS = "settb=1/1000,setpts='(N*40+13*mod(N,3)+if(gte(N,100),2000,0))/1000/TB'"
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-g", "12", "-sc_threshold", "0")
X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params")
SOUND = ("-f", "lavfi", "-i", f"sine=frequency=440:duration={FRAMES / 25}")


def _lavfi(picture: str, *options: object, sound: bool = False) -> list[object]:
    inputs = ["-f", "lavfi", "-i", picture, *(SOUND if sound else ())]
    return [*inputs, "-pix_fmt", "yuv420p", "-fps_mode", "passthrough", *options]


def make_clip(kind: str, folder: Path) -> Path:
    """Return a numbered clip of one kind (see KINDS), each made once for all testers."""
    return Path(shutil.copy(_numbered(kind), folder / KINDS[kind]))


def _numbered(kind: str) -> Path:
    suffix = Path(KINDS[kind]).suffix
    return made_once(("numbered", kind), lambda target: _make(kind, target), suffix)


def _make(kind: str, target: Path) -> None:
    b_frames = (*X264, "-bf", "3")
    if kind == "constant rate":
        ffmpeg(*_lavfi(BASE, *b_frames, "-c:a", "aac", sound=True), target)
    elif kind == "variable rate":
        ffmpeg(*_lavfi(f"{BASE},{GAPS}", *b_frames, "-enc_time_base", "1/1000"), target)
    elif kind == "open groups":
        params = ("-bf", "3", "-x264-params", "open-gop=1:keyint=12:scenecut=0")
        ffmpeg(*_lavfi(BASE, *X264, *params), target)
    elif kind == "open groups of HEVC":
        ffmpeg(*_lavfi(BASE, *X265, "log-level=error:keyint=12:scenecut=0:open-gop=1"), target)
    elif kind == "no reordering":
        ffmpeg(*_lavfi(BASE, *X264, "-bf", "0", "-c:a", "aac", sound=True), target)
    else:
        ffmpeg("-ss", "1.3", "-i", _numbered("constant rate"), "-c", "copy", target)


KINDS = {
    "constant rate": "constant.mp4",
    "variable rate": "variable.mp4",
    "open groups": "open.mkv",
    "open groups of HEVC": "open265.mp4",
    "no reordering": "plain.mkv",
    "edit list": "edited.mp4",
}


def numbers(path: Path) -> list[int]:
    """Decode a clip and read the number of each frame."""
    scale = f"scale={BITS}:1:flags=area,format=gray"
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", path, "-map", "0:v:0", "-vf", scale,
               "-fps_mode", "passthrough", "-f", "rawvideo", "-"]  # fmt: skip
    raw = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    rows = [raw[at : at + BITS] for at in range(0, len(raw), BITS)]
    return [sum((level > 127) << bit for bit, level in enumerate(row)) for row in rows]


def times(path: Path) -> list[float]:
    """Return when each frame is shown, in seconds from the first, to the microsecond."""
    info = ENCODER.probe(str(path), stop=threading.Event())
    clip = next(stream for stream in info.streams if stream.kind == "video")
    found, problems = frame_packets(TOOLS, str(path), clip.index, threading.Event())
    assert not problems
    shown = sorted(found.pts[number] for number in found.shown)
    return [round(float((at - shown[0]) * clip.tick), 6) for at in shown]


@dataclass
class Clip:
    """A source with all that is known of it, and the parts that were made of it so far."""

    source: Path
    folder: Path
    profile: Profile = PROFILE
    info: MediaInfo = field(init=False)
    plan: EncodePlan = field(init=False)
    index: KeyIndex = field(init=False)
    made: dict[tuple[int, int | None], Path] = field(default_factory=dict)
    reports: dict[tuple[int, int | None], EncodeReport] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.info = ENCODER.probe(str(self.source), stop=threading.Event())
        plan = make_plan(self.profile, self.info)
        assert isinstance(plan, EncodePlan), plan
        self.plan = plan
        self.index = ENCODER.keyframes(str(self.source), self.info, stop=threading.Event())

    def request(self, output: Path) -> EncodeRequest:
        return request_of(
            self.source, output, self.profile, plan=self.plan, info=self.info,
            max_seconds=MAX_S, threads=1,
        )  # fmt: skip

    def part(self, plan: ChunkPlan, chunk: Chunk) -> Path:
        """Encode a chunk, or take the part from an earlier plan that cut in the same places."""
        place = chunk.start_pts, chunk.end_pts
        if place not in self.made:
            output = self.folder / f"{self.source.name}.{place[0]}-{place[1]}.part"
            self.reports[place] = ENCODER.encode_chunk(
                self.request(output), plan, chunk, on_progress=_nothing, stop=threading.Event()
            )
            self.made[place] = output
        return self.made[place]

    def chunk_files(self, plan: ChunkPlan) -> list[Path]:
        return [self.part(plan, chunk) for chunk in plan.chunks]

    def join(self, plan: ChunkPlan, parts: list[Path], name: str = "joined") -> EncodeReport:
        """Join parts to `self.output(name)`."""
        output = self.output(name)
        output.unlink(missing_ok=True)
        return ENCODER.join(
            self.request(output), plan, parts, on_progress=_nothing, stop=threading.Event()
        )

    def output(self, name: str = "joined") -> Path:
        return self.folder / f"{self.source.name}.{name}.{self.plan.extension}"

    def whole(self) -> tuple[Path, EncodeReport]:
        """Encode the source in one piece."""
        output = self.output("whole")
        report = ENCODER.encode(self.request(output), on_progress=_nothing, stop=threading.Event())
        return output, report

    def verify(self, output: Path, report: EncodeReport) -> tuple[GateResult, ...]:
        measured = ENCODER.measure(str(self.source), self.info, stop=threading.Event())
        request = replace(self.request(output), measured=measured).to_verify(report)
        return ENCODER.verify(request, on_progress=_nothing, stop=threading.Event())


def _nothing(_state: object) -> None:
    """Take progress and forget it."""
