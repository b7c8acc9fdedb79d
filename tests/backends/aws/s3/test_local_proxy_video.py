"""Chunks of a video over the relay: the same parts, or none."""

import io
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hevcq.backends.aws.s3.local_proxy import serve_object
from hevcq.backends.aws.s3.range_reader import Download
from hevcq.backends.aws.s3.transfer import Meter
from hevcq.domain.chunking.planner import ChunkPlan, plan_chunks
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile_sections import Chunking, ChunkMode
from hevcq.errors import HevcqError, Unavailable
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ports.encoder import EncodeRequest
from hevcq.util.clock import SystemClock
from support.clips import make_clip
from support.media_facts import profile

pytestmark = pytest.mark.aws
ENCODER = FfmpegEncoder("ffmpeg", "ffprobe", SystemClock())
RECIPE = profile(
    video={"codec": "hevc", "preset": "ultrafast", "crf": 34},
    chunking=Chunking(mode=ChunkMode.ALWAYS, target_s=4.0).model_dump(mode="json"),
    gates={"minimum_saving": None},
)


class Shelf:
    """S3 as far as a range of one object goes; `cut_after` bytes in all it answers no more."""

    def __init__(self, path: Path) -> None:
        self.content, self.sent = path.read_bytes(), 0
        self.cut_after: int | None = None

    def get_object(self, *, Range: str, **_where: str) -> dict[str, Any]:
        first, last = map(int, Range.removeprefix("bytes=").split("-"))
        if self.cut_after is not None and self.sent > self.cut_after:
            raise Unavailable("S3 is away.")
        self.sent += last + 1 - first
        body = self.content[first : last + 1]
        return {
            "ResponseMetadata": {"HTTPStatusCode": 206},
            "ContentRange": f"bytes {first}-{last}/{len(self.content)}",
            "ContentLength": len(body),
            "ETag": "it",
            "Body": io.BytesIO(body),
        }


class Clip:
    """A video on the shelf, its plan, and the chunks made of it."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path, self.folder, self.shelf = path, folder, Shelf(path)
        stop = threading.Event()
        self.info = ENCODER.probe(str(path), stop=stop)
        plan = make_plan(RECIPE, self.info)
        assert isinstance(plan, EncodePlan)
        self.plan = plan
        index = ENCODER.keyframes(str(path), self.info, stop=stop)
        chunks = plan_chunks(RECIPE, self.info, plan, index, workers_hint=3)
        assert isinstance(chunks, ChunkPlan)
        assert len(chunks.chunks) >= 3
        self.chunks = chunks

    def encode(self, location: str, chunk, name: str):
        request = EncodeRequest(
            profile=RECIPE,
            plan=self.plan,
            info=self.info,
            location=location,
            output=self.folder / name,
            duration_s=self.info.duration_s,
            source_size=self.path.stat().st_size,
            max_seconds=600,
            threads=1,
        )
        report = ENCODER.encode_chunk(
            request, self.chunks, chunk, on_progress=lambda _p: None, stop=threading.Event()
        )
        return replace(report, seconds=0.0, cpu_s=0.0), request.output.read_bytes()

    def encode_over(self, chunk, name: str):
        """Encode one chunk over a relay."""
        size = self.path.stat().st_size
        wanted = Download(bucket="b", key="k", size=size, pins={"IfMatch": "it"})
        meter = Meter(lambda _n: None, threading.Event())
        place = self.folder / f"source{self.path.suffix}"
        with serve_object(self.shelf, wanted, place, meter) as location:
            return self.encode(location, chunk, name)


def clip_of(tmp_path: Path, name: str, **options) -> Clip:
    extra = ["-g", "25", "-keyint_min", "25", *options.pop("extra", ())]
    options = {"size": "352x288", **options}
    path = make_clip(tmp_path / "videos", name=name, seconds=12, extra=extra, **options)
    return Clip(path, tmp_path)


@pytest.mark.parametrize("share", [0.15, 0.9])
def test_a_read_that_fails_midway_makes_no_part(tmp_path, share) -> None:
    clip = clip_of(tmp_path, "video.mp4")
    chunk = clip.chunks.chunks[-1]
    clip.shelf.cut_after = int(chunk.bytes * share)

    with pytest.raises(HevcqError) as caught:
        clip.encode_over(chunk, "part")

    assert isinstance(caught.value, Unavailable)
    assert not (tmp_path / "part").exists()
