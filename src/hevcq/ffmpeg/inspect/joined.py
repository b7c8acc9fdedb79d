"""Join the parts of a recording whose clock jumps, so that one clock runs through all of it.

hevcq writes a copy: each part is trimmed to whole pictures and shifted by one number, so that picture,
sound and text stay in step. It reads the copy again, compares each time, and encodes the copy.
"""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median_low
from typing import BinaryIO

from hevcq.domain.media.facts import MediaInfo, StreamKind
from hevcq.domain.profile import Policies
from hevcq.errors import INTACT_COPY, MediaRefused, SourceDamaged, Stopped
from hevcq.ffmpeg import inputs, versions
from hevcq.ffmpeg.inputs import FfmpegTools, display_name
from hevcq.ffmpeg.inspect.measure import LIMITS
from hevcq.ffmpeg.inspect.parts import (
    EACH_BY_ITSELF,
    Part,
    Writer,
    begins_closed,
    clock_words,
    jump_times,
    lengths_before,
    mapping,
    notices,
    out_of_step,
    refuse_jumps,
    refuse_loss,
    refuse_programmes,
    refuse_slips,
    silence_words,
    sound_before,
    step_sum,
)
from hevcq.ffmpeg.inspect.recording import (
    ANSWER_S,
    HEAD_PACKETS,
    MOST_EARLY,
    SHORTER,
    TAIL_PACKETS,
    Ends,
    HeadPacket,
    copying,
    ends_of,
    read_packet,
    trim_recording,
    whole_number,
)
from hevcq.ffmpeg.inspect.transport_stream import (
    CLOCK_HZ,
    SYNC,
    WRAP,
    Clocks,
    Run,
    Units,
    chain,
    follows,
    jumps,
    packet_layout,
    payload_begin,
    pid_of,
    read_clocks,
    step,
)
from hevcq.ffmpeg.process.child import run_child
from hevcq.ffmpeg.run.messages import decode_errors
from hevcq.ports.encoder import COPIED_AS, TrimmedSource

BACK_PACKETS = 4096
"""Packets before the first one with a new clock among which the border of two parts is looked for."""
FRAME = CLOCK_HZ // 25  # of a picture where there is only one to measure
_BLOCK, MOST_PASSED = 8192, 8
"""Packets copied at once; key frames of a part without an IDR picture passed over for one in order."""
_IDR = {"0x1b ": rb"\x00\x00\x01[\x25\x45\x65]", "0x24 ": rb"\x00\x00\x01[\x26\x28].[\x80-\xff]"}
"""What the unit of an IDR picture holds in H.264 and HEVC, by the coding of the stream."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What all steps need of a recording."""

    tools: FfmpegTools
    location: str
    layout: tuple[int, int]
    folder: Path
    stop: threading.Event
    trims: bool
    passed: int = 0


def whole_recording(
    tools: FfmpegTools,
    location: str,
    info: MediaInfo,
    policies: Policies,
    folder: Path,
    stop: threading.Event,
) -> TrimmedSource | None:
    """Write a recording with one clock and whole pictures to `folder`; None if it has both already.

    Raises MediaRefused if its parts do not fit together or the policy refuses them, SourceDamaged,
    Stopped once `stop` is set, DiskFull, and OSError.
    """
    layout = (
        None if inputs.is_url(location) or info.format_name != "mpegts" else packet_layout(location)
    )
    if layout is None:
        return None
    trims = policies.ragged_ends == "trim"
    found, runs = _runs(tools, location, info, layout, stop)
    refuse_slips(location, layout, found, joined=len(runs) > 1)
    if len(runs) < 2:
        return trim_recording(tools, location, info, folder, stop) if trims else None
    refuse_jumps(location, policies, jump_times(found, runs))
    return _join(Recording(tools, location, layout, folder, stop, trims), found, runs)


def joint_times(
    tools: FfmpegTools, location: str, info: MediaInfo, stop: threading.Event
) -> list[float]:
    """Return about when the clock of a transport stream jumps, in seconds. Raises Stopped, and OSError."""
    layout = None if inputs.is_url(location) else packet_layout(location)
    return jump_times(*_runs(tools, location, info, layout, stop)) if layout is not None else []


def _runs(
    tools: FfmpegTools,
    location: str,
    info: MediaInfo,
    layout: tuple[int, int],
    stop: threading.Event,
) -> tuple[Clocks, list[Run]]:
    """Return the clocks of a transport stream, and the runs of its first video; none if it has one clock."""
    found = read_clocks(location, layout, stop)
    joined = any(len(chain(found, pid)) > 1 for pid in found.videos)
    pid = main_pid(tools, location, info, stop) if joined else None
    return found, chain(found, pid) if pid is not None else []


def main_pid(
    tools: FfmpegTools, location: str, info: MediaInfo, stop: threading.Event
) -> int | None:
    """Return the PID of the first video, or None if ffprobe names none."""
    videos = info.of_kind(StreamKind.VIDEO)
    if not videos:
        return None
    argv = [
        tools.ffprobe, "-v", "quiet", "-select_streams", str(videos[0].index),
        "-show_entries", "stream=id", "-of", versions.KEYED, *inputs.input_options(location),
    ]  # fmt: skip
    done = run_child(
        argv, stop=stop, limits=inputs.reading(LIMITS, tools, location), deadline_s=ANSWER_S
    )
    lines = done.stdout.decode("ascii", "replace").splitlines()
    ids = [versions.keyed(line).get("id", "") for line in lines]
    return next((int(each, 16) for each in reversed(ids) if each.startswith("0x")), None)


def _join(recording: Recording, found: Clocks, runs: list[Run]) -> TrimmedSource:
    parts, lost, unlike = _parts(recording, found, runs)
    refuse_loss(recording.location, runs, parts, lost)
    parts = _moved(parts, found)
    path, begun = recording.folder / f"{COPIED_AS}.ts", set[int]()
    with copying(recording.location, path, "joined") as files:
        for part in parts:
            _copy(recording, files, part, found, begun)
    _prove(recording, path, found, parts)
    if not all(part.enters for part in parts):
        try:
            _require_pictures(recording, path, found, parts)
        except MediaRefused:
            if not recording.trims or recording.passed == MOST_PASSED:
                raise
            return _join(replace(recording, passed=recording.passed + 1), found, runs)
    return TrimmedSource(path=path, notices=tuple(notices(found, parts, lost, unlike)))


def _parts(
    recording: Recording, found: Clocks, runs: list[Run]
) -> tuple[list[Part], int, list[str]]:
    """Return the parts with whole pictures, the number of pictures without, and what is left out."""
    borders = [0, *(_border(recording, found, a, b) for a, b in pairwise(runs))]
    borders.append(os.stat(recording.location).st_size)  # noqa: PTH116 - any bytes a name can hold
    main = found.programme(runs[0].pid, 0, borders[1])
    parts, lost, unlike, silent = list[Part](), 0, list[str](), 0
    goes_on = [False, *(follows(found, one, other) for one, other in pairwise(runs)), False]
    for number, run in enumerate(runs):
        span = borders[number], borders[number + 1]
        cut = number > 0 and not goes_on[number]
        head = packets_from(recording, recording.location, span[0], HEAD_PACKETS)
        own = [packet for packet in head.get(run.pid, ()) if (packet.place or 0) < span[1]]
        own, enters = _entries(recording, own, found.coding(run.pid)) if cut else (own, True)
        keyed = any(packet.key for packet in own[: MOST_EARLY + 1])
        if not keyed and not goes_on[number]:
            if run.after - run.first > MOST_EARLY:
                raise SourceDamaged(
                    f"{display_name(recording.location)} is damaged: one of the {len(runs)} parts it was "
                    f"joined from has no whole picture among its first {MOST_EARLY}.",
                    remedy=INTACT_COPY,
                )
            lost += run.after - run.first
            silent += sound_before(found, span, span[1])
            continue
        ends = Ends(span[0], frozenset(), {}, span[1], early=0, late=0)
        if recording.trims and keyed:
            trimmed = _ends(recording, own, run.pid, span, cut=cut) or ends
            ends = _joined_ends(ends, trimmed, (goes_on[number], goes_on[number + 1]))
        silent += sound_before(found, span, ends.begin)
        here = found.programme(run.pid, *span)
        pids, missing = mapping(recording.location, main, here, (runs[0].pid, run.pid))
        refuse_programmes(recording.location, found, runs, (borders[1], span), kept=pids is None)
        if missing:
            begin = sum(lengths_before(found, runs)[number - 1 : number])
            unlike.append(f"From {clock_words(begin)} on, {missing}.")
        parts.append(_measured(recording, Part(run, ends, pids, {}, {}, enters=enters), found))
    if not parts:
        raise SourceDamaged(
            f"{display_name(recording.location)} is damaged: it has no whole picture.",
            remedy=INTACT_COPY,
        )
    return parts, lost, [*silence_words(silent), *unlike]


def _border(recording: Recording, found: Clocks, one: Run, other: Run) -> int:
    """Return where a part ends and the next begins, in bytes.

    It is where the counters of packets do not go on, else before the tables and the first unit, of
    picture or sound, that has the new clock.
    """
    old, new = found.units[one.pid], found.units[other.pid]
    begin, end = old.places[one.after - 1], new.places[other.first]
    video_begin, video_end = old.places[one.first], end
    for units in (found.units[pid] for pid in found.sounds):
        near = (n for n in jumps(units) if video_begin < units.places[n - 1])
        number = max((n for n in near if units.places[n] < video_end), default=None)
        if number is not None:
            begin, end = max(begin, units.places[number - 1]), min(end, units.places[number])
    offset, length = recording.layout
    start = max(0, begin - BACK_PACKETS * length) // length * length
    with open(recording.location, "rb") as file:
        file.seek(start)
        data = file.read(end - start)
    counters: dict[int, int] = {}
    border = begin
    for at in range(0, len(data), length):
        packet = data[at + offset : at + offset + 188]
        pid, counter = pid_of(packet), packet[3] & 0x0F
        if packet[0] != SYNC or not packet[3] & 0x10 or pid not in found.units:
            continue
        goes_on = (counter - counters.get(pid, counter)) % 16 <= 1
        if start + at > begin and not goes_on:
            break
        counters[pid] = counter
        border = start + at + length
    return border


def _ends(
    recording: Recording, head: list[HeadPacket], pid: int, span: tuple[int, int], *, cut: bool
) -> Ends | None:
    key = next(packet for packet in head if packet.key)
    closed = begins_closed(_unit(recording, key))
    layout = (*recording.layout, pid)
    return ends_of(recording.location, head, layout, span, cut=cut and not closed)


def _joined_ends(whole: Ends, trimmed: Ends, goes_on: tuple[bool, bool]) -> Ends:
    """Return the ends of a part; where the clock goes on from the part before, or into the next, all is kept."""
    if goes_on[0]:
        trimmed = replace(trimmed, begin=whole.begin, leading=whole.leading, early=0)
    if goes_on[1]:
        trimmed = replace(trimmed, unfinished={}, end=whole.end, late=0)
    return trimmed


def _entries(
    recording: Recording, head: list[HeadPacket], coding: str
) -> tuple[list[HeadPacket], bool]:
    """Return the packets with those alone as key frames at which a decoder can begin in the middle.

    ffmpeg's decoders of H.264 and HEVC go on with the order of the pictures before, unless a key frame is
    an IDR picture; where none is, all but those passed over stay, and False is returned.
    """
    wanted = _IDR.get(coding)
    if wanted is None:
        return head, True
    begins = [
        packet.key and re.search(wanted, _unit(recording, packet), re.DOTALL) is not None
        for packet in head[: MOST_EARLY + 1]
    ]
    if not any(begins):
        left = [number for number, packet in enumerate(head[:MOST_EARLY]) if packet.key]
        left = left[min(recording.passed, len(left) - 1) :]
        return [replace(p, key=number in left) for number, p in enumerate(head)], False
    return [replace(packet, key=key) for packet, key in zip(head, begins, strict=False)], True


def _unit(recording: Recording, head: HeadPacket) -> bytes:
    """Return the unit at the place of a demuxed packet."""
    offset, length = recording.layout
    if head.place is None:
        return b""
    with open(recording.location, "rb") as file:
        file.seek(head.place // length * length)
        data = file.read(BACK_PACKETS * length)
    pid, unit = pid_of(data[offset:]), bytearray()
    for at in range(0, len(data) - length + 1, length):
        packet = data[at + offset : at + offset + 188]
        if pid_of(packet) == pid:
            if at and packet[1] & 0x40:
                break
            unit += packet[payload_begin(packet) :]
    return bytes(unit)


def packets_from(
    recording: Recording, location: str, begin: int, count: int
) -> dict[int, list[HeadPacket]]:
    """Return packets of the file from a place on, by PID; `count` 0 reads all."""
    tools = recording.tools
    argv = [
        tools.ffprobe, "-v", "quiet", *(["-skip_initial_bytes", str(begin)] if begin else []),
        *(["-read_intervals", f"%+#{count}"] if count else []), "-show_entries",
        "packet=stream_index,pts,duration,pos,flags:stream=index,id", "-of", versions.KEYED_BY_KIND,
        *inputs.input_options(location),
    ]  # fmt: skip
    found: dict[str, list[HeadPacket]] = {}
    pids: dict[int, list[HeadPacket]] = {}

    def on_line(line: str) -> None:
        kind, _, rest = line.partition("|")
        fields = versions.keyed(rest)
        if kind == "packet":
            numbers = (whole_number(fields.get(name, "")) for name in ("pos", "pts", "duration"))
            place, pts, duration = numbers
            packet = HeadPacket(place, pts, "K" in fields.get("flags", ""), duration or 0)
            found.setdefault(fields.get("stream_index", ""), []).append(packet)
        elif kind == "stream" and fields.get("id", "").startswith("0x"):
            pids[int(fields["id"], 16)] = found.get(fields.get("index", ""), [])

    limits = inputs.reading(LIMITS, tools, location)
    run_child(argv, stop=recording.stop, limits=limits, on_line=on_line, deadline_s=ANSWER_S)
    return pids


def _measured(recording: Recording, part: Part, found: Clocks) -> Part:
    """Return the part with the first and the last time of each stream in which sound or picture is."""
    offset, length = recording.layout
    ends = part.ends
    heads = packets_from(recording, recording.location, ends.begin, HEAD_PACKETS)
    tail = recording.folder / "tail.ts"
    start = max(ends.begin, ends.end - TAIL_PACKETS * length)
    with open(recording.location, "rb") as source, tail.open("wb") as target:
        source.seek(start)
        for place in range(start, ends.end - length + 1, length):
            packet = read_packet(source, length)
            if place < ends.unfinished.get(pid_of(packet[offset:]), ends.end):
                target.write(packet)
    tails = packets_from(recording, str(tail), 0, 0)
    tail.unlink()
    table = found.programme(part.run.pid, ends.begin, ends.end)
    shown = {e.pid for e in table if e.audio} | {part.run.pid}
    starts, stops = dict[int, int](), dict[int, int]()
    for pid in sorted(shown):
        target_pid = part.kept(pid)
        first = _first(heads.get(pid, []), ends)
        last = last_time(tails.get(pid, []), part.run.pid == pid)
        if target_pid is not None and first is not None and last is not None:
            starts[target_pid], stops[target_pid] = first % WRAP, last % WRAP
    if part.kept(part.run.pid) not in starts:
        raise SourceDamaged(
            f"{display_name(recording.location)} is damaged: one of the parts it was joined from has no "
            "picture with a time.",
            remedy=INTACT_COPY,
        )
    return replace(part, starts=starts, stops=stops)


def _first(packets: list[HeadPacket], ends: Ends) -> int | None:
    times = [
        packet.pts
        for packet in packets[: MOST_EARLY // 2]
        if packet.pts is not None
        and (packet.place is None or ends.begin <= packet.place < ends.end)
        and packet.place not in ends.leading
    ]
    return min(times, default=None)


def last_time(packets: list[HeadPacket], picture: bool) -> int | None:  # noqa: FBT001
    """Return when the last packet of a stream ends; a picture is shown as long as most are."""
    times = sorted(packet.pts for packet in packets if packet.pts is not None)
    if not times:
        return None
    if picture:
        steps = [after - before for before, after in pairwise(times)]
        return times[-1] + (median_low(steps) if steps else FRAME)
    return max(p.pts + p.duration for p in packets if p.pts is not None)


def _moved(parts: list[Part], found: Clocks) -> list[Part]:
    """Return the parts with their moves: none begins before the one before it has ended in all streams."""
    whole = sum(step_sum(found, part.run) for part in parts) + 60 * CLOCK_HZ
    first = min(parts[0].starts.values(), default=0)
    move = (CLOCK_HZ - first) % WRAP if first + whole >= WRAP else 0
    moved = [replace(parts[0], move=move)]
    for part in parts[1:]:
        before = moved[-1]
        both = before.stops.keys() & part.starts.keys()
        later = max(step(part.starts[pid], before.stops[pid]) for pid in both)
        if later < 0 and follows(found, before.run, part.run):
            later = 0  # lost signal: the gap is true
        moved.append(replace(part, move=(before.move + later) % WRAP))
    return moved


def _copy(
    recording: Recording,
    files: tuple[BinaryIO, BinaryIO],
    part: Part,
    found: Clocks,
    begun: set[int],
) -> None:
    """Write the packets of a part with their times moved, without those that belong to no whole unit.

    `begun` are the PIDs of the copy that earlier parts have written: their counters do not go on.
    """
    offset, length = recording.layout
    source, target = files
    writer = Writer(part, found, offset, begun)
    place = part.ends.begin
    source.seek(place)
    while place + length <= part.ends.end:
        if recording.stop.is_set():
            raise Stopped
        block = source.read(min(_BLOCK * length, part.ends.end - place) // length * length)
        if not block:
            raise OSError(SHORTER)
        made = bytearray()
        for at in range(0, len(block), length):
            made += writer.taken(block[at : at + length], place + at)
        target.write(made)
        place += len(block)
    begun |= {kept for pid in writer.begun if (kept := part.kept(pid)) is not None}


def _prove(recording: Recording, path: Path, found: Clocks, parts: list[Part]) -> None:
    """Read the copy again: each unit of picture and sound must be there, once, at its computed time."""
    made = read_clocks(str(path), recording.layout, recording.stop)
    for pid in parts[0].starts:
        expected = [
            (time + part.move) % WRAP
            for part in parts
            for own, units in found.units.items()
            if part.kept(own) == pid
            for place, time in zip(units.places, units.times, strict=True)
            if part.holds(own, place)
        ]
        units = made.units.get(pid, Units())
        # The first pictures of a part are decoded while the last ones before it are shown.
        units.decoding = pid != parts[0].run.pid
        if list(units.times) != expected or jumps(units, reorders=True):
            raise out_of_step(recording.location)


def _require_pictures(recording: Recording, path: Path, found: Clocks, parts: list[Part]) -> None:
    """Decode the copy and count: a decoder may lose pictures where a part begins without an IDR picture."""
    tools, main = recording.tools, parts[0].run.pid
    argv = [
        tools.ffprobe, "-v", "error", "-count_frames", "-select_streams", f"i:{main}", "-show_entries",
        "stream=nb_read_frames", "-of", versions.KEYED, *inputs.input_options(str(path)),
    ]  # fmt: skip
    done = run_child(argv, stop=recording.stop, limits=inputs.reading(LIMITS, tools, str(path)))
    counts = [
        versions.keyed(line).get("nb_read_frames", "") for line in done.stdout.decode().splitlines()
    ]
    shown = max((int(each) for each in counts if each.isdigit()), default=0)
    held = sum(
        part.holds(part.run.pid, place)
        for part in parts
        for place in found.units[part.run.pid].places
    )
    if shown not in {held, (held + 1) // 2} or decode_errors(done.stderr, done.returncode):
        raise MediaRefused(
            f"{display_name(recording.location)}: ffmpeg can decode {shown} of its {held} pictures only:"
            f" one of its {len(parts)} recordings needs pictures that are not there.",
            remedy=EACH_BY_ITSELF,
        )
