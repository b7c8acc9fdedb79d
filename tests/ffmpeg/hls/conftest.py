"""One small ladder, encoded once: 320x180 to three rungs, two sounds, a subtitle track, two chapters."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ffmpeg.verify.conftest import Pair, encoded, make_source
from hevcq.domain.profile import Profile
from hevcq.domain.profile_sections import Gates, Hls, Policies, VideoRecipe
from hevcq.ports.encoder import EncodeReport, EncodeRequest
from support.once import folder_once
from support.rendition import request_of

VERSION = "0123abcd-1"
RUNGS = {180: (24, 900), 90: (28, 200)}


def recipe(**changes: object) -> Profile:
    """Return a small ladder; changes are of the hls section, and `policies`."""
    policies = {"cover_art": "drop", "extra_video": "drop"}
    policies |= changes.pop("policies", {})
    rungs = changes.get("h264_rungs", RUNGS)
    hls = {"h264_rungs": rungs, "hevc_rungs": {90: (28, 200)}, "segment_s": 2, **changes}
    return Profile(
        name="hls",
        description="for tests",
        container="hls",
        video=VideoRecipe(codec="h264", preset="ultrafast", crf=rungs[max(rungs)][0]),
        hls=Hls(**hls),
        policies=Policies(**policies),
        gates=Gates(minimum_saving=None),
    )


class MadeSet(Pair):
    """A set on disk, and everything that its gates want."""

    @property
    def report(self) -> EncodeReport:
        return self.request.report

    @property
    def folder(self) -> Path:
        return self.request.output / VERSION

    @property
    def master(self) -> str:
        return (self.request.output / "master.m3u8").read_text()

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
    return MadeSet(encoded(source, folder, profile, name="set", version=VERSION).request)


@pytest.fixture
def made() -> MadeSet:
    def make(folder: Path) -> MadeSet:
        source = make_source(folder, "source.mkv", extra=("-disposition:s", "forced"))
        return encoded_set(source, folder, recipe(hevc=True))

    return folder_once("ladder", make)
