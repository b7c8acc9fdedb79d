"""Fragmented MP4 is read strictly: playlists are written from it, so what does not fit is refused."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from hevcq.ffmpeg.containers.fragments import (
    FragmentedFile,
    hevc_name,
    read_fragments,
)

AVC = bytes([1, 0x64, 0, 0x1F, 0xFF])
HEVC = bytes([1, 0x01, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 0x5D])


def box(kind: bytes, *payload: bytes) -> bytes:
    content = b"".join(payload)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def full(kind: bytes, *numbers: int, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, struct.pack(f">{1 + len(numbers)}I", version << 24 | flags, *numbers))


def picture(kind: bytes = b"avc1", record: bytes = AVC, name: bytes = b"avcC") -> bytes:
    return box(kind, bytes(24), struct.pack(">2H", 320, 180), bytes(50), box(name, record))


def sound(kind: bytes, name: bytes, record: bytes) -> bytes:
    return box(kind, bytes(28), box(name, record))


def esds(config: bytes = b"\x12\x10", *, before: bytes = b"", long: bool = False) -> bytes:
    """Return an elementary stream descriptor of AAC; `long` writes lengths in four bytes."""

    def tagged(tag: int, content: bytes) -> bytes:
        length = bytes([0x80, 0x80, 0x80]) if long else b""
        return bytes([tag]) + length + bytes([len(content)]) + content

    decoder = tagged(4, bytes([0x40]) + bytes(12) + (tagged(5, config) if config else b""))
    return bytes(4) + before + tagged(3, bytes(3) + decoder)


def moov(
    entry: bytes, *, edits: bytes = b"", timescale: int = 1000, version: int = 0, tracks: int = 1
) -> bytes:
    zeros = (0,) * (4 if version else 2)
    header = full(b"mdhd", *zeros, timescale, 0, version=version)
    table = box(b"minf", box(b"stbl", box(b"stsd", struct.pack(">2I", 0, 1), entry)))
    trak = box(b"trak", edits, box(b"mdia", header, table))
    return box(b"moov", trak * tracks, box(b"mvex", full(b"trex", 1, 1, 40, 6, 0x10000)))


@dataclass(frozen=True)
class Samples:
    """A fragment: `rows` are what `flags` says of each sample (duration, size, flags, delay)."""

    media: bytes = b"sample"
    flags: int = 1
    rows: Sequence[int] = ()
    count: int = 1
    first_flags: int | None = None
    tfhd: bytes = full(b"tfhd", 1)
    time: bytes = box(b"tfdt", struct.pack(">IQ", 1 << 24, 500))
    runs: int = 1
    shift: int = 0
    follows: bytes = b"mdat"

    def write(self) -> bytes:
        def run(offset: int) -> bytes:
            flags = self.flags | (4 if self.first_flags is not None else 0)
            words = [self.count, offset] if flags & 1 else [self.count]
            words += [] if self.first_flags is None else [self.first_flags]
            return full(b"trun", *words, *self.rows, flags=flags)

        def moof(offset: int) -> bytes:
            return box(b"moof", box(b"traf", self.tfhd, self.time, run(offset) * self.runs))

        offset = len(moof(0)) + 8 + self.shift
        return moof(offset) + box(self.follows, self.media)


def written(path: Path, index: bytes, *fragments: Samples, after: bytes = b"") -> Path:
    path.write_bytes(index + b"".join(each.write() for each in fragments) + after)
    return path


def read(path: Path, *fragments: Samples, index: bytes | None = None) -> FragmentedFile:
    return read_fragments(written(path, index or moov(picture()), *(fragments or (Samples(),))))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.mp4"


def test_the_samples_of_each_fragment_are_added_up(path: Path) -> None:
    rows = (40, 6, 0x2000000, 80, 20, 4, 0x10000, 0)
    found = read(path, Samples(b"0123456789", 0xF01, rows, 2), Samples())

    assert (found.codec, found.width, found.height, found.timescale) == (
        "avc1.64001f",
        320,
        180,
        1000,
    )
    first, second = found.fragments
    assert (first.decoded, first.shown, first.duration, first.samples) == (500, 580, 60, 2)
    assert (first.last_shown, first.shown_end) == (580, 600)
    assert (first.first_end - first.first_at, first.sync) == (6, True)
    assert (second.duration, second.samples, second.sync) == (40, 1, False)
    assert (found.samples, found.seconds) == (3, 0.1)
    assert (first.start, second.end) == (found.head, found.size)


def test_a_fragment_may_give_what_its_samples_have_in_common(path: Path) -> None:
    words = (1, 0, 0, 0, 20, 3, 0x2000000)  # data offset, description, duration, size, flags
    header = full(b"tfhd", *words, flags=0x1 | 0x2 | 0x8 | 0x10 | 0x20)
    (one,) = read(path, Samples(b"012345", count=2, tfhd=header)).fragments
    assert (one.duration, one.first_end - one.first_at, one.sync) == (40, 3, True)

    (one,) = read(path, Samples(b"012345", first_flags=0x2000000)).fragments
    assert one.sync


def test_an_edit_shows_every_sample_earlier(path: Path) -> None:
    short = box(b"edts", full(b"elst", 1, 0, 100, 0x10000))
    (one,) = read(path, index=moov(picture(), edits=short)).fragments
    assert (one.decoded, one.shown) == (500, 400)

    long = box(b"edts", box(b"elst", struct.pack(">2IQqI", 1 << 24, 1, 0, 100, 0x10000)))
    assert read(path, index=moov(picture(), edits=long, version=1)).fragments[0].shown == 400
    none = box(b"edts", full(b"elst", 0))
    assert read(path, index=moov(picture(), edits=none)).fragments[0].shown == 500


@pytest.mark.parametrize(
    ("entry", "codec", "channels"),
    [
        (sound(b"mp4a", b"esds", esds()), "mp4a.40.2", 2),
        (sound(b"mp4a", b"esds", esds(b"\x12\x38", long=True)), "mp4a.40.2", 8),
        (sound(b"mp4a", b"esds", esds(before=bytes([6, 1, 2]))), "mp4a.40.2", 2),
        (sound(b"ac-3", b"dac3", bytes([0, 0x3C, 0])), "ac-3", 6),
        (sound(b"ec-3", b"dec3", bytes([0, 0, 0, 0x0F])), "ec-3", 6),
        (picture(b"hvc1", HEVC, b"hvcC"), hevc_name(HEVC), 0),
    ],
    ids=["AAC", "AAC 7.1", "AAC after another tag", "AC-3", "E-AC-3", "HEVC"],
)
def test_codecs_are_named_as_hls_names_them(
    path: Path, entry: bytes, codec: str, channels: int
) -> None:
    found = read(path, index=moov(entry))
    assert (found.codec, found.channels) == (codec, channels)


SPOILT = {
    "two tracks": ((moov(picture(), tracks=2), Samples()), "it has 2 trak boxes, not one"),
    "no index": ((b"", Samples()), "it has 0 moov boxes, not one"),
    "no fragment": ((moov(picture()),), "it has no fragments"),
    "two edits": (
        (moov(picture(), edits=box(b"edts", full(b"elst", 2, *range(6)))), Samples()),
        "2 edits, of which players know one",
    ),
    "a gap": (
        (moov(picture(), edits=box(b"edts", full(b"elst", 1, 9, 0xFFFFFFFF, 1))), Samples()),
        "1 edits, of which players know one",
    ),
    "short lengths": (
        (moov(picture(record=b"\x01\x64\x00\x1f\xfd")), Samples()),
        "no lengths of four bytes",
    ),
    "another codec": ((moov(picture(b"vp09", b"", b"vpcC")), Samples()), "its codec is vp09"),
    "no media": ((moov(picture()), Samples(follows=b"free")), "a fragment has no media"),
    "a short time": (
        (moov(picture()), Samples(time=full(b"tfdt", 500))),
        "the time of a fragment has no 64 bits",
    ),
    "no samples": ((moov(picture()), Samples(count=0)), "no samples"),
    "fewer rows": (
        (moov(picture()), Samples(flags=0x201, rows=(6,), count=2)),
        "lists fewer samples than it has",
    ),
    "another place": ((moov(picture()), Samples(shift=1)), "do not fill its media"),
}


@pytest.mark.parametrize(("parts", "words"), SPOILT.values(), ids=SPOILT)
def test_what_does_not_fit_is_refused_with_what_it_is(path: Path, parts: tuple, words: str) -> None:
    index, *fragments = parts
    with pytest.raises(ValueError, match=words):
        read_fragments(written(path, index, *fragments))


def test_bytes_between_or_after_fragments_are_refused(path: Path) -> None:
    free = box(b"free", b"1234")
    with pytest.raises(ValueError, match="bytes that belong to no fragment"):
        read_fragments(written(path, moov(picture()), Samples(), after=free))
    path.write_bytes(moov(picture()) + Samples().write() + free + Samples().write())
    with pytest.raises(ValueError, match="bytes that belong to no fragment"):
        read_fragments(path)


def test_a_file_that_was_cut_anywhere_is_refused(path: Path) -> None:
    whole = written(path, moov(picture()), Samples()).read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="it "):
            read_fragments(path)
