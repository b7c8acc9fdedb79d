"""Files whose boxes, elements and chunks are odd or cut off are read as far as they make sense."""

import struct
from io import BytesIO

import pytest

from hevcq.ffmpeg.containers import matroska, mp4
from hevcq.ffmpeg.containers.matroska import CHAPTERS, INFO, SEGMENT, TAGS, TRACKS
from support.matroska import ATOM, CLUSTER, CUES, EDITION, SIMPLE, TAG, TARGETS, TRACK, element
from support.rendition import box, clap, elng

HANDLER = box(b"hdlr", bytes(8) + b"mdta" + bytes(13))


def entry(*boxes: bytes, video: bool = True) -> bytes:
    """Return the media box of a picture of 64x48, with these boxes in its sample description."""
    sample = box(b"avc1", bytes(24) + struct.pack(">2H", 64, 48) + bytes(50) + b"".join(boxes))
    table = box(b"stbl", box(b"stsd", bytes(8) + sample))
    return box(b"mdia", box(b"minf", (box(b"vmhd", b"") if video else b"") + table))


def movie(*parts: bytes) -> bytes:
    return box(b"moov", b"".join(parts))


def named(data: bytes) -> list[tuple[str, str]]:
    return [(f.item.place, f.item.name) for f in mp4.metadata(BytesIO(data), len(data))]


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (box(b"LENS", b"x" * 9) + b"\0\0\0\x09", [("file", "GoPro's lens (LENS)")]),
        (struct.pack(">I4s", 0, b"LENS") + b"to the end", [("file", "GoPro's lens (LENS)")]),
        (struct.pack(">I4sQ", 1, b"LENS", 20) + b"long", [("file", "GoPro's lens (LENS)")]),
        (box(b"free", b"") * 20_000 + box(b"LENS", b"beyond all that is read"), []),
        (box(b"\0\1\2\3", b"no kind that is written"), []),
        (box(b"uuid", mp4._XMP + b"<x/>"), [("file", "XMP")]),
        (movie(box(b"uuid", bytes(16) + b"x")), [("index", "uuid " + "00" * 16)]),
        (
            movie(box(b"meta", HANDLER + box(b"xml ", b"<x/>") + box(b"idat", b"x"))),
            [("movie table", "xml ")],
        ),
        (movie(box(b"trak", box(b"mdia", elng("?")))), [("track 0 media", "extended language (elng)")]),
    ],
    ids=["torn", "to its end", "64 bits", "many", "index", "xmp", "editor", "table", "language"],
)  # fmt: skip
def test_metadata_of_an_mp4_is_found_up_to_the_first_box_that_does_not_fit(data, found):
    assert named(data) == found


@pytest.mark.parametrize(
    ("media", "cuts"),
    [
        (entry(clap(48, 40)), True),
        (entry(clap(64, 48)), False),
        (entry(box(b"clap", b"\1" * 9)), True),
        (entry(box(b"pasp", bytes(8))), False),
        (entry(clap(48, 40), video=False), False),
    ],
    ids=["crop", "whole", "short", "none", "sound"],
)
def test_a_clean_aperture_that_cuts_something_off_is_named(media, cuts):
    odd = [("track 0 sample description", "clean aperture (clap)")]

    assert named(movie(box(b"trak", media))) == (odd if cuts else [])


def test_a_track_says_its_name_and_language():
    plain = box(b"udta", box(b"name", b"Pl\0ain\0"))
    words = box(b"udta", box(b"name", b"\0\x04\x15\xc7Talk") + box(b"LENS", b"x"))
    data = movie(box(b"trak", words + box(b"mdia", elng("de-CH"))), box(b"trak", plain))

    described = mp4.tracks(BytesIO(data), len(data))

    assert described == [{"title": "Talk", "language_tag": "de-CH"}, {"title": "Plain"}]


def mkv(*tables: bytes) -> BytesIO:
    return BytesIO(element(SEGMENT, *tables))


def kinds(file: BytesIO) -> list[tuple[str, str]]:
    return [(item.place, item.name) for item in matroska.metadata(file, len(file.getvalue()))]


def atoms(*content: bytes) -> bytes:
    return element(CHAPTERS, element(EDITION, *content))


def track(*parts: bytes, uid: int = 7) -> bytes:
    return element(TRACK, element(0x73C5, uid), element(0x83, 1), *parts)


def tag(*ids: int) -> bytes:
    targets = [element(0x63C5 if n < 50 else 0x63C9, n) for n in ids]
    level = element(0x68CA, 30)
    return element(TAG, element(TARGETS, level, *targets), element(SIMPLE, element(0x45A3, "A")))


def levelled(level: str) -> bytes:
    """Return a tag as mkvmerge writes a track's statistics, of the level 50 with a name."""
    targets = element(TARGETS, element(0x68CA, 50), element(0x63CA, level), element(0x63C5, 7))
    return element(TAG, targets, element(SIMPLE, element(0x45A3, "BPS"), element(0x4487, "1")))


CHAPTERED = ("chapters", "editions, order or nesting")


@pytest.mark.parametrize(
    ("tables", "found"),
    [
        ([element(SEGMENT - 1, b"")], []),
        ([element(INFO, element(0x73A4, b"i"))], []),
        ([element(INFO, element(0x3EB923, b"n"))], [("segment", "links to other files")]),
        ([atoms(element(ATOM, b""))], []),
        ([atoms(element(0x45DD, 1))], [CHAPTERED]),
        ([atoms(element(ATOM, element(ATOM, b"x")))], [CHAPTERED]),
        ([element(CHAPTERS, *[element(EDITION, b"")] * 2)], [CHAPTERED]),
        ([element(TAGS, tag())], [("file", "structured tags (A)")]),
        ([element(TAGS, tag(90))], [("file", "structured tags (A)")]),
        ([element(TRACKS, track()), element(TAGS, tag(7))], [("file", "structured tags (A)")]),
        ([element(TAGS, element(TAG, element(TARGETS, b"")))], []),
        ([element(TAGS, levelled("MOVIE"))], []),
        ([element(TAGS, levelled("OPERA"))], [("file", "structured tags (BPS)")]),
    ],
)
def test_what_a_matroska_says_beside_ffmpegs_tags_is_named(tables, found):
    assert kinds(mkv(*tables)) == found


@pytest.mark.parametrize(
    "data", [b"", b"\0\0", b"\x1a\x45", b"\x1a\x45\xdf\xa3", b"\xec\x80" * 20_001 + b"\x1a"]
)
def test_elements_that_are_cut_off_or_without_end_stop_the_reading(data):
    assert matroska.tracks(BytesIO(data), len(data)) == []


def test_tables_behind_the_clusters_are_found_by_the_seek_head_alone():
    language = element(TRACKS, track(element(0x22B59D, "pt-BR")))

    def head(at: int) -> bytes:
        place = element(0x53AC, at.to_bytes(8, "big"))
        return element(0x114D9B74, element(0x4DBB, element(0x53AB, TRACKS), place))

    for position, tracks in ((0, []), (len(element(CLUSTER, b"")), [{"language_tag": "pt-BR"}])):
        file = mkv(head(len(head(0)) + position), element(CLUSTER, b""), language)
        assert matroska.tracks(file, len(file.getvalue())) == tracks


def index(at: int, time: int) -> bytes:
    return element(CUES, element(0xBB, element(0xB3, time), element(0xB7, element(0xF1, at))))


@pytest.mark.parametrize(
    ("data", "broken"),
    [
        (b"no Matroska", ""),
        (element(SEGMENT, index(0, 0)), ""),
        (element(SEGMENT, index(51, 9000), element(CLUSTER, b"")), "a picture at 9.00 s, but it ends"),
        (element(SEGMENT, index(51, 2000), element(CLUSTER, b"")), ""),
    ],
    ids=["other", "all stale", "late", "sound"],
)  # fmt: skip
def test_cues_behind_the_last_packet_prove_that_it_is_missing(data, broken):
    found = matroska.broken_cues(BytesIO(data), len(data), 2.0)

    assert broken in found
    assert bool(found) == bool(broken)
