"""A program stream that was joined from titles gets one clock: every packet once, sound in step."""

from __future__ import annotations

import subprocess
import threading
from itertools import pairwise

import pytest
from benchmarks.fidelity import spliced

from ffmpeg.inspect.test_joined import ENCODER, frames
from hevcq.domain.profile import Policies
from hevcq.errors import MediaRefused
from hevcq.ffmpeg.inspect import program_stream, transport_stream
from hevcq.ffmpeg.inspect.program_stream import read_packs

STOP = threading.Event()
VIDEO, SOUND = 0x1E0, 0x80


def whole(path, folder, **policies):
    folder.mkdir(exist_ok=True)
    info = ENCODER.probe(str(path), stop=STOP)
    chosen = Policies.model_validate(policies)
    return ENCODER.trim_recording(str(path), info, chosen, folder, stop=STOP)


def sounds(path) -> list[tuple[int, str]]:
    """Return time and MD5 of each packet of sound: what decoders make of it depends on those before."""
    command = ["ffprobe", "-v", "error", "-select_streams", "a", "-show_data_hash", "md5"]
    command += ["-show_entries", "packet=pts,data_hash", "-of", "csv=p=0", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    fields = [line.split(",") for line in done.stdout.split()]
    return [(int(field[0]), field[-1]) for field in fields]


@pytest.mark.parametrize("offset", ["0", "3000"])
def test_titles_that_were_joined_follow_each_other_with_every_picture_and_sound(
    tmp_path, monkeypatch, offset
):
    paths = [tmp_path / "one.vob", tmp_path / "two.vob"]
    paths[0].write_bytes(spliced.title(tmp_path / "x", "1"))
    paths[1].write_bytes(spliced.title(tmp_path / "x", "1", "-output_ts_offset", offset))
    joined = tmp_path / "joined.vob"
    joined.write_bytes(b"".join(path.read_bytes() for path in paths))

    made = whole(joined, tmp_path / "scratch")

    assert made is not None
    assert "joined from 2 parts: its clock jumps at 0:01." in made.notices[0]
    assert made.path.stat().st_size == joined.stat().st_size
    pictures, sound = [frames(path, "v")[1] for path in paths], [sounds(path) for path in paths]
    times, content = frames(made.path, "v")
    assert content == [*pictures[0], *pictures[1]]
    assert times == sorted(set(times))
    assert [md5 for _, md5 in sounds(made.path)] == [md5 for part in sound for _, md5 in part]
    assert {b - a for (a, _), (b, _) in pairwise(sounds(made.path))} <= {2880, 5760}
    own, found = (read_packs(str(path), STOP).units for path in (paths[1], made.path))
    lag = own[SOUND].times[0] - own[VIDEO].times[0]
    first = [len(read_packs(str(paths[0]), STOP).units[each].times) for each in (SOUND, VIDEO)]
    assert found[SOUND].times[first[0]] - found[VIDEO].times[first[1]] == lag
    assert whole(made.path, tmp_path / "again") is None
    with pytest.raises(MediaRefused, match="clock jumps at 0:01"):
        whole(joined, tmp_path / "scratch", clock_jumps="refuse")
    assert whole(paths[0], tmp_path / "scratch") is None
    for whole_bytes, off in ((1 << 24, 0.3), (0, 0.6)):  # clocks begin before pictures
        monkeypatch.setattr(program_stream, "WHOLE_BYTES", whole_bytes)
        monkeypatch.setattr(transport_stream, "PLACE_BYTES", 4 << 10)
        info = ENCODER.probe(str(joined), stop=STOP)
        assert info.duration_s == pytest.approx(2, abs=off)
        assert program_stream.length_over_jumps(str(paths[0])) is None
    assert ENCODER.joints(str(joined), info, stop=STOP).endswith(
        "2 parts: its clock jumps at 0:01."
    )
    assert not ENCODER.joints(str(paths[0]), info, stop=STOP)


def test_a_part_that_begins_inside_a_group_of_pictures_is_refused_before_the_encode(tmp_path):
    one = spliced.title(tmp_path / "x", "1")
    joined = tmp_path / "joined.vob"
    joined.write_bytes(one + one[len(one) // 2 // 2048 * 2048 :])
    with pytest.raises(MediaRefused, match="inside a group of pictures"):
        whole(joined, tmp_path / "scratch")


def test_parts_with_other_tracks_are_refused_before_the_encode(tmp_path):
    joined = tmp_path / "joined.vob"
    silent = spliced.title(tmp_path / "x", "1", "-an")
    joined.write_bytes(spliced.title(tmp_path / "x", "1") + silent)
    with pytest.raises(MediaRefused, match="different tracks"):
        whole(joined, tmp_path / "scratch")


def test_a_program_stream_of_mpeg_1_is_joined_too(tmp_path):
    one = tmp_path / "one.mpg"
    spliced.ffmpeg(*spliced.video("176x144", seconds="1"), "-c:v", "mpeg1video", "-c:a", "mp2", one)
    joined = tmp_path / "joined.mpg"
    joined.write_bytes(2 * one.read_bytes())
    made = whole(joined, tmp_path / "scratch")
    assert made is not None
    assert frames(made.path, "v")[1] == 2 * frames(one, "v")[1]
    assert [md5 for _, md5 in sounds(made.path)] == 2 * [md5 for _, md5 in sounds(one)]
