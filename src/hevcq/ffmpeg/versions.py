"""What differs between the versions of ffmpeg that are served, 5.1 to 9, and how each is met.

What a build does is seen in its answers, which git builds without a number give as well, and a later
release that behaves differently again is met as it is. One number alone is compared, in `as_decoded`.

| from | what changed | how it is met |
|---|---|---|
| 6 | ffprobe prints a packet's side data within the packet's line | values are read by name: `keyed` |
| 6 | libx265 writes captions into HEVC, by default until 7 | it is told not to: `A53` |
| 6.1 to 7 | `setpts` takes durations and rate from pictures | chunks and rungs do without it |
| 7 | all frames of AMR in a packet are decoded, not the first alone | looked, and refused: inspect/preflight.py |
| 7 | `-enc_time_base -1` is called `demux`, and 9 refuses the number | time bases are given as numbers |
| 7 | filters agree on a range through a split | it is set where it changes: `SAME_RANGE` |
| 7 | lines of a failed input name its number and not the file | both are known: `about_input` |
| 7, 8 | lines name an input or stream before its decoder or demuxer | taken off: `component` |
| 7 | a read that fails for good ends with status 0 | run/messages.py looks for its lines first |
| 7 | pictures get their track's aspect, whatever they say | known by its size, or refused: `as_decoded` |
| 7 | a playlist of another name is not recognised | `UNOPENED_PLAYLIST` |
| 7 | reading is 18 pictures ahead of encoding | a chunk's reader fetches them in vain, 1 % of it |
| 7.1 | libx265 and libsvtav1 write Dolby Vision | kept where their help names DOLBY_OPTION, else refused |
| 7.1 | pictures are cropped as the container says, when they are decoded | turned off: `UNCROPPED` |
| 8 | ffprobe's streams have the container's colours | the pictures' are asked for: probe/parse.py |
| 8 | what becomes 4:2:0 or is scaled has its chroma elsewhere | its place is not promised: planning/video.py |
| 8 | ffprobe prints the empty packets of Ogg's Theora | they are not counted: `REPEATING` |
| 9 | lines of a demuxer name the input alone, `in#0` | both are known: run/messages.py |
| 9 | the highlights of a GoPro are chapters too | both are carried |
| 9 | a tag that a file has twice has both values, `a;a` | said once: `single` |
| 9 | a graph that makes two frames of one waits for outputs behind another | one graph feeds all |
"""

import re
from collections.abc import Callable

from hevcq.domain.formats import HARDWARE
from hevcq.domain.media.facts import MediaInfo, Stream
from hevcq.domain.planning.encode_plan import EncodePlan
from hevcq.errors import MediaRefused

KEYED = "compact=p=0:nk=0"
"""The writer of ffprobe that names each value: which values stand beside them differs by version."""
KEYED_BY_KIND = "compact=p=1:nk=0"
"""The same with the kind of each line (`packet`, `stream`) before its first `|`."""
SAME_RANGE = "setrange=full"
"""Call what was made of full range, and convert nothing.

Without it the full range of thumbnails would reach back through the splits to the pictures that are
encoded."""
CROPPING = "Frame Cropping"
"""The side data by which ffprobe says that the container crops, in the versions whose ffmpeg does so."""
UNOPENED_PLAYLIST = "Not detecting m3u8/hls"
"""What those versions say that open no playlist by another name, before anything is refused."""
REPEATING = frozenset({"theora"})
"""Codecs of which an empty packet repeats a picture."""
A53 = frozenset({"libx264", "libx265"})
"""The encoders that are told whether to write captions; a build whose libx265 cannot ignores it."""
DOLBY_OPTION = "-dolbyvision"
"""The option of encoders by which those versions write each picture's Dolby Vision metadata."""
UNCROPPED = ("-apply_cropping", "codec")
"""The option of those versions that lets pictures be decoded whole, as they are coded."""
_FIRST_INPUT = re.compile(r"\[in#0(?:/\S+)? @ ")


def keyed(line: str) -> dict[str, str]:
    """Return the values of a line of KEYED output by name; of a name that comes twice the first.

    What follows the values of a packet (its side data) has names of its own, and no name is asked for
    that both have.
    """
    found: dict[str, str] = {}
    for part in line.split("|"):
        name, equals, value = part.partition("=")
        if equals:
            found.setdefault(name, value)
    return found


def whole(text: str | None) -> int | None:
    """Return a whole number that ffprobe wrote, or None for `N/A` and what it left out."""
    try:
        return int(text or "")
    except ValueError:
        return None


def single(value: str) -> str:
    """Return a tag's value once where it is there twice: ffmpeg itself writes a MOV's time of creation so."""
    half, again = value[: len(value) // 2], value[len(value) // 2 + 1 :]
    return half if half and value == f"{half};{again}" and half == again else value


def about_input(line: str, location: str) -> bool:
    """Whether a line of ffmpeg is about the source, the first input of every command."""
    shown = f"file:{location}".encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return shown in line or _FIRST_INPUT.match(line) is not None


def component(name: str) -> str:
    """Return the demuxer, decoder or muxer that a line's brackets name, as version 5.1 calls it.

    Later ones put an input or stream before it, or what it does: `in#0/avi`, `dec:h264`.
    """
    return name.rpartition("/")[2].removeprefix("dec:")


def as_decoded(version: Callable[[], str], info: MediaInfo) -> MediaInfo:
    """Return facts that say of pictures whose aspect changes whether this build gives all of them one.

    `version` returns the first line of `ffmpeg -version`, and is asked only where an aspect changes;
    without a number the answer is that it may.
    """
    if not any(map(_aspect_changes, info.streams)):
        return info
    found = re.match(r"\S+ version n?(\d+)\.", version())
    one = {"one_aspect": found is None or int(found[1]) >= 7}
    streams = (
        s.model_copy(update={"video": s.video.model_copy(update=one)})
        if s.video is not None and _aspect_changes(s)
        else s
        for s in info.streams
    )
    return info.model_copy(update={"streams": tuple(streams)})


def _aspect_changes(stream: Stream) -> bool:
    shapes = stream.video.shapes if stream.video is not None else ()
    return len({shape.partition(" ")[2] for shape in shapes}) > 1


def as_written(ask: Callable[[str], str], info: MediaInfo) -> MediaInfo:
    """Return facts that say of Dolby Vision whether this build writes it; `ask` as in require_able."""
    writable = any(s.video is not None and s.video.dolby_writable for s in info.streams)
    if not writable or DOLBY_OPTION in ask("libx265"):
        return info
    streams = (
        s.model_copy(update={"video": s.video.model_copy(update={"dolby_writable": False})})
        if s.video is not None
        else s
        for s in info.streams
    )
    return info.model_copy(update={"streams": tuple(streams)})


def require_able(ask: Callable[[str], str], plan: EncodePlan) -> None:
    """Raise MediaRefused if a build's encoder lacks the bits or the Dolby Vision of the planned pictures.

    Of too few bits it would make all of them, of 8 bits, and only warn. `ask(encoder)` returns its help; an answer
    that names no formats settles nothing.
    """
    targets = [plan.video] if plan.ladder is None else [each.target for each in plan.ladder.rungs]
    for target in targets:
        if target.dolby_vision and DOLBY_OPTION not in ask(target.encoder):
            raise MediaRefused(
                f"It keeps Dolby Vision metadata, which {target.encoder} of this ffmpeg cannot write.",
                remedy="Install ffmpeg 7.1 or later, or set policies.dynamic_hdr to drop.",
            )
        if target.bit_depth > 8 and target.encoder not in HARDWARE:
            found = re.search(r"Supported pixel formats: (.*)", ask(target.encoder))
            if found is not None and target.pixel_format not in found[1].split():
                raise MediaRefused(
                    f"Its pictures have {target.bit_depth} bits, which {target.encoder} of this "
                    f"ffmpeg cannot write ({target.pixel_format}).",
                    remedy=f"Install an ffmpeg whose {target.encoder} can, or set HEVCQ_FFMPEG "
                    "to one.",
                )
