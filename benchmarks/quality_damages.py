"""Spoil a rendition in some twenty ways, each held against the source's thumbnails as gate G8 does.

One decode of the rendition through the spoiling filters gives the thumbnails of the wrong pictures;
frames that are dropped, doubled or black are made of the thumbnails themselves, which is the same.
"""

import io
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.fidelity.trial import MAX_S, Trial
from hevcq.domain.formats import keeps_detail
from hevcq.domain.profile import Profile
from hevcq.ffmpeg.command.thumbnails import (
    CELLS,
    CHROMA_CELLS,
    LUMA_CELLS,
    RAW,
    RECORD_BYTES,
    output_graph,
)
from hevcq.ffmpeg.verify import frames
from hevcq.ffmpeg.verify.frames import COLOURS, MIN_MOTION, FrameComparison

BLUR = "half resolution"
FILTERS = {
    "clean": "null",
    "grey": "hue=s=0",
    "hue turned by 12 degrees": "hue=h=12",
    "matrix 601 taken for 709": "colormatrix=bt601:bt709",
    "7 % darker": "lutyuv=y=val-maxval*17/235",
    BLUR: "scale=iw/2:ih/2,scale=iw*2:ih*2",
    "a block of 16 pixels": "drawbox=x=iw/3:y=ih/2:w=16:h=16:c=green:t=fill",
    "a block of 32 pixels": "drawbox=x=iw/3:y=ih/2:w=32:h=32:c=green:t=fill",
    "a row of blocks green for 3 frames": (
        "drawbox=x=0:y=floor(ih/32)*16:w=iw:h=16:c=green:t=fill:enable=between(n\\,40\\,42)"
    ),
    "a row of blocks shifted": (
        "split[x][z];[z]crop=iw:16:0:floor(ih/32)*16,scroll=hpos=0.02[w];"
        "[x][w]overlay=0:floor(main_h/32)*16"
    ),
    "lines swapped in pairs": "il=luma_swap=1:chroma_swap=1",
    "two green lines at the bottom": "drawbox=x=0:y=ih-2:w=iw:h=2:c=green:t=fill",
    "a subtitle": (
        "drawtext=text='A subtitle':fontsize=h/22:fontcolor=white:borderw=2:x=(w-tw)/2:y=h-2*th"
    ),
    "a second blurred": "gblur=sigma=2:enable=between(t\\,1\\,2)",
}
"""Wrong pictures by the filter that makes them."""
REST = 2 * CHROMA_CELLS
BLACK = bytes(
    [16] * CELLS
    + [128] * 2 * CELLS
    + [0] * CELLS
    + [16] * LUMA_CELLS
    + [128] * REST
    + [16] * 2 * CELLS
)
STEPS = range(2, 9)
"""Steps to a neighbour, the largest of a cell, at which a frame is doubled alone."""
LIMITS = (5, 4, 3)
"""Limits of the step (MIN_STEP) that are tried."""
AROUND = 14
"""Frames on either side of a doubled one that the comparison sees."""
Records = list[bytes]
WHOLE = 4 * CELLS
"""Bytes at the start of a thumbnail that are of the picture as a whole; the others are of one place."""
Found = dict[str, dict[str, Any]]


def spoilt(trial: Trial, profile: Profile) -> tuple[Found, dict[str, dict[str, int]]]:
    """Return whether each damage is caught, and which limits catch a doubled frame, by its step.

    Beside it how far the damage moves the worst frame. Where no frame moves, none is doubled.
    """
    assert trial.output is not None
    assert trial.plan is not None
    source = _records(Path(f"{trial.output}.thumbnails0").read_bytes())
    made = {name: _records(data) for name, data in _decoded(trial.output).items()}
    judge = _Judge(source, profile, trial.plan.video.width * trial.plan.video.height)
    clean = made.pop("clean")
    moved = max(range(1, len(clean)), key=lambda n: _moves(source, n)[1], default=0)
    if moved and _moves(source, moved)[0] >= MIN_MOTION:
        made["neighbour doubled"] = _shown(clean, lambda n: n - (n == moved))
        begin, end = max(0, moved - len(clean) // 4), min(len(clean) - 1, moved + len(clean) // 4)
        gone = _shown(clean, lambda n: n + (begin <= n < end))
        made["one frame dropped, another doubled"] = gone
    middle, tail = len(clean) // 2, len(clean) - len(clean) // 4
    for name, begin, end in (
        ("one black frame", middle, middle + 1),
        ("five black frames", middle, min(len(clean), middle + 5)),
        ("a black tail", tail, len(clean)),
    ):
        made[name] = [*clean[:begin], *[BLACK] * (end - begin), *clean[end:]]
    found = {
        name: {"caught": judge.refuses(records), "steps": _apart(records, clean)}
        for name, records in made.items()
    }
    return found, _doubled(judge, clean)


def _shown(clean: Records, frame: Callable[[int], int]) -> Records:
    """Return the thumbnails of a video that shows another frame; what is of one place stays its own."""
    return [clean[frame(n)][:WHOLE] + own[WHOLE:] for n, own in enumerate(clean)]


def _apart(one: Records, other: Records) -> float:
    """Return how far the worst frame is off: root mean square of luma and chroma, in steps."""
    return round(max(_steps(a, b)[0] for a, b in zip(one, other, strict=True)), 2)


class _Judge:
    """Holds renditions against one source."""

    def __init__(self, source: Records, profile: Profile, pixels: int) -> None:
        self.source = source
        self._pixels = pixels
        self._detail = keeps_detail(profile.video.codec, profile.video.crf)

    def refuses(self, made: Sequence[bytes], part: slice = slice(None)) -> bool:
        """Return whether gate G8 refuses these thumbnails of a rendition."""
        source = io.BytesIO(b"".join(self.source[part]))
        whole = self._detail and part == slice(None)
        comparison = FrameComparison(source.read, self._pixels, judges_detail=whole)
        comparison.feed(b"".join(made[part]))
        return bool(comparison.close())


def _doubled(judge: _Judge, clean: Records) -> dict[str, dict[str, int]]:
    """Double one frame alone at each step there is; say by step which limits refuse it.

    `honest` says which limits refuse the rendition as it is.
    """
    places: dict[int, int] = {}
    for place in range(1, len(clean)):
        motion, step = _moves(judge.source, place)
        if motion >= MIN_MOTION and step in STEPS:
            places.setdefault(step, place)
    found: dict[str, dict[str, int]] = {"honest": {}}
    shipped = frames.MIN_STEP
    for limit in LIMITS:
        frames.MIN_STEP = limit
        found["honest"][str(limit)] = int(judge.refuses(clean))
        for step, place in places.items():
            made = _shown(clean, lambda n, place=place: n - (n == place))
            part = slice(max(0, place - AROUND), place + AROUND)
            found.setdefault(str(step), {})[str(limit)] = int(judge.refuses(made, part))
    frames.MIN_STEP = shipped
    return found


def _moves(source: Records, place: int) -> tuple[float, int]:
    """Return the step from the frame before; see `_steps`."""
    return _steps(source[place - 1], source[place])


def _steps(one: bytes, other: bytes) -> tuple[float, int]:
    """Return the difference of two thumbnails: root mean square, and the largest of a cell."""
    steps = [abs(a - b) for a, b in zip(one[:COLOURS], other[:COLOURS], strict=True)]
    return math.sqrt(sum(step * step for step in steps) / COLOURS), max(steps)


def _decoded(rendition: Path) -> dict[str, bytes]:
    """Return the thumbnails of the rendition's pictures through each filter, by one decode."""
    argv = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-i", str(rendition)]
    files = {name: rendition.with_name(f"spoilt{n}.raw") for n, name in enumerate(FILTERS)}
    for name, graph in FILTERS.items():
        argv += ["-map", "0:v:0", "-filter:v", f"{graph},{output_graph()}", *RAW, str(files[name])]
    subprocess.run(argv, check=True, timeout=MAX_S)
    return {name: path.read_bytes() for name, path in files.items()}


def _records(data: bytes) -> Records:
    return [data[at : at + RECORD_BYTES] for at in range(0, len(data), RECORD_BYTES)]
