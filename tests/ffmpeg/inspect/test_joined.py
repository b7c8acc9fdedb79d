"""A recording that was joined from several is encoded whole, with sound in step, or refused with the split.

A recording with ragged ends is trimmed to its whole pictures, and nothing else is touched.
"""

import re
import subprocess
import threading
from array import array
from itertools import pairwise
from pathlib import Path

import pytest
from benchmarks.fidelity import ordinary, spliced
from benchmarks.fidelity.served import named

from hevcq.domain.profile import Profile
from hevcq.domain.profile_sections import VideoRecipe
from hevcq.errors import MediaRefused, SourceDamaged
from hevcq.ffmpeg.inspect import joined
from hevcq.ffmpeg.inspect.measure import NO_TIME, Packets
from hevcq.ffmpeg.inspect.recording import transport_damage
from hevcq.ports.encoder import TrimmedSource
from support.media_facts import audio, subtitle, video
from support.rendition import ENCODER

STOP = threading.Event()
MPEG2 = ("-c:v", "mpeg2video", "-q:v", "4", "-bf", "0")
JOINED = "The recording was joined from 2 parts: its clock jumps at 0:00:0{}."


def recorded(folder: Path, *more: str, seconds: str = "1") -> bytes:
    return spliced.recorded(folder / "part.ts", MPEG2, *more, seconds=seconds)


def whole(path: Path, folder: Path) -> TrimmedSource | None:
    folder.mkdir(exist_ok=True)
    info = ENCODER.probe(str(path), stop=STOP)
    return ENCODER.trim_recording(str(path), info, folder, stop=STOP)


def decoded(path: Path, kind: str = "v") -> tuple[list[int], list[str], str]:
    """Return time in ticks, and MD5, of each decoded frame, and what the decoder complained of."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-copyts", "-i", path, "-map", f"0:{kind}:0"]
    command += ["-fps_mode", "passthrough", "-enc_time_base", "1:90000", "-f", "framemd5", "-"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    lines = [line.split(",") for line in done.stdout.splitlines() if not line.startswith("#")]
    return [int(row[2]) for row in lines], [row[-1].strip() for row in lines], done.stderr


def frames(path: Path, kind: str = "v") -> tuple[list[int], list[str]]:
    *found, complaints = decoded(path, kind)
    assert complaints == ""
    return found


def packets(path: Path, kind: str) -> list[tuple[int, str]]:
    """Return time and MD5 of each packet."""
    command = ["ffprobe", "-v", "error", "-select_streams", f"{kind}:0", "-show_data_hash", "md5"]
    command += ["-show_entries", "packet=pts,data_hash", "-of", "compact=p=0:nk=1:s=\\,", path]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    fields = [line.split(",") for line in done.stdout.split() if line.strip(",")]
    return [(int(field[0]), field[-1]) for field in fields if field[0]]


def parts_of(folder: Path, kind: str) -> list[Path]:
    """Return two whole recordings; the sound of a transport stream lasts longer than its picture."""
    made = {
        "ts": lambda: spliced.joined_parts(folder / "x.ts"),
        "m2t": lambda: 2 * [recorded(folder, seconds="2")],
        "vob": lambda: [spliced.title(folder / "x", seconds) for seconds in ("2", "1")],
        "late.vob": lambda: [
            spliced.title(folder / "x", "2"),
            spliced.title(folder / "x", "1", "-output_ts_offset", "3000"),
        ],
    }[kind]()
    paths = [folder / f"{number}.{kind}" for number in range(len(made))]
    for path, data in zip(paths, made, strict=True):
        path.write_bytes(data)
    return paths


@pytest.mark.parametrize("kind", ["ts", "m2t", "vob", "late.vob"])
def test_every_picture_and_sound_of_all_parts_is_there_once_and_in_step(tmp_path, kind):
    parts = parts_of(tmp_path, kind)
    path = tmp_path / f"joined.{kind}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))

    made = whole(path, tmp_path / "scratch")

    assert made is not None
    assert made.notices == (JOINED.format(2),)
    times, pictures = frames(made.path)
    each = [frames(part)[1] for part in parts]
    assert pictures == [md5 for part in each for md5 in part]
    assert all(0 < later - time <= 18_000 for time, later in pairwise(times))
    sound, own = packets(made.path, "a"), [packets(part, "a") for part in parts]
    assert [md5 for _, md5 in sound] == [md5 for part in own for _, md5 in part]
    for last, last_sound, part in ((len(each[0]), len(own[0]), 0), (0, 0, 1)):
        lag = own[part][-1][0] - frames(parts[part])[0][-1]
        assert sound[last_sound - 1][0] - times[last - 1] == pytest.approx(lag, abs=90)
    assert sorted(each.name for each in (tmp_path / "scratch").iterdir()) == [made.path.name]
    assert whole(parts[0], tmp_path / "again") is None
    assert whole(made.path, tmp_path / "again") is None


def test_segments_put_together_are_whole_and_keep_their_times(tmp_path):
    source = ordinary.make(named("recording-segments.ts"), tmp_path)

    made = whole(source, tmp_path / "scratch")

    assert made is not None
    assert made.notices == ()
    for kind in ("v", "a"):
        assert frames(made.path, kind) == frames(source, kind)
    damaged, sound = (
        subprocess.run(
            ["ffmpeg", "-v", "quiet", "-xerror", "-i", path, "-f", "null", "-"],
            check=False,
            timeout=60,
        ).returncode
        for path in (source, made.path)
    )
    assert damaged > 0, "of the source packets seem to be missing, which ends an encode"
    assert sound == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("channels", "as where the channel was changed"),
        ("cut", "packets of its picture or sound are missing in 3 places"),
        ("open", "packets of its picture or sound are missing in 1 place"),
        ("lost", "packets of its picture or sound are missing in 1 place"),
    ],
)
def test_parts_that_do_not_follow_each_other_are_refused_before_the_encode(tmp_path, name, said):
    source = tmp_path / "joined.ts"
    getattr(spliced, f"recording_joined_{name}")(source)

    with pytest.raises(
        MediaRefused, match=rf"(?:clock jumps at 0:00:0\d|on the way).*{said}\."
    ) as error:
        whole(source, tmp_path / "scratch")

    assert "from, or split it there" in str(error.value.remedy)


def test_a_part_of_another_channel_is_refused_also_where_the_clock_goes_on(tmp_path):
    path, coded = tmp_path / "joined.ts", spliced.GOPS
    there = ("-mpegts_start_pid", "0x300", "-output_ts_offset", "2")
    one, other = (spliced.recorded(path, coded, *more, seconds="2") for more in ((), there))
    path.write_bytes(one + other)

    with pytest.raises(MediaRefused, match="as where the channel was changed"):
        whole(path, tmp_path / "scratch")


def test_pictures_in_a_stream_that_ffmpeg_does_not_find_are_never_left_out(tmp_path):
    source = ordinary.make(named("recording-two-programmes.ts"), tmp_path)
    assert transport_damage(str(source), 2, STOP) == ""

    with pytest.raises(MediaRefused, match="begin to come in another stream"):
        transport_damage(str(source), 1, STOP)


def slipped(one: bytes) -> dict[str, bytes]:
    half, lone = len(one) // 2, 188 * (len(one) // 376)
    return {
        "at a joint": one + one[:-100] + one,
        "inside a part": one + one[:half] + one[half + 94 :] + one,
        "bytes too many": one + one[:lone] + b"\x00" * 94 + one[lone:] + one,
        "a packet": one + one[:lone] + b"\x00" + one[lone + 1 :],
    }


def test_packets_that_slip_from_their_places_are_refused_and_never_dropped(tmp_path):
    path = tmp_path / "joined.ts"
    for case, data in slipped(recorded(tmp_path)).items():
        path.write_bytes(data)
        with pytest.raises(MediaRefused) as error:
            whole(path, tmp_path / "scratch")
        assert re.search("at byte|missing in|inside a packet", error.value.message), case


def packets_at(pts: list[int], digest: int = 1) -> Packets:
    return Packets(array("q", pts), array("q", pts), digest=digest)


def climbing(begin: int, count: int = 40) -> list[int]:
    return [begin + 3600 * number for number in range(count)]


WHOLE = climbing(0, 80)


@pytest.mark.parametrize(
    ("copy", "sound", "said"),
    [
        (packets_at(WHOLE), packets_at(WHOLE), ""),
        (packets_at(WHOLE[1:]), packets_at(WHOLE), "ffmpeg copies stream 0 incompletely"),
        (packets_at(WHOLE), packets_at(WHOLE, 2), "ffmpeg copies stream 1 incompletely"),
        (packets_at([*climbing(0), *climbing(3600 * 39)]), packets_at(WHOLE), "one clock on which they stay in step"),
        (packets_at([*climbing(0), *climbing(144_000, 30), *climbing(400_000, 10)]), packets_at(WHOLE), "other places"),
        (packets_at(WHOLE), packets_at([time + 180 * (time > 9000) for time in WHOLE]), "in step"),
        (packets_at(WHOLE), packets_at([time + 90_000 * (time > 200_000) for time in WHOLE]), "other places"),
    ],
    ids=["whole", "lost", "changed", "not rising", "late", "out of step", "sound alone"],
)  # fmt: skip
def test_a_copy_is_taken_only_if_nothing_is_lost_and_all_is_in_step(copy, sound, said):
    own, tracks = (
        packets_at([*climbing(9_000_000), *climbing(0)]),
        (video(), audio("mp2").model_copy(update={"index": 1})),
    )

    found = joined.copy_difference([(tracks[0], own, copy), (tracks[1], own, sound)])

    assert said in found if said else found == ""


def test_texts_of_a_copy_are_shown_beside_the_pictures_they_belong_to():
    own = packets_at([*climbing(9_000_000), *climbing(0)])
    tracks = [(video(), own, packets_at(WHOLE))]
    text = subtitle("dvb_subtitle").model_copy(update={"index": 2})
    for late, said in ((0, ""), (90_000, "the texts of stream 2 would be shown at other times")):
        texts = packets_at([9_003_600, NO_TIME]), packets_at([3600 + late, NO_TIME])

        assert joined.copy_difference([*tracks, (text, *texts)]) == said


PROFILE = Profile(name="p", description="d", video=VideoRecipe(codec="hevc", crf=28))


def preflight(path: Path) -> None:
    info = ENCODER.probe(str(path), stop=STOP)
    ENCODER.preflight(str(path), info, PROFILE, stop=STOP)


@pytest.mark.parametrize(
    ("name", "lost", "said"),
    [
        ("recording-cut.ts", 1, 2),
        ("recording-cut-mpeg2.ts", 1, 2),
        ("recording-torn-end.ts", 1, 1),
    ],
)
def test_whole_pictures_are_kept_and_the_others_counted(tmp_path, name, lost, said):
    source = ordinary.make(named(name), tmp_path)
    with pytest.raises(SourceDamaged):
        preflight(source)

    made = whole(source, tmp_path / "scratch")

    assert made is not None
    before, after = decoded(source)[1], frames(made.path)[1]
    assert len(before) - lost <= len(after) <= len(before)
    left = iter(before)
    assert all(picture in left for picture in after), "the same pictures in the same order"
    assert len(made.notices) == said
    preflight(made.path)


@pytest.mark.parametrize(
    "name", ["recording-whole.ts", "recording-clock-wrap.ts", "avchd-psf.mts", "mp3.mp4"]
)
def test_a_recording_with_whole_ends_is_taken_as_it_is(tmp_path, name):
    assert whole(ordinary.make(named(name), tmp_path), tmp_path / "scratch") is None
    assert not list((tmp_path / "scratch").iterdir())


def test_damage_in_the_middle_stays_damage(tmp_path):
    source = ordinary.make(named("recording-cut.ts"), tmp_path)
    data = bytearray(source.read_bytes())
    middle = len(data) // 2 // spliced.TS_PACKET * spliced.TS_PACKET
    del data[middle : middle + 40 * spliced.TS_PACKET]
    source.write_bytes(data)

    made = whole(source, tmp_path / "scratch")

    assert made is not None
    assert decoded(made.path)[2] != "", "which ends an encode, and G1"
