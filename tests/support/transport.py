"""Transport streams made packet by packet, and an ffprobe that reads their pictures and sounds."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hevcq.ffmpeg.process.child import Finished

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


@dataclass
class Ffprobe:
    """Answers what is asked of a made stream: the packets of one of its streams."""

    untimed: Collection[int] = ()

    def __call__(
        self, argv: Sequence[str], *, on_line: Callable[[str], None], **_: Any
    ) -> Finished:
        data = Path(argv[-1].removeprefix("file:")).read_bytes()
        wanted = (PICTURE, SOUND)[int(argv[argv.index("-select_streams") + 1])]
        for at in range(0, len(data) - 187, 188):
            one = data[at : at + 188]
            place, pid = one.find(b"\0\0\1"), (one[1] & 0x1F) << 8 | one[2]
            if place < 0 or not one[1] & 0x40 or pid != wanted:
                continue
            bits = int.from_bytes(one[place + 9 : place + 14], "big")
            time = (bits >> 33 & 7) << 30 | (bits >> 17 & 0x7FFF) << 15 | bits >> 1 & 0x7FFF
            pts = str(time) if pid not in self.untimed else "N/A"
            flags = "K_" if one[-1:] == b"I" else "__"
            on_line(f"packet|pts={pts}|pos={at}|flags={flags}")
        on_line(f"stream|id={PICTURE:#x}")
        return Finished(0, b"", (), 0.0, 0.0)
