"""Subtitles for files beside a rendition: their cues are the source's, or the gate says which are not."""

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ffmpeg.verify import conftest
from hevcq.domain.certificate import Gate, Outcome, Sidecar
from hevcq.domain.profile_sections import Subtitles
from hevcq.errors import MediaRefused

pytestmark = pytest.mark.media
STOP = threading.Event()
PROFILE = conftest.PROFILE.model_copy(update={"subtitles": Subtitles(beside=True)})


def own(name: str, folder: Path) -> conftest.Pair:
    """Return a pair whose rendition is its own: texts are read to files beside it."""
    request = conftest.pair_once(name).request
    return conftest.Pair(replace(request, output=Path(shutil.copy(request.output, folder))))


def read(pair, **changes) -> tuple[Sidecar, ...]:
    return conftest.ENCODER.read_sidecars(
        replace(pair.request, profile=PROFILE, **changes), stop=STOP
    )


def gate_of(pair, *sidecars: Sidecar):
    plan = pair.request.plan.model_copy(update={"sidecars": sidecars})
    results = pair.judge(profile=PROFILE, plan=plan)
    return next(result for result in results if result.gate is Gate.T1)


@pytest.mark.parametrize("name", ["source.mkv", "source.mp4"])
def test_the_text_of_a_track_is_written_as_it_is_shown(name, tmp_path):
    pair = own(name, tmp_path)
    (found,) = read(pair)

    assert (found.marks, found.cues) == ("", 2)
    if pair.good.suffix == ".mp4":  # the Matroska file begins before 0, with its sound
        assert found.text.strip() == conftest.WORDS.strip()
    assert gate_of(pair, found).outcome is Outcome.PASSED


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("1\n00:00:01,000 --> 00:00:02,000\none\n\n", "", "1 captions of 2"),
        ("00:00:03,500", "00:00:03,600", "+0.100 s off"),
        ("00:00:05,000", "00:00:04,000", "-1.000 s off"),
        (conftest.WORDS.strip(), "", "0 captions of 2"),
    ],
    ids=["lost", "late", "short", "empty"],
)
def test_a_text_that_is_not_the_sources_is_refused(tmp_path, old, new, said):
    pair = own("source.mp4", tmp_path)
    (found,) = read(pair)
    assert old in found.text

    result = gate_of(pair, found.model_copy(update={"text": found.text.replace(old, new)}))

    assert result.outcome is Outcome.FAILED
    assert said in result.detail


def test_a_track_that_is_no_text_is_refused_before_the_encode(tmp_path):
    pair, source = own("source.mkv", tmp_path), tmp_path / "source.mkv"
    shutil.copy(pair.request.location, source)
    content = source.read_bytes()
    source.write_bytes(content[: len(content) // 50])  # cut within its first pictures
    streams = pair.request.info.streams
    gone = streams[3].model_copy(update={"index": 9})
    info = pair.request.info.model_copy(update={"streams": (*streams[:3], gone)})

    with pytest.raises(MediaRefused, match=r"subtitles\.beside"):
        read(pair, location=str(source), info=info)

    assert not list(tmp_path.glob("*.srt"))
