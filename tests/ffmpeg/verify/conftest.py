"""A pair of source and rendition per container, made once, and the gates run over a spoilt copy."""

import subprocess
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hevcq.domain.certificate import GateResult, Outcome
from hevcq.domain.planning.encode_plan import EncodePlan, revise_plan
from hevcq.domain.planning.planner import make_plan
from hevcq.domain.profile import Profile
from hevcq.domain.profile_sections import Gates, VideoRecipe
from hevcq.ports.encoder import VerifyRequest
from support.once import folder_once
from support.rendition import ENCODER, request_of

PROFILE = Profile(
    name="hevc",
    description="for tests",
    video=VideoRecipe(codec="hevc", preset="ultrafast", crf=24),
    gates=Gates(minimum_saving=None),
)
CHAPTERS = (
    ";FFMETADATA1\ntitle=A video\n"
    "[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=3000\ntitle=One\n"
    "[CHAPTER]\nTIMEBASE=1/1000\nSTART=3000\nEND=6000\ntitle=Two\n"
)
WORDS = "1\n00:00:01,000 --> 00:00:02,000\none\n\n2\n00:00:03,500 --> 00:00:05,000\ntwo\n"
STREAMS = ["-map", "0:v", "-map", "1:a", "-map", "2:a", "-map", "3:s", "-map_metadata", "4"]
LANGUAGES = ["-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=fra"]


def ffmpeg(*arguments: object) -> None:
    """Run ffmpeg to make a file for a test."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, timeout=120)


def make_source(folder: Path, name: str, *, picture: str = "", extra: tuple[str, ...] = ()) -> Path:
    """Make 6 s of moving picture, two sounds, subtitles and two chapters."""
    (folder / "words.srt").write_text(WORDS)
    (folder / "chapters.txt").write_text(CHAPTERS)
    target = folder / name
    lavfi = picture or "testsrc2=size=320x180:rate=25:duration=6,noise=alls=4"
    text = "srt" if target.suffix == ".mkv" else "mov_text"
    ffmpeg(
        "-f", "lavfi", "-i", lavfi,
        "-f", "lavfi", "-i", "sine=frequency=440:duration=6",
        "-f", "lavfi", "-i", "anoisesrc=duration=6:amplitude=0.2:sample_rate=44100",
        "-i", folder / "words.srt", "-f", "ffmetadata", "-i", folder / "chapters.txt",
        *STREAMS, *LANGUAGES, "-c:v", "libx264", "-preset", "superfast", "-bf", "2", "-g", "50",
        "-crf", "14", "-pix_fmt", "yuv420p", "-c:a", "aac", "-c:s", text, *extra, target,
    )  # fmt: skip
    return target


def complaints(results: tuple[GateResult, ...]) -> list[str]:
    """Return gate and detail of every result that did not pass."""
    fine = {Outcome.PASSED, Outcome.OFF}
    return [f"{r.gate.value}: {r.file}{r.detail}" for r in results if r.outcome not in fine]


@dataclass(frozen=True)
class Pair:
    """A source, its clean rendition, and everything verify wants."""

    request: VerifyRequest

    @property
    def good(self) -> Path:
        return self.request.output

    def judge(self, output: Path | None = None, **changes: object) -> tuple[GateResult, ...]:
        """Run the gates over `output` in place of the clean rendition."""
        request = replace(self.request, output=output or self.good, **changes)
        return ENCODER.verify(request, on_progress=lambda _: None, stop=threading.Event())


def encoded(
    source: Path, folder: Path, profile: Profile = PROFILE, *, name: str = "", **facts: object
) -> Pair:
    """Encode a source as hevcq does, and return what verify is given."""
    stop = threading.Event()
    info = ENCODER.probe(str(source), stop=stop)
    plan = make_plan(profile, info)
    assert isinstance(plan, EncodePlan), plan
    measured = ENCODER.preflight(str(source), info, profile, stop=stop)
    info, plan = revise_plan(make_plan, profile, (info, plan), measured)
    output = folder / (name or f"{source.stem}-made.{plan.extension}")
    facts |= {"plan": plan, "info": info, "measured": measured}
    request = request_of(source, output, profile, **facts)
    report = ENCODER.encode(request, on_progress=lambda _: None, stop=stop)
    return Pair(request.to_verify(report))


def pair_once(name: str, *, picture: str = "", extra: tuple[str, ...] = ()) -> Pair:
    """Return a source and its rendition, made once for all testers: nobody may change them."""
    return folder_once(
        (name, picture, extra),
        lambda folder: encoded(make_source(folder, name, picture=picture, extra=extra), folder),
    )


@pytest.fixture(params=["mkv", "mp4"])
def pair(request) -> Pair:
    return pair_once(f"source.{request.param}")
