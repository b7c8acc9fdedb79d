"""AVI files that ffmpeg does not write: of several parts (OpenDML) of a few frames, and DivX's packed pictures."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

RESERVED = 8192
START = b"\0\0\1\xb6"
NOT_CODED = START + int("0101000001001111", 2).to_bytes(2, "big")
"""A P picture at no later second, its time of 5 bits (25 a second), not coded, stuffing (14496-2, 6.2.5)."""
I_PICTURE, B_PICTURE = 0, 2


def chunks(body: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of the chunks of a RIFF list."""
    while at + 8 <= len(body):
        size = struct.unpack_from("<I", body, at + 4)[0]
        yield body[at : at + 4], body[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def chunk(name: bytes, body: bytes) -> bytes:
    """Return a chunk as it is stored."""
    return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def open_dml(source: Path, target: Path, frames_each: int) -> Path:
    """Write the only track of an AVI in parts of so many frames, each with an index of its own."""
    top = list(chunks(source.read_bytes(), 12))
    header = next(body for name, body in top if name == b"LIST" and body.startswith(b"hdrl"))
    movi = next(body for name, body in top if name == b"LIST" and body.startswith(b"movi"))
    frames = [body for name, body in chunks(movi, 4) if name == b"00dc"]
    head_bytes = len(_header(header, [], len(frames)))
    parts, indexes, at = [], [], 0
    for begin in range(0, len(frames), frames_each):
        some = frames[begin : begin + frames_each]
        start = at + 12 + (head_bytes if begin == 0 else 0)
        data = start + 12
        stored, entries = b"", b""
        for body in some:
            entries += struct.pack("<II", len(stored) + 8, len(body))
            stored += chunk(b"00dc", body)
        index = struct.pack("<HBBI4sQI", 2, 0, 1, len(some), b"00dc", data, 0) + entries
        indexes.append((data + len(stored), 8 + len(index), len(some)))
        parts.append(chunk(b"LIST", b"movi" + stored + chunk(b"ix00", index)))
        at = start + len(parts[-1])
    parts[0] = _header(header, indexes, len(frames)) + parts[0]
    names = [b"AVI "] + [b"AVIX"] * (len(parts) - 1)
    target.write_bytes(
        b"".join(chunk(b"RIFF", name + part) for name, part in zip(names, parts, strict=True))
    )
    return target


def _header(header: bytes, indexes: list[tuple[int, int, int]], frames: int) -> bytes:
    """Return the list of headers with these indexes in a table of one size, and the number of frames."""
    entries = b"".join(struct.pack("<QII", *each) for each in indexes)
    index = struct.pack("<HBBI4s12x", 4, 0, 0, len(indexes), b"00dc") + entries
    made = b"hdrl"
    for name, body in chunks(header, 4):
        if name == b"LIST" and body.startswith(b"strl"):
            inner = [(n, b) for n, b in chunks(body, 4) if n not in {b"indx", b"JUNK"}]
            inner = [
                (n, b[:32] + struct.pack("<I", frames) + b[36:] if n == b"strh" else b)
                for n, b in inner
            ]
            inner.append((b"indx", index.ljust(RESERVED, b"\0")))
            made += chunk(b"LIST", b"strl" + b"".join(chunk(n, b) for n, b in inner))
        elif name == b"avih":
            made += chunk(name, body)
    made += chunk(b"LIST", b"odml" + chunk(b"dmlh", struct.pack("<I", frames).ljust(248, b"\0")))
    return chunk(b"LIST", made)


def coding(packet: bytes) -> int:
    """Return how the first picture of a packet is coded; -1 if there is none."""
    at = packet.find(START)
    return packet[at + 4] >> 6 if at >= 0 else -1


def rewritten(source: Path, target: Path, change: Callable[[list[bytes]], None]) -> Path:
    """Write an AVI of DivX whose video packets were changed, with an index of its own."""
    data = source.read_bytes()
    own = data[data.index(b"Lavc") :][:13]
    top = list(chunks(data.replace(own, b"DivX503b1393p"), 12))
    (movi,) = (body for kind, body in top if kind == b"LIST" and body.startswith(b"movi"))
    inside = list(chunks(movi, 4))
    pictures = [body for kind, body in inside if kind == b"00dc"]
    change(pictures)
    left = iter(pictures)
    inside = [(kind, next(left) if kind == b"00dc" else body) for kind, body in inside]
    index, at = b"", 4
    for kind, body in inside:
        key = kind != b"00dc" or coding(body) == I_PICTURE
        index += struct.pack("<4s3I", kind, 0x10 if key else 0, at, len(body))
        at += 8 + len(body) + len(body) % 2
    rest = [each for each in top if each[0] not in {b"idx1", b"LIST"} or each[1][:4] == b"hdrl"]
    whole = _stored([*rest, (b"LIST", b"movi" + _stored(inside)), (b"idx1", index)])
    target.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(whole)) + b"AVI " + whole)
    return target


def pack(pictures: list[bytes]) -> None:
    """Put each B picture into the packet before it, as DivX does."""
    for place in range(1, len(pictures)):
        if coding(pictures[place]) == B_PICTURE:
            pictures[place - 1] += pictures[place]
            pictures[place] = NOT_CODED


def drop(pictures: list[bytes]) -> None:
    """Store three pictures as "not coded", as DivX and Xvid do with repeated ones."""
    for place in (10, 11, 20):
        pictures[place] = NOT_CODED


def _stored(found: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(chunk(name, body) for name, body in found)
