"""Recordings made packet by packet: what is said of odd parts and ends, and what is refused."""

import errno
import threading
from contextlib import nullcontext
from pathlib import Path

import pytest

from hevcq.domain.media.facts import Measurement, MediaInfo, StreamKind, TrackMeasure
from hevcq.errors import DiskFull, MediaRefused, Stopped
from hevcq.ffmpeg.inspect import joined, preflight, recording
from hevcq.ffmpeg.inspect.measure import PacketReader, Packets
from support.media_facts import audio, profile, video
from support.rendition import TOOLS

PICTURE, SOUND = 0x100, 0x101
FRAME, SECOND = 3600, 90_000


def packet(pid: int, counter: int, payload: bytes = b"", *, begins: bool = False) -> bytes:
    """Return a packet that is filled up in front of its payload."""
    room = 184 - len(payload)
    filled = bytes([max(0, room - 1)]) + b"\0".ljust(183, b"\xff")
    control = (0x20 if room else 0) | (0x10 if payload else 0) | counter % 16
    return bytes([0x47, begins << 6 | pid >> 8, pid & 0xFF, control]) + filled[:room] + payload


def unit(time: int, content: bytes, stream: int = 0xE0) -> bytes:
    """Return a unit of picture or sound with its time in ticks."""
    coded = [time >> 29 & 0x0E | 0x21, time >> 22 & 0xFF, time >> 14 & 0xFE | 1]
    coded += [time >> 7 & 0xFF, time << 1 & 0xFE | 1]
    return b"\0\0\1" + bytes([stream]) + b"\0\0\x80\x80\5" + bytes(coded) + content


def part(begin_s: float, pictures: str) -> bytes:
    """Return a recording with one letter for each picture, and a sound beside it.

    I is a key frame, P none, B one that is shown before the pictures ahead, and x one without a sound.
    """
    made = b""
    for number, kind in enumerate(pictures):
        time = round(begin_s * SECOND) + FRAME * number
        shown = time - 9 * FRAME // 2 * (kind == "B")
        content = b"\0\0\1" + (b"\x65" if kind == "I" else b"\x41") + kind.encode()
        made += packet(PICTURE, number, unit(shown, content), begins=True)
        if kind != "x":
            made += packet(SOUND, number, unit(time, b"s", 0xC0), begins=True)
    return made


def with_parity(data: bytes) -> bytes:
    """Return a made stream in packets of 204 bytes, as satellite receivers record them."""
    return b"".join(data[at : at + 188] + bytes(16) for at in range(0, len(data), 188))


def demuxed(data: bytes, *, timed: bool = True, parity: bool = False) -> dict[int, Packets]:
    """Return the pictures of a made stream as ffprobe would print them.

    ffprobe places a packet of 204 bytes 16 bytes before its start.
    """
    reader = PacketReader()
    for at in range(0, len(data) - 187, 188):
        one = data[at : at + 188]
        place, pid = one.find(b"\0\0\1"), (one[1] & 0x1F) << 8 | one[2]
        if place < 0 or not one[1] & 0x40 or pid != PICTURE:
            continue
        bits = int.from_bytes(one[place + 9 : place + 14], "big")
        time = (bits >> 33 & 7) << 30 | (bits >> 17 & 0x7FFF) << 15 | bits >> 1 & 0x7FFF
        pts, flags = time if timed else "N/A", "K_" if one[-1:] == b"I" else "__"
        shown_at = at // 188 * 204 - 16 if parity else at
        reader.line(f"stream_index=0|pts={pts}|pos={shown_at}|flags={flags}")
    return reader.tracks


STOP = threading.Event()
WHOLE = "I" + 19 * "P"
URL = "relay+http://127.0.0.1:9/a.ts?secret"
PROGRAM = {"format_name": "mpegts", "size": 1, "duration_s": 1.0}


def info(*streams):
    numbered = [each.model_copy(update={"index": n}) for n, each in enumerate(streams)]
    return MediaInfo(streams=tuple(numbered), **PROGRAM)


EMPTY = packet(0x1FFF, 0, b"x") * 16
TORN = packet(PICTURE, 20, unit(2 * SECOND, b"P").ljust(184, b"p"), begins=True)


def test_what_is_no_recording_is_not_trimmed(tmp_path):
    path, other = tmp_path / "a.ts", tmp_path / "b.ts"
    path.write_bytes(part(1, WHOLE))
    other.write_bytes(b"Gthis is no transport stream" * 100)

    tracks = demuxed(path.read_bytes())
    for location, stream in ((URL, video()), (str(other), video()), (str(path), audio())):
        assert recording.trim_recording(location, info(stream), tracks, tmp_path, STOP) is None
    facts = info(video())
    assert recording.trim_recording(str(path), facts, {}, tmp_path, STOP) is None
    assert joined.prepare_recording(TOOLS, URL, facts, tmp_path, STOP) is None
    assert recording.transport_damage(URL, 1, STOP) == ""
    assert recording.transport_damage(str(other), 1, STOP) == ""


def units(data: bytes) -> int:
    """Return the number of pictures."""
    begins = bytes([0x47, 0x40 | PICTURE >> 8, PICTURE & 0xFF])
    return sum(data[at : at + 3] == begins for at in range(0, len(data), 188))


def left_out(pictures: str, verb: str = "are") -> list[str]:
    said = f"Stream 0: {pictures} before the first whole one, with the sound until then, {verb} left out"
    return [f"{said}: the recording begins between key frames."]


@pytest.mark.parametrize(
    ("data", "timed", "said", "pictures"),
    [
        (part(1, WHOLE), True, None, 20),
        (part(1, "PPP") + EMPTY, True, None, 3),
        (part(1, "PIP") + EMPTY, False, None, 3),
        (part(1, "P" + WHOLE), True, left_out("1 picture", "is"), 20),
        (part(1, "xIBPBPP") + EMPTY, True, left_out("3 pictures"), 4),
        (part(1, "xIBB") + EMPTY, True, left_out("3 pictures"), 1),
        (
            part(1, WHOLE) + TORN + packet(SOUND, 4, unit(SECOND, b"s", 0xC0), begins=True) + packet(PICTURE, 0),
            True,
            ["Stream 0: the last picture is left out: the recording ends inside it."],
            20,
        ),
    ],
    ids=["whole", "no key", "no time", "ragged", "open", "open only", "torn"],
)  # fmt: skip
def test_ragged_ends_are_trimmed_and_said(tmp_path, data, timed, said, pictures):
    path, facts = tmp_path / "a.ts", info(video(), audio())
    path.write_bytes(data)

    made = recording.trim_recording(str(path), facts, demuxed(data, timed=timed), tmp_path, STOP)

    assert (None if made is None else list(made.notices)) == said
    kept = made.path if made else path
    assert units(kept.read_bytes()) == pictures + (TORN in data and made is None)
    gaps = kept.read_bytes().count(b"\xb7\x80")
    assert gaps == (2 if pictures == 4 else 0), "announced where a picture follows those left out"


@pytest.mark.parametrize("pictures", ["P" + WHOLE, "xIBPBPP"])
def test_packets_with_parity_are_trimmed_like_those_without(tmp_path, pictures):
    facts, empty = info(video(), audio()), packet(0x1FFF, 0, b"x")
    data = empty + part(1, pictures) + EMPTY + TORN
    plain, longer = tmp_path / "a.ts", tmp_path / "b.ts"
    plain.write_bytes(data)
    longer.write_bytes(with_parity(data))
    (tmp_path / "c").mkdir()

    made = recording.trim_recording(str(plain), facts, demuxed(data), tmp_path, STOP)
    other = recording.trim_recording(
        str(longer), facts, demuxed(data, parity=True), tmp_path / "c", STOP
    )

    assert made is not None
    assert other is not None
    assert other.notices == made.notices
    assert "the last picture is left out" in other.notices[-1]
    assert other.path.stat().st_size * 188 == made.path.stat().st_size * 204


def test_a_copy_ends_with_a_stop_or_a_full_disk(tmp_path, monkeypatch):
    path, stop, facts = tmp_path / "a.ts", threading.Event(), info(video(), audio())
    data = part(1, "P" + WHOLE)
    path.write_bytes(data)
    whole = tmp_path / "b.ts"
    whole.write_bytes(part(1, WHOLE))

    opened = Path.open

    def full(path, mode="r", **named):
        if "w" in mode:
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, mode, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        with pytest.raises(DiskFull, match="while a recording was trimmed"):
            recording.trim_recording(str(path), facts, demuxed(data), tmp_path, stop)
    stop.set()
    with pytest.raises(Stopped):
        recording.trim_recording(str(path), facts, demuxed(data), tmp_path, stop)
    with pytest.raises(Stopped):
        recording.transport_damage(str(whole), 1, stop)


def begun(*contents: bytes, pid: int = PICTURE) -> bytes:
    return b"".join(packet(pid, number, each, begins=True) for number, each in enumerate(contents))


UNITS = 20 * [unit(SECOND, b"P")]
SCRAMBLED = bytes([0x47, 0x41, 0, 0xD4]) + bytes(184)


@pytest.mark.parametrize(
    ("data", "damage"),
    [
        (begun(*UNITS), ""),
        (begun(*UNITS) + begun(*20 * [b"section"], unit(SECOND, b"P"), pid=0x105), ""),
        (begun(*UNITS) + SCRAMBLED, ""),
        (b"x" * 100 + begun(*UNITS), ""),
        (begun(*UNITS) + b"G", "it ends inside a packet, so it was truncated"),
    ],
    ids=["whole", "tables", "scrambled", "begins inside", "cut"],
)
def test_a_stream_that_ends_inside_a_packet_is_damage(tmp_path, data, damage):
    path = tmp_path / "a.ts"
    path.write_bytes(data)

    assert recording.transport_damage(str(path), 1, STOP) == damage


def counted(counter: int, *, pid: int = 0x100, flags: int = 0x10, begins: bool = False) -> bytes:
    """Return a transport packet; with an adaptation field (0x20) it says that its counter jumps."""
    head = bytes([0x47, (0x40 if begins else 0) | pid >> 8, pid & 0xFF, flags | counter % 16])
    body = b"\x01\x80" if flags & 0x20 else b""
    return (head + body + (b"\0\0\1\xe0" if begins else b"")).ljust(188, b"\xff")


PLAIN = [counted(0, begins=True), *map(counted, range(1, 60))]


@pytest.mark.parametrize(
    ("packets", "lost"),
    [
        (PLAIN, ""),
        ([*PLAIN[:20], *PLAIN[22:]], "missing in 1 place"),
        ([*PLAIN[:20], b"\0" * 188, *PLAIN[20:]], ""),
        ([*PLAIN[:20], counted(21, flags=0x20), *PLAIN[22:]], ""),
        ([*PLAIN[:20], counted(21, flags=0), *PLAIN[22:]], "missing in 1 place"),
        ([counted(3 * number, begins=not number) for number in range(60)], ""),
    ],
    ids=["whole", "two lost", "out of sync", "announced", "no payload", "wrong everywhere"],
)
def test_packets_are_missing_where_a_counter_jumps_unannounced(tmp_path, packets, lost):
    path, stop = tmp_path / "a.ts", threading.Event()
    path.write_bytes(b"".join(packets))

    assert lost in (found := recording.transport_damage(str(path), 1, stop))
    assert bool(found) == bool(lost)


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (tuple(1001 * n for n in range(40)), ""),
        (tuple(1001 * n + n % 2 * 200 for n in range(40)), ""),
        ((0, 500, 9000), "shown at uneven times"),
        ((), "shown at uneven times"),
    ],
    ids=["even", "rounded", "uneven", "unknown"],
)
def test_a_telecine_at_uneven_times_is_not_inverted(times, said):
    facts = {"field_order": "tt", "telecined": True, "average_rate": "30000/1001"}
    pulled = info(video(720, 480, time_base="1/30000", **facts))
    track = TrackMeasure(index=0, kind=StreamKind.VIDEO, packets=len(times), times=times)
    measured, asked = Measurement(tracks=(track,)), profile("hevc", video={"invert_telecine": True})

    with pytest.raises(MediaRefused, match=said) if said else nullcontext():
        preflight.require_even_film("a.mkv", pulled, measured, asked)
    preflight.require_even_film("a.mkv", pulled, measured, profile("hevc"))
