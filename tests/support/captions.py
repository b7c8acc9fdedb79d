"""Clips with closed captions (CEA-608 and 708 in A/53 user data), which no command of ffmpeg makes."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

NOTHING = b"\x00\x00"
START = re.compile(rb"\x00\x00\x00?\x01")
Pairs = list[bytes]


def shown(*lines: str, channel: int = 1) -> Pairs:
    """Return the pairs of a caption of up to two lines that appears as a whole."""
    pairs = [command(0x20, channel)] * 2
    for row, line in enumerate(lines):
        pairs += [command(0x50 + 0x20 * row, channel)] * 2
        pairs += letters(line)
    return pairs + [command(0x2F, channel)] * 2


def rolled(line: str, channel: int = 1) -> Pairs:
    """Return the pairs of a line that is written at once, below one that rolls up."""
    start = [command(low, channel) for low in (0x25, 0x25, 0x2D, 0x2D, 0x50, 0x50)]
    return start + letters(line)


def erased(channel: int = 1) -> Pairs:
    """Return the pairs that erase what is shown."""
    return [command(0x2C, channel)] * 2


def command(low: int, channel: int = 1) -> bytes:
    """Return a command of a channel, 1 to 4."""
    # Commands of the second field have a number of their own; places have the same in both.
    number = 0x15 if channel > 2 and low < 0x40 else 0x14
    return bytes([number | (8 if channel in {2, 4} else 0), low])


def letters(text: str) -> Pairs:
    """Return the pairs of plain letters."""
    raw = text.encode("ascii")
    raw += bytes(len(raw) % 2)
    return [raw[at : at + 2] for at in range(0, len(raw), 2)]


def at_frame(*placed: tuple[int, Pairs]) -> Pairs:
    """Return one pair a frame: each list from its frame on, and nothing between."""
    pairs: Pairs = []
    for frame, some in placed:
        pairs += [NOTHING] * (frame - len(pairs)) + some
    return pairs


def captioned(
    path: Path,
    first: Pairs,
    second: Sequence[bytes] = (),
    *,
    digital: bytes = b"",
    seconds: float = 4,
    rate: str = "25",
    options: Sequence[str] = ("-bf", "0"),
) -> Path:
    """Write H.264 of `rate` pictures a second with a tone, whose fields carry these pairs.

    `digital` is a packet of CEA-708 of two bytes for the first picture.
    """
    bare, marked = path.with_suffix(".bare.h264"), path.with_suffix(".cc.h264")
    picture = f"testsrc2=size=160x90:rate={rate}:duration={seconds}"
    _ffmpeg("-f", "lavfi", "-i", picture, "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p",
            "-g", "25", *options, "-x264-params", "aud=1", str(bare))  # fmt: skip
    marked.write_bytes(with_user_data(bare.read_bytes(), first, second, digital))
    _ffmpeg("-f", "h264", "-r", rate, "-i", str(marked), "-f", "lavfi", "-i",
            f"sine=frequency=440:duration={seconds}", "-c:v", "copy", "-c:a", "aac", "-metadata:s:a:0",
            "language=eng", str(path))  # fmt: skip
    bare.unlink()
    marked.unlink()
    return path


def with_user_data(
    stream: bytes, first: Pairs, second: Sequence[bytes] = (), digital: bytes = b""
) -> bytes:
    """Put a message with caption data in front of the first slice of each picture."""
    made, picture, waits = [], 0, False
    units = [part for part in START.split(stream) if part]
    for unit in units:
        kind = unit[0] & 0x1F
        waits = waits or kind == 9
        if waits and kind in {1, 5}:
            triplets = [
                b"\xfc" + with_parity(_at(first, picture)),
                b"\xfd" + with_parity(_at(second, picture)),
            ]
            triplets += [b"\xff" + digital] if digital and picture == 0 else []
            made.append(message(triplets))
            picture, waits = picture + 1, False
        made.append(unit)
    return b"".join(b"\x00\x00\x00\x01" + unit for unit in made)


def _at(pairs: Sequence[bytes], place: int) -> bytes:
    return pairs[place] if place < len(pairs) else NOTHING


def with_parity(pair: bytes) -> bytes:
    """Return a pair with the bit that makes the number of ones odd."""
    return bytes(byte | (0 if byte.bit_count() % 2 else 0x80) for byte in pair)


def message(triplets: Sequence[bytes]) -> bytes:
    """Return a NAL unit: SEI payload 4 (ITU-T T.35), A/53 `GA94`, caption data."""
    head = b"\xb5\x00\x31GA94\x03" + bytes([0xC0 | len(triplets)]) + b"\xff"
    payload = head + b"".join(triplets) + b"\xff"
    return b"\x06\x04" + bytes([len(payload)]) + payload + b"\x80"


def _ffmpeg(*words: str) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", "-y", *words], check=True)
