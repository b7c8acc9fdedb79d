"""Interpret ffmpeg's messages: know the harmless ones, and map the others to errors.

A line that no entry of KNOWN_MESSAGES matches counts as damage. When you add an entry, give the reason
why the line is harmless, and name the passes that may print it: a line that is harmless while a source
is read may be a fault in our output. Entries match the whole line after `[name @ address]`.

The lines are those of `-loglevel repeat+level+error`: `[h264 @ 0x…] [error] what happened`. The name in
front is the ffmpeg component that printed the line. It tells a damaged source (its demuxer or decoder
reports the error) from a failure elsewhere.
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

    MIDSTREAM encodes a chunk that does not start at the beginning of the video.
    """

    DEMUX = "demux"
    DECODE = "decode"
    ENCODE = "encode"
    MIDSTREAM = "midway"


@dataclass(frozen=True, slots=True)
class KnownMessage:
    """A harmless line; `component` and `text` are regular expressions.

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
        reason="The null muxer counts in coarser ticks than the file, and writes nothing.",
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

    "Last message repeated" counts as the line before it.
    """
    found: list[str] = []
    is_known = False
    for line in lines:
        if _REPEATED.search(line) and (is_known or found):
            continue
        is_known = _is_known(line, ffmpeg_pass)
        if not is_known:
            found.append(line)
    return tuple(found)


def decode_errors(lines: Iterable[str], returncode: int) -> tuple[str, ...]:
    errors = unexpected_lines(lines, Pass.DECODE)
    if returncode != 0 and not errors:
        errors = (f"decoding ended with {ending(returncode)}",)
    return errors


def message_text(line: str) -> str:
    """Return the text of a line without component, address and level.

    `[h264 @ 0x55d0] [error] co located POCs unavailable` becomes its last four words. The address
    differs in every run, so it tells readers nothing and keeps logs from grouping equal messages.
    """
    parts = _LINE.match(line.strip())
    return parts["text"].strip().rstrip(".") if parts is not None else line.strip()


def _is_known(line: str, ffmpeg_pass: Pass) -> bool:
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
_MESSAGE_START = re.compile(r"(\n|\[[^\]\n]+? @ (?:0x)?[0-9a-f]+\] |\[(?:panic|fatal|error)\] )")
"""Separators of messages: ffmpeg cuts a long line off without a line break, and the next one follows."""
_LEVEL = re.compile(r"\[(?:panic|fatal|error)\] ")

_DISK = re.compile(r"No space left on device|Disk quota exceeded")
_MEMORY = re.compile(
    r"Cannot allocate memory|Out of memory|malloc of size|failed to map segment|"
    r"std::bad_alloc|Resource temporarily unavailable.*thread",
    re.IGNORECASE,
)
_TOO_LARGE = re.compile(r"File too large")
_UNFIT = re.compile(
    r"Unknown encoder|Unrecognized option|Option not found|Unknown decoder|No such filter|"
    r"Requested output format .* is not a suitable|symbol lookup error|"
    r"error while loading shared libraries"
)
_GONE = re.compile(
    r"No such file or directory|404 Not Found|HTTP error 404|410 Gone|HTTP error 410"
)
_FORBIDDEN = re.compile(r"Permission denied")
_UNAVAILABLE = re.compile(
    r"Server returned|HTTP error|Connection (?:refused|reset|timed out)|timed out|"
    r"Failed to resolve|Network is unreachable|Input/output error|Stale file handle|"
    r"Stream ends prematurely|Broken pipe",
    re.IGNORECASE,
)
_DAMAGE = re.compile(
    r"corrupt (?:input packet|decoded frame)|Error while decoding stream|Invalid data found when processing input|"
    r"Error submitting (?:a )?packet to (?:the )?decoder|decode error rate|Decoding error"
)
_UNSUPPORTED = re.compile(r"Unsupported encoding type|requires zlib support")
"""Messages of a build without zlib about a compressed track or index, which is not damaged."""
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
_FAULTS = (
    (re.compile(_PICTURE), "its picture data cannot be decoded"),
    (re.compile(_SOUND), "its sound data cannot be decoded"),
    (re.compile(_CONTAINER), "the structure of the file is broken"),
)
"""What is wrong with a file, by the name of the component that reports it; demuxers' names have commas."""
_OTHER_FAULT = "a part of it cannot be read"
_SIGNALS: dict[int, str] = {
    signal.SIGSEGV: "crashed (segmentation fault)",
    signal.SIGABRT: "gave up (abort)",
    signal.SIGILL: "used an instruction this processor lacks",
    signal.SIGBUS: "crashed (bus error)",
}


@dataclass(frozen=True, slots=True)
class FfmpegExit:
    """How an ffmpeg run ended: its command, source, exit code and error lines."""

    command: Sequence[str]
    location: str
    info: MediaInfo
    returncode: int
    stderr: Sequence[str]
    ffmpeg_pass: Pass = Pass.ENCODE
    memory_ran_out: bool = True
    """Whether a SIGKILL may mean that memory ran out; False if the system says that it did not."""
    source_texts: frozenset[str] = frozenset()
    """Messages, as split by `split_messages`, that the source causes: they tell nothing about this machine."""


def split_messages(lines: Sequence[str], location: str) -> list[str]:
    """Remove the source's name from a program's lines, and split them where a message may begin."""
    return _MESSAGE_START.split(strip_name(lines, location))


def exit_error(run: FfmpegExit) -> HevcqError | None:
    """Return the error that an exit means, or None if the run did not fail.

    A run with exit code 0 failed only if the source's demuxer or decoder reported an error. From
    ffmpeg 7 on a connection that breaks for good ends like this. Gate G1 judges the other lines.
    """
    name = display_name(run.location)
    if run.returncode == 0:
        return _source_error(run, name) if _source_complaint(run) is not None else None
    by_signal = _signal_error(run, name) if run.returncode < 0 else None
    return (
        by_signal or _text_error(run, name) or _unexplained_error(run, f"ffmpeg failed on {name}")
    )


def _signal_error(run: FfmpegExit, name: str) -> HevcqError | None:
    number = -run.returncode
    if number == signal.SIGXFSZ:
        return LimitExceeded(f"The rendition of {name} grew far above its source.")
    if number == signal.SIGXCPU:
        return LimitExceeded(f"The encode of {name} exceeded its CPU time limit.")
    if number == signal.SIGKILL and not run.memory_ran_out:
        return _unexplained_error(
            run, f"ffmpeg was killed from outside, memory had not run out, on {name}"
        )
    if number == signal.SIGKILL:
        why = f"ffmpeg was killed while it encoded {name}, most likely because memory ran out."
        return _encoder_error(OutOfMemory, run, why)
    phrase = _SIGNALS.get(number, f"was ended by signal {number}")
    return _unexplained_error(run, f"ffmpeg {phrase} on {name}")


def _text_error(run: FfmpegExit, name: str) -> HevcqError | None:
    text = _own_text(run, run.stderr)
    if _DISK.search(text):
        return DiskFull(f"The disk filled up while {name} was encoded.")
    if _MEMORY.search(text):
        return _encoder_error(OutOfMemory, run, f"ffmpeg ran out of memory on {name}.")
    if _TOO_LARGE.search(text):
        return LimitExceeded(f"The rendition of {name} grew far above its source.")
    if _UNFIT.search(text):
        return WorkerUnfit(
            f"ffmpeg cannot do this work: {_first_message(run.stderr)}.",
            remedy="Run `hevcq doctor` to see what is missing.",
        )
    return _source_error(run, name)


def _source_error(run: FfmpegExit, name: str) -> HevcqError | None:
    is_served = is_url(run.location)
    about = [
        line
        for line in run.stderr
        if is_about_input(line, run.location) or (is_served and name in line)
    ]
    text = _own_text(run, run.stderr if is_served else about)
    if _GONE.search(text):
        return SourceGone(f"{name} is not there any more.")
    if _FORBIDDEN.search(text):
        return SourceUnreadable(
            f"{name} may not be read.", remedy="Give hevcq's user the right to read it."
        )
    if _UNAVAILABLE.search(text):
        why = _first_message(about) or _first_message(run.stderr)
        return Unavailable(f"{name} could not be read to its end: {why}.")
    complaint = _source_complaint(run)
    return damage_error(run.location, complaint) if complaint is not None else None


def _own_text(run: FfmpegExit, lines: Sequence[str]) -> str:
    return "".join(
        part for part in split_messages(lines, run.location) if part not in run.source_texts
    )


def without_secrets(words: Sequence[str], location: str) -> tuple[str, ...]:
    """Remove the signature of a URL from command words or lines."""
    if not is_url(location):
        return tuple(words)
    secret = ffmpeg_url(location)
    return tuple(word.replace(secret, display_name(location)) for word in words)


def _source_complaint(run: FfmpegExit) -> str | None:
    """Return the first unexpected line by which the source's demuxer or decoder reports an error."""
    own = {stream.codec for stream in run.info.streams} | {run.info.format_name}
    for line in unexpected_lines(run.stderr, run.ffmpeg_pass):
        speaker = _COMPONENT.match(line)
        if speaker is not None and component(speaker["name"]) in own and _LEVEL.search(line):
            return line
        if _DAMAGE.search(line):
            return line
    return None


def damage_error(location: str, line: str, others: int = 0) -> SourceDamaged | SourceUnreadable:
    """Return the error of a source about which ffmpeg printed `line` and so many `others`.

    Its sentence says what cannot be read, because ffmpeg's words alone mean nothing to most people.
    """
    if _UNSUPPORTED.search(line):
        return SourceUnreadable(
            f"{display_name(location)} is compressed in a way that this ffmpeg cannot read (ffmpeg: "
            f"{_plain_text(line)}).",
            remedy="Set HEVCQ_FFMPEG to an ffmpeg that was built with zlib.",
        )
    speaker = _COMPONENT.match(line)
    name = component(speaker["name"]) if speaker is not None else ""
    what = next((words for known, words in _FAULTS if known.fullmatch(name)), _OTHER_FAULT)
    more = f"; {others} more error{'s' if others > 1 else ''}" if others else ""
    return SourceDamaged(
        f"{display_name(location)} is damaged: {what} (ffmpeg: {_plain_text(line)}{more}).",
        remedy=INTACT_COPY,
    )


def _unexplained_error(run: FfmpegExit, what: str) -> EncoderFailed:
    last = _first_message(run.stderr)
    why = f"{what}: {last}." if last else f"{what} with {ending(run.returncode)}."
    return _encoder_error(EncoderFailed, run, why)


def _encoder_error(kind: type[EncoderFailed], run: FfmpegExit, why: str) -> EncoderFailed:
    command = shlex.join(run.command)
    return kind(why, returncode=run.returncode, tail=run.stderr, command=command)


def _first_message(lines: Sequence[str]) -> str:
    return next((_plain_text(line) for line in lines if _plain_text(line)), "")


def _plain_text(line: str) -> str:
    return re.sub(r"^(?:file:|https?:)\S.*?: ", "", message_text(line))
