"""A recording that was joined from several gets one clock: every picture once, in order, sound in step."""

from __future__ import annotations

import subprocess
import threading
from array import array
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from benchmarks.fidelity import ordinary, spliced
from benchmarks.fidelity.served import named

from hevcq.domain.profile import Policies
from hevcq.errors import MediaRefused, SourceDamaged
from hevcq.ffmpeg.encoder import FfmpegEncoder
from hevcq.ffmpeg.inspect import transport_stream
from hevcq.ffmpeg.inspect.parts import Part, notices, refuse_loss
from hevcq.ffmpeg.inspect.recording import Ends
from hevcq.ffmpeg.inspect.transport_stream import (
    WRAP,
    Clocks,
    Elementary,
    Run,
    Units,
    chain,
    read_clocks,
    runs_of,
)
from hevcq.ports.encoder import TrimmedSource
from hevcq.util.clock import SystemClock

ENCODER = FfmpegEncoder("ffmpeg", "ffprobe", SystemClock())
STOP = threading.Event()
FRAME = 3600
SECOND = 90_000


def recording(name: str, folder: Path) -> Path:
    path = ordinary.make(named(name), folder)
    assert path is not None
    return path


def whole(path: Path, folder: Path, **policies: str) -> TrimmedSource | None:
    folder.mkdir(exist_ok=True)
    info = ENCODER.probe(str(path), stop=STOP)
    chosen = Policies.model_validate(policies)
    return ENCODER.trim_recording(str(path), info, chosen, folder, stop=STOP)


def frames(path: Path, kind: str) -> tuple[list[int], list[str]]:
    """Return time in ticks, and MD5, of each decoded frame; nothing may be complained of."""
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-nostdin",
        "-copyts",
        "-i",
        str(path),
        "-map",
        f"0:{kind}:0",
    ]
    command += ["-fps_mode", "passthrough", "-enc_time_base", "1:90000", "-f", "framemd5", "-"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    lines = [line.split(",") for line in done.stdout.splitlines() if not line.startswith("#")]
    return [int(fields[2]) for fields in lines], [fields[-1].strip() for fields in lines]


def test_each_picture_is_there_once_and_sound_keeps_its_place_at_the_joint(tmp_path) -> None:
    parts = []
    for number, data in enumerate(spliced.joined_parts(tmp_path / "x.ts")):
        parts.append(tmp_path / f"part{number}.ts")
        parts[-1].write_bytes(data)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))

    made = whole(joined, tmp_path / "scratch")

    assert made is not None
    assert made.notices == (
        (
            "The recording was joined from 2 parts: its clock jumps at 0:02. They follow each other "
            "without a gap."
        ),
    )
    times, pictures = frames(made.path, "v")
    assert pictures == [md5 for part in parts for md5 in frames(part, "v")[1]]
    steps = [after - before for before, after in pairwise(times)]
    first = len(frames(parts[0], "v")[1])
    assert {*steps[: first - 1], *steps[first:]} == {FRAME}
    assert FRAME < steps[first - 1] <= 5 * FRAME, "until the sound has ended"
    sound = made_units(made.path, audio=True)
    own = [made_units(part, audio=True) for part in parts]
    assert len(sound) == sum(map(len, own)), "each unit of sound once"
    for place, at, part in ((0, 0, 0), (first, len(own[0]), 1)):
        before = own[part][0] - frames(parts[part], "v")[0][0]
        assert sound[at] - times[place] == before, "sound lies against the picture as it did"


@pytest.mark.parametrize("whole_bytes", [1 << 24, 0])
def test_the_length_of_a_joined_recording_is_that_of_its_parts(tmp_path, monkeypatch, whole_bytes):
    monkeypatch.setattr(transport_stream, "WHOLE_BYTES", whole_bytes)
    monkeypatch.setattr(transport_stream, "PLACE_BYTES", 8 << 10)
    there = ("-output_ts_offset", "9000")
    one, other = (
        spliced.recorded(tmp_path / "x.ts", ("-c:v", "mpeg2video", "-q:v", "4"), *more, seconds="2")
        for more in ((), there)
    )
    (tmp_path / "one.ts").write_bytes(one)
    for parts, seconds in (([one, other], 4), ([one, other, one], 6), ([one, one, one], 6)):
        joined = tmp_path / "joined.ts"
        joined.write_bytes(b"".join(parts))
        info = ENCODER.probe(str(joined), stop=STOP)
        assert info.duration_s == pytest.approx(seconds, abs=0.3)
        assert f"joined from {len(parts)} parts" in ENCODER.joints(str(joined), info, stop=STOP)
    assert transport_stream.length_over_jumps(str(tmp_path / "one.ts")) is None


def made_units(path: Path, *, audio: bool) -> list[int]:
    found = read_clocks(str(path), (0, 188), STOP)
    pid = min(found.sounds if audio else found.videos)
    return list(found.units[pid].times)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("recording-joined-channels.ts", "joined from 3 parts: its clock jumps at 0:02 and 0:04."),
        ("recording-joined-cut.ts", "joined from 3 parts: its clock jumps at 0:02 and 0:04."),
    ],
)
def test_parts_of_other_channels_and_ragged_ones_follow_each_other(tmp_path, name, said) -> None:
    source = recording(name, tmp_path)

    made = whole(source, tmp_path / "scratch")

    assert made is not None
    assert said in made.notices[0]
    times, pictures = frames(made.path, "v")
    assert all(FRAME <= step <= 3 * FRAME for step in map(int.__sub__, times[1:], times))
    assert len(pictures) == len(made_units(made.path, audio=False))
    silent = [float(said.split()[0]) for said in made.notices if "s of sound before" in said]
    left_out = [made_units(path, audio=True) for path in (source, made.path)]
    lost = (len(left_out[0]) - len(left_out[1])) * 0.048  # two frames of MP2 in a unit
    # At the end of each part a unit that is cut off goes as well.
    assert "cut" not in name or 0 <= lost - silent[0] <= 3 * 0.048
    assert len(ENCODER.probe(str(made.path), stop=STOP).streams) == 2


def test_segments_put_together_are_whole_and_keep_their_times(tmp_path) -> None:
    source = recording("recording-segments.ts", tmp_path)

    made = whole(source, tmp_path / "scratch", clock_jumps="refuse")

    assert made is not None
    assert made.notices == ()
    for kind in ("v", "a"):
        assert frames(made.path, kind) == frames(source, kind)
    ended = [
        subprocess.run(
            ["ffmpeg", "-v", "quiet", "-xerror", "-i", str(path), "-f", "null", "-"],
            check=False,
            timeout=60,
        ).returncode
        for path in (source, made.path)
    ]
    assert ended == [1, 0], "of the source packets seem to be missing, which ends an encode"


def test_a_profile_may_refuse_a_clock_that_jumps(tmp_path) -> None:
    with pytest.raises(
        MediaRefused, match=r"its clock jumps at 0:02, .*policies\.clock_jumps"
    ) as e:
        whole(recording("recording-joined.ts", tmp_path), tmp_path / "s", clock_jumps="refuse")

    assert "close" in str(e.value.remedy)


def test_a_part_without_an_idr_picture_begins_where_a_decoder_goes_on(tmp_path) -> None:
    source = recording("recording-joined-lost.ts", tmp_path)
    coded = (*spliced.GOPS, "-x264-params", "open-gop=1:keyint=12:bframes=2")
    (tmp_path / "one.ts").write_bytes(spliced.recorded(source, coded, seconds="3"))

    made = whole(source, tmp_path / "scratch")

    assert made is not None
    assert made.notices[1].startswith("31 pictures before the first whole one are left out")
    pictures = frames(made.path, "v")[1]
    assert len(pictures) == len(made_units(made.path, audio=False))
    assert set(pictures) <= set(frames(tmp_path / "one.ts", "v")[1]), "none is a mix of two parts"
    with pytest.raises(MediaRefused, match=r"can decode \d+ of its \d+ pictures only"):
        whole(source, tmp_path / "scratch", ragged_ends="refuse")


def test_packets_that_slip_from_their_places_are_refused_and_never_dropped(tmp_path) -> None:
    coded = ("-c:v", "mpeg2video", "-q:v", "4", "-bf", "0")
    one = spliced.recorded(tmp_path / "x.ts", coded, seconds="1")
    half, lone = len(one) // 2, 188 * (len(one) // 376)
    slipped = {
        "at a joint": one + one[:-100] + one,
        "at the first joint": one[:-100] + one,
        "inside a part": one + one[:half] + one[half + 94 :] + one,
        "bytes too many": one + one[:lone] + b"\x00" * 94 + one[lone:] + one,
        "a packet of a joined one": one + one[:lone] + b"\x00" + one[lone + 1 :],
    }
    for case, data in slipped.items():
        (tmp_path / "joined.ts").write_bytes(data)
        for ends in ("trim", "refuse"):
            with pytest.raises(SourceDamaged, match=r"at byte [\d,]+ a transport packet") as e:
                whole(tmp_path / "joined.ts", tmp_path / "scratch", ragged_ends=ends)
            assert "join the parts again" in str(e.value.remedy), case
    for sound in (one + one + one[:-100], one[:lone] + b"\x00" + one[lone + 1 :]):
        (tmp_path / "joined.ts").write_bytes(sound)
        whole(tmp_path / "joined.ts", tmp_path / "scratch")


def test_a_further_programme_that_the_beginning_does_not_have_is_refused(tmp_path) -> None:
    coded = ("-c:v", "mpeg2video", "-q:v", "4", "-bf", "0")
    twice = [*("-map", "0:v", "-map", "1:a") * 2, "-program", "program_num=1:st=0:st=1",
             "-program", "program_num=2:st=2:st=3"]  # fmt: skip
    there = ("-streamid", "2:768", "-streamid", "3:769")
    lone, both, moved = (
        spliced.recorded(tmp_path / "x.ts", coded, *more, seconds="1")
        for more in ((), twice, (*twice, *there))
    )
    path = tmp_path / "joined.ts"
    for parts in ((both, moved), (lone, both)):
        path.write_bytes(b"".join(parts))
        with pytest.raises(MediaRefused, match=r"has a further programme \(with PID 0x"):
            whole(path, tmp_path / "scratch")
    for parts in ((both, both), (both, lone)):
        path.write_bytes(b"".join(parts))
        assert whole(path, tmp_path / "scratch") is not None


def packet(pid: int, counter: int, *, begins: bool = False, full: bool = True, gap: bool = False):
    """Return a packet with payload; one that is not full is filled up, as the last of a unit."""
    field = b"" if full and not gap else bytes([10, 0x80 if gap else 0]) + b"\xff" * 9
    head = bytes([0x47, 0x40 * begins | pid >> 8, pid & 0xFF, (0x30 if field else 0x10) | counter])
    return (head + field).ljust(188, b"\x00")


@pytest.mark.parametrize(
    ("before", "after", "anew"),
    [
        (packet(1, 6), packet(1, 7, begins=True), False),
        (packet(1, 6, full=False), packet(1, 7, begins=True), False),
        (packet(1, 6, full=False), packet(1, 3, begins=True), True),
        (packet(1, 6), packet(1, 0, begins=True), True),
        (packet(1, 6), packet(1, 3, begins=True), False),
        (packet(1, 6, full=False), packet(1, 3), False),
        (packet(1, 6, full=False), packet(1, 3, begins=True, gap=True), False),
        (packet(2, 6, full=False), packet(1, 3, begins=True), False),
        (packet(1, 6, full=False), packet(2, 3, begins=True), False),
    ],
    ids=["goes on", "next unit", "a new file", "segments count from 0", "packets are missing",
         "inside a unit", "gap is announced", "nothing before", "another stream"],
)  # fmt: skip
def test_counters_that_do_not_go_on_after_a_table_begin_a_part(before, after, anew) -> None:
    table = packet(0x1000, 0, begins=True)
    other = packet(0x1FFF, 0)

    block = b"".join([before, other, table, other, after, other])

    assert transport_stream._begins_anew(block, 2 * 188, (0, 188), {1}) is anew


def units(*times: float, begin: int = 0) -> Units:
    ticks = array("q", [round(time * SECOND) % WRAP for time in times])
    return Units(array("q", range(begin, begin + len(times))), ticks, decoding=True)


def runs(*times: float) -> list[tuple[int, int]]:
    return [(run.first, run.after) for run in runs_of(1, units(*times))]


def steps(begin: float, count: int) -> list[float]:
    return [begin + number / 25 for number in range(count)]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (steps(1, 50), [(0, 50)]),
        (steps((1 << 33) / 90_000 - 1, 50), [(0, 50)]),
        ([*steps(1, 20), *steps(9, 20)], [(0, 40)]),
        ([*steps(1, 20), *steps(30, 20)], [(0, 20), (20, 40)]),
        ([*steps(100, 20), *steps(1, 20)], [(0, 20), (20, 40)]),
        ([*steps(1, 20), 5000.0, *steps(1.8, 20)], [(0, 41)]),
        ([*steps(1, 20), *steps(50, 20), *steps(1, 20)], [(0, 20), (20, 40), (40, 60)]),
    ],
    ids=["even", "wrap", "lost signal", "forward", "back", "broken time stamp", "twice"],
)
def test_where_a_clock_jumps(times, expected) -> None:
    assert runs(*times) == expected


def test_a_programme_beside_the_first_is_no_part_of_it() -> None:
    table = tuple(Elementary(pid, "0x2 ", "", video=True, audio=False) for pid in (1, 2, 3))
    found = Clocks({1: units(*steps(1, 50)), 2: units(*steps(70, 50)), 3: units(*steps(9, 9), begin=50)},
                   [(0, table)])  # fmt: skip

    assert [run.pid for run in chain(found, 1)] == [1, 3]


def test_a_picture_that_stays_long_at_a_joint_is_reported() -> None:
    found = Clocks({1: units(*steps(100, 20), *steps(1, 20))})
    whole_file = Ends(0, frozenset(), {}, 40, early=0, late=0)
    one = Part(Run(1, 0, 20), whole_file, None, {1: 0}, {1: 20 * FRAME})
    two = Part(Run(1, 20, 40), whole_file, None, {1: 0}, {1: 20 * FRAME}, move=20 * FRAME + SECOND)

    (said,) = notices(found, [one, two], 0, [])

    assert said.endswith(
        "jumps at 0:02. Until the sound there begins or ends, a picture stays for up to 1.0 s."
    )


@pytest.mark.parametrize(("early", "lost", "refused"), [(30, 20, False), (30, 21, True)])
def test_parts_that_would_lack_most_of_their_pictures_are_refused(early, lost, refused) -> None:
    ends = SimpleNamespace(early=early - 1, leading={188})
    parts, runs = [SimpleNamespace(ends=ends)], [SimpleNamespace(first=7, after=107)]

    with pytest.raises(MediaRefused, match="51 of its 100 pictures") if refused else nullcontext():
        refuse_loss("a.ts", runs, parts, lost)
