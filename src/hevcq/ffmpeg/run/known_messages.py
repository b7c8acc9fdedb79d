"""List the error-level lines of ffmpeg that are known to be harmless: versioned data, not code.

A line that no entry matches counts as damage. When you add an entry, raise VERSION, give the reason
why the line is harmless, and name the passes it may appear in: a line that is harmless while a
source is read may be a fault in our output. Entries match the whole line after `[name @ address]`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

VERSION = 3


class Pass(StrEnum):
    """The kind of ffmpeg run that printed a line.

    MIDSTREAM is the encode of a chunk that does not start at the beginning of the video.
    """

    DEMUX = "demux"
    DECODE = "decode"
    ENCODE = "encode"
    MIDSTREAM = "midway"


@dataclass(frozen=True, slots=True)
class KnownMessage:
    """One known line: `component` and `text` are regular expressions.

    `component` matches the name in the brackets ("" if there are none).
    """

    component: str
    text: str
    passes: frozenset[Pass]
    reason: str


_EVERYWHERE = frozenset(Pass)

KNOWN_MESSAGES: tuple[KnownMessage, ...] = (
    KnownMessage(
        component=r"null",
        text=r"Application provided invalid, non monotonically increasing dts to muxer .*",
        passes=frozenset({Pass.DECODE}),
        reason="The null muxer counts in coarser ticks than the file; nothing is written by it.",
    ),
    KnownMessage(
        component=r"mov,mp4,m4a,3gp,3g2,mj2",
        text=r"Referenced QT chapter track not found",
        passes=_EVERYWHERE,
        reason="A chapter list was removed by an editor; no picture or sound is missing.",
    ),
    KnownMessage(
        component=r"mjpeg|png|bmp",
        text=r"(?:unable to decode APP fields: .*|iCCP: .*)",
        passes=_EVERYWHERE,
        reason="Unusual metadata inside cover art; cover art is copied, not decoded.",
    ),
    KnownMessage(
        component=r"hevc|h264",
        text=r"Error parsing (?:unregistered|registered) (?:user data|ITU-T T35).*",
        passes=_EVERYWHERE,
        reason="A vendor's private data inside the video; pictures do not depend on it.",
    ),
    KnownMessage(
        component=r"https?",
        text=r"Stream ends prematurely at \d+, should be \d+",
        passes=frozenset({Pass.ENCODE, Pass.MIDSTREAM}),
        reason="The connection broke and was resumed at that byte (-reconnect); if it could not be, "
        "ffmpeg ends with an error, and gate G5 misses the packets.",
    ),
    KnownMessage(
        component=r"h264",
        text=r"mmco: unref short failure|co located POCs unavailable|"
        r"reference picture missing during reorder|Missing reference picture, default is \d+|"
        r"number of reference frames .* exceeds max .*",
        passes=frozenset({Pass.MIDSTREAM}),
        reason="A decoder that starts at a key frame misses the frames before it: pictures stored "
        "after it but displayed before it are dropped anyway, and commands to release older ones "
        "find none. Every picture of the chunk is counted, and G8 compares the seam.",
    ),
    KnownMessage(
        component="",
        text=r"x265 \[error\]: Failed to genrate CPU mask"
        r"|libnuma: Warning: Cannot read node cpumask from sysfs"
        r"|numa_sched_setaffinity_v2_int\(\) failed: Invalid argument",
        passes=frozenset({Pass.ENCODE}),
        reason="x265's thread pool cannot see the machine's NUMA nodes (no /sys, as in some "
        "containers), so its threads are not pinned; what it encodes is the same.",
    ),
)

_LINE = re.compile(
    r"^(?:\[(?P<component>[^\]]+?) @ (?:0x)?[0-9a-f]+\] )*(?:\[(?:error|fatal|panic)\] )?(?P<text>.*)$"
)
_REPEATED = re.compile(r"Last message repeated \d+ times?")


def unexpected_lines(lines: Iterable[str], ffmpeg_pass: Pass) -> tuple[str, ...]:
    """Return the lines that are not known to be harmless in this kind of run.

    ffmpeg's "Last message repeated" is treated like the line before it.
    """
    found: list[str] = []
    excused = False
    for line in lines:
        if _REPEATED.search(line) and (excused or found):
            continue
        excused = _excused(line, ffmpeg_pass)
        if not excused:
            found.append(line)
    return tuple(found)


def decode_errors(lines: Iterable[str], returncode: int) -> tuple[str, ...]:
    """Return the errors of a program that decoded: its unexpected lines, or else its exit code."""
    errors = unexpected_lines(lines, Pass.DECODE)
    if returncode != 0 and not errors:
        errors = (f"decoding ended with exit code {returncode}",)
    return errors


def message_text(line: str) -> str:
    """Return the text of a line without its component, address and level.

    `[h264 @ 0x55d0] [error] co located POCs unavailable` becomes its last four words; an address
    that differs in every run is of no use to readers or to logs that group by message.
    """
    parts = _LINE.match(line.strip())
    return parts["text"].strip().rstrip(".") if parts is not None else line.strip()


def _excused(line: str, ffmpeg_pass: Pass) -> bool:
    parts = _LINE.match(line)
    if parts is None:
        return False
    component, text = parts["component"] or "", parts["text"]
    return any(
        ffmpeg_pass in known.passes
        and re.fullmatch(known.component, component)
        and re.fullmatch(known.text, text)
        for known in KNOWN_MESSAGES
    )
