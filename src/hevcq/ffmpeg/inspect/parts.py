"""The parts of a joined recording: what of each is kept, on which PID of the copy, and how it is written."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from hevcq.domain.profile import Policies
from hevcq.errors import MediaRefused, SourceDamaged
from hevcq.ffmpeg.inputs import display_name
from hevcq.ffmpeg.inspect.recording import Ends, announcing_gap, pictures_words
from hevcq.ffmpeg.inspect.transport_stream import (
    CLOCK_HZ,
    SYNC,
    WRAP,
    Clocks,
    Elementary,
    Programme,
    Run,
    follows,
    payload_begin,
    pid_of,
    step,
    unit_times,
    write_time,
)

HELD_S = 0.2
"""Seconds for which a picture may stay at a joint unsaid: players show worse between two channels."""
_SLIP_BYTES = 1 << 20
"""Bytes behind a packet without its sync byte among which packets at other places are looked for."""
_SLIP_PACKETS = 16
"""Sync bytes one packet apart that are packets: in coded pictures so many do not come by chance."""
EACH_BY_ITSELF = "Copy each part into a file of its own, and encode those."
_CUT_AT_CHANGE = "Cut it where the channel changes, and encode each part by itself."
NAMED = 5
"""Joints whose times a notice names."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a recording: its video run, where it lies, what of it is whole, and its own PIDs.

    `pids` are those of the copy by those of the part; None takes all as they are. `move` is added
    to its times, in ticks. `enters` says whether every decoder can begin there in the middle.
    """

    run: Run
    ends: Ends
    pids: dict[int, int] | None
    starts: dict[int, int]
    stops: dict[int, int]
    move: int = 0
    enters: bool = True

    def kept(self, pid: int) -> int | None:
        """Return the PID in the copy, or None for packets that are left out."""
        return pid if self.pids is None else self.pids.get(pid)

    def holds(self, pid: int, place: int) -> bool:
        """Whether the unit that begins at a place is one of those that are kept."""
        ends = self.ends
        leading = pid == self.run.pid and place in ends.leading
        return (
            ends.begin <= place < min(ends.end, ends.unfinished.get(pid, ends.end)) and not leading
        )


def mapping(
    location: str, main: Programme, here: Programme, pids: tuple[int, int]
) -> tuple[dict[int, int] | None, str]:
    """Return the PIDs of the first part by those of this one, and what has no counterpart, as a clause."""
    if main == here and pids[0] == pids[1]:
        return None, ""
    wanted = {e.pid: e for e in main}
    picture = next((e for e in here if e.pid == pids[1]), None)
    if picture is None or picture.coding != wanted[pids[0]].coding:
        raise MediaRefused(
            f"{display_name(location)}: it was joined from recordings whose pictures are coded "
            "differently, which one video cannot be.",
            remedy=_CUT_AT_CHANGE,
        )
    found = {pids[1]: pids[0]}
    for same_language in (True, False):
        for sound in (e for e in here if e.audio and e.pid not in found):
            free = [e for e in main if e.audio and e.pid not in found.values()]
            like = (e for e in free if e.coding == sound.coding)
            taken = next(
                (e for e in like if not same_language or e.language == sound.language), None
            )
            if taken is not None:
                found[sound.pid] = taken.pid
    rest = [e for e in here if e.pid not in found]
    silent = [e for e in main if e.audio and e.pid not in found.values()]
    return found, " and ".join(_missing(rest, silent))


def _missing(rest: list[Elementary], silent: list[Elementary]) -> Iterator[str]:
    if rest:
        kinds = [_kind(e) for e in rest]
        more = (
            f"{len(rest)} streams ({', '.join(kinds)}) are" if len(rest) > 1 else f"{kinds[0]} is"
        )
        yield f"{more} left out, which the beginning of the recording does not have"
    if silent:
        yield f"{len(silent)} of its sound tracks {'is' if len(silent) == 1 else 'are'} silent"


def _kind(stream: Elementary) -> str:
    word = "sound" if stream.audio else "video" if stream.video else "text or data"
    return f"{word} in {stream.language}" if stream.language else word


def begins_closed(unit: bytes) -> bool:
    """Whether the unit begins a group of MPEG-2 whose first pictures need none before it."""
    group = unit.find(b"\x00\x00\x01\xb8")
    return 0 <= group < len(unit) - 7 and bool(unit[group + 7] & 0x40)


class Writer:
    """Takes the packets of a part one by one, and returns what is written of each."""

    def __init__(self, part: Part, found: Clocks, offset: int, begun: set[int]) -> None:
        self._part, self._found, self._offset = part, found, offset
        self._earlier, self.begun = begun, set[int]()
        self._dropping = False

    def taken(self, packet: bytes, place: int) -> bytes:
        """Return what is written of a packet."""
        part, offset = self._part, self._offset
        pid, begins = pid_of(packet[offset:]), packet[offset + 1] & 0x40
        kept = part.kept(pid)
        if kept is None or packet[offset] != SYNC:
            return b""
        body = retimed(packet[offset : offset + 188], kept, part.move)
        made = packet[:offset] + body + packet[offset + 188 :]
        if pid not in self._found.units:
            return made
        was, picture = self._dropping, pid == part.run.pid
        if picture and begins:
            self._dropping = place in part.ends.leading
        unfinished = place >= part.ends.unfinished.get(pid, part.ends.end)
        if unfinished or (picture and self._dropping) or (pid not in self.begun and not begins):
            return b""
        gap = (picture and was) or (pid not in self.begun and kept in self._earlier)
        self.begun.add(pid)
        return announcing_gap(made, offset) + made if gap else made


def retimed(packet: bytes, pid: int, move: int) -> bytes:
    """Return a packet with another PID, and its clock and times moved."""
    if pid == pid_of(packet) and not (move and (packet[3] & 0x20 or packet[1] & 0x40)):
        return packet
    data = bytearray(packet)
    data[1] = packet[1] & 0xE0 | pid >> 8
    data[2] = pid & 0xFF
    if packet[3] & 0x20 and packet[4] > 6 and packet[5] & 0x10:
        base = (int.from_bytes(packet[6:10], "big") << 1 | packet[10] >> 7) + move
        data[6:10] = (base % WRAP >> 1).to_bytes(4, "big")
        data[10] = (base & 1) << 7 | packet[10] & 0x7F
    times = unit_times(packet) if packet[1] & 0x40 else None
    if times is not None:
        at = payload_begin(packet) + 9
        write_time(data, at, (times[0] + move) % WRAP)
        if times[1] is not None:
            write_time(data, at + 5, (times[1] + move) % WRAP)
    return bytes(data)


def refuse_jumps(location: str, policies: Policies, times: list[float]) -> None:
    """Raise MediaRefused if the policy wants no clock that jumps; times are in seconds."""
    if policies.clock_jumps == "refuse" and times:
        raise MediaRefused(
            f"{display_name(location)}: its clock jumps {times_words(times)}, as in a "
            "recording that was joined from several (policies.clock_jumps).",
            remedy="Set policies.clock_jumps to close to encode its parts one after the other.",
        )


def refuse_slips(location: str, layout: tuple[int, int], found: Clocks, *, joined: bool) -> None:
    """Raise SourceDamaged if packets leave the places at which the first ones lie, or one of a joined
    recording has no sync byte.

    Packets are read at those places alone: what lies elsewhere would not even be missed in the copy.
    Of one that was not joined ffmpeg reads all, so a single broken packet is left to its decoder.
    """
    place = found.unsynced
    if place is None or not (joined or _slips(location, layout, place)):
        return
    raise SourceDamaged(
        f"{display_name(location)} is damaged: at byte {place:,} a transport packet does not begin where "
        "the one before it ends, so bytes are missing or too many there.",
        remedy="If it was joined there, cut the incomplete packet off the end of that part and join the "
        "parts again, or encode each by itself; else replace it with an intact copy.",
    )


def refuse_programmes(
    location: str, found: Clocks, runs: list[Run], spans: tuple[int, tuple[int, int]], *, kept: bool
) -> None:
    """Raise MediaRefused if the copy would lack a programme that a part has beside that of the recording.

    `spans` are the end of the first part and the ends of this one, in bytes; `kept` says that the part
    keeps its PIDs. A programme that ends with the first part is whole and so no reason.
    """
    main = {run.pid for run in runs}
    ours = {e.pid for _, table in found.tables if main & {e.pid for e in table} for e in table}
    for pid in sorted((found.videos | found.sounds) - ours):
        places, (begin, end) = found.units[pid].places, spans[1]
        here = bisect_left(places, begin) < bisect_left(places, end)
        if here and not (kept and places[0] < spans[0]):
            raise MediaRefused(
                f"{display_name(location)}: one of the parts it was joined from has a further programme "
                f"(with PID {pid:#x}) that the beginning of the recording does not have there.",
                remedy=_CUT_AT_CHANGE,
            )


def _slips(location: str, layout: tuple[int, int], place: int) -> bool:
    """Whether packets follow a place, in bytes, of which none lies where the first ones would go on."""
    offset, length = layout
    with open(location, "rb") as file:
        file.seek(place)
        data = file.read(_SLIP_BYTES)
    run = re.compile(rb"(?:\x47.{%d}){%d}" % (length - 1, _SLIP_PACKETS), re.DOTALL)
    return any((hit.start() - offset) % length for hit in run.finditer(data))


def step_sum(found: Clocks, run: Run) -> int:
    """Return the length of a run in ticks, whatever its length."""
    times = found.units[run.pid].times[run.first : run.after]
    return sum(step(one, other) for one, other in pairwise(times))


def lengths_before(found: Clocks, runs: list[Run]) -> list[float]:
    """Return about when each part after the first begins, in seconds from the beginning."""
    begins, total = [], 0
    for run in runs[:-1]:
        times = found.units[run.pid].times
        total += max(0, step(times[run.first], times[run.after - 1]))
        begins.append(total / CLOCK_HZ)
    return begins


def jump_times(found: Clocks, runs: list[Run]) -> list[float]:
    """Return about when the clock jumps, in seconds from the beginning."""
    pairs = zip(lengths_before(found, runs), pairwise(runs), strict=True) if runs else ()
    return [time for time, (one, other) in pairs if not follows(found, one, other)]


def sound_before(found: Clocks, span: tuple[int, int], begin: int) -> int:
    """Return for how many ticks there is sound in a part, between two places, before that with which it begins."""
    longest = 0
    for units in (found.units[pid] for pid in found.sounds):
        first, kept, end = (bisect_left(units.places, place) for place in (span[0], begin, span[1]))
        if first < kept:
            following = kept if kept < end else kept - 1
            longest = max(longest, step(units.times[first], units.times[following]))
    return longest


def silence_words(ticks: int) -> Iterator[str]:
    """Yield what is said of the sound that is left out where parts begin."""
    if ticks:
        yield f"{ticks / CLOCK_HZ:.2f} s of sound before the first whole pictures of its parts is left out."


def times_words(times: list[float]) -> str:
    """Return when something happens, as `at 0:02, 0:05 and 3 more times`; times are in seconds."""
    words = [clock_words(time) for time in times[:NAMED]]
    more = len(times) - len(words)
    last = f"{more} more times" if more else words.pop()
    return f"at {', '.join(words)} and {last}" if words else f"at {last}"


def clock_words(seconds: float) -> str:
    """Return seconds as minutes and seconds, with hours where there are any."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"


def notices(found: Clocks, parts: list[Part], lost: int, unlike: list[str]) -> Iterator[str]:
    """Yield the notices of a joined recording: its joints, and what is left out beside them."""
    main = parts[0].run.pid
    held = [
        step((one.stops[main] + one.move) % WRAP, (two.starts[main] + two.move) % WRAP) / CLOCK_HZ
        for one, two in pairwise(parts)
        if not follows(found, one.run, two.run)
    ]
    joints = [two for one, two in pairwise(parts) if not follows(found, one.run, two.run)]
    if joints:
        begin = parts[0].starts[main] + parts[0].move
        times = [step(begin % WRAP, (p.starts[main] + p.move) % WRAP) / CLOCK_HZ for p in joints]
        yield joints_words(times, max(held))
    early = _left_out(parts, lost)
    if early:
        yield f"{pictures_words(early)} left out: its parts begin between key frames."
    late = sum(part.ends.late for part in parts)
    if late:
        pictures = "1 last picture is" if late == 1 else f"{late} last pictures are"
        yield f"{pictures} left out: its parts end inside them."
    yield from unlike


def _left_out(parts: list[Part], lost: int) -> int:
    """Return how many pictures the parts lack at their beginnings, `lost` in parts that are left out."""
    return sum(part.ends.early + len(part.ends.leading) for part in parts) + lost


def refuse_loss(location: str, runs: list[Run], parts: list[Part], lost: int) -> None:
    """Raise MediaRefused if more than half of the pictures would be left out between key frames.

    That is no ragged beginning any more: the stream has few places at which a decoder can begin, and
    most of its pictures may show when it is played.
    """
    every, gone = sum(run.after - run.first for run in runs), _left_out(parts, lost)
    if gone * 2 > every:
        raise MediaRefused(
            f"{display_name(location)}: {gone} of its {every} pictures would be left out, because its "
            "parts begin between key frames.",
            remedy=EACH_BY_ITSELF,
        )


def joints_words(times: list[float], held_s: float) -> str:
    """Return where a recording was joined, and how its parts follow each other; times are in seconds."""
    return f"{joined_words(times)} {_closed_words(held_s)}"


def joined_words(times: list[float]) -> str:
    """Return where a recording was joined; times are in seconds."""
    parts = len(times) + 1
    return f"The recording was joined from {parts} parts: its clock jumps {times_words(times)}."


def _closed_words(held_s: float) -> str:
    """Return how the parts follow each other, given for how long a picture stays at a joint at most."""
    if held_s < HELD_S:
        return "They follow each other without a gap."
    return f"Until the sound there begins or ends, a picture stays for up to {held_s:.1f} s."


def out_of_step(location: str) -> MediaRefused:
    """Return the refusal of a recording whose parts could not be joined with sound in step."""
    return MediaRefused(
        f"{display_name(location)}: its clock jumps, and the parts could not be joined so that picture"
        " and sound stay in step.",
        remedy=EACH_BY_ITSELF,
    )
