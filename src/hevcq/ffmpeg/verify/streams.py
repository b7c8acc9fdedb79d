"""Gates G2 and G3: compare the output with the plan, stream by stream. Pure functions.

Each returns its problems as clauses; none means that the gate passes.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from fractions import Fraction

from hevcq.domain.media.containers import (
    DEMUXERS,
    FLAGS,
    LABELLED,
    MP4,
    READ_AS,
    REMADE_TAGS,
    SAME_MARK,
    SUBTITLE_ENCODERS,
    TAGS,
    is_matroska_family,
    is_mp4_family,
)
from hevcq.domain.media.facts import (
    Colour,
    LightLevel,
    MasteringDisplay,
    MediaInfo,
    Stream,
    StreamKind,
    VideoFacts,
)
from hevcq.domain.planning.encode_plan import (
    Action,
    EncodePlan,
    StreamPlan,
    VideoTarget,
)
from hevcq.domain.planning.metadata import (
    file_tags,
    itunes_differences,
    kept_language,
    missing_metadata,
    plain_language,
)
from hevcq.domain.planning.streams import caption_language, caption_title
from hevcq.util.text import timecode

_THREE_LETTERS = re.compile(r"^[a-z]{3}$")
CHAPTER_S = 0.05


def output_streams(plan: EncodePlan, output: MediaInfo) -> tuple[Stream, ...]:
    """Return the output's streams that correspond to `plan.kept`, in that order."""
    made, first = _made(plan, output), _first_caption(plan)
    return made[:first] + made[first + len(plan.captions) :]


def caption_streams(plan: EncodePlan, output: MediaInfo) -> tuple[Stream, ...]:
    """Return the text tracks that were made of captions: they follow the tracks of the source."""
    first = _first_caption(plan)
    return _made(plan, output)[first : first + len(plan.captions)]


def _first_caption(plan: EncodePlan) -> int:
    files = {StreamKind.ATTACHMENT, StreamKind.PICTURE}
    return sum(kept.kind not in files for kept in plan.kept)


def _made(plan: EncodePlan, output: MediaInfo) -> tuple[Stream, ...]:
    if not is_mp4_family(plan.muxer):
        return output.streams
    return tuple(
        stream
        for stream in output.streams
        if stream.kind is not StreamKind.DATA or stream.codec_tag not in REMADE_TAGS
    )


def plan_problems(plan: EncodePlan, output: MediaInfo) -> list[str]:
    """G2: compare every encoded video stream with its target, and the container with the plan."""
    family = output.format_name.partition(",")[0]
    if family != DEMUXERS.get(plan.muxer):
        return [f"the container is {output.format_name}, not {plan.muxer}"]
    made = output_streams(plan, output)
    problems = []
    for place, kept in enumerate(plan.kept):
        if kept.kind is not StreamKind.VIDEO or kept.action is Action.COPY:
            continue
        target = kept.video or plan.video
        stream = made[place] if place < len(made) else None
        if stream is None or stream.video is None:
            problems.append(f"track {place} is no video")
            continue
        found = [*_same("codec", target.codec, stream.codec), *_picture(target, stream.video)]
        if target.tag and is_mp4_family(plan.muxer):
            found += _same("codec tag", target.tag, stream.codec_tag)
        found += _shape(target, stream.video, whole=is_matroska_family(plan.muxer))
        problems += [f"video track {place}: {problem}" for problem in found]
    return problems


def _picture(target: VideoTarget, found: VideoFacts) -> Iterator[str]:
    size = f"{target.width}x{target.height}"
    yield from _same("size", size, f"{found.width}x{found.height}")
    yield from _same("pixel format", _plain(target.pixel_format), _plain(found.pixel_format))
    yield from _same("bit depth", target.bit_depth, found.bit_depth)
    yield from _same("rotation", target.rotation, found.rotation)
    if found.mirrored:
        yield "the picture is mirrored"
    if found.marked_interlaced:
        yield _differs("order of fields", "progressive", found.field_order)
    yield from _colour(target.colour, found.colour)
    if target.captions is not None and target.captions != found.closed_captions:
        yield "closed captions were lost" if target.captions else "it has closed captions"
    if target.dolby_vision and not (found.dolby_vision and found.dolby_base):
        yield "it is not marked as Dolby Vision"
    if found.dolby_vision and not target.dolby_vision:
        yield "it is Dolby Vision, which was to be left out"
    if _display(target.mastering_display) != _display(found.mastering_display):
        yield _differs("HDR mastering display", target.mastering_display, found.mastering_display)
    if _light(target.light_level) != _light(found.light_level):
        yield _differs("HDR light level", target.light_level, found.light_level)


def _shape(target: VideoTarget, found: VideoFacts, *, whole: bool) -> Iterator[str]:
    """Compare the shapes of pixels. Matroska stores the width that is shown in `whole` pixels."""
    wanted, made = (_fraction(each.sample_aspect.replace(":", "/")) for each in (target, found))
    if not (whole and abs(wanted - made) * target.width < 1):
        yield from _same(
            "shape of a pixel (sample aspect)", target.sample_aspect, found.sample_aspect
        )


def _colour(promised: Colour, found: Colour) -> Iterator[str]:
    wanted, made = ("full" if each.range == "pc" else "limited" for each in (promised, found))
    yield from _same("range of brightness", wanted, made)
    for name in ("space", "transfer", "primaries"):
        wanted = getattr(promised, name)
        if wanted:
            yield from _same(f"colour {name}", wanted, getattr(found, name))
    if promised.chroma_location and found.chroma_location:
        yield from _same("chroma location", promised.chroma_location, found.chroma_location)


def _plain(pixel_format: str) -> str:
    """Return the format without the legacy full-range names; `Colour.range` holds the range."""
    return pixel_format.replace("yuvj", "yuv")


def _display(display: MasteringDisplay | None) -> tuple[Fraction, ...]:
    if display is None:
        return ()
    values = display.model_dump().items()
    units = {name: 10_000 if "luminance" in name else 50_000 for name, _ in values}
    return tuple(Fraction(round(_fraction(v) * units[n]), units[n]) for n, v in values)


def _fraction(text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return Fraction(-1)


def _light(level: LightLevel | None) -> tuple[int, int]:
    """Return the two levels; zeros mean the same as no levels."""
    return (level.max_content, level.max_average) if level is not None else (0, 0)


def stream_problems(plan: EncodePlan, source: MediaInfo, output: MediaInfo) -> list[str]:
    """G3: compare the output's streams, chapters and titles with those that the plan keeps."""
    made = output_streams(plan, output)
    if len(made) != len(plan.kept):
        kinds = ", ".join(f"{stream.kind.value} {stream.codec}" for stream in made)
        return [f"it has {len(made)} tracks ({kinds}), but {len(plan.kept)} were to be kept"]
    problems = []
    for place, (kept, stream) in enumerate(zip(plan.kept, made, strict=True)):
        origin = source.stream(kept.source_index)
        found = _stream_problems(plan.muxer, kept, origin, stream)
        problems += [f"{kept.kind.value} track {place}: {problem}" for problem in found]
    problems += _caption_problems(plan, source, output)
    gone = missing_metadata(plan.muxer, source, output, plan.streams)
    if gone:
        problems.append(f"it lacks {', '.join(gone)}")
    added = itunes_differences(plan.muxer, source, output, plan.streams)[1]
    if added:
        problems.append(f"it has {', '.join(added)}, which the source has not")
    return [
        *problems,
        *_chapter_problems(plan, source, output),
        *_title(source.tags, file_tags(plan.muxer, output)),
        *_creation_time(plan.muxer, source.tags, file_tags(plan.muxer, output)),
    ]


def _caption_problems(plan: EncodePlan, source: MediaInfo, output: MediaInfo) -> Iterator[str]:
    made = caption_streams(plan, output)
    if len(made) != len(plan.captions):
        yield f"it has {len(made)} text tracks of captions, not {len(plan.captions)}"
    for channel, stream in zip(plan.captions, made, strict=False):
        wanted = SUBTITLE_ENCODERS[plan.muxer][0], caption_language(source, channel)
        found = stream.codec, stream.language or "und"
        yield from _same(
            f"text track of captions {channel}", " in ".join(wanted), " in ".join(found)
        )
        if is_matroska_family(plan.muxer):
            yield from _same("title", caption_title(channel), stream.title)


def _stream_problems(muxer: str, kept: StreamPlan, origin: Stream, made: Stream) -> Iterator[str]:
    yield from _same("kind", kept.kind.value, made.kind.value)
    alias = READ_AS.get((muxer, kept.codec))
    if kept.kind is not StreamKind.ATTACHMENT and kept.codec and made.codec != alias:
        yield from _same("codec", kept.codec, made.codec)
    labelled = muxer in LABELLED and _THREE_LETTERS.match(origin.language)
    if is_matroska_family(muxer) or labelled:
        yield from _same("language", plain_language(muxer, origin), made.language)
    titled = is_matroska_family(muxer) or (is_mp4_family(muxer) and origin.title)
    if titled and kept.kind is not StreamKind.PICTURE and "\ufffd" not in origin.title:
        yield from _same("title", _words(origin.title), _words(made.title))
    yield from _same("language tag", kept_language(muxer, kept, origin), made.language_tag)
    if kept.kind in {StreamKind.VIDEO, StreamKind.AUDIO, StreamKind.SUBTITLE}:
        yield from _dispositions(muxer, origin, made)
    if kept.kind is StreamKind.ATTACHMENT:
        yield from _same("file name", origin.tags.get("filename"), made.tags.get("filename"))
        if origin.digest and origin.digest != made.digest:
            yield "the attached file has other bytes"
    if made.audio is not None and origin.audio is not None:
        channels = kept.channels or origin.audio.channels
        yield from _same("channels", channels, made.audio.channels)
        if kept.action is Action.COPY:
            yield from _same("sample rate", origin.audio.sample_rate, made.audio.sample_rate)


def _dispositions(muxer: str, origin: Stream, made: Stream) -> Iterator[str]:
    held = FLAGS.get(muxer, frozenset())
    wanted, found = held.intersection(origin.dispositions), held.intersection(made.dispositions)
    if muxer == MP4:
        wanted, found = (frozenset(SAME_MARK.get(m, m) for m in marks) for marks in (wanted, found))
    # The MP4 muxer enables the first track of a kind, which reads as "default".
    added = found - wanted - ({"default"} if is_mp4_family(muxer) else set())
    if wanted - found or added:
        yield f"it is marked as {_listed(found)}, not as {_listed(wanted)}"


def _chapter_problems(plan: EncodePlan, source: MediaInfo, output: MediaInfo) -> Iterator[str]:
    yield from _same("number of chapters", plan.chapters, len(output.chapters))
    if not len(source.chapters) == plan.chapters == len(output.chapters):
        return
    shift = min(0.0, source.start_s or 0.0) if is_mp4_family(plan.muxer) else 0.0
    for number, (old, new) in enumerate(zip(source.chapters, output.chapters, strict=True), 1):
        yield from _same(f"title of chapter {number}", _words(old.title), _words(new.title))
        late = abs(new.start_s - old.start_s) - abs(shift) - abs(source.start_s or 0.0)
        if late > CHAPTER_S:
            yield f"chapter {number} starts at {timecode(new.start_s, 2)}, not {timecode(old.start_s, 2)}"


def _title(source: Mapping[str, str], output: Mapping[str, str]) -> Iterator[str]:
    # A tag of Matroska is called TITLE, of which ffmpeg makes the file's title.
    named = [{n.lower(): v for n, v in reversed([*tags.items()])} for tags in (source, output)]
    wanted, found = (_words(tags.get("title", "")) for tags in named)
    # A title that is not valid text has no single correct decoding.
    if "\ufffd" not in wanted:
        yield from _same("title of the file", wanted, found)


def _creation_time(
    muxer: str, source: Mapping[str, str], output: Mapping[str, str]
) -> Iterator[str]:
    """Require the time of recording, to the second: MP4 holds no fractions, and no time before 1970."""
    if muxer in TAGS:
        return  # the plan names its loss
    wanted, found = _moment(source), _moment(output)
    if wanted is not None and wanted > 0 and wanted != found:
        kept = "lost" if found is None else f"{output.get('creation_time')}"
        yield f"the creation time is {kept}, not {source.get('creation_time')}"


def _moment(tags: Mapping[str, str]) -> int | None:
    """Return the creation time in whole seconds since 1970, or None if there is no valid one."""
    text = tags.get("creation_time", "").strip().replace("Z", "+00:00")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())


def _words(text: str) -> str:
    return " ".join(text.split())


def _same(name: str, expected: object, found: object) -> Iterator[str]:
    if expected != found:
        yield _differs(name, expected, found)


def _differs(name: str, expected: object, found: object) -> str:
    return f"the {name} is {_shown(found)}, not {_shown(expected)}"


def _shown(value: object) -> str:
    return "none" if value is None or value == "" else str(value)


def _listed(marks: frozenset[str] | set[str]) -> str:
    return " and ".join(sorted(marks)) or "nothing"
