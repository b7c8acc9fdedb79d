"""Recordings made packet by packet: what is said of odd parts and ends, and what is refused."""

from __future__ import annotations

import errno
import re
import threading
from functools import partial
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import pytest

from hevcq.domain.media.facts import MediaInfo
from hevcq.domain.profile import Policies
from hevcq.errors import DiskFull, MediaRefused, SourceDamaged, Stopped
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ffmpeg.inputs import FfmpegTools
from hevcq.ffmpeg.inspect import joined, recording
from hevcq.ffmpeg.inspect import transport_stream as ts
from hevcq.util.clock import SystemClock
from support.media_facts import audio, video
from support.transport import PICTURE, SECOND, SOUND, TABLE, Ffprobe, packet, part, table, unit

TOOLS = FfmpegTools("ffmpeg", "ffprobe", SystemClock())
STOP = threading.Event()
WHOLE = "I" + 19 * "P"
PROGRAM = {"format_name": "mpegts", "size": 1, "duration_s": 1.0}


@pytest.fixture
def probe(monkeypatch) -> Ffprobe:
    made = Ffprobe()
    for module in (joined, recording):
        monkeypatch.setattr(module, "run_child", made)
    return made


def info(*streams):
    numbered = [each.model_copy(update={"index": n}) for n, each in enumerate(streams)]
    return MediaInfo(streams=tuple(numbered), **PROGRAM)


def whole(path: Path, folder: Path, stop=None, **policies):
    stop, facts = stop or threading.Event(), info(video(), audio())
    chosen = Policies.model_validate(policies)
    return joined.whole_recording(TOOLS, str(path), facts, chosen, folder, stop)


JOINED = "The recording was joined from 2 parts: its clock jumps at 0:01. They follow each other without a gap."
UNLIKE = (
    "From 0:01 on, sound in deu is left out, which the beginning of the recording does not have and"
    " 1 of its sound tracks is silent."
)
MUTE = "{} s of sound before the first whole pictures of its parts is left out."
EARLY = "{} before the first whole one are left out: its parts begin between key frames."


EMPTY = packet(0x1FFF, 0, b"x") * 16
TORN = packet(PICTURE, 20, unit(2 * SECOND, b"P").ljust(184, b"p"), begins=True)


@pytest.mark.parametrize(
    ("second", "policies", "said", "pictures"),
    [
        (part(1, WHOLE), {}, [JOINED], 40),
        (part(1, WHOLE), {"ragged_ends": "refuse"}, [JOINED], 40),
        (part(1, WHOLE, pids=(PICTURE, 0x105), language=b"deu"), {}, [JOINED], 40),
        (
            part(1, WHOLE, pids=(PICTURE, 0x105), coding=("h264", "mp2"), language=b"deu"),
            {},
            [JOINED, UNLIKE],
            40,
        ),
        (part(1, 20 * "P"), {}, [EARLY.format("20 pictures"), MUTE.format(0.76)], 20),
        (part(1, "PPIBB" + 15 * "P"), {}, [JOINED, EARLY.format("4 pictures"), MUTE.format(0.08)], 36),
        (part(1, "K" + 19 * "P"), {}, [JOINED], 40),
        (part(105, WHOLE), {}, [], 40),
        (part(1, WHOLE) + TORN, {}, [JOINED, "1 last picture is left out: its parts end inside them."], 40),
    ],
    ids=["two", "untrimmed", "spoken", "other sound", "no key", "ragged", "no IDR", "lost signal", "torn"],
)  # fmt: skip
def test_parts_get_one_clock(tmp_path, probe, second, policies, said, pictures) -> None:
    path, probe.counted = tmp_path / "joined.ts", 40
    path.write_bytes(part(100, WHOLE) + second)

    made = whole(path, tmp_path, **policies)

    assert made is not None
    assert list(made.notices) == said
    found = ts.read_clocks(str(made.path), (0, 188), threading.Event())
    times = found.units[PICTURE].times
    assert len(times) == pictures
    assert all(0 < after - before < 6 * SECOND for before, after in pairwise(times))


DAMAGED = "joined.ts is damaged: "


@pytest.mark.parametrize(
    ("parts", "changes", "error", "words"),
    [
        ((WHOLE, 700 * "P"), {}, SourceDamaged, DAMAGED + "one of the 2 parts it was joined from has no whole"),
        ((20 * "P", 20 * "P"), {}, SourceDamaged, DAMAGED + "it has no whole picture."),
        ((WHOLE, WHOLE), {"untimed": (PICTURE,)}, SourceDamaged, "has no picture with a time."),
        ((WHOLE, "K" + 19 * "P"), {"counted": 30}, MediaRefused, "can decode 30 of its 40 pictures only"),
        ((WHOLE, WHOLE), {"then": {6: part(100, "I")}}, OSError, "became shorter"),
        ((WHOLE, WHOLE), {"then": {7: part(100, "I")}}, OSError, "became shorter"),
        ((WHOLE, WHOLE), {"then": {7: part(100, WHOLE) + part(2, WHOLE)}}, MediaRefused, "stay in step."),
    ],
    ids=["no key", "no whole", "no time", "lost pictures", "short tail", "shorter", "changed"],
)  # fmt: skip
def test_parts_that_do_not_fit_together_are_refused(tmp_path, probe, parts, changes, error, words):
    path = tmp_path / "joined.ts"
    path.write_bytes(part(100, parts[0]) + part(1, parts[1]))
    probe.counted, probe.untimed = changes.get("counted", 0), changes.get("untimed", ())
    probe.then = {
        call: partial(path.write_bytes, data) for call, data in changes.get("then", {}).items()
    }

    with pytest.raises(error, match=re.escape(words)):
        whole(path, tmp_path)


def test_parts_that_are_coded_differently_are_no_one_video(tmp_path, probe) -> None:
    path = tmp_path / "joined.ts"
    path.write_bytes(part(100, WHOLE) + part(1, WHOLE, coding=("mpeg2", "aac")))

    with pytest.raises(MediaRefused, match="pictures are coded differently"):
        whole(path, tmp_path)


@pytest.mark.parametrize("call", [0, 7])
def test_a_stop_ends_the_joining(tmp_path, probe, call) -> None:
    path, stop = tmp_path / "joined.ts", threading.Event()
    path.write_bytes(part(100, WHOLE) + part(1, WHOLE))
    probe.then = {call: stop.set}
    if not call:
        stop.set()

    with pytest.raises(Stopped):
        whole(path, tmp_path, stop)


def test_what_is_no_transport_stream_or_has_no_video_is_taken_as_it_is(tmp_path, probe) -> None:
    path, stop = tmp_path / "a.ts", threading.Event()
    path.write_bytes(part(100, WHOLE) + part(1, WHOLE))
    other = tmp_path / "b.ts"
    other.write_bytes(b"Gthis is no transport stream" * 100)

    assert joined.main_pid(TOOLS, str(path), info(audio()), stop) is None
    for location, streams in (
        ("http://127.0.0.1/a.ts", [video()]),
        (str(other), [video()]),
        (str(path), [audio()]),
    ):
        facts = info(*streams)
        assert recording.trim_recording(TOOLS, location, facts, tmp_path, stop) is None
        assert joined.whole_recording(TOOLS, location, facts, Policies(), tmp_path, stop) is None
    assert ts.transport_damage("http://127.0.0.1/a.ts", stop) == ""
    assert ts.transport_damage(str(other), stop) == ""
    assert ts.length_over_jumps(str(other)) is None


def left_out(pictures: str) -> str:
    return f"Stream 0: {pictures} left out: the recording begins between key frames."


@pytest.mark.parametrize(
    ("data", "untimed", "said", "pictures"),
    [
        (part(1, WHOLE), (), None, 20),
        (part(1, "PPP") + EMPTY, (), None, 3),
        (part(1, "PIP") + EMPTY, (PICTURE,), None, 3),
        (
            part(1, "P" + WHOLE),
            (),
            [left_out("1 picture before the first whole one is"),
             "Stream 1: 1 packet of sound (0.04 s) before the first whole picture is left out."],
            20,
        ),
        (
            part(1, "PP" + WHOLE),
            (SOUND,),
            [left_out("2 pictures before the first whole one are"),
             "Stream 1: 2 packets of sound before the first whole picture are left out."],
            20,
        ),
        (part(1, "x" + WHOLE), (), [left_out("1 picture before the first whole one is")], 20),
        (part(1, "xIBPBPP") + EMPTY, (), [left_out("3 pictures before the first whole one are")], 4),
        (part(1, "xIBB") + EMPTY, (), [left_out("3 pictures before the first whole one are")], 1),
        (
            part(1, WHOLE) + TORN + packet(SOUND, 4, unit(SECOND, b"s", 0xC0), begins=True) + packet(PICTURE, 0),
            (),
            ["Stream 0: the last picture is left out: the recording ends inside it."],
            20,
        ),
    ],
    ids=["whole", "no key", "no time", "ragged", "untimed", "late sound", "open", "open only", "torn"],
)  # fmt: skip
def test_ragged_ends_are_trimmed_and_said(tmp_path, probe, data, untimed, said, pictures) -> None:
    path, probe.untimed = tmp_path / "a.ts", untimed
    path.write_bytes(data)

    made = recording.trim_recording(TOOLS, str(path), info(video(), audio()), tmp_path, STOP)

    assert (None if made is None else list(made.notices)) == said
    kept = made.path if made else path
    assert len(ts.read_clocks(str(kept), (0, 188), STOP).units[PICTURE].times) == pictures
    gaps = kept.read_bytes().count(b"\xb7\x80")
    assert gaps == (2 if pictures == 4 else 0), "announced where a picture follows those left out"


@pytest.mark.parametrize("pictures", ["PP" + WHOLE, "x" + WHOLE, WHOLE])
@pytest.mark.parametrize(("cut", "first"), [(1, 0), (94, 0), (187, 0), (1, 4), (187, 4), (190, 4)])
def test_a_cut_inside_a_packet_is_trimmed_as_the_cut_after_it(
    tmp_path, probe, pictures, cut, first
):
    packets = [packet(0x1FFF, 0, b"x"), *re.findall(rb"(?s).{188}", part(1, pictures))]
    data = b"".join(bytes([0x40, 1, 2, 3][:first]) + each for each in packets)
    path, length = tmp_path / "a.ts", 188 + first
    encoder, facts = FfmpegEncoder("ffmpeg", "ffprobe", SystemClock()), info(video(), audio())

    def made(begin: int, **policies):
        path.write_bytes(data[begin:])
        chosen = Policies.model_validate(policies)
        copy = encoder.trim_recording(str(path), facts, chosen, tmp_path, stop=STOP)
        return copy and (copy.path.name, copy.path.read_bytes(), copy.notices)

    aligned = made(length) or ("recording.ts", data[length:], ())
    count = "1 byte is" if cut == length - 1 else f"{length - cut} bytes are"
    said = f"The first {count} left out: the recording begins inside a packet."

    assert made(cut) == (*aligned[:2], (said, *aligned[2]))
    assert made(cut, ragged_ends="refuse") is None
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.ts", "recording.ts"]


def test_what_is_wrong_with_a_cut_recording_names_it_and_a_stop_ends_its_copy(tmp_path) -> None:
    path, stop = tmp_path / "a.ts", threading.Event()
    path.write_bytes(part(1, WHOLE)[7:])

    def damaged(place: str) -> None:
        raise SourceDamaged(f"{place} is damaged.", remedy="Mend it.")

    with pytest.raises(SourceDamaged, match=r"^\S+a\.ts is damaged\. Mend it\.$"):
        recording.from_first_packet(str(path), tmp_path, damaged, stop)
    stop.set()
    with pytest.raises(Stopped):
        recording.from_first_packet(str(path), tmp_path, damaged, stop)


def test_a_copy_ends_with_a_stop_a_full_disk_or_a_source_that_became_shorter(tmp_path) -> None:
    path, stop = tmp_path / "a.ts", threading.Event()
    path.write_bytes(part(1, WHOLE))
    ends = recording.Ends(0, frozenset(), {}, 99 * 188, early=0, late=0)
    with pytest.raises(OSError, match="became shorter"), path.open("rb") as file:
        recording._copy(file, BytesIO(), ends, (0, 188, PICTURE), stop)
    stop.set()
    with pytest.raises(Stopped), path.open("rb") as file:
        recording._copy(file, BytesIO(), ends, (0, 188, PICTURE), stop)
    with pytest.raises(Stopped):
        ts.transport_damage(str(path), stop)
    with (
        pytest.raises(DiskFull, match=r"The disk filled up while .*a\.ts was trimmed\."),
        recording.copying(str(path), tmp_path / "copy.ts", "trimmed"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def begun(*contents: bytes, pid: int = PICTURE) -> bytes:
    return b"".join(packet(pid, number, each, begins=True) for number, each in enumerate(contents))


UNITS = 20 * [unit(SECOND, b"P")]
SCRAMBLED = bytes([0x47, 0x41, 0, 0xD4]) + bytes(184)


@pytest.mark.parametrize(
    ("data", "damage"),
    [
        (begun(*UNITS), ""),
        (begun(*UNITS, b"lost"), "the beginning of a video or audio unit is broken"),
        (begun(*UNITS, b"lost", b"too"), "the beginning of 2 video or audio units is broken"),
        (begun(*UNITS) + begun(*20 * [b"section"], unit(SECOND, b"P"), pid=0x105), ""),
        (begun(*UNITS) + SCRAMBLED, ""),
        (begun(*UNITS) + b"G", "it ends inside a packet, so it was truncated"),
    ],
    ids=["whole", "one", "two", "tables", "scrambled", "cut"],
)
def test_units_without_their_beginning_are_damage(tmp_path, data, damage) -> None:
    path = tmp_path / "a.ts"
    path.write_bytes(data)

    assert ts.transport_damage(str(path), STOP) == damage


@pytest.mark.parametrize(("between", "streams"), [(1, 60), (2, 60), (3, 34)])
def test_a_programmes_map_is_read_from_all_its_packets(tmp_path, monkeypatch, between, streams):
    monkeypatch.setattr(ts, "_TABLE_PACKETS", 4)
    said = table(*((0x1B, PICTURE + number, b"") for number in range(60)))
    path, other = tmp_path / "a.ts", packet(0x1FFF, 0, b"x")
    short = packet(TABLE + 1, 0, b"\0\2\0\5xxxxx", begins=True)
    path.write_bytes(
        short + begun(unit(SECOND, b"P")) + other * 5
        + packet(TABLE, 0, said[:184], begins=True) + other * between + packet(TABLE, 1, said[184:])
        + begun(unit(SECOND, b"P"), unit(SECOND, b"")[:13], b"\0\0\1\xe0\0\0\x80\0\0" + bytes(9))
        + begun(b"\0\0\1\xe0\0\0\x80\xc0\xa0" + bytes(6)) + SCRAMBLED
    )  # fmt: skip

    found = ts.read_clocks(str(path), (0, 188), STOP)

    assert [len(programme) for _, programme in found.tables] == [0, streams]
    assert len(found.units[PICTURE].times) == 2, "the others have no time"
    assert found.breaks == []
    assert ts.chain(found, 0x999) == []
