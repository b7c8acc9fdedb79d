"""Read and write Matroska elements by hand (RFC 8794), apart from the code under test."""

from collections.abc import Callable, Iterator
from pathlib import Path

SEGMENT, SEEK_HEAD, CLUSTER, CUES, VOID, CRC = (
    0x18538067, 0x114D9B74, 0x1F43B675, 0x1C53BB6B, 0xEC, 0xBF,
)  # fmt: skip
INFO = 0x1549A966
TRACKS, TRACK, VIDEO = 0x1654AE6B, 0xAE, 0xE0
CHAPTERS, EDITION, ATOM = 0x1043A770, 0x45B9, 0xB6
TAGS, TAG, TARGETS, SIMPLE = 0x1254C367, 0x7373, 0x63C0, 0x67C8
TITLE_OF_TRACK, LANGUAGE = 0x536E, 0x22B59D


def element(number: int, *content: bytes | str | int) -> bytes:
    data = b"".join(map(_coded, content))
    name = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return name + (len(data) | 1 << 56).to_bytes(8, "big") + data


def _coded(value: bytes | str | int) -> bytes:
    if isinstance(value, int):
        return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")
    return value.encode() if isinstance(value, str) else value


def read(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the elements of some bytes: their ids and contents."""
    at = 0
    while at < len(data):
        length = 9 - data[at].bit_length()
        number = int.from_bytes(data[at : at + length], "big")
        at += length
        length = 9 - data[at].bit_length()
        size = int.from_bytes(data[at : at + length], "big") & ((1 << 7 * length) - 1)
        at += length
        yield number, data[at : at + size]
        at += size


def inside(data: bytes, *path: int) -> list[bytes]:
    """Return the contents of all elements at the end of a path of ids."""
    if not path:
        return [data]
    found = [content for number, content in read(data) if number == path[0]]
    return [each for content in found for each in inside(content, *path[1:])]


def number(data: bytes, *path: int) -> int:
    found = inside(data, *path)
    return int.from_bytes(found[0], "big") if found else 0


def rewritten(clip: Path, change: Callable[[int, bytes], bytes | None], *more: bytes) -> Path:
    """Write a clip anew: `change` gets each table's id and content; `more` are further tables."""
    (head, header), (_, segment) = read(clip.read_bytes())
    tables, media = [], []
    for kind, content in read(segment):
        if kind in {SEEK_HEAD, CUES, VOID}:
            continue  # their positions would be wrong
        made = change(kind, content)
        if made is not None:
            (media if kind == CLUSTER else tables).append(element(kind, made))
    clip.write_bytes(element(head, header) + element(SEGMENT, *tables, *more, *media))
    return clip


def with_tables(
    clip: Path,
    *more: bytes,
    tracks: dict[int, bytes] | None = None,
    video: bytes = b"",
    info: bytes = b"",
    without: tuple[int, ...] = (),
) -> Path:
    """Add tables, parts of tracks by their number, and parts of the first track's picture."""

    def change(kind: int, content: bytes) -> bytes | None:
        if kind == INFO and info:
            fresh = [(n, part) for n, part in read(content) if n not in {CRC, 0x73A4}]
            return b"".join(element(n, part) for n, part in fresh) + info
        if kind != TRACKS:
            return None if kind in without else content
        entries = [part for number, part in read(content) if number == TRACK]
        return b"".join(element(TRACK, _track(n, part)) for n, part in enumerate(entries))

    def _track(place: int, content: bytes) -> bytes:
        parts = [
            element(kind, part + video if kind == VIDEO else part) for kind, part in read(content)
        ]
        return b"".join(parts) + (tracks or {}).get(place, b"")

    return rewritten(clip, change, *more)
