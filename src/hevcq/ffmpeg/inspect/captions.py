"""Make text of the closed captions inside a video (CEA-608 in A/53 user data), and check what was made.

ffmpeg finds captions where it decodes pictures. Its filter `movie` hands them on as packets of byte pairs,
one packet a picture, which are read here with the picture's exact time and told apart by channel: CC1 and
CC2 in the first field, CC3 and CC4 in the second. ffmpeg's decoder reads one channel only, and rounds
times; so each channel is given to it alone, a pair a second, and the second of a cue names its picture.

The check reads the pairs of the source again and takes words and times out of them without that decoder.
CEA-708 is not decoded by ffmpeg; broadcasters send the same text as CEA-608 beside it.
"""

from __future__ import annotations

import contextlib
import math
import re
import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from hevcq.domain.media.facts import MediaInfo
from hevcq.errors import MediaRefused, SourceUnreadable, Unavailable
from hevcq.ffmpeg.inputs import (
    NETWORK,
    PROBE_LIMITS,
    RW_TIMEOUT_US,
    FfmpegTools,
    display_name,
    ffmpeg_url,
    is_url,
    reading,
)
from hevcq.ffmpeg.inspect.measure import LIMITS
from hevcq.ffmpeg.process.child import run_child
from hevcq.ports.encoder import EncodeRequest
from hevcq.util.text import webvtt_time

CHANNELS = ("CC1", "CC2", "CC3", "CC4")
LONGEST_S = 16.0
"""Seconds after which a caption that nothing erases goes away by itself (47 CFR 15.119)."""
SHORTEST_S = 0.04
LATE_S = 0.02
"""Seconds that a cue may lie off its picture: containers round, and no frame of video is so short."""
MISREAD = 0.05
"""Share of words that two readers may read differently, where text is overwritten or damaged."""
REMEDY = "set policies.closed_captions to drop to encode without them"
_MODES = {0x20: True, 0x25: True, 0x26: True, 0x27: True, 0x29: True, 0x2A: False, 0x2B: False}
"""Commands that begin captions (True), or the text service that shares their channel (False)."""
BACKSPACE, ERASE, NEW_LINE, ERASE_HIDDEN, SHOW = 0x21, 0x2C, 0x2D, 0x2E, 0x2F
NOTHING = (0, 0)
_DATA = re.compile(r"^[0-9a-f]{8}: (.{40})")
_WORD = re.compile(r"[A-Za-z0-9]+")
_CUE = re.compile(r"^(?:(\d+):)?(\d\d):(\d\d\.\d{3}) --> (?:(\d+):)?(\d\d):(\d\d\.\d{3})")

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Cue:
    """A text that is shown from `begin` to `end`, in seconds."""

    begin: float
    end: float
    text: str


@dataclass(slots=True)
class CaptionPairs:
    """The byte pairs of each channel, without parity, each with the time of its picture in seconds."""

    channels: dict[str, list[tuple[float, Pair]]] = field(
        default_factory=lambda: {name: [] for name in CHANNELS}
    )
    is_digital: bool = False
    """Whether there is text in CEA-708."""
    _current: list[str] = field(default_factory=lambda: ["CC1", "CC3"])
    _open: list[bool] = field(default_factory=lambda: [True, True])
    """Whether the field's bytes are captions now: not of a text service, nor of the programme's data."""

    def feed(self, time_s: float, triplets: bytes) -> None:
        """Take the captions of one picture: a byte of marks and two of data, again and again."""
        for at in range(0, len(triplets) - 2, 3):
            marks, first, second = triplets[at : at + 3]
            if not marks & 4:
                continue
            if (
                marks & 3 == 3
            ):  # a packet of CEA-708 begins: its header, and that of its first block
                self.is_digital = self.is_digital or (second >> 5 > 0 and second & 31 > 0)
            elif marks & 3 < 2:
                self._feed_pair(time_s, marks & 1, (_plain(first), _plain(second)))

    def _feed_pair(self, time_s: float, place: int, pair: Pair) -> None:
        high, low = pair
        if 0 < high < 0x10:  # data about the programme, in the second field
            self._open[place] = high == 0x0F
            return
        if 0x10 <= high < 0x20:
            self._current[place] = CHANNELS[2 * place + (1 if high & 8 else 0)]
            pair = (0x14 if high & 0xF7 == 0x15 and low < 0x40 else high & 0xF7, low)
            if pair[0] == 0x14 and low in _MODES:
                self._open[place] = _MODES[low]
        found = self.channels[self._current[place]]
        if not self._open[place] or (pair == NOTHING and (not found or found[-1][1] == NOTHING)):
            return
        found.append((time_s, pair))

    def with_text(self) -> tuple[str, ...]:
        """Return the channels that hold text."""
        return tuple(name for name, pairs in self.channels.items() if spoken(pairs).words)


def _plain(byte: int) -> int:
    """Return a byte without its parity, 0 if that is wrong."""
    return byte & 0x7F if byte.bit_count() % 2 else 0


@dataclass(slots=True)
class Spoken:
    """What a channel's bytes say: its words, the times at which they may appear, and its captions.

    `captions` counts those that are shown as a whole; None where some are shown as they are written.
    """

    words: set[str]
    times: list[float]
    captions: int | None


def spoken(pairs: Sequence[tuple[float, Pair]]) -> Spoken:
    """Read a channel without ffmpeg's decoder: by its letters and commands, whatever their places."""
    found = Spoken(set(), [], 0)
    text, before, whole = "", NOTHING, False
    shows: list[float] = []
    for time_s, (high, low) in pairs:
        found.times += [time_s] if (high, low) != NOTHING else []
        if high >= 0x20:
            text += chr(high) + (chr(low) if low >= 0x20 else "")
        elif (high, low) != before and high == 0x14 and low < 0x40:
            whole = low in {0x20, SHOW} if low in _MODES or low == SHOW else whole
            if low == BACKSPACE:
                text = text[:-1]
            elif low == ERASE_HIDDEN and whole:
                text = ""
            elif low in {SHOW, NEW_LINE, ERASE} and not (low == ERASE and whole):
                shows += [time_s] if low == SHOW else []
                _end_caption(found, text, counts=low == SHOW)
                text = ""
            else:
                text += " "
        elif (high, low) != before and high:
            # A letter that replaces the plain one before it, a special one, a colour, or a place.
            text = f"{text[:-1]}\0" if high in {0x12, 0x13} else text
            text += (
                "\0" if high == 0x11 and 0x30 <= low < 0x40 else " " * (high not in {0x12, 0x13})
            )
        # A command is sent twice, and counts once.
        before = (high, low) if high < 0x20 and (high, low) != before else NOTHING
    if not whole:
        _end_caption(found, text, counts=False)
    if found.captions is not None:
        found.times = shows
    return found


def _end_caption(found: Spoken, text: str, *, counts: bool) -> None:
    if not text.strip():
        return
    found.words.update(_WORD.findall(text) or [text.strip()])
    if not counts:
        found.captions = None
    elif found.captions is not None:
        found.captions += 1


def read_pairs(
    tools: FfmpegTools, location: str, info: MediaInfo, index: int, stop: threading.Event
) -> CaptionPairs:
    """Decode a video and return its captions.

    Raises SourceUnreadable, Unavailable if the network failed, or what a child raises.
    """
    argv = [
        tools.ffprobe, "-v", "error", "-f", "lavfi", "-i", _graph(location, info, index),
        "-select_streams", "s", "-show_entries", "packet=pts_time,data", "-show_data",
        "-of", "default=noprint_wrappers=1:nokey=0",
    ]  # fmt: skip
    found = CaptionPairs()
    time_s, data = 0.0, bytearray()

    def on_line(line: str) -> None:
        nonlocal time_s
        matched = _DATA.match(line)
        if matched is not None:
            data.extend(bytes.fromhex(matched[1]))
        elif line.startswith("pts_time="):
            found.feed(time_s, bytes(data))
            data.clear()
            time_s = _seconds(line.removeprefix("pts_time=").strip(), time_s)

    done = run_child(argv, stop=stop, limits=reading(LIMITS, tools, location), on_line=on_line)
    found.feed(time_s, bytes(data))
    if is_url(location) and any(line.startswith(NETWORK) for line in done.stderr):
        # To the filter a lost connection is the end of the video.
        raise Unavailable(
            f"{display_name(location)} could not be read to its end for its captions."
        )
    if done.returncode != 0:
        raise SourceUnreadable(f"The captions of {display_name(location)} cannot be read.")
    return found


def _seconds(text: str, otherwise: float) -> float:
    try:
        return float(text)
    except ValueError:
        return otherwise


def _graph(location: str, info: MediaInfo, index: int) -> str:
    """Return the filter that opens the source by the demuxer that the probe found, and nothing else."""
    protocols, name = ("file", f"file:{location}")
    options = {}
    if is_url(location):
        name = ffmpeg_url(location)
        protocols = "https,tls,tcp" if name.startswith("https") else "http,tcp"
        options["rw_timeout"] = str(RW_TIMEOUT_US * 10)
    options |= {"protocol_whitelist": protocols, "format_whitelist": info.format_name}
    format_options = ":".join(f"{key}={value}" for key, value in options.items())
    arguments = {
        "filename": name,
        "format_name": info.format_name.partition(",")[0],
        "stream_index": str(index),
        "format_opts": format_options,
    }
    words = ":".join(f"{key}={_escaped(value)}" for key, value in arguments.items())
    return f"movie={words}[out0+subcc]"


def _escaped(text: str) -> str:
    """Escape a value for the options of a filter, and that for a graph (ffmpeg-filters, "Notes on escaping")."""
    for special in ("\\':\t\n ", "\\'[],;\t\n "):
        text = "".join(f"\\{letter}" if letter in special else letter for letter in text)
    return text


def found_captions(
    tools: FfmpegTools, location: str, info: MediaInfo, index: int, stop: threading.Event
) -> tuple[str, ...]:
    """Return the channels that hold text. Raises MediaRefused if there is text in CEA-708 only."""
    pairs = read_pairs(tools, location, info, index, stop)
    found = pairs.with_text()
    if not found and pairs.is_digital:
        raise MediaRefused(
            f"{display_name(location)}: its closed captions are in CEA-708 only, of which no text can be "
            f"made; {REMEDY} (policies.closed_captions)."
        )
    return found


@contextlib.contextmanager
def extracted_captions(
    tools: FfmpegTools, request: EncodeRequest, stop: threading.Event
) -> Iterator[list[Path]]:
    """Write a WebVTT file of each channel of the plan beside the output; remove the files at the end.

    Times count from the source's start. Raises MediaRefused if a channel gives no text.
    """
    info, made = request.info, list[Path]()
    try:
        index = request.plan.main_video.source_index
        pairs = read_pairs(tools, request.location, info, index, stop)
        start = info.start_s or 0.0
        for name in request.plan.captions:
            source = request.output.with_name(f"{request.output.name}.{name}.scc")
            made.append(source)
            cues = _cues(tools, source, pairs.channels[name], stop)
            if info.duration_s is not None:
                cues = _in_turn([*cues, Cue(start + info.duration_s, math.inf, "")])[:-1]
            if not cues:
                raise MediaRefused(
                    f"{display_name(request.location)}: no text could be made of its closed captions "
                    f"({name}); {REMEDY} (policies.closed_captions)."
                )
            target = source.with_suffix(".vtt")
            made.append(target)
            target.write_text(_webvtt(cues, start), encoding="utf-8")
        yield [path for path in made if path.suffix == ".vtt"]
    finally:
        for path in made:
            path.unlink(missing_ok=True)


def _cues(
    tools: FfmpegTools, path: Path, pairs: list[tuple[float, Pair]], stop: threading.Event
) -> list[Cue]:
    """Let ffmpeg decode one channel, which is written to `path` with a pair a second."""
    lines = ["Scenarist_SCC V1.0"]
    for second, (_, pair) in enumerate(pairs, 1):
        hours, rest = divmod(second, 3600)
        code = "".join(f"{byte | (0 if byte.bit_count() % 2 else 0x80):02x}" for byte in pair)
        lines.append(f"{hours:02d}:{rest // 60:02d}:{rest % 60:02d}:00\t{code}")
    path.write_text("\n\n".join(lines) + "\n", encoding="ascii")
    found = _read_webvtt(tools, str(path), ("-format_whitelist", "scc", "-f", "scc"), (), stop)
    times = [time_s for time_s, _ in pairs]
    cues = []
    for cue in found:
        begin, end = (min(len(times), max(1, round(t))) - 1 for t in (cue.begin, cue.end))
        erased = end > begin and (
            end < len(times) - 1 or pairs[end][1][1] in {ERASE, SHOW, NEW_LINE}
        )
        until = times[end] if erased else times[begin] + LONGEST_S
        cues.append(Cue(times[begin], max(until, times[begin] + SHORTEST_S), cue.text))
    return _in_turn(cues)


def _in_turn(cues: list[Cue]) -> list[Cue]:
    """End each cue where the next begins, at the latest."""
    ends = [min(one.end, other.begin) for one, other in pairwise(cues)]
    ends += [cue.end for cue in cues[-1:]]
    return [Cue(c.begin, end, c.text) for c, end in zip(cues, ends, strict=True) if end > c.begin]


def _webvtt(cues: Sequence[Cue], start_s: float) -> str:
    blocks = ["WEBVTT"]
    for cue in cues:
        begin, end = (webvtt_time(each - start_s) for each in (cue.begin, cue.end))
        text = cue.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        blocks.append(f"{begin} --> {end}\n{text}")
    return "\n\n".join(blocks) + "\n"


def _read_webvtt(
    tools: FfmpegTools,
    path: str,
    opened: Sequence[str],
    maps: Sequence[str],
    stop: threading.Event,
) -> list[Cue]:
    """Return the cues of a text track, which ffmpeg decodes."""
    command = [tools.ffmpeg, "-nostdin", "-v", "error", "-copyts", *opened]
    command += ["-protocol_whitelist", "file", "-i", f"file:{path}", *maps]
    command += ["-c:s", "webvtt", "-f", "webvtt", "-"]
    done = run_child(command, stop=stop, limits=reading(PROBE_LIMITS, tools, path))
    if done.returncode != 0:
        raise SourceUnreadable(f"The text of {display_name(path)} cannot be read.")
    return list(_parsed(done.stdout.decode("utf-8", "replace")))


def _parsed(text: str) -> Iterator[Cue]:
    for block in text.split("\n\n"):
        lines = block.strip("\n").split("\n")
        matched = _CUE.match(lines[0])
        words = "\n".join(lines[1:]).strip()
        if matched is not None and words:
            begin, end = (
                int(h or 0) * 3600 + int(m) * 60 + float(s)
                for h, m, s in (matched.groups()[:3], matched.groups()[3:])
            )
            yield Cue(begin, end, words)


@dataclass(frozen=True, slots=True)
class CaptionTracks:
    """The text tracks of a file by the channels they were made of.

    `shift_s` is by how many seconds the file's picture is shown later than the source's.
    """

    path: str
    streams: Mapping[str, int]
    shift_s: float


def caption_problems(
    tools: FfmpegTools,
    source: tuple[str, MediaInfo, int],
    tracks: CaptionTracks,
    stop: threading.Event,
) -> Iterator[str]:
    """Compare text tracks with the captions of the source, read once more.

    `source` is its location, its facts, and the number of its video.
    """
    location, info, index = source
    pairs = read_pairs(tools, location, info, index, stop)
    for name, stream in tracks.streams.items():
        expected = spoken(pairs.channels[name])
        cues = _read_webvtt(tools, tracks.path, (), ("-map", f"0:{stream}"), stop)
        found = _differences(expected, cues, tracks.shift_s)
        yield from (f"captions {name}: {problem}" for problem in found)


def _differences(expected: Spoken, cues: Sequence[Cue], shift_s: float) -> Iterator[str]:
    shown = {word for cue in cues for word in _WORD.findall(cue.text)}
    plain = {word for word in expected.words if _WORD.fullmatch(word)}
    if not cues:
        yield "the track is empty"
        return
    missing, added = plain - shown, shown - plain
    if len(missing) > MISREAD * len(plain) or len(added) > MISREAD * len(plain):
        odd = sorted(missing or added)[0]
        yield f"{len(missing)} of {len(plain)} words are missing, {len(added)} are others ({odd!r})"
    if (
        expected.captions is not None
        and abs(len(cues) - expected.captions) > MISREAD * expected.captions
    ):
        yield f"{len(cues)} captions of {expected.captions}"
    times = sorted(expected.times)
    for cue in cues:
        late = min(
            (abs(cue.begin - shift_s - time_s) for time_s in _near(times, cue, shift_s)),
            default=None,
        )
        if late is None or late > LATE_S:
            yield f"{cue.text!r} is shown at {cue.begin:.3f} s, where the source shows none"
            return


def _near(times: Sequence[float], cue: Cue, shift_s: float) -> Sequence[float]:
    place = bisect_left(times, cue.begin - shift_s)
    return times[max(0, place - 1) : place + 1]
