"""Transport streams made packet by packet, and an ffprobe that reads their pictures and sounds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hevcq.ffmpeg.process.child import Finished

PICTURE, SOUND, TABLE = 0x100, 0x101, 0x1000
FRAME, SECOND = 3600, 90_000
CODING = {"h264": 0x1B, "mpeg2": 0x02, "aac": 0x0F, "mp2": 0x03}


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


def table(*streams: tuple[int, int, bytes]) -> bytes:
    """Return a programme's map of streams: coding, PID and descriptors."""
    body = b"".join(
        bytes([kind, pid >> 8, pid & 0xFF]) + len(more).to_bytes(2, "big") + more
        for kind, pid, more in streams
    )
    return b"\0\2" + (len(body) + 13).to_bytes(2, "big") + bytes(9) + body + b"crc!"


def part(
    begin_s: float,
    pictures: str,
    *,
    pids: tuple[int, int] = (PICTURE, SOUND),
    coding: tuple[str, str] = ("h264", "aac"),
    language: bytes = b"",
) -> bytes:
    """Return a recording with one letter for each picture, and a sound beside it.

    I is an IDR picture, K another key frame, P none, B one that is shown before the
    pictures ahead, and x one without a sound.
    """
    spoken = b"\x0a\4" + language + b"\0" if language else b""
    said = table((CODING[coding[0]], pids[0], b""), (CODING[coding[1]], pids[1], spoken))
    made = packet(TABLE, 0, said, begins=True)
    for number, kind in enumerate(pictures):
        time = round(begin_s * SECOND) + FRAME * number
        shown = time - 9 * FRAME // 2 * (kind == "B")
        content = b"\0\0\1" + (b"\x65" if kind == "I" else b"\x41") + kind.encode()
        made += packet(pids[0], number, unit(shown, content), begins=True)
        if kind != "x":
            made += packet(pids[1], number, unit(time, b"s", 0xC0), begins=True)
    return made


@dataclass
class Ffprobe:
    """Answers what is asked of a made stream; `then` is done before calls by their number."""

    counted: int = 0
    untimed: Collection[int] = ()
    then: dict[int, Callable[[], object]] = field(default_factory=dict)
    calls: int = 0

    def __call__(self, argv: Sequence[str], *, on_line: Any = None, **_: Any) -> Finished:
        path = Path(argv[-1].removeprefix("file:"))
        self.calls += 1
        self.then.get(self.calls, int)()
        asked = argv[argv.index("-show_entries") + 1]
        if on_line is None:
            what = f"id={PICTURE:#x}" if asked == "stream=id" else f"nb_read_frames={self.counted}"
            return Finished(0, what.encode(), (), 0.0, 0.0)
        data, begin = path.read_bytes(), 0
        if "-skip_initial_bytes" in argv:
            begin = int(argv[argv.index("-skip_initial_bytes") + 1])
        pids = set()
        for at in range(begin, len(data) - 187, 188):
            one = data[at : at + 188]
            place, pid = one.find(b"\0\0\1"), (one[1] & 0x1F) << 8 | one[2]
            if place < 0 or not one[1] & 0x40:
                continue
            bits = int.from_bytes(one[place + 9 : place + 14], "big")
            time = (bits >> 33 & 7) << 30 | (bits >> 17 & 0x7FFF) << 15 | bits >> 1 & 0x7FFF
            pts = str(time) if pid not in self.untimed else "N/A"
            flags = "K_" if one[-1:] in b"IK" else "__"
            if "stream_index" in asked:
                on_line(
                    f"packet|stream_index={pid}|pts={pts}|duration={FRAME}|pos={at}|flags={flags}"
                )
            elif pid == (PICTURE, SOUND)[int(argv[argv.index("-select_streams") + 1])]:
                on_line(f"packet|pts={pts}|pos={at}|flags={flags}")
            pids.add(pid)
        for pid in sorted(pids):
            on_line(f"stream|index={pid}|id={pid if 'stream_index' in asked else PICTURE:#x}")
        return Finished(0, b"", (), 0.0, 0.0)
