"""What becomes of each kind of metadata: carried, named before the encode, or lost without a word.

The judge reads the bytes of the rendition by itself (tests/support), not by the readers of hevcq.
"""

import struct
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from benchmarks.fidelity.spliced import video
from benchmarks.fidelity.trial import Figure, Trial, recipe, run_trial

from hevcq.domain.formats import Container
from support import matroska as mkv
from support.clips import ffmpeg
from support.rendition import add_boxes, box, clap, elng

LOST = "lost"
_XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "12", "-pix_fmt", "yuv420p", "-c:a", "aac",
         "-metadata:s:a:0", "language=por")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of metadata: how a rendition's bytes show it, and the word that names its loss."""

    name: str
    carried: Callable[[Path], bool]
    word: str


def _holds(*needles: str) -> Callable[[Path], bool]:
    return lambda path: any(needle.encode() in path.read_bytes() for needle in needles)


def _was_recorded(path: Path) -> bool:
    return "2019-05-04T10:11:12" in _tag(path, "creation_time")


def _was_there(path: Path) -> bool:
    """Return whether the place is the source's to a hundred metres; `loci` has fixed-point numbers."""
    return _tag(path, "location").startswith("+48.135") and "+011.58" in _tag(path, "location")


def _tag(path: Path, name: str) -> str:
    asked = f"ffprobe -v error -of csv=p=0 -show_entries format_tags={name}".split()
    return subprocess.run([*asked, path], check=True, capture_output=True, text=True).stdout


def _shows(path: Path) -> bool:
    data = path.read_bytes()
    at = data.find(b"clap")
    numbers = struct.unpack_from(">IIIIiIiI", data, at + 4) if at > 0 else (0, 1) * 4
    sides = [Fraction(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]
    return sides == [140, 120, 0, 0]


def _inside(path: Path, *way: int) -> list[bytes]:
    return mkv.inside(path.read_bytes(), mkv.SEGMENT, *way) if path.suffix == ".mkv" else []


def _has(*way: int, value: int | None = None) -> Callable[[Path], bool]:
    """Whether a Matroska file has an element, and with this value."""
    return lambda path: any(
        value is None or int.from_bytes(each, "big") == value for each in _inside(path, *way)
    )


_TRACKS = (
    Kind("language by BCP 47", _holds("pt-BR"), "pt-BR"),
    Kind("name of a track", _holds("The director"), "title"),
    Kind("title", _holds("A holiday"), "title"),
    Kind("GPS position", _was_there, "location"),
    Kind("time of recording", _was_recorded, "creation_time"),
)
BOXES = (
    *_TRACKS,
    Kind("crop of the picture", _shows, "aperture"),
    Kind("XMP of the file", _holds("<x:file/>"), "XMP of the file"),
    Kind("XMP of the movie", _holds("<x:movie/>"), "XMP (XMP_)"),
    Kind("Samsung's box", _holds("of a Samsung"), "smta"),
    Kind("sort field", _holds("Holiday, the"), "soar"),
    Kind("rating", _holds("rate\0\0"), "rate"),
    Kind("lens of a track", _holds("of a lens"), "LENS"),
    Kind("an editor's box in the index", _holds("of an editor"), "uuid"),
)
ELEMENTS = (
    *_TRACKS,
    Kind("two editions", lambda p: len(_inside(p, mkv.CHAPTERS, mkv.EDITION)) == 2, "editions"),
    Kind("ordered edition", _has(mkv.CHAPTERS, mkv.EDITION, 0x45DD, value=1), "editions"),
    Kind("hidden chapter", _has(mkv.CHAPTERS, mkv.EDITION, mkv.ATOM, 0x98, value=1), "editions"),
    Kind("tags of a series", _has(mkv.TAGS, mkv.TAG, mkv.TARGETS, 0x68CA, value=70), "structured"),
    Kind("tags in tags", _has(mkv.TAGS, mkv.TAG, mkv.SIMPLE, mkv.SIMPLE), "structured"),
    Kind("tags of a chapter", _has(mkv.TAGS, mkv.TAG, mkv.TARGETS, 0x63C4, value=7), "MOOD"),
    Kind("the next file", _has(mkv.INFO, 0x3EB923), "links"),
)


def with_boxes(folder: Path) -> Path:
    """Make an MP4 of an editor with every kind of box."""
    path = folder / "boxes.mp4"
    ffmpeg(*video(seconds="1"), *_H264, "-metadata", "title=A holiday", "-metadata",
           "creation_time=2019-05-04T10:11:12Z", path)  # fmt: skip
    data, entry = bytearray(path.read_bytes()), b""
    for kind, value in ((b"soar", b"Holiday, the"), (b"rate", b"80")):
        entry += box(kind, box(b"data", struct.pack(">II", 1, 0) + value))
    at = data.rindex(b"ilst") - 4
    end = at + struct.unpack_from(">I", data, at)[0]
    data[end:end] = entry
    for kind in (b"ilst", b"meta", b"udta", b"moov"):
        at = data.rindex(kind) - 4
        struct.pack_into(">I", data, at, struct.unpack_from(">I", data, at)[0] + len(entry))
    path.write_bytes(bytes(data))
    picture, sound = (b"moov", (b"trak", 0)), (b"moov", (b"trak", 1))
    place = b"\0\x12\x15\xc7+48.1351+011.5820/"
    return add_boxes(
        path,
        ((*picture, b"mdia", b"minf", b"stbl", b"stsd", b"avc1"), clap(140, 120)),
        ((*picture, b"udta"), box(b"LENS", b"of a lens")),
        ((*sound, b"mdia"), elng("pt-BR")),
        ((*sound, b"udta"), box(b"name", b"The director")),
        ((b"moov", b"udta"), box(b"\xa9xyz", place) + box(b"XMP_", b"<x:movie/>")),
        ((b"moov", b"udta"), box(b"smta", b"\0\0\0\0of a Samsung")),
        ((b"moov",), box(b"uuid", bytes(range(16)) + b"of an editor")),
        ((), box(b"uuid", _XMP + b"<x:file/>")),
    )


def with_elements(folder: Path) -> Path:
    """Make a Matroska file of a collector with every kind of element."""
    path, half, new = folder / "elements.mkv", 500_000_000, mkv.element
    ffmpeg(*video(seconds="1"), *_H264, "-metadata:s:a:0", "title=The director", "-metadata",
           "title=A holiday", "-metadata", "creation_time=2019-05-04T10:11:12Z", "-metadata",
           "location=+48.1351+011.5820/", path)  # fmt: skip

    def atom(uid: int, start: int, title: str, more: bytes = b"") -> bytes:
        times = new(0x91, start) + new(0x92, start + half)
        return new(mkv.ATOM, new(0x73C4, uid), times, new(0x80, new(0x85, title)), more)

    def simple(name: str, value: str, *more: bytes) -> bytes:
        return new(mkv.SIMPLE, new(0x45A3, name), new(0x4487, value), *more)

    first = new(mkv.EDITION, atom(7, 0, "One"), atom(8, half, "Two", new(0x98, 1)))
    second = new(mkv.EDITION, new(0x45DD, 1), atom(9, half, "Two first"), atom(10, 0, "Then one"))
    series = new(mkv.TARGETS, new(0x68CA, 70), new(0x63CA, "COLLECTION"))
    tags = (
        new(mkv.TAG, new(mkv.TARGETS), simple("LOCATION", "+48.1351+011.5820/")),
        new(mkv.TAG, series, simple("TITLE", "All holidays")),
        new(mkv.TAG, new(mkv.TARGETS), simple("ACTOR", "A", simple("CHARACTER", "B"))),
        new(mkv.TAG, new(mkv.TARGETS, new(0x63C4, 7)), simple("MOOD", "calm")),
    )
    return mkv.with_tables(
        path,
        new(mkv.CHAPTERS, first, second),
        new(mkv.TAGS, *tags),
        tracks={1: new(mkv.LANGUAGE, "pt-BR")},
        info=new(0x73A4, bytes(range(16))) + new(0x3EB923, bytes(range(16, 32))),
        without=(mkv.TAGS,),
    )


def fates(trial: Trial, kinds: Iterable[Kind]) -> dict[str, str]:
    """Return what became of each kind: carried, named or lost."""
    if trial.output is None or trial.plan is None or trial.outcome != "encoded":
        return {kind.name: f"{LOST}: {trial.outcome} {trial.detail}" for kind in kinds}
    found = {}
    for kind in kinds:
        named = any(kind.word in loss for loss in trial.plan.losses)
        carried = kind.carried(trial.output)
        found[kind.name] = "carried" if carried else "named" if named else LOST
    return found


def figure(folder: Path, words: tuple[str, ...] = ()) -> Figure:
    """Take both files into both containers; print each kind that is not carried."""
    counted = {"carried": 0, "named": 0, LOST: 0}
    for make, kinds in ((with_boxes, BOXES), (with_elements, ELEMENTS)):
        source = make(folder)
        for container in ("mp4", "mkv"):
            profile = recipe("hevc").model_copy(update={"container": Container(container)})
            for name, fate in fates(run_trial(source, profile, folder), kinds).items():
                counted[fate.partition(":")[0]] += 1
                if fate.startswith(LOST) or words:
                    print(f"{source.suffix} into {container}: {name} is {fate}")
    value = ", ".join(f"{count} {fate}" for fate, count in counted.items())
    return Figure("kinds of metadata", value, "0 lost", not counted[LOST])
