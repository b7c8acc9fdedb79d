"""Subtitles for files beside a rendition: their cues are the source's, or the gate says which are not."""

import shutil
import threading
from dataclasses import replace

import pytest

from ffmpeg.verify import conftest
from hevcq.domain.certificate import Gate, Outcome, Sidecar
from hevcq.domain.profile_sections import Subtitles
from hevcq.errors import MediaRefused

pytestmark = pytest.mark.media
STOP = threading.Event()
PROFILE = conftest.PROFILE.model_copy(update={"subtitles": Subtitles(beside=True)})


def read(pair, **changes) -> tuple[Sidecar, ...]:
    return conftest.ENCODER.read_sidecars(
        replace(pair.request, profile=PROFILE, **changes), stop=STOP
    )


def gate_of(pair, *sidecars: Sidecar):
    plan = pair.request.plan.model_copy(update={"sidecars": sidecars})
    results = pair.judge(profile=PROFILE, plan=plan)
    return next(result for result in results if result.gate is Gate.T1)


def test_the_text_of_a_track_is_written_as_it_is_shown(pair):
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
def test_a_text_that_is_not_the_sources_is_refused(pairs, old, new, said):
    (found,) = read(pairs["mp4"])
    assert old in found.text

    result = gate_of(pairs["mp4"], found.model_copy(update={"text": found.text.replace(old, new)}))

    assert result.outcome is Outcome.FAILED
    assert said in result.detail


def test_a_track_that_is_no_text_is_refused_before_the_encode(pairs, tmp_path):
    source = tmp_path / "source.mkv"
    shutil.copy(pairs["mkv"].request.location, source)
    content = source.read_bytes()
    source.write_bytes(content[: len(content) // 50])  # cut within its first pictures
    streams = pairs["mkv"].request.info.streams
    gone = streams[3].model_copy(update={"index": 9})
    info = pairs["mkv"].request.info.model_copy(update={"streams": (*streams[:3], gone)})

    with pytest.raises(MediaRefused, match=r"subtitles\.beside"):
        read(pairs["mkv"], location=str(source), info=info)

    assert not list(pairs["mkv"].good.parent.glob("*.srt.*"))
