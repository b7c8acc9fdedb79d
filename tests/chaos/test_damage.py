"""The damage campaign in short: nothing that lost packets or frames is accepted."""

import shutil
import threading
from pathlib import Path

import pytest

from chaos.damage import Findings, clean_sources, inputs, outputs, prepare, report
from chaos.damage_corpus import ffmpeg
from chaos.damage_judge import ENCODER, judge, profile, run
from hevcq.errors import SourceDamaged, Stopped
from hevcq.ffmpeg.inspect.recording import announcing_gap, transport_damage
from support.once import made_once


def test_no_damaged_input_or_output_is_accepted_with_a_loss_and_no_clean_one_is_refused(tmp_path):
    found = Findings()
    ready = prepare(tmp_path, found, real=False)
    clean_sources(2, 3, tmp_path, found)
    found.inputs += inputs(ready, 14, 3, tmp_path, stride=7)
    found.outputs += outputs(ready, 14, 3, tmp_path, stride=7)

    assert found.unsafe() == [], report(found)
    assert found.alarms == []
    caught = [case for case in (*found.inputs, *found.outputs) if case.verdict == "caught"]
    assert len(caught) >= 14, report(found)
    assert all(case.detail for case in caught)


PICTURE = ("-f", "lavfi", "-i", "testsrc2=size=160x120:rate=25:duration=1.2")


SOUND = ("-f", "lavfi", "-i", "anoisesrc=duration=1.2:amplitude=0.2:seed=7")


H264 = ("-c:v", "libx264", "-preset", "superfast", "-g", "20")


def stream(folder: Path, *options: str, name: str = "video.ts") -> Path:
    def make(path: Path) -> None:
        ffmpeg(*PICTURE, *SOUND, *H264, "-c:a", "mp2", *options, path)

    made = made_once(("stream", options), make, Path(name).suffix)
    return Path(shutil.copyfile(made, folder / name))


def preflight(path: Path) -> None:
    stop = threading.Event()
    info = ENCODER.probe(str(path), stop=stop)
    ENCODER.preflight(str(path), info, profile(), stop=stop)


@pytest.mark.parametrize("make", [(), ("-mpegts_m2ts_mode", "1")], ids=["188", "192"])
def test_a_recording_that_ends_inside_a_packet_was_cut(tmp_path, make):
    # Given a recording cut where ffmpeg's demuxer finds nothing to complain of
    path = stream(tmp_path, *make)
    preflight(path)
    content, length = path.read_bytes(), 192 if make else 188

    # When it is cut inside a packet, then that is said; a cut between two is a shorter recording
    whole = len(content) // length * 7 // 10 * length
    path.write_bytes(content[: whole + 100])
    with pytest.raises(SourceDamaged, match="ends inside a packet"):
        preflight(path)


def test_a_recording_that_begins_inside_a_packet_is_not_judged_by_its_size(tmp_path):
    path = stream(tmp_path)
    path.write_bytes(path.read_bytes()[-100:] + path.read_bytes())
    preflight(path)


def beginnings(content: bytes, first: int, length: int) -> list[int]:
    """Where the units of pictures and sounds begin in a transport stream."""
    found = []
    for place in range(first, len(content), length):
        packet = content[place : place + 188]
        skipped = 5 + packet[4] if packet[3] & 0x20 else 4
        if packet[1] & 0x40 and packet[skipped : skipped + 3] == b"\0\0\1":
            found.append(place + skipped)
    return found


@pytest.mark.parametrize("byte", [0, 1, 2])
@pytest.mark.parametrize("make", [(), ("-mpegts_m2ts_mode", "1")], ids=["188", "192"])
def test_a_unit_of_a_recording_that_does_not_begin_with_a_start_code_is_damage(
    tmp_path, make, byte
):
    # Given a recording, which passes
    path = stream(tmp_path, *make)
    preflight(path)
    content = bytearray(path.read_bytes())
    units = beginnings(content, *((4, 192) if make else (0, 188)))
    assert len(units) > 30

    # When one bit of one start code is wrong, so that two pictures or sounds would become one
    content[units[len(units) // 2] + byte] ^= 0x80
    path.write_bytes(content)

    # Then that is said
    with pytest.raises(SourceDamaged, match="beginning of a video or audio unit is broken"):
        preflight(path)


def test_tables_scrambled_packets_and_a_stop_are_no_damage(tmp_path):
    path = stream(tmp_path)
    content = bytearray(path.read_bytes())
    unit = beginnings(content, 0, 188)[20]
    content[unit] ^= 0x80
    content[unit - unit % 188 + 3] |= 0xC0
    path.write_bytes(content)
    assert transport_damage(str(path), 1, threading.Event()) == ""

    stopped = threading.Event()
    stopped.set()
    with pytest.raises(Stopped):
        transport_damage(str(path), 1, stopped)


def in_unit(content: bytes, pid: int) -> list[int]:
    """Where the packets of a stream are that go on with a unit."""
    return [
        place
        for place in range(0, len(content), 188)
        if int.from_bytes(content[place + 1 : place + 3], "big") & 0x5FFF == pid
        and content[place + 3] & 0x10
    ]


@pytest.mark.parametrize("pid", [0x100, 0x101], ids=["picture", "sound"])
def test_packets_that_are_missing_inside_a_unit_are_damage_unless_that_is_announced(tmp_path, pid):
    # Given a recording, in which one packet in the middle goes missing or comes twice
    path = stream(tmp_path, "-b:a", "256k")
    content = path.read_bytes()
    places = in_unit(content, pid)
    here = places[len(places) // 2]
    twice = content[: here + 188] + content[here:]
    path.write_bytes(twice)
    assert transport_damage(str(path), 1, threading.Event()) == ""

    path.write_bytes(content[:here] + content[here + 188 :])
    said = "packets of its picture or sound are missing in 1 place"
    assert transport_damage(str(path), 1, threading.Event()) == said
    with pytest.raises(SourceDamaged, match=said):
        preflight(path)

    # When the counter is announced to be new, or a unit begins with another, nothing is missing
    follower = next(place for place in places if place > here)
    gap = announcing_gap(content[follower : follower + 188], 0)
    path.write_bytes(content[:here] + gap + content[here + 188 :])
    assert transport_damage(str(path), 1, threading.Event()) == ""
    begun = next(b - b % 188 for b in beginnings(content, 0, 188)[9:] if pid_at(content, b) == pid)
    last = max(place for place in in_unit(content, pid) if place < begun)
    assert content[last + 3] & 0x20  # stuffed: the unit is whole
    skipped = bytearray(content)
    for place in (
        place for place in range(begun, len(content), 188) if pid_at(content, place) == pid
    ):
        skipped[place + 3] = content[place + 3] & 0xF0 | (content[place + 3] + 5) & 0x0F
    path.write_bytes(skipped)
    assert transport_damage(str(path), 1, threading.Event()) == ""

    # When the end of the unit before is missing too, something is
    path.write_bytes(skipped[:last] + skipped[last + 188 :])
    assert transport_damage(str(path), 1, threading.Event()) == said


def test_counters_that_are_wrong_everywhere_are_the_manner_of_a_multiplexer(tmp_path):
    path = stream(tmp_path)
    content = bytearray(path.read_bytes())
    for number, place in enumerate(in_unit(content, 0x100)):
        content[place + 3] = content[place + 3] & 0xF0 | number * 3 & 0x0F
    path.write_bytes(content)
    assert transport_damage(str(path), 1, threading.Event()) == ""


def pid_at(content: bytes, place: int) -> int:
    start = place - place % 188
    return int.from_bytes(content[start + 1 : start + 3], "big") & 0x1FFF


def test_an_address_that_changed_its_use_is_not_judged(tmp_path):
    path = stream(tmp_path)
    content = bytearray(path.read_bytes())
    for unit in beginnings(content, 0, 188)[2:]:
        content[unit] = 0x80
    path.write_bytes(content)
    assert transport_damage(str(path), 1, threading.Event()) == ""


@pytest.mark.parametrize("codec", ["mp2", "ac3"])
def test_a_sound_copied_from_a_recording_must_keep_its_bytes(tmp_path, codec):
    # Given a clean rendition of a transport stream
    source = stream(tmp_path, "-c:a", codec)
    made = run(source, tmp_path / "made.mkv", profile())
    assert made.step == "", made.reason
    assert made.request is not None

    # When its sound is replaced by another of the same times, which decodes without complaint
    other = stream(tmp_path, "-c:a", codec, "-af", "areverse", name="other.ts")
    spoilt = tmp_path / "spoilt.mkv"
    copied = ("-map", "0:v", "-map", "1:a", "-c", "copy", "-map_metadata", "0")
    ffmpeg("-i", made.request.output, "-i", other, *copied, spoilt)
    spoilt.replace(made.request.output)

    # Then a gate finds it
    found = judge(made.request)
    assert found.step == "G5"
    assert found.reason.endswith("its bytes are not those of the source")
