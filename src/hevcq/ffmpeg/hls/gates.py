"""Gates H1 to H6: hold the stored playlists of a set against the boxes of its files.

Each returns its problems as clauses; none means that the gate passes. Everything is read anew from
disk, and what is declared is measured again.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from hevcq.domain.keys import MASTER
from hevcq.domain.media.facts import StreamKind
from hevcq.domain.planning.encode_plan import EncodePlan, Rung
from hevcq.ffmpeg.containers.fragments import FragmentedFile, read_fragments, starts_with_idr
from hevcq.ffmpeg.hls.command import (
    alone,
    groups_beside,
    ladder_in,
    of_kind,
    sound_groups,
    sounds_of,
)
from hevcq.ffmpeg.hls.playlists import (
    RANGES,
    TEXTS,
    Listed,
    MasterPlaylist,
    MediaPlaylist,
    read_master,
    read_media,
    written_rate,
)
from hevcq.ffmpeg.hls.segments import Rates, Segment, frame_rate, rates, target_duration, timed
from hevcq.ffmpeg.verify.timing import MAX_DRIFT_S
from hevcq.ports.encoder import VerifyRequest

LOOSE = 1.1
"""How much larger than what is measured a declared bit rate may be."""
ROUNDING_S = Fraction(1, 1_000_000)
"""How far a written length may be off, in seconds."""
MAX_EARLY_S = 2
"""Seconds that a segment may be decoded earlier before it is shown than the first one is."""
_MOST_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class Media:
    """A media playlist with the file it cuts; `keys` is its I-frame playlist, of a video.

    `listed` are the lines of the master playlist that name it, one for each group of sounds.
    """

    name: str
    path: Path
    listed: tuple[Listed, ...]
    playlist: MediaPlaylist
    content: FragmentedFile
    keys: MediaPlaylist | None = None
    keys_listed: Listed | None = None

    @property
    def segments(self) -> tuple[Segment, ...]:
        """What the playlist's ranges hold. Raises ValueError if they are not whole fragments."""
        groups, rest = [], list(self.content.fragments)
        for entry in self.playlist.entries:
            group = []
            while rest and rest[0].end <= (entry.end or 0):
                group.append(rest.pop(0))
            if not group or (group[0].start, group[-1].end) != (entry.start, entry.end):
                raise ValueError(f"{self.name}: the range at {entry.start} is not whole fragments")
            groups.append(group)
        return timed(groups, self.content)


@dataclass(frozen=True, slots=True)
class StoredSet:
    """A set as it is on disk; `texts` are the playlists of subtitles with their files.

    `groups` are the names of the sounds by their group, as planned and as listed; `alone` are the
    variants without a picture.
    """

    master: MasterPlaylist
    rungs: tuple[tuple[Rung, Media], ...]
    sounds: tuple[Media, ...]
    groups: dict[str, list[str]]
    texts: tuple[tuple[MediaPlaylist, Path], ...]
    alone: tuple[Listed, ...]


def read_set(folder: Path, plan: EncodePlan) -> StoredSet:
    """Read the playlists of a set and the boxes of its files.

    Raises ValueError with a clause if they do not fit together, or a planned track is missing.
    """
    master = read_master(_text(folder / MASTER))
    by_name = {rung.name: rung for rung in ladder_in(plan).rungs}
    rungs = []
    seen = [line for line in master.variants if "RESOLUTION" in line.attributes]
    for uri, listed in _by_uri(seen).items():
        keys = next((k for k in master.key_frames if k.uri == _keys_of(uri)), None)
        media = _media(folder, listed, keys)
        if media.name not in by_name:
            raise ValueError(f"{media.name} is no rung of the plan")
        rungs.append((by_name.pop(media.name), media))
    rungs.sort(key=lambda pair: ladder_in(plan).rungs.index(pair[0]))
    _require_ends(ladder_in(plan).rungs, [rung for rung, _ in rungs])
    sounds = [r for r in master.renditions if r.attributes.get("TYPE") == "AUDIO"]
    texts = [r for r in master.renditions if r.attributes.get("TYPE") == "SUBTITLES"]
    if len(texts) != len(of_kind(plan, StreamKind.SUBTITLE)):
        raise ValueError(f"{len(texts)} subtitle tracks are listed")
    audios = {m.name: m for m in (_media(folder, on, None) for on in _by_uri(sounds).values())}
    groups = sound_groups(plan)
    _require_groups(audios, groups)
    return StoredSet(
        master,
        tuple(rungs),
        tuple(audios[name] for name in sounds_of(plan)),
        groups,
        tuple(_words(folder, listed) for listed in texts),
        tuple(line for line in master.variants if line not in seen),
    )


def _by_uri(lines: Sequence[Listed]) -> dict[str, tuple[Listed, ...]]:
    """Return lines of a master playlist by the playlist that they name, each in its order."""
    names = dict.fromkeys(line.uri for line in lines)
    return {uri: tuple(line for line in lines if line.uri == uri) for uri in names}


def _require_groups(audios: dict[str, Media], groups: dict[str, list[str]]) -> None:
    """Require that each sound is listed once in each of its groups, and in no other."""
    for name in dict.fromkeys([*itertools.chain.from_iterable(groups.values()), *audios]):
        listed = audios[name].listed if name in audios else ()
        found = [line.attributes.get("GROUP-ID", "") for line in listed]
        wanted = [group for group, members in groups.items() if name in members]
        if found != wanted:
            there, due = (" and ".join(each) or "no group" for each in (found, wanted))
            raise ValueError(f"{name} is listed in {there}, not in {due}")


def _require_ends(planned: Sequence[Rung], found: Sequence[Rung]) -> None:
    """Require the highest and the lowest rung of each codec; others may have been left out, as low ones."""
    for codec in dict.fromkeys(rung.target.codec for rung in planned):
        family = [rung for rung in planned if rung.target.codec == codec]
        family = [rung for rung in family if not rung.is_low] or family
        for needed in (family[0], family[-1]):
            if needed not in found:
                raise ValueError(f"the rung {needed.name} is not listed")


def _keys_of(uri: str) -> str:
    return uri.removesuffix(".m3u8") + "-keys.m3u8"


def _text(path: Path) -> str:
    if not path.is_file() or path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{path.name} is missing or too large")
    return path.read_bytes().decode("utf-8")


def _inside(folder: Path, uri: str) -> Path:
    """Return the file of a URI, which must be in the set's folder itself."""
    path = folder / uri
    if not uri or ".." in Path(uri).parts or Path(uri).is_absolute() or ":" in uri:
        raise ValueError(f"{uri!r} leads out of the set")
    return path


def _media(folder: Path, listed: tuple[Listed, ...], keys: Listed | None) -> Media:
    place = _inside(folder, listed[0].uri)
    try:
        playlist = read_media(_text(place))
        names = {entry.uri for entry in playlist.entries} | {(playlist.head or ("", 0))[0]}
        path = place.with_suffix(".mp4")
        if names != {path.name}:
            raise ValueError(f"it names {', '.join(sorted(names))}, not {path.name}")
        content = read_fragments(path)
        key_list = read_media(_text(_inside(folder, keys.uri))) if keys is not None else None
    except (OSError, ValueError) as error:
        raise ValueError(f"{place.stem}: {error}") from error
    return Media(place.stem, path, listed, playlist, content, key_list, keys)


def _words(folder: Path, listed: Listed) -> tuple[MediaPlaylist, Path]:
    place = _inside(folder, listed.uri)
    playlist = read_media(_text(place))
    path = place.with_suffix(".vtt")
    if [entry.uri for entry in playlist.entries] != [path.name] or not path.is_file():
        raise ValueError(f"{place.stem} does not name {path.name} alone, or it is missing")
    return playlist, path


def byte_ranges(stored: StoredSet) -> Iterator[str]:
    """H1: the ranges of every playlist tile its file and lie on the borders of fragments."""
    for media in _all(stored):
        head = media.playlist.head
        if head is None or head[1] != media.content.head:
            yield f"{media.name}: the initialization is not the {media.content.head} first bytes"
        expected = media.content.head
        for entry in media.playlist.entries:
            if entry.start != expected:
                yield f"{media.name}: a range begins at {entry.start}, not {expected}"
                break
            expected = entry.end or 0
        else:
            if expected != media.content.size:
                yield f"{media.name}: the ranges end at {expected} of {media.content.size} bytes"
        try:
            _ = media.segments
        except ValueError as error:
            yield str(error)
    for rung, media in stored.rungs:
        yield from _key_ranges(rung, media)


def _key_ranges(rung: Rung, media: Media) -> Iterator[str]:
    """Compare an I-frame playlist: each range is a moof with its first sample, a key frame."""
    if media.keys is None or not media.keys.keys_only:
        yield f"{rung.name}: it has no I-frame playlist"
        return
    listed = [(e.start, e.end, e.uri) for e in media.keys.entries]
    name = media.path.name
    if listed != [(f.start, f.first_end, name) for f in media.content.fragments]:
        yield f"{rung.name}: the I-frame playlist does not list its key frames"
    if media.keys.head != (name, media.content.head):
        yield f"{rung.name}: the I-frame playlist has another initialization"


def independent(stored: StoredSet) -> Iterator[str]:
    """H2: every segment begins with an IDR picture, from which any player can start."""
    if not stored.master.independent:
        yield "the master playlist does not say that segments are independent"
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


def lengths(stored: StoredSet, request: VerifyRequest) -> Iterator[str]:
    """H4: playlists are as long as the video, and all rungs have as many frames.

    Within a frame and a half, as the length of the last one is guessed, or MAX_DRIFT_S.
    """
    source = request.measured.track(request.plan.main_video.source_index)
    if source is None or source.first_pts_s is None or source.last_pts_s is None:
        yield "the source was not measured"
        return
    source = source.thinned(ladder_in(request.plan).every)
    shown = (source.last_pts_s or 0.0) - (source.first_pts_s or 0.0)
    frame = shown / max(1, source.packets - 1)
    allowed = max(1.5 * frame, MAX_DRIFT_S)
    frames = request.report.frames or stored.rungs[0][1].content.samples
    for rung, media in stored.rungs:
        written = float(sum((entry.seconds for entry in media.playlist.entries), Fraction(0)))
        if abs(written - shown - frame) > allowed:
            yield f"{rung.name}: its playlist is {written:.3f} s long, not {shown + frame:.3f} s"
        if media.content.samples != frames:
            yield f"{rung.name}: {media.content.samples} frames, not {frames}"
    for media in _all(stored):
        yield from _entry_lengths(media)


def _entry_lengths(media: Media) -> Iterator[str]:
    for number, (entry, segment) in enumerate(
        zip(media.playlist.entries, media.segments, strict=True), 1
    ):
        if abs(entry.seconds - segment.seconds) > ROUNDING_S:
            found = f"{float(entry.seconds):.6f} s, not {float(segment.seconds):.6f} s"
            yield f"{media.name}: segment {number} is declared to last {found}"
            return
    if media.playlist.target < target_duration(media.segments) or not media.playlist.ended:
        yield f"{media.name}: its target duration or its end is wrong"


def declared(stored: StoredSet) -> Iterator[str]:
    """H5: codecs, sizes, frame rates and channels in the master playlist are those of the files."""
    for rung, media in stored.rungs:
        content = media.content
        expected = {
            "RESOLUTION": f"{content.width}x{content.height}",
            "FRAME-RATE": written_rate(frame_rate(media.segments)),
            "VIDEO-RANGE": RANGES.get(rung.target.colour.transfer, "SDR"),
        }
        for line, beside in _with_sounds(stored, media):
            codecs = dict.fromkeys([content.codec, *(sound.content.codec for sound in beside)])
            declared = {**expected, "CODECS": ",".join(codecs)}
            yield from _differing(rung.name, line.attributes, declared)
        if (content.width, content.height) != (rung.target.width, rung.target.height):
            yield f"{rung.name}: its picture is {content.width}x{content.height}"
        if media.keys_listed is not None:
            keys = {**expected, "CODECS": content.codec}
            del keys["FRAME-RATE"]
            yield from _differing(f"{rung.name} (I-frames)", media.keys_listed.attributes, keys)
    for media in stored.sounds:
        channels = {"CHANNELS": str(media.content.channels)}
        for line in media.listed:
            yield from _differing(media.name, line.attributes, channels)
    yield from _grouped(stored)
    yield from _alone(stored)


def _grouped(stored: StoredSet) -> Iterator[str]:
    """Require each rung once with each of its groups of sounds, and groups with the same members."""
    for rung, media in stored.rungs:
        sounds: list[str | None] = [*groups_beside(rung, stored.groups)]
        named = [line.attributes.get("AUDIO") for line in media.listed]
        words = {line.attributes.get("SUBTITLES") for line in media.listed}
        if named != (sounds or [None]) or words != ({TEXTS} if stored.texts else {None}):
            yield f"{rung.name}: it does not name the groups of sound and subtitles"
    own = {"GROUP-ID": "", "CHANNELS": "", "URI": ""}
    by_group: dict[str, list[dict[str, str]]] = {group: [] for group in stored.groups}
    for line in stored.master.renditions:
        if line.attributes["GROUP-ID"] in by_group:
            by_group[line.attributes["GROUP-ID"]].append(line.attributes | own)
    if any(one != other for one, other in itertools.pairwise(by_group.values())):
        yield "the groups of sounds do not have the same members"


def _alone(stored: StoredSet) -> Iterator[str]:
    """Require the default sound of one group as a variant without a picture."""
    group = alone(stored.groups)
    sounds = [] if group is None else _members(stored, group)
    default = [s for s in sounds if s.listed[0].attributes.get("DEFAULT") == "YES"]
    codecs = ",".join(dict.fromkeys(s.content.codec for s in [*default, *sounds]))
    expected = [(s.listed[0].uri, group, codecs) for s in default]
    found = [(v.uri, v.attributes.get("AUDIO"), v.attributes.get("CODECS")) for v in stored.alone]
    if found != expected:
        yield "the variant without a picture is not the default sound"


def _members(stored: StoredSet, group: str) -> list[Media]:
    by_name = {sound.name: sound for sound in stored.sounds}
    return [by_name[name] for name in stored.groups.get(group, ())]


def _with_sounds(stored: StoredSet, media: Media) -> Iterator[tuple[Listed, list[Media]]]:
    """Yield the lines of a rung, each with the sounds of the group that it names."""
    for line in media.listed:
        yield line, _members(stored, line.attributes.get("AUDIO", ""))


def _differing(name: str, declared: dict[str, str], expected: dict[str, str]) -> Iterator[str]:
    for key, value in expected.items():
        if declared.get(key) != value:
            yield f"{name}: {key} is {declared.get(key, 'missing')}, not {value}"


def bit_rates(stored: StoredSet) -> Iterator[str]:
    """H6: declared bit rates cover what is measured, by no more than a tenth."""
    for rung, media in stored.rungs:
        own = rates(media.segments)
        for line, sounds in _with_sounds(stored, media):
            yield from _covered(rung.name, line, own.plus(_loudest(sounds)))
    for line in stored.alone:
        sounds = _members(stored, line.attributes.get("AUDIO", ""))
        yield from _covered("the sound alone", line, _loudest(sounds))


def _loudest(sounds: Sequence[Media]) -> Rates:
    measured = [rates(sound.segments) for sound in sounds]
    return Rates(
        max((each.peak for each in measured), default=0),
        max((each.average for each in measured), default=0),
    )


def _covered(name: str, line: Listed, rates: Rates) -> Iterator[str]:
    for key, found in (("BANDWIDTH", rates.peak), ("AVERAGE-BANDWIDTH", rates.average)):
        declared = line.number(key)
        if not found <= declared <= LOOSE * found:
            yield f"{name}: {key} is {declared:.0f}, measured {found}"


def _all(stored: StoredSet) -> list[Media]:
    return [*(media for _, media in stored.rungs), *stored.sounds]
