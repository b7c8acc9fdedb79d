"""One small ladder, encoded once: 320x180 to three rungs, two sounds, a subtitle track, two chapters."""

import shutil
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ffmpeg.verify.conftest import ENCODER, make_source
from hevcq.domain.certificate import GateResult
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Profile
from hevcq.domain.profile_sections import Gates, Hls, Policies, VideoRecipe
from hevcq.ports.encoder import EncodeReport, EncodeRequest, VerifyRequest
from support.once import folder_once
from support.rendition import request_of

VERSION = "0123abcd-1"
RUNGS = {180: (24, 900), 90: (28, 200)}


def recipe(**changes: object) -> Profile:
    """Return a small ladder; changes are of the hls section, and `policies`."""
    policies = {"cover_art": "drop", "extra_video": "drop"}
    policies |= changes.pop("policies", {})
    rungs = changes.get("h264_rungs", RUNGS)
    hls = {
        "h264_rungs": rungs,
        "hevc_rungs": {90: (28, 200)},
        "segment_s": 2,
        **changes,
    }
    return Profile(
        name="hls",
        description="for tests",
        container="hls",
        video=VideoRecipe(codec="h264", preset="ultrafast", crf=rungs[max(rungs)][0]),
        hls=Hls(**hls),
        policies=Policies(**policies),
        gates=Gates(minimum_saving=None),
    )


@dataclass(frozen=True)
class MadeSet:
    """A set on disk, and everything that its gates want."""

    request: VerifyRequest

    @property
    def report(self) -> EncodeReport:
        return self.request.report

    @property
    def folder(self) -> Path:
        return self.request.output / VERSION

    @property
    def master(self) -> str:
        return (self.request.output / "master.m3u8").read_text()

    def judge(self, output: Path | None = None, **changes: object) -> tuple[GateResult, ...]:
        """Run the gates over `output` in place of the clean set."""
        request = replace(self.request, output=output or self.request.output, **changes)
        return ENCODER.verify(request, on_progress=lambda _: None, stop=threading.Event())

    def again(self, output: Path, **changes: object) -> EncodeRequest:
        """Return the request to encode the same set to `output`."""
        known = self.request
        wanted = request_of(
            Path(known.location), output, known.profile, plan=known.plan,
            info=known.info, measured=known.measured, version=VERSION,
        )  # fmt: skip
        return replace(wanted, **changes)

    def copy(self, folder: Path) -> Path:
        """Copy the set to spoil it."""
        return Path(shutil.copytree(self.request.output, folder / "spoilt"))


def encoded_set(source: Path, folder: Path, profile: Profile) -> MadeSet:
    """Encode a source's ladder as the worker does."""
    stop = threading.Event()
    info = ENCODER.probe(str(source), stop=stop)
    plan = make_plan(profile, info)
    assert isinstance(plan, EncodePlan), plan
    measured = ENCODER.preflight(str(source), info, profile, stop=stop)
    plan = plan.after(measured, profile)
    encode = request_of(
        source, folder / "set", profile, plan=plan, info=info, measured=measured, version=VERSION,
    )  # fmt: skip
    report = ENCODER.encode(encode, on_progress=lambda _: None, stop=stop)
    return MadeSet(encode.to_verify(report))


@pytest.fixture
def made() -> MadeSet:
    def make(folder: Path) -> MadeSet:
        source = make_source(folder, "source.mkv", extra=("-disposition:s", "forced"))
        return encoded_set(source, folder, recipe(hevc=True))

    return folder_once("ladder", make)
