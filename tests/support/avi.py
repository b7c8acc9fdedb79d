"""AVI files of several parts (OpenDML), which ffmpeg writes from a gigabyte on, made of a few frames."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

RESERVED = 8192


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
