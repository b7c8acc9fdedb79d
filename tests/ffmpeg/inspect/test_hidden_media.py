"""An edit list that hides much of a track is refused; the ordinary ones are not."""

import re
import struct
import threading
from pathlib import Path

import pytest
from benchmarks.fidelity.spliced import cut_without_encoding

from chaos.damage_corpus import ffmpeg
from chaos.damage_judge import ENCODER, profile
from hevcq.domain.media.facts import Measurement, StreamKind, TrackMeasure
from hevcq.errors import MediaRefused
from hevcq.ffmpeg.inspect.preflight import edit_list_hidden_s
from support import media_facts

STOP = threading.Event()
NOTICE = re.compile(
    r"Stream \d: \d\.\d s of (video|audio) that the file's edit list hides from every player are left out\."
)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """Four seconds of video with a key frame each second, and two sounds: AAC and PCM."""
    path = tmp_path_factory.mktemp("hidden") / "video.mov"
    ffmpeg(
        "-f", "lavfi", "-i", "testsrc2=size=160x120:rate=25:duration=4",
        "-f", "lavfi", "-i", "anoisesrc=duration=4:amplitude=0.2:seed=7",
        "-map", "0", "-map", "1", "-map", "1", "-c:v", "libx264", "-preset", "superfast", "-g", "25",
        "-c:a:0", "aac", "-c:a:1", "pcm_s16le", path,
    )  # fmt: skip
    return path


def with_edit(video: Path, target: Path, track: int, factor: float) -> Path:
    """Let the edit list of a track show `factor` of what it showed."""
    content = bytearray(video.read_bytes())
    place = -1
    for _ in range(track + 1):
        place = content.index(b"elst", place + 1)
    entries = struct.unpack_from(">I", content, place + 8)[0]
    last = place + 12 + 12 * (entries - 1)
    length = struct.unpack_from(">I", content, last)[0]
    struct.pack_into(">I", content, last, int(length * factor))
    target.write_bytes(content)
    return target


def preflight(path: Path, **changes) -> Measurement:
    info = ENCODER.probe(str(path), stop=STOP)
    return ENCODER.preflight(str(path), info, profile().model_copy(update=changes), stop=STOP)


@pytest.mark.parametrize(("track", "name"), [(0, "video stream 0"), (1, "audio"), (2, "audio")])
def test_an_edit_that_cuts_one_track_and_not_the_others_is_refused(tmp_path, video, track, name):
    path = with_edit(video, tmp_path / "video.mov", track, 0.3)

    with pytest.raises(MediaRefused, match=rf"hides 2\.[678] s of {name}.*unequal length"):
        preflight(path)


@pytest.fixture(scope="module")
def cut(tmp_path_factory) -> Path:
    """A video that was cut without encoding: 2.2 s before its first picture are in the file."""
    path = tmp_path_factory.mktemp("cut") / "cut.mp4"
    cut_without_encoding(path)
    return path


def test_a_cut_of_all_tracks_is_left_out_with_a_notice_by_default(cut):
    notices = preflight(cut).notices

    assert notices
    assert all(NOTICE.fullmatch(notice) for notice in notices), notices


@pytest.mark.parametrize(
    ("shown", "discarded", "expected"),
    [(1000, 0, 0), (988, 0, 0), (987, 0, 0.52), (750, 250, 0), (749, 251, 10.04)],
)
def test_half_a_second_and_one_group_of_pictures_may_be_hidden(shown, discarded, expected):
    stream = media_facts.video(frames=1000)
    track = TrackMeasure(
        index=0,
        kind=StreamKind.VIDEO,
        packets=shown,
        discarded=discarded,
        first_pts_s=0.0,
        end_s=shown / 25,
    )

    assert edit_list_hidden_s(stream, track) == pytest.approx(expected)
