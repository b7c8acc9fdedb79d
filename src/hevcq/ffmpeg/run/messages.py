"""Tell what ffmpeg's messages mean: which are known to be harmless, and which error the others are.

A line that no entry of KNOWN_MESSAGES matches counts as damage. When you add an entry, give the reason
why the line is harmless, and name the passes it may appear in: a line that is harmless while a
source is read may be a fault in our output. Entries match the whole line after `[name @ address]`.

The lines are those of `-loglevel repeat+level+error`: `[h264 @ 0x…] [error] what happened`. The
name in front is the component of ffmpeg that printed the line; it distinguishes a damaged source
(its demuxer or decoder reports an error) from a failure elsewhere.
"""

import re
import shlex
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from hevcq.domain.media.facts import MediaInfo
from hevcq.errors import (
    INTACT_COPY,
    DiskFull,
    EncoderFailed,
    HevcqError,
    LimitExceeded,
    OutOfMemory,
    SourceDamaged,
    SourceGone,
    SourceUnreadable,
    Unavailable,
    WorkerUnfit,
)
from hevcq.ffmpeg.inputs import (
    component,
    display_name,
    ffmpeg_url,
    is_about_input,
    is_url,
    strip_name,
)
from hevcq.ffmpeg.process.child import ending


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
        component=r"mov,mp4,m4a,3gp,3g2,mj2|in#\d+",
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
        component=r"h264",
        text=r"mmco: unref short failure|co located POCs unavailable|"
        r"reference picture missing during reorder|Missing reference picture, default is \d+|"
        r"number of reference frames .* exceeds max .*",
        passes=frozenset({Pass.MIDSTREAM}),
        reason="A decoder that starts at a key frame misses the frames before it: pictures stored "
        "after it but displayed before it are dropped anyway, and commands to release older ones "
        "find none. Every picture of the chunk is counted, and G8 compares all of them.",
    ),
    KnownMessage(
        component="",
        text=r"x265 \[error\]: (?:Failed to genrate CPU|unable to set thread affinity for NUMA node) mask"
        r"|libnuma: Warning: Cannot read node cpumask from sysfs"
        r"|numa_sched_setaffinity_v2_int\(\) failed: Invalid argument",
        passes=frozenset({Pass.ENCODE}),
        reason="x265's thread pool cannot use the machine's NUMA nodes (no /sys, as in some "
        "containers, or an emulated machine), so its threads are not pinned; what it encodes is the same.",
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
    errors = unexpected_lines(lines, Pass.DECODE)
    if returncode != 0 and not errors:
        errors = (f"decoding ended with {ending(returncode)}",)
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
    speaker, text = component(parts["component"] or ""), parts["text"]
    return any(
        ffmpeg_pass in known.passes
        and re.fullmatch(known.component, speaker)
        and re.fullmatch(known.text, text)
        for known in KNOWN_MESSAGES
    )


_COMPONENT = re.compile(r"^\[(?P<name>[^\]@]+?) @ (?:0x)?[0-9a-f]+\]")
_SEAM = re.compile(r"(\n|\[[^\]\n]+? @ (?:0x)?[0-9a-f]+\] |\[(?:panic|fatal|error)\] )")
"""Separators of messages: a line too long for ffmpeg ends without a line break before the next one."""
_LEVEL = re.compile(r"\[(?:panic|fatal|error)\] ")

_DISK = re.compile(r"No space left on device|Disk quota exceeded")
_MEMORY = re.compile(
    r"Cannot allocate memory|Out of memory|malloc of size|failed to map segment|"
    r"std::bad_alloc|Resource temporarily unavailable.*thread",
    re.IGNORECASE,
)
_LIMIT = re.compile(r"File too large")
_UNFIT = re.compile(
    r"Unknown encoder|Unrecognized option|Option not found|Unknown decoder|No such filter|"
    r"Requested output format .* is not a suitable|symbol lookup error|"
    r"error while loading shared libraries"
)
_GONE = re.compile(
    r"No such file or directory|404 Not Found|HTTP error 404|410 Gone|HTTP error 410"
)
_FORBIDDEN = re.compile(r"Permission denied")
_AWAY = re.compile(
    r"Server returned|HTTP error|Connection (?:refused|reset|timed out)|timed out|"
    r"Failed to resolve|Network is unreachable|Input/output error|Stale file handle|"
    r"Stream ends prematurely|Broken pipe",
    re.IGNORECASE,
)
_DAMAGE = re.compile(
    r"corrupt (?:input packet|decoded frame)|Error while decoding stream|Invalid data found when processing input|"
    r"Error submitting (?:a )?packet to (?:the )?decoder|decode error rate|Decoding error"
)
_UNREAD = re.compile(r"Unsupported encoding type|requires zlib support")
"""What a build without zlib says of a compressed track or index, which is no damage."""
_PICTURE = (
    r"h26[134]\w*|hevc\w*|vvc\w*|mpeg[124](?:video)?|msmpeg4\w*|wmv\d\w*|vc1\w*|vp\d\w*|libvpx\S*|"
    r"av1|lib(?:dav1d|aom|gav1)\S*|theora|rv\d+|m?jpeg\w*|dvvideo|prores\w*|dnxhd|svq\d|indeo\d|"
    r"cinepak|huffyuv|ffvhuff|ffv1|dirac|cavs|snow|qtrle|rawvideo|png|gif|utvideo|magicyuv"
)
_SOUND = (
    r"aac\w*|e?ac3\w*|mp[123](?:float|adu\w*|on4\w*)?|(?:ad)?pcm_\w+|(?:lib)?(?:vorbis|opus|speex)|"
    r"flac|alac|dca|truehd|mlp|wma\w+|amr\w+|cook|ra_\d+|sipr|atrac\w+|ape|wavpack|tta|qdm\w+|gsm\w*"
)
_CONTAINER = r"\S*,\S*|avi|mpegts|mpeg|mpegvideo|asf\w*|rm|ogg|mxf\w*|wtv|gxf|nut|dv|in#\d+"
_PARTS = (
    (re.compile(_PICTURE), "its picture data cannot be decoded"),
    (re.compile(_SOUND), "its sound data cannot be decoded"),
    (re.compile(_CONTAINER), "the structure of the file is broken"),
)
"""What a component of ffmpeg reads, by its name; a name with commas is a demuxer's."""
_UNTOLD = "a part of it cannot be read"
_PHRASES = {
    signal.SIGSEGV: "crashed (segmentation fault)",
    signal.SIGABRT: "gave up (abort)",
    signal.SIGILL: "used an instruction this processor lacks",
    signal.SIGBUS: "crashed (bus error)",
}


@dataclass(frozen=True, slots=True)
class FfmpegExit:
    """The exit of an ffmpeg: its command, its source, its output, and the kind of run."""

    command: Sequence[str]
    location: str
    info: MediaInfo
    returncode: int
    stderr: Sequence[str]
    ffmpeg_pass: Pass = Pass.ENCODE
    memory_ran_out: bool = True
    """False if the system says that a SIGKILL was not for want of memory."""
    source_texts: frozenset[str] = frozenset()
    """Messages (as of `split_messages`) that the source itself causes: they say nothing of this machine."""


def split_messages(lines: Sequence[str], location: str) -> list[str]:
    """Split a program's lines, without the source's name, where another component's message may begin."""
    return _SEAM.split(strip_name(lines, location))


def exit_error(ended: FfmpegExit) -> HevcqError | None:
    """Return the error that an exit means, or None if it is not a failure.

    Exit code 0 is a failure only if the source's own demuxer or decoder reported an error; anything
    else on stderr is left to gate G1. Since version 7 a connection that breaks for good is such an end.
    """
    name = display_name(ended.location)
    if ended.returncode == 0:
        return _by_source(ended, name) if _complaint(ended) is not None else None
    by_signal = _by_signal(ended, name) if ended.returncode < 0 else None
    return by_signal or _by_text(ended, name) or _unexplained(ended, f"ffmpeg failed on {name}")


def _by_signal(ended: FfmpegExit, name: str) -> HevcqError | None:
    number = -ended.returncode
    if number == signal.SIGXFSZ:
        return LimitExceeded(f"The rendition of {name} grew far above its source.")
    if number == signal.SIGXCPU:
        return LimitExceeded(f"The encode of {name} exceeded its CPU time limit.")
    if number == signal.SIGKILL and not ended.memory_ran_out:
        return _unexplained(
            ended, f"ffmpeg was killed from outside, memory had not run out, on {name}"
        )
    if number == signal.SIGKILL:
        why = f"ffmpeg was killed while it encoded {name}, most likely because memory ran out."
        return _failed(OutOfMemory, ended, why)
    phrase = _PHRASES.get(signal.Signals(number)) if number in set(signal.Signals) else None
    return _unexplained(ended, f"ffmpeg {phrase or f'was ended by signal {number}'} on {name}")


def _by_text(ended: FfmpegExit, name: str) -> HevcqError | None:
    text = _searchable(ended, ended.stderr)
    last = _sentence(ended.stderr)
    if _DISK.search(text):
        return DiskFull(f"The disk filled up while {name} was encoded.")
    if _MEMORY.search(text):
        return _failed(OutOfMemory, ended, f"ffmpeg ran out of memory on {name}.")
    if _LIMIT.search(text):
        return LimitExceeded(f"The rendition of {name} grew far above its source.")
    if _UNFIT.search(text):
        return WorkerUnfit(
            f"ffmpeg cannot do this work: {last}.",
            remedy="Run `hevcq doctor` to see what is missing.",
        )
    return _by_source(ended, name)


def _by_source(ended: FfmpegExit, name: str) -> HevcqError | None:
    about = [line for line in ended.stderr if _names_source(ended, line)]
    text = _searchable(ended, ended.stderr if is_url(ended.location) else about)
    if _GONE.search(text):
        return SourceGone(f"{name} is not there any more.")
    if _FORBIDDEN.search(text):
        return SourceUnreadable(
            f"{name} may not be read.", remedy="Give hevcq's user the right to read it."
        )
    if _AWAY.search(text):
        why = _sentence(about) or _sentence(ended.stderr)
        return Unavailable(f"{name} could not be read to its end: {why}.")
    complaint = _complaint(ended)
    return damaged(ended.location, complaint) if complaint is not None else None


def _searchable(ended: FfmpegExit, lines: Sequence[str]) -> str:
    return "".join(
        part for part in split_messages(lines, ended.location) if part not in ended.source_texts
    )


def _names_source(ended: FfmpegExit, line: str) -> bool:
    shown = is_url(ended.location) and display_name(ended.location) in line
    return shown or is_about_input(line, ended.location)


def without_secrets(words: Sequence[str], location: str) -> tuple[str, ...]:
    """Return command words or lines with the signature removed from a URL."""
    if not is_url(location):
        return tuple(words)
    secret = ffmpeg_url(location)
    return tuple(word.replace(secret, display_name(location)) for word in words)


def _complaint(ended: FfmpegExit) -> str | None:
    """Return the first line in which the source's demuxer or decoder reports an unknown error."""
    own = {stream.codec for stream in ended.info.streams} | {ended.info.format_name}
    for line in unexpected_lines(ended.stderr, ended.ffmpeg_pass):
        speaker = _COMPONENT.match(line)
        if speaker is not None and component(speaker["name"]) in own and _LEVEL.search(line):
            return line
        if _DAMAGE.search(line):
            return line
    return None


def damaged(location: str, line: str, others: int = 0) -> SourceDamaged | SourceUnreadable:
    """Return the error of a source of which ffmpeg reported this line, and so many others.

    The sentence says what cannot be read: ffmpeg's words alone mean nothing to most people.
    """
    if _UNREAD.search(line):
        return SourceUnreadable(
            f"{display_name(location)} is compressed in a way that this ffmpeg cannot read (ffmpeg: "
            f"{_plain(line)}).",
            remedy="Set HEVCQ_FFMPEG to an ffmpeg that was built with zlib.",
        )
    speaker = _COMPONENT.match(line)
    name = component(speaker["name"]) if speaker is not None else ""
    what = next((words for known, words in _PARTS if known.fullmatch(name)), _UNTOLD)
    more = f"; {others} more error{'s' if others > 1 else ''}" if others else ""
    return SourceDamaged(
        f"{display_name(location)} is damaged: {what} (ffmpeg: {_plain(line)}{more}).",
        remedy=INTACT_COPY,
    )


def _unexplained(ended: FfmpegExit, what: str) -> EncoderFailed:
    last = _sentence(ended.stderr)
    why = f"{what}: {last}." if last else f"{what} with {ending(ended.returncode)}."
    return _failed(EncoderFailed, ended, why)


def _failed(kind: type[EncoderFailed], ended: FfmpegExit, why: str) -> EncoderFailed:
    command = shlex.join(ended.command)
    return kind(why, returncode=ended.returncode, tail=ended.stderr, command=command)


def _sentence(lines: Sequence[str]) -> str:
    return next((_plain(line) for line in lines if _plain(line)), "")


def _plain(line: str) -> str:
    return re.sub(r"^(?:file:|https?:)\S.*?: ", "", message_text(line))
