"""Gates H1 to H4: hold a set as it is on disk against the boxes of its files.

Each returns its problems as clauses; none means that the gate passes. The files are read anew, and
their playlists are made anew of what they hold.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path

from hevcq.domain.keys import MASTER
from hevcq.domain.media.facts import StreamKind
from hevcq.domain.planning.encode_plan import Rung
from hevcq.ffmpeg.containers.fragments import FragmentedFile, read_fragments, starts_with_idr
from hevcq.ffmpeg.hls.command import SetPaths, ladder_in, of_kind, sounds_of
from hevcq.ffmpeg.hls.listing import SetContents, set_playlists
from hevcq.ffmpeg.hls.segments import Segment, video_segments
from hevcq.ports.encoder import VerifyRequest

MAX_EARLY_S = 2
"""Seconds that a segment may be decoded earlier before it is shown than the first one is."""


@dataclass(frozen=True, slots=True)
class Media:
    """An encoded file of a set; `segments` are those of a rung, as its playlist lists them."""

    path: Path
    content: FragmentedFile
    segments: Sequence[Segment] = ()


@dataclass(frozen=True, slots=True)
class StoredSet:
    """A set as it is on disk; `texts` are the files of its subtitles, `playlists` what is to be listed."""

    rungs: tuple[tuple[Rung, Media], ...]
    sounds: tuple[Media, ...]
    texts: tuple[Path, ...]
    playlists: dict[str, str]


def read_set(request: VerifyRequest) -> StoredSet:
    """Read the boxes of a set's files.

    Raises ValueError with a clause if one is not sound, or a planned track is missing.
    """
    plan, output = request.plan, request.output
    version = request.report.files[0].name.partition("/")[0]
    paths, ladder = SetPaths(output / version, output), ladder_in(plan)
    rungs = []
    for rung in ladder.rungs:
        if (path := paths.rung(rung)).is_file():
            content = _content(path)
            rungs.append((rung, Media(path, content, video_segments(content, ladder.segment_s))))
    _require_ends(ladder.rungs, [rung for rung, _ in rungs])
    sounds = {name: _content(paths.sound(name)) for name in sounds_of(plan)}
    contents = SetContents([(rung, media.content) for rung, media in rungs], sounds)
    return StoredSet(
        tuple(rungs),
        tuple(Media(paths.sound(name), content) for name, content in sounds.items()),
        tuple(paths.text(n) for n, _ in enumerate(of_kind(plan, StreamKind.SUBTITLE), 1)),
        set_playlists(plan, request.info, version, contents),
    )


def _content(path: Path) -> FragmentedFile:
    try:
        return read_fragments(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.stem}: {error}") from error


def _require_ends(planned: Sequence[Rung], found: Sequence[Rung]) -> None:
    """Require the highest and the lowest rung of each codec; others may have been left out, as low ones."""
    for codec in dict.fromkeys(rung.target.codec for rung in planned):
        family = [rung for rung in planned if rung.target.codec == codec]
        family = [rung for rung in family if not rung.is_low] or family
        for needed in (family[0], family[-1]):
            if needed not in found:
                raise ValueError(f"the rung {needed.name} is missing")


def listed(stored: StoredSet, folder: Path) -> Iterator[str]:
    """H1: the playlists name the ranges, times and key frames of their files, and nothing else."""
    for name, text in stored.playlists.items():
        if name != MASTER:
            yield from _differing(folder / name, text)


def declared(stored: StoredSet, folder: Path) -> Iterator[str]:
    """H4: the master playlist declares the codecs, sizes, rates and sounds of the files."""
    yield from _differing(folder / MASTER, stored.playlists[MASTER])


def _differing(path: Path, text: str) -> Iterator[str]:
    found = path.read_bytes() if path.is_file() else b""
    if found != text.encode():
        lines = zip_longest(found.split(b"\n"), text.encode().split(b"\n"))
        line = next(n for n, (own, due) in enumerate(lines, 1) if own != due)
        yield f"line {line} of {path.name} is not what the files hold"


def independent(stored: StoredSet) -> Iterator[str]:
    """H2: every segment begins with an IDR picture, from which any player can start."""
    for rung, media in stored.rungs:
        by_start = {fragment.start: fragment for fragment in media.content.fragments}
        with media.path.open("rb") as file:
            for number, segment in enumerate(media.segments, 1):
                first = by_start[segment.start]
                if not first.sync or not starts_with_idr(file, first, media.content.codec):
                    yield f"{rung.name}: segment {number} does not begin with an IDR picture"
                    break


def aligned(stored: StoredSet) -> Iterator[str]:
    """H3: segments begin at the same times in all rungs, and where decoding is at their beginning.

    hls.js 1.7 places a segment by its decoding time: one that begins much earlier than it is shown, as
    a picture behind a still passage may, puts all that follows out of step with the sound.
    """
    expected: list[Fraction] | None = None
    for rung, media in stored.rungs:
        scale = media.content.timescale
        begins = {fragment.start: fragment for fragment in media.content.fragments}
        early = [s.shown - begins[s.start].decoded for s in media.segments]
        late = [n for n, ticks in enumerate(early) if ticks - early[0] > MAX_EARLY_S * scale]
        if late:
            moment = media.segments[late[0]].shown / scale
            yield f"{rung.name}: it is decoded much earlier than it is shown, at {moment:.3f} s"
        times = [Fraction(segment.shown, scale) for segment in media.segments]
        if expected is None:
            expected = times
        elif times != expected:
            pairs = zip(times, expected, strict=False)
            at = next((float(b) for a, b in pairs if a != b), float(expected[-1]))
            yield f"{rung.name}: its segments do not begin where those of the others do, at {at:.3f} s"
