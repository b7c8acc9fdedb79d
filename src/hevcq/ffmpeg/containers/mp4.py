"""Read the boxes of MP4 and MOV files, for metadata that ffmpeg neither reports nor copies.

Box layouts: ISO/IEC 14496-12 and the QuickTime File Format Specification. Reading stops at a damaged box without an
error: ffprobe decides whether a file can be read.
"""

import re
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import takewhile
from typing import BinaryIO

from hevcq.domain.media.facts import CREDENTIALS, KEYED, MetadataItem
from hevcq.util.file_io import sha256_bytes
from hevcq.util.text import printable

MAX_BYTES = 1 << 24
"""Largest box that is read or carried, in bytes; metadata of cameras has some kilobytes."""
_MAX_BOXES = 20_000
LANGUAGE_TAG = re.compile(r"[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*")
"""The characters of a BCP 47 language tag (RFC 5646)."""
ENTRY = 8 + 78
"""Bytes of a video's sample description before its boxes."""
_STRUCTURE = frozenset(
    b"ftyp moov mdat free skip wide pnot PICT moof mfra sidx ssix styp prft emsg pdin junk jP\x20\x20"
    .split()
)  # fmt: skip
"""Top-level boxes that hold the media, its index or nothing."""
_XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
"""Extended type of XMP (Adobe, XMP Specification Part 3, 1.1.4)."""
_C2PA = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
"""Extended type of Content Credentials (C2PA Technical Specification, "Embedding manifests into BMFF")."""
_PLAIN = frozenset(b"free skip wide chpl hnti hdlr keys mean name tmcd covr".split()) | {
    b"\xa9too", b"\xa9enc", b"\xa9swr", b"\xa9xsp", b"\x00\x00\x00\x00", b"vndr",
}  # fmt: skip
"""Boxes that hold no metadata, become streams or chapters in ffmpeg, or name the writing program."""
_NUMBERS = frozenset(b"trkn disk tmpo cpil rtng stik pgap hdvd gnre pcst loci tvsn tves".split())
"""Boxes with binary values that ffmpeg reports (libavformat/mov.c, mov_read_udta_string)."""
_NUMERIC = frozenset(number.to_bytes(4, "big") for number in (21, 22, 23))
"""Well-known types of integers and floats; ffmpeg reports QuickTime keys of these types."""
_NAMES = {
    b"XMP_": "XMP", b"smta": "Samsung's camera data", b"SDLN": "Samsung's play mode",
    b"auth": "author", b"GPMF": "GoPro's telemetry", b"FIRM": "GoPro's firmware",
    b"HMMT": "GoPro's highlights", b"LENS": "GoPro's lens", b"SETT": "GoPro's settings",
    b"MUID": "GoPro's media id", b"GUMI": "GoPro's unique id", b"clap": "clean aperture",
    b"meta": "metadata", b"ID32": "ID3 tags", b"LOOP": "looping", b"titl": "title",
    b"elng": "extended language", b"sefd": "Samsung's extra data", b"SEFT": "Samsung's trailer",
}  # fmt: skip

_MAX_DIRECTORY_BYTES = 1 << 16
"""Largest directory of a Samsung trailer."""


@dataclass(frozen=True, slots=True)
class Box:
    """One box: its type, and the places of its start, payload and end in the file, in bytes."""

    kind: bytes
    start: int
    payload: int
    end: int


@dataclass(frozen=True, slots=True)
class MetadataBox:
    """One piece of metadata with its whole box, header included; b"" if that is too large."""

    item: MetadataItem
    box: bytes


def children(file: BinaryIO, start: int, end: int) -> Iterator[Box]:
    """Yield the boxes between two places, up to the first that does not fit."""
    return takewhile(lambda box: box.end <= end, headers(file, start, end))


def headers(file: BinaryIO, start: int, end: int) -> Iterator[Box]:
    """Yield the boxes that begin between two places, wherever they claim to end."""
    for _ in range(_MAX_BOXES):
        if start + 8 > end:
            return
        file.seek(start)
        head = file.read(16)
        if len(head) < 8:
            return
        size, kind = struct.unpack(">I4s", head[:8])
        header = 8
        if size == 1 and len(head) == 16:
            size, header = struct.unpack(">Q", head[8:])[0], 16
        elif size == 0:
            size = end - start
        if size < header:
            return
        yield Box(kind, start, start + header, start + size)
        start += size


def has_index_first(file: BinaryIO, size: int) -> bool:
    kinds = (box.kind for box in children(file, 0, size))
    return next((kind for kind in kinds if kind in {b"moov", b"mdat"}), b"") == b"moov"


def second_video(file: BinaryIO, size: int) -> int:
    """Return the byte at which a second video begins behind the first, or 0.

    Of joined files (cat a.mp4 b.mp4) ffmpeg reads the first index only, at most with a warning. Fragments may
    repeat their index.
    """
    begin, index, index_last, has_media, is_fragmented = 0, None, False, False, False
    for box in children(file, 0, size):
        if box.kind == b"ftyp" and has_media:
            begin = begin or box.start
        elif box.kind == b"moof":
            is_fragmented = True
        elif box.kind == b"mdat":
            if begin and not is_fragmented:
                return begin
            has_media = True
        elif box.kind == b"moov" and index is None:
            index, index_last = box, has_media
        elif box.kind == b"moov" and index is not None:
            if not is_fragmented or _bytes(file, box) != _bytes(file, index):
                return begin or (index.end if index_last else box.start)
            begin = 0
    return 0


def metadata(file: BinaryIO, size: int) -> Iterator[MetadataBox]:
    """Yield the metadata of an MP4 or MOV that ffmpeg may not copy."""
    trailer = _samsung_trailer(file, size)
    end = size if trailer is None else trailer.start
    for box in children(file, 0, end):
        if box.kind == b"moov":
            yield from _movie(file, box)
        elif box.kind not in _STRUCTURE and box.kind.strip().isalnum():
            yield from _read_item(file, box, "file")
    if trailer is not None:
        yield from _read_item(file, trailer, "file")


def _samsung_trailer(file: BinaryIO, size: int) -> Box | None:
    """Return the data that Samsung's phones write behind the boxes, with a directory (SEFH) at the end."""
    file.seek(max(0, size - 8))
    length, kind = struct.unpack("<I4s", file.read(8).ljust(8, b"\0"))
    at = size - 8 - length
    if kind != b"SEFT" or not 12 <= length <= min(_MAX_DIRECTORY_BYTES, at):
        return None
    file.seek(at)
    directory = file.read(length)
    entries = struct.iter_unpack("<4xII", directory[12 : 12 + (length - 12) // 12 * 12])
    start = at - max((back for back, _ in entries), default=0)
    return Box(kind, start, start, size) if directory[:4] == b"SEFH" and start > 0 else None


def _movie(file: BinaryIO, moov: Box) -> Iterator[MetadataBox]:
    track = 0
    for box in children(file, moov.payload, moov.end):
        if box.kind == b"udta":
            yield from _user_data(file, box, "movie")
        elif box.kind == b"meta":
            yield from _items(file, box, "movie")
        elif box.kind == b"uuid":
            yield from _read_item(file, box, "index")
        elif box.kind == b"trak":
            yield from _track(file, box, f"track {track}")
            track += 1


def _track(file: BinaryIO, trak: Box, place: str) -> Iterator[MetadataBox]:
    """Yield a track's metadata without its name and language (see `tracks`)."""
    for box in children(file, trak.payload, trak.end):
        if box.kind == b"udta":
            for inner in children(file, box.payload, box.end):
                yield from _read_item(file, inner, place)
        elif box.kind in {b"meta", b"uuid"}:
            yield from _read_item(file, box, f"{place} itself")
        elif box.kind == b"mdia":
            for inner in children(file, box.payload, box.end):
                if inner.kind == b"elng" and not _language(file, inner):
                    yield from _read_item(file, inner, f"{place} media")
            for aperture in _cutting_apertures(file, box):
                yield from _read_item(file, aperture, f"{place} sample description")


def tracks(file: BinaryIO, size: int) -> list[dict[str, str]]:
    """Return each track's `title` and `language_tag` (BCP 47), if it has them."""
    return [
        _track_facts(file, trak)
        for moov in children(file, 0, size)
        if moov.kind == b"moov"
        for trak in children(file, moov.payload, moov.end)
        if trak.kind == b"trak"
    ]


def _track_facts(file: BinaryIO, trak: Box) -> dict[str, str]:
    facts = {}
    for name in _inside(file, trak, [b"udta"], 0):
        if name.kind == b"name":
            facts["title"] = _track_name(_bytes(file, name))
    for box in _inside(file, trak, [b"mdia"], 0):
        if box.kind == b"elng":
            facts["language_tag"] = _language(file, box)
    return {field: value for field, value in facts.items() if value}


def _track_name(content: bytes) -> str:
    """Return a track's name: plain text, or QuickTime's with length and language before it.

    NULs are removed, because they cannot be in a program's arguments.
    """
    if int.from_bytes(content[:2], "big") == len(content) - 4:
        content = content[4:]
    return content.decode("utf-8", "replace").replace("\0", "")


def _language(file: BinaryIO, elng: Box) -> str:
    text = _bytes(file, elng)[4:].rstrip(b"\0").decode("ascii", "replace")
    return text if LANGUAGE_TAG.fullmatch(text) else ""


def _cutting_apertures(file: BinaryIO, mdia: Box) -> Iterator[Box]:
    """Yield the clean apertures that cut off part of the picture."""
    if not any(box.kind == b"vmhd" for box in _inside(file, mdia, [b"minf"], 0)):
        return
    for entry in _inside(file, mdia, [b"minf", b"stbl", b"stsd"], 8):
        file.seek(entry.payload + 24)
        size = struct.unpack(">2H", file.read(4).ljust(4, b"\0"))
        for box in children(file, entry.start + ENTRY, entry.end):
            if box.kind == b"clap":
                content = _bytes(file, box).ljust(16, b"\0")
                width, wide_in, height, high_in = struct.unpack_from(">4I", content)
                if (width, height) != (size[0] * wide_in, size[1] * high_in):
                    yield box


def _inside(file: BinaryIO, box: Box, path: list[bytes], skip: int) -> Iterator[Box]:
    """Yield the children of the box at the end of a path of kinds, behind `skip` bytes of its payload."""
    if not path:
        yield from children(file, box.payload + skip, box.end)
        return
    for inner in children(file, box.payload, box.end):
        if inner.kind == path[0]:
            yield from _inside(file, inner, path[1:], skip)


def _user_data(file: BinaryIO, udta: Box, place: str) -> Iterator[MetadataBox]:
    for box in children(file, udta.payload, udta.end):
        if box.kind == b"meta":
            yield from _items(file, box, place)
        else:
            yield from _read_item(file, box, place)


def _items(file: BinaryIO, meta: Box, place: str) -> Iterator[MetadataBox]:
    """Yield the entries of a metadata table: iTunes' by their types, QuickTime's by their keys."""
    file.seek(meta.payload)
    plain = file.read(8)[4:8] == b"hdlr"  # in MOV; in MP4 it is a full box
    keys: list[str] = []
    for box in children(file, meta.payload + (0 if plain else 4), meta.end):
        if box.kind == b"ilst":
            for entry in children(file, box.payload, box.end):
                for piece in _read_item(file, entry, f"{place} list"):
                    number = int.from_bytes(entry.kind, "big")
                    name = KEYED + "".join(keys[number - 1 : number] or [str(number)])
                    changes = {} if entry.kind[0] else {"name": name}
                    yield MetadataBox(piece.item.model_copy(update=changes), piece.box)
        elif box.kind == b"keys":
            listed = children(file, box.payload + 8, box.end)
            keys = [printable(_bytes(file, key)[:100].decode("utf-8", "replace")) for key in listed]
        elif box.kind in {b"xml ", b"bxml", b"ID32"}:
            yield from _read_item(file, box, f"{place} table")


def _read_item(file: BinaryIO, box: Box, place: str) -> Iterator[MetadataBox]:
    """Yield the metadata of a box, if it is not empty and not one of _PLAIN."""
    size = box.end - box.start
    file.seek(box.start)
    if size > MAX_BYTES:
        item = _item(
            box.kind, file.read(32)[box.payload - box.start :], place, size, f"{box.start}:{size}"
        )
        yield MetadataBox(item.model_copy(update={"readable": False}), b"")
        return
    data = file.read(size)
    payload = data[box.payload - box.start :]
    has_content = payload.strip(b"\0 ") or box.kind == b"LOOP"
    if box.kind not in _PLAIN and len(data) == size and has_content:
        yield MetadataBox(_item(box.kind, payload, place, size, sha256_bytes(data)), data)


def _bytes(file: BinaryIO, box: Box) -> bytes:
    file.seek(box.payload)
    return file.read(min(box.end - box.payload, MAX_BYTES))


def _item(kind: bytes, payload: bytes, place: str, size: int, digest: str) -> MetadataItem:
    code = kind.decode("mac-roman")
    if kind == b"uuid":
        names = {_XMP: "XMP", _C2PA: CREDENTIALS}
        name = names.get(payload[:16], f"uuid {payload[:16].hex()}")
    else:
        readable = code if code.isprintable() else kind.hex()
        name = f"{_NAMES[kind]} ({code})" if kind in _NAMES else readable
    return MetadataItem(place=place, name=name, size=size, digest=digest)


def is_reported(box: bytes, tags: Collection[str]) -> bool:
    """Whether one of ffprobe's tags is the value of this box; a text's header has 4 to 24 bytes."""
    kind, payload = box[4:8], box[8:]
    if not box:
        return False  # it was too large to be read
    if kind in _NUMBERS or (kind[0] == 0 and payload[8:12] in _NUMERIC):
        return True
    if payload[4:8] == b"data" and len(list(children(BytesIO(payload), 0, len(payload)))) > 1:
        return False  # ffmpeg reports one of several values
    texts = (tag.encode("utf-8", "surrogateescape") for tag in tags)
    return any(text and text in payload and len(payload) - len(text) <= 40 for text in texts)
