"""What a broadcaster sends beside picture and sound, which ffmpeg cannot make: teletext, splice marks, tables.

A stream is added to a transport stream of one programme: an entry in its map, and packets after pictures.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.fidelity.spliced import GOPS, recorded, video
from support.clips import ffmpeg

TS_PACKET = 188
_MAP_PID = 0x1000
"""Where ffmpeg puts the map of the first programme."""
_VIDEO_PID = 0x100
_HAMMING = bytes.fromhex("1502495e6473382fd0c78c9ba1b6fdea")
"""Nibbles of teletext, protected against errors (ETSI EN 300 706, 8.2)."""


@dataclass(frozen=True, slots=True)
class Added:
    """A stream to add: PID, kind and descriptors of its entry in the map, and what follows each picture.

    `unit` takes the picture's number and time in ticks and returns a PES packet or a section, b""
    for none; None makes a stream that is announced and never comes.
    """

    pid: int
    kind: int
    descriptors: bytes
    unit: Callable[[int, int], bytes] | None = None


def with_streams(data: bytes, *added: Added) -> bytes:
    """Return a transport stream with more streams in it."""
    made, counters, pictures = bytearray(), Counter[int](), 0
    waiting: list[bytes] = []
    for at in range(0, len(data), TS_PACKET):
        packet = data[at : at + TS_PACKET]
        pid = (packet[1] & 0x1F) << 8 | packet[2]
        if pid == _MAP_PID:
            packet = _with_entries(packet, added)
        if pid == _VIDEO_PID and packet[1] & 0x40:
            made += b"".join(waiting)
            time = _time(packet)
            units = [(each.pid, each.unit(pictures, time)) for each in added if each.unit]
            waiting = [p for pid, unit in units if unit for p in _packets(pid, unit, counters)]
            pictures += 1
        made += packet
    return bytes(made) + b"".join(waiting)


def descriptor(tag: int, body: bytes) -> bytes:
    """Return a descriptor of a map."""
    return bytes([tag, len(body)]) + body


def _pages(number: int, time: int) -> bytes:
    """Return a PES packet of teletext: a header row and a row of text (ETSI EN 300 472)."""
    page, magazine = (0x50, 2) if number % 2 else (0x00, 1)
    header = [page & 15, page >> 4, 0, 0, 0, 4 if magazine == 2 else 0, 0, 0]
    rows = (
        (0, bytes(_HAMMING[n] for n in header) + _odd(b"TEXT     ".ljust(32))),
        (20, _odd(b"\x0b\x0bHello teletext\x0a\x0a".ljust(40))),
    )
    units = b"\x10"
    for row, body in rows:
        address = bytes([_HAMMING[magazine | (row & 1) << 3], _HAMMING[row >> 1]])
        raw = bytes([0xE4]) + bytes(int(f"{b:08b}"[::-1], 2) for b in address + body)
        units += bytes([0x03 if magazine == 2 else 0x02, 0x2C, 0xE0 | 7 + row % 9]) + raw
    units += b"\xff\x2c" + b"\xff" * 44
    return _pes(0xBD, time, units, header=36)


def _odd(text: bytes) -> bytes:
    return bytes(b | (0 if b.bit_count() % 2 else 0x80) for b in text)


def _pes(stream_id: int, time: int, body: bytes, header: int = 5) -> bytes:
    stamp = bytes([0x21 | time >> 29 & 0x0E, time >> 22 & 0xFF, time >> 14 & 0xFE | 1, time >> 7 & 0xFF,
                   time << 1 & 0xFE | 1])  # fmt: skip
    rest = b"\x84\x80" + bytes([header]) + stamp + b"\xff" * (header - 5) + body
    return b"\x00\x00\x01" + bytes([stream_id]) + len(rest).to_bytes(2, "big") + rest


def _section(every: int, section: bytes) -> Callable[[int, int], bytes]:
    """Send a section after every so many pictures."""
    return lambda number, _time: b"" if number % every else b"\x00" + section


def _private(every: int, body: bytes) -> Callable[[int, int], bytes]:
    """Send a PES packet of private data after every so many pictures."""
    return lambda number, time: b"" if number % every else _pes(0xBD, time, body)


def _packets(pid: int, unit: bytes, counters: Counter[int]) -> Iterator[bytes]:
    for at in range(0, len(unit), 184):
        part = unit[at : at + 184]
        stuffing = 184 - len(part)
        field = b""
        if stuffing:
            field = bytes([stuffing - 1]) + (b"\x00" + b"\xff" * (stuffing - 2))[: stuffing - 1]
        flags = (0x30 if stuffing else 0x10) | counters[pid]
        counters[pid] = (counters[pid] + 1) % 16
        yield bytes([0x47, (0 if at else 0x40) | pid >> 8, pid & 0xFF, flags]) + field + part


def _with_entries(packet: bytes, added: tuple[Added, ...]) -> bytes:
    """Return the packet of a map with more entries."""
    length = int.from_bytes(packet[6:8], "big") & 0xFFF
    entries = b"".join(
        bytes([each.kind]) + (0xE000 | each.pid).to_bytes(2, "big")
        + (0xF000 | len(each.descriptors)).to_bytes(2, "big") + each.descriptors
        for each in added
    )  # fmt: skip
    body = packet[8 : 8 + length - 4] + entries
    section = packet[5:6] + (0xB000 | len(body) + 4).to_bytes(2, "big") + body
    section += crc(section).to_bytes(4, "big")
    return (packet[:5] + section).ljust(TS_PACKET, b"\xff")


def crc(data: bytes) -> int:
    """Return the checksum of a table (CRC-32/MPEG-2)."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
    return value


def _time(packet: bytes) -> int:
    at = 9 + (5 + packet[4] if packet[3] & 0x20 else 4)
    return (
        (packet[at] & 0x0E) << 29
        | packet[at + 1] << 22
        | (packet[at + 2] & 0xFE) << 14
        | packet[at + 3] << 7
        | packet[at + 4] >> 1
    )


TELETEXT = Added(
    0x200, 0x06, descriptor(0x56, b"deu\x09\x00" + b"deu\x11\x50" + b"fra\x28\x88"), _pages
)
"""The general pages, German, and subtitles in German and for the hard of hearing in French."""
DVB_SUBTITLES = Added(0x210, 0x06, descriptor(0x59, b"deu\x10\x00\x01\x00\x01"))
"""Announced and never sent, as in most programmes."""
SPLICES = Added(0x220, 0x86, descriptor(0x05, b"CUEI"), _section(25, bytes.fromhex(
    "fc3011000000000000000000fff0000000007a4fbfff")))  # fmt: skip
"""SCTE 35: marks where advertisements begin."""
CAROUSEL = Added(
    0x230, 0x0B, descriptor(0x52, b"\x70") + descriptor(0x13, bytes(4)),
    _section(10, b"\x3b\xb0\xc8" + bytes(200)),
)  # fmt: skip
"""An HbbTV application: an object carousel."""
APPLICATIONS = Added(
    0x240, 0x05, descriptor(0x6F, b"\x00\x10\xe1"), _section(10, b"\x74\xb0\x28" + bytes(40))
)
"""The table that announces an HbbTV application."""
_SONG = b"TIT2" + (6).to_bytes(4, "big") + bytes(2) + b"\x03Song\x00"
TIMED_ID3 = Added(
    0x250, 0x15, descriptor(0x26, b"\xff\xffID3 \xffID3 \x00\x0f"),
    _private(25, b"ID3\x04\x00\x00" + len(_SONG).to_bytes(4, "big") + _SONG),
)  # fmt: skip
"""The title of a song, as in segments of HLS."""
KLV = Added(
    0x260, 0x06, descriptor(0x05, b"KLVA"),
    _private(1, bytes.fromhex("060e2b34020b01010e010301010000000401020304")),
)  # fmt: skip
"""Metadata of a flying camera (SMPTE 336)."""
UNKNOWN = Added(0x270, 0x06, b"", _private(5, bytes(range(90))))
"""A stream whose kind nobody but its sender knows."""
AC4 = Added(
    0x280, 0x06, descriptor(0x7F, b"\x15\x00") + descriptor(0x0A, b"deu\x00"),
    _private(1, b"\xac\x40" + (300).to_bytes(2, "big") + bytes(300)),
)  # fmt: skip
"""Dolby AC-4, which ffmpeg does not decode, beside sound that it does."""
DESCRIPTION = Added(0x290, 0x04, descriptor(0x0A, b"deu\x03"))
"""A second sound, audio description, that is announced and never sent."""


def with_teletext(path: Path) -> None:
    """What a European broadcaster sends: teletext, subtitles and sound that are only announced, tables."""
    added = (TELETEXT, DVB_SUBTITLES, DESCRIPTION, CAROUSEL, APPLICATIONS)
    path.write_bytes(with_streams(recorded(path, GOPS, seconds="2"), *added))


def with_data(path: Path) -> None:
    """Data beside the picture: splice marks, song titles, a flight's metadata, sound nobody decodes."""
    added = (SPLICES, TIMED_ID3, KLV, UNKNOWN, AC4)
    path.write_bytes(with_streams(recorded(path, GOPS, seconds="2"), *added))


def with_late_sound(path: Path) -> None:
    """Sound in LATM, as in Scandinavia, that begins after the picture and changes its loudness."""
    loud = "aevalsrc='random(0)*sin(2764*t)*gt(mod(t*t*3\\,1)\\,0.5)':s=48000:d=3"
    ffmpeg(*video(seconds="3")[:4], "-itsoffset", "0.25", "-f", "lavfi", "-i", loud, *GOPS,
           "-c:a", "aac", "-mpegts_flags", "latm", path)  # fmt: skip


def with_changing_sound(path: Path, suffix: str = ".ac3") -> None:
    """Sound in AC-3 that is stereo, 5.1 for a film, and stereo again."""
    sounds, raw = b"", path.with_suffix(suffix)
    for channels in (2, 6, 2):
        ffmpeg(*video(seconds="1.12")[4:], "-af", "tremolo=f=1.7:d=0.9", "-ac", channels, raw)
        sounds += raw.read_bytes()
    raw.write_bytes(sounds)
    ffmpeg(*video(seconds="3.36")[:4], "-i", raw, *GOPS, "-c:a", "copy", path)
    raw.unlink()


def with_sound_that_comes_later(path: Path) -> None:
    """A second sound that is announced from the start and sent after seven seconds, as a description is."""
    raw = path.with_suffix(".mp2")
    ffmpeg(*video(seconds="10")[4:], "-ac", "2", "-b:a", "64k", raw)
    sound = raw.read_bytes()
    raw.unlink()
    frames = [sound[at : at + 192] for at in range(0, len(sound), 192)]

    def unit(number: int, _time: int) -> bytes:
        """Three frames of 24 ms after every 72 ms of pictures, from 1.4 s on, where ffmpeg begins."""
        turn, place = divmod(number - 175, 9)
        if turn < 0 or place not in (0, 2, 4, 5, 7):
            return b""
        place = turn * 5 + (0, 2, 4, 5, 7).index(place)
        return _pes(0xC1, 756_000 + place * 6480, b"".join(frames[place * 3 : place * 3 + 3]))

    late = with_streams(recorded(path, GOPS, seconds="10"), replace(DESCRIPTION, unit=unit))
    path.write_bytes(late)


def with_changing_aac(path: Path) -> None:
    """The same in AAC, as in Japan: MP4 and Matroska name its channels once, so no copy can change them."""
    with_changing_sound(path, ".aac")
