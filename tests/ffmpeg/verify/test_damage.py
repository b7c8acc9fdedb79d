"""Every kind of damage to an output is caught, by the gate that is meant for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ffmpeg.verify.conftest import PROFILE, encoded, ffmpeg, make_source
from hevcq.domain.certificate import Gate, GateResult, Outcome
from hevcq.domain.media.facts import Measurement
from hevcq.domain.profile import Gates
from support.rendition import turned

COPY = ("-map", "0", "-dn", "-c", "copy")
X265 = (
    "-c:v",
    "libx265",
    "-preset",
    "ultrafast",
    "-x265-params",
    "log-level=error",
    "-tag:v",
    "hvc1",
)
SAME_TIMES = ("-fps_mode", "passthrough", "-enc_time_base", "1:120000")


def caught(results: tuple[GateResult, ...]) -> Gate:
    """Return the gate that failed; every one before it passed."""
    *before, last = results
    assert all(result.outcome in {Outcome.PASSED, Outcome.OFF} for result in before)
    assert last.outcome is Outcome.FAILED, [(r.gate, r.outcome, r.detail) for r in results]
    assert last.detail
    return last.gate


def spoilt(pair, tmp_path: Path, *arguments: object, before: tuple[object, ...] = ()) -> Path:
    """Rewrite the clean rendition with ffmpeg; `before` comes ahead of the input."""
    target = tmp_path / f"spoilt{pair.good.suffix}"
    flags = ["-movflags", "+faststart"] if target.suffix == ".mp4" else []
    ffmpeg(*before, "-i", pair.good, *arguments, *flags, target)
    return target


def written(pair, tmp_path: Path, content: bytes) -> Path:
    target = tmp_path / f"spoilt{pair.good.suffix}"
    target.write_bytes(content)
    return target


@pytest.mark.parametrize("share", [0.6, 0.98])
def test_an_output_that_was_cut_is_caught(pair, tmp_path, share):
    content = pair.good.read_bytes()
    assert (
        caught(pair.judge(written(pair, tmp_path, content[: int(len(content) * share)]))) is Gate.G5
    )


def test_a_zeroed_block_is_caught(pair, tmp_path):
    content = bytearray(pair.good.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 65_536] = bytes(65_536)
    # Matroska loses whole blocks; in MP4 the bytes of the copied sounds are no longer the source's.
    assert caught(pair.judge(written(pair, tmp_path, bytes(content)))) is Gate.G5


def test_a_zeroed_block_of_picture_alone_is_caught(tmp_path):
    silent = encoded(make_source(tmp_path, "source.mp4", extra=("-an", "-sn")), tmp_path)
    content = bytearray(silent.good.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 65_536] = bytes(65_536)
    assert caught(silent.judge(written(silent, tmp_path, bytes(content)))) is Gate.G4


def test_flipped_bits_are_caught(pair, tmp_path):
    content = bytearray(pair.good.read_bytes())
    for place in range(len(content) // 4, len(content) * 3 // 4, 997):
        content[place] ^= 0x55
    assert caught(pair.judge(written(pair, tmp_path, bytes(content)))) in {Gate.G4, Gate.G5}


def test_a_dropped_second_sound_is_caught(pair, tmp_path):
    assert caught(pair.judge(spoilt(pair, tmp_path, *COPY, "-map", "-0:a:1"))) is Gate.G3


def test_a_second_sound_cut_short_is_caught(pair, tmp_path):
    target = tmp_path / f"spoilt{pair.good.suffix}"
    ffmpeg(
        "-i", pair.good, "-t", "2", "-i", pair.good, "-map", "0:v", "-map", "0:a:0",
        "-map", "1:a:1", "-map", "0:s", "-c", "copy", "-map_chapters", "0", target,
    )  # fmt: skip
    assert caught(pair.judge(target)) is Gate.G5


@pytest.mark.parametrize(
    "picture",
    [
        "drawbox=color=green:t=fill",
        "split[a][b];[a][b]freezeframes=first=1:last=149:replace=0",
        "vflip",
        "tmix=frames=1,setpts=PTS,shuffleframes=1 0 3 2 5 4 7 6 9 8,reverse",
        "lutyuv=y=val/3",
    ],
    ids=["all green", "frozen", "upside down", "backwards", "dark"],
)
def test_a_wrong_picture_is_caught(pair, tmp_path, picture):
    target = tmp_path / f"spoilt{pair.good.suffix}"
    ffmpeg("-i", pair.good, *COPY, *X265, "-filter:v", picture, *SAME_TIMES, target)
    assert caught(pair.judge(target)) is Gate.G8


def test_a_shifted_sound_is_caught(pair, tmp_path):
    target = tmp_path / f"spoilt{pair.good.suffix}"
    ffmpeg(
        "-i", pair.good, "-itsoffset", "0.4", "-i", pair.good, "-map", "0:v", "-map", "1:a",
        "-map", "0:s", "-c", "copy", "-map_chapters", "0", target,
    )  # fmt: skip
    assert caught(pair.judge(target)) is Gate.G5


def test_swapped_sounds_are_caught_even_when_their_labels_were_kept(pair, tmp_path):
    order = ("-map", "0:v", "-map", "0:a:1", "-map", "0:a:0", "-map", "0:s", "-c", "copy")
    labels = ("-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=fra")
    default = ("-disposition:a:0", "default", "-disposition:a:1", "0")
    target = spoilt(pair, tmp_path, *order, *labels, *default)
    assert caught(pair.judge(target)) is Gate.G5


def test_swapped_sounds_with_their_labels_are_caught(pair, tmp_path):
    order = ("-map", "0:v", "-map", "0:a:1", "-map", "0:a:0", "-map", "0:s", "-c", "copy")
    assert caught(pair.judge(spoilt(pair, tmp_path, *order))) is Gate.G3


def test_lost_chapters_are_caught(pair, tmp_path):
    assert caught(pair.judge(spoilt(pair, tmp_path, *COPY, "-map_chapters", "-1"))) is Gate.G3


def test_a_lost_language_is_caught(pair, tmp_path):
    target = spoilt(pair, tmp_path, *COPY, "-metadata:s:a:1", "language=und")
    assert caught(pair.judge(target)) is Gate.G3


def test_lost_subtitles_are_caught(pair, tmp_path):
    assert caught(pair.judge(spoilt(pair, tmp_path, *COPY, "-sn"))) is Gate.G3


def test_a_lost_frame_is_caught(pair, tmp_path):
    picture = "select=not(eq(n\\,70))"
    target = spoilt(pair, tmp_path, *COPY, *X265, "-filter:v", picture, *SAME_TIMES)
    assert caught(pair.judge(target)) is Gate.G5


def test_a_wrong_codec_is_caught(pair, tmp_path):
    target = spoilt(pair, tmp_path, *COPY, "-c:v", "libx264", "-preset", "ultrafast")
    assert caught(pair.judge(target)) is Gate.G2


def test_a_wrong_size_is_caught(pair, tmp_path):
    target = spoilt(pair, tmp_path, *COPY, *X265, "-filter:v", "scale=318:180,setsar=1")
    assert caught(pair.judge(target)) is Gate.G2


def test_a_lost_bit_depth_is_caught(pair, tmp_path):
    target = spoilt(pair, tmp_path, *COPY, *X265, "-pix_fmt", "yuv420p10le")
    assert caught(pair.judge(target)) is Gate.G2


def test_a_wrong_rotation_is_caught(pairs, tmp_path):
    pair = pairs["mp4"]
    assert caught(pair.judge(turned(spoilt(pair, tmp_path, *COPY), 0, 1, -1, 0))) is Gate.G2


def test_a_codec_tag_that_apple_does_not_open_is_caught(pairs, tmp_path):
    pair = pairs["mp4"]
    assert caught(pair.judge(spoilt(pair, tmp_path, *COPY, "-tag:v", "hev1"))) is Gate.G2


def test_a_wrong_container_is_caught(pairs):
    assert caught(pairs["mp4"].judge(pairs["mkv"].good)) is Gate.G2


@pytest.mark.parametrize("content", [b"", b"not a clip\n" * 100, bytes(5000)])
def test_an_unreadable_output_is_caught(pair, tmp_path, content):
    assert caught(pair.judge(written(pair, tmp_path, content))) is Gate.G2


def test_an_output_that_is_not_there_is_caught(pair, tmp_path):
    assert caught(pair.judge(tmp_path / "none.mkv")) is Gate.G2


def test_any_unknown_line_of_the_encode_is_caught(pair):
    report = replace(pair.request.report, stderr=("[h264 @ 0x55d] [error] something new",))
    assert caught(pair.judge(report=report)) is Gate.G1


def test_a_count_of_frames_that_the_output_does_not_hold_is_caught(pair):
    assert caught(pair.judge(report=replace(pair.request.report, frames=149))) is Gate.G5


def test_what_was_not_measured_is_unknown_and_so_not_passed(pair):
    last = pair.judge(measured=Measurement(tracks=()))[-1]
    assert (last.gate, last.outcome) == (Gate.G5, Outcome.UNKNOWN)


def test_an_output_that_saves_too_little_is_not_worth_it(pair):
    last = pair.judge(profile=pair.with_gates(minimum_saving=0.999))[-1]
    assert (last.gate, last.outcome) == (Gate.G6, Outcome.NOT_SMALLER)


def test_an_output_too_small_to_be_true_waits_for_a_person(pair):
    last = pair.judge(profile=pair.with_gates(review_below=0.99))[-1]
    assert (last.gate, last.outcome) == (Gate.G7, Outcome.REVIEW)


@pytest.mark.parametrize(
    ("metric", "outcome"), [("off", Outcome.REVIEW), ("frames", Outcome.PASSED)]
)
def test_a_mezzanine_may_shrink_to_a_hundredth_where_every_frame_is_compared(pair, metric, outcome):
    gates = Gates(minimum_saving=None, picture_metric=metric)
    shrunk = PROFILE.model_copy(update={"gates": gates})

    found = pair.judge(profile=shrunk, source_size=100 * pair.good.stat().st_size)

    assert next(result.outcome for result in found if result.gate is Gate.G7) is outcome


def test_one_flipped_bit_is_caught_anywhere_in_a_video_whose_pictures_carry_their_hash(tmp_path):
    profile = PROFILE.model_copy(
        update={"video": PROFILE.video.model_copy(update={"encoder_params": {"hash": 1}})}
    )
    source = make_source(tmp_path, "source.mkv", extra=("-t", "2", "-an", "-sn"))
    hashed = encoded(source, tmp_path, profile)
    content = hashed.good.read_bytes()
    assert hashed.judge()[-1].outcome is Outcome.PASSED

    for share in (0.2, 0.35, 0.5, 0.65, 0.8):
        spoilt_bytes = bytearray(content)
        spoilt_bytes[int(len(content) * share)] ^= 0x10
        assert caught(hashed.judge(written(hashed, tmp_path, bytes(spoilt_bytes)))) in {
            Gate.G4,
            Gate.G5,
        }


def test_every_second_frame_late_by_15_ms_is_caught(pair, tmp_path):
    late = "setts=pts=PTS+mod(N\\,2)*15/1000/TB:dts=DTS"
    target = spoilt(pair, tmp_path, *COPY, "-bsf:v", late)
    assert caught(pair.judge(target)) is Gate.G5


@pytest.mark.parametrize("late", ["0.08", "0.03", "-0.03"])
def test_a_copied_sound_that_is_a_little_late_is_caught(pair, tmp_path, late):
    target = tmp_path / f"spoilt{pair.good.suffix}"
    ffmpeg(
        "-i", pair.good, "-itsoffset", late, "-i", pair.good, "-map", "0:v", "-map", "0:a:0",
        "-map", "1:a:1", "-map", "0:s", "-c", "copy", "-map_chapters", "0", target,
    )  # fmt: skip
    assert caught(pair.judge(target)) is Gate.G5


@pytest.fixture(scope="module")
def dated(tmp_path_factory):
    """A source with a time of recording and an attached font."""
    folder = tmp_path_factory.mktemp("dated")
    (folder / "font.ttf").write_bytes(bytes(range(256)) * 16)
    font = ("-attach", str(folder / "font.ttf"), "-metadata:s:t", "mimetype=font/ttf")
    extra = ("-t", "1", "-metadata", "creation_time=2019-05-04T10:11:12.5Z", *font)
    return encoded(make_source(folder, "dated.mkv", extra=extra), folder)


def test_a_lost_creation_time_is_caught(dated, tmp_path):
    assert dated.judge()[-1].outcome is Outcome.PASSED
    target = spoilt(dated, tmp_path, "-map", "0", "-c", "copy", "-metadata", "creation_time=")
    results = dated.judge(target)
    assert caught(results) is Gate.G3
    assert "creation time is lost" in results[-1].detail


def test_an_attached_font_with_zeroed_bytes_is_caught(dated, tmp_path):
    content = bytearray(dated.good.read_bytes())
    begin = content.find(bytes(range(256)) * 4)
    content[begin : begin + 1000] = bytes(1000)
    results = dated.judge(written(dated, tmp_path, bytes(content)))
    assert caught(results) is Gate.G3
    assert "attached file has other bytes" in results[-1].detail
