"""Gates G2 and G3: compare the output with the plan, stream by stream. Pure.

Each gate returns its problems as clauses; without one it passes.
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
from hevcq.domain.planning.encode_plan import Action, EncodePlan, StreamPlan, VideoTarget
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
CHAPTER_TOLERANCE_S = 0.05


def output_streams(plan: EncodePlan, output: MediaInfo) -> tuple[Stream, ...]:
    """Return the output's streams in the order of `plan.kept`, one for each."""
    streams, first = _media_streams(plan, output), _first_caption(plan)
    return streams[:first] + streams[first + len(plan.captions) :]


def caption_streams(plan: EncodePlan, output: MediaInfo) -> tuple[Stream, ...]:
    """Return the text tracks made from captions, which follow the tracks of the source."""
    first = _first_caption(plan)
    return _media_streams(plan, output)[first : first + len(plan.captions)]


def _first_caption(plan: EncodePlan) -> int:
    files = {StreamKind.ATTACHMENT, StreamKind.PICTURE}
    return sum(kept.kind not in files for kept in plan.kept)


def _media_streams(plan: EncodePlan, output: MediaInfo) -> tuple[Stream, ...]:
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
    streams = output_streams(plan, output)
    problems = []
    for place, kept in enumerate(plan.kept):
        if kept.kind is not StreamKind.VIDEO or kept.action is Action.COPY:
            continue
        target = kept.video or plan.video
        stream = streams[place] if place < len(streams) else None
        if stream is None or stream.video is None:
            problems.append(f"track {place} is no video")
            continue
        clauses = [*_mismatch("codec", target.codec, stream.codec)]
        clauses += _picture_problems(target, stream.video)
        if target.tag and is_mp4_family(plan.muxer):
            clauses += _mismatch("codec tag", target.tag, stream.codec_tag)
        clauses += _aspect_problems(target, stream.video, whole=is_matroska_family(plan.muxer))
        problems += [f"video track {place}: {clause}" for clause in clauses]
    return problems


def _picture_problems(target: VideoTarget, found: VideoFacts) -> Iterator[str]:
    size = f"{target.width}x{target.height}"
    yield from _mismatch("size", size, f"{found.width}x{found.height}")
    yield from _mismatch(
        "pixel format", _plain_format(target.pixel_format), _plain_format(found.pixel_format)
    )
    yield from _mismatch("bit depth", target.bit_depth, found.bit_depth)
    yield from _mismatch("rotation", target.rotation, found.rotation)
    if found.mirrored:
        yield "the picture is mirrored"
    if found.marked_interlaced:
        yield _difference("order of fields", "progressive", found.field_order)
    yield from _colour_problems(target.colour, found.colour)
    if target.captions is not None and target.captions != found.closed_captions:
        yield "closed captions were lost" if target.captions else "it has closed captions"
    if target.dolby_vision and not (found.dolby_vision and found.dolby_base):
        yield "it is not marked as Dolby Vision"
    if found.dolby_vision and not target.dolby_vision:
        yield "it is Dolby Vision, which was to be left out"
    if _display_values(target.mastering_display) != _display_values(found.mastering_display):
        yield _difference(
            "HDR mastering display", target.mastering_display, found.mastering_display
        )
    if _light_values(target.light_level) != _light_values(found.light_level):
        yield _difference("HDR light level", target.light_level, found.light_level)


def _aspect_problems(target: VideoTarget, found: VideoFacts, *, whole: bool) -> Iterator[str]:
    """Compare sample aspects. With `whole` the container rounds the display width to whole pixels (Matroska)."""
    planned, made = (_fraction(each.sample_aspect.replace(":", "/")) for each in (target, found))
    if not (whole and abs(planned - made) * target.width < 1):
        yield from _mismatch(
            "shape of a pixel (sample aspect)", target.sample_aspect, found.sample_aspect
        )


def _colour_problems(planned: Colour, found: Colour) -> Iterator[str]:
    ranges = ("full" if each.range == "pc" else "limited" for each in (planned, found))
    yield from _mismatch("range of brightness", *ranges)
    for name in ("space", "transfer", "primaries"):
        if value := getattr(planned, name):
            yield from _mismatch(f"colour {name}", value, getattr(found, name))
    if planned.chroma_location and found.chroma_location:
        yield from _mismatch("chroma location", planned.chroma_location, found.chroma_location)


def _plain_format(pixel_format: str) -> str:
    """Return a pixel format without its legacy full-range name; `Colour.range` holds the range."""
    return pixel_format.replace("yuvj", "yuv")


def _display_values(display: MasteringDisplay | None) -> tuple[Fraction, ...]:
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


def _light_values(level: LightLevel | None) -> tuple[int, int]:
    """Return the two levels; zeros mean the same as no metadata."""
    return (level.max_content, level.max_average) if level is not None else (0, 0)


def stream_problems(plan: EncodePlan, source: MediaInfo, output: MediaInfo) -> list[str]:
    """G3: compare the output's streams, chapters and titles with those that the plan keeps."""
    streams = output_streams(plan, output)
    if len(streams) != len(plan.kept):
        kinds = ", ".join(f"{stream.kind.value} {stream.codec}" for stream in streams)
        return [f"it has {len(streams)} tracks ({kinds}), but {len(plan.kept)} were to be kept"]
    problems = []
    for place, (kept, stream) in enumerate(zip(plan.kept, streams, strict=True)):
        origin = source.stream(kept.source_index)
        clauses = _stream_problems(plan.muxer, kept, origin, stream)
        problems += [f"{kept.kind.value} track {place}: {clause}" for clause in clauses]
    problems += _caption_problems(plan, source, output)
    if lost := missing_metadata(plan.muxer, source, output, plan.streams):
        problems.append(f"it lacks {', '.join(lost)}")
    if added := itunes_differences(plan.muxer, source, output, plan.streams)[1]:
        problems.append(f"it has {', '.join(added)}, which the source has not")
    return [
        *problems,
        *_chapter_problems(plan, source, output),
        *_title_problems(source.tags, file_tags(plan.muxer, output)),
        *_creation_time_problems(plan.muxer, source.tags, file_tags(plan.muxer, output)),
    ]


def _caption_problems(plan: EncodePlan, source: MediaInfo, output: MediaInfo) -> Iterator[str]:
    streams = caption_streams(plan, output)
    if len(streams) != len(plan.captions):
        yield f"it has {len(streams)} text tracks of captions, not {len(plan.captions)}"
    for channel, stream in zip(plan.captions, streams, strict=False):
        planned = f"{SUBTITLE_ENCODERS[plan.muxer][0]} in {caption_language(source, channel)}"
        found = f"{stream.codec} in {stream.language or 'und'}"
        yield from _mismatch(f"text track of captions {channel}", planned, found)
        if is_matroska_family(plan.muxer):
            yield from _mismatch("title", caption_title(channel), stream.title)


def _stream_problems(muxer: str, kept: StreamPlan, origin: Stream, made: Stream) -> Iterator[str]:
    yield from _mismatch("kind", kept.kind.value, made.kind.value)
    alias = READ_AS.get((muxer, kept.codec))
    if kept.kind is not StreamKind.ATTACHMENT and kept.codec and made.codec != alias:
        yield from _mismatch("codec", kept.codec, made.codec)
    labelled = muxer in LABELLED and _THREE_LETTERS.match(origin.language)
    if is_matroska_family(muxer) or labelled:
        yield from _mismatch("language", plain_language(muxer, origin), made.language)
    titled = is_matroska_family(muxer) or (is_mp4_family(muxer) and origin.title)
    if titled and kept.kind is not StreamKind.PICTURE and "\ufffd" not in origin.title:
        yield from _mismatch("title", _single_spaced(origin.title), _single_spaced(made.title))
    yield from _mismatch("language tag", kept_language(muxer, kept, origin), made.language_tag)
    if kept.kind in {StreamKind.VIDEO, StreamKind.AUDIO, StreamKind.SUBTITLE}:
        yield from _disposition_problems(muxer, origin, made)
    if kept.kind is StreamKind.ATTACHMENT:
        yield from _mismatch("file name", origin.tags.get("filename"), made.tags.get("filename"))
        if origin.digest and origin.digest != made.digest:
            yield "the attached file has other bytes"
    if made.audio is not None and origin.audio is not None:
        channels = kept.channels or origin.audio.channels
        yield from _mismatch("channels", channels, made.audio.channels)
        if kept.action is Action.COPY:
            yield from _mismatch("sample rate", origin.audio.sample_rate, made.audio.sample_rate)


def _disposition_problems(muxer: str, origin: Stream, made: Stream) -> Iterator[str]:
    flags = FLAGS.get(muxer, frozenset())
    kept, found = flags.intersection(origin.dispositions), flags.intersection(made.dispositions)
    if muxer == MP4:
        kept, found = (frozenset(SAME_MARK.get(m, m) for m in marks) for marks in (kept, found))
    # The MP4 muxer enables the first track of a kind, which reads as "default".
    added = found - kept - ({"default"} if is_mp4_family(muxer) else set())
    if kept - found or added:
        marked, not_as = (" and ".join(sorted(marks)) or "nothing" for marks in (found, kept))
        yield f"it is marked as {marked}, not as {not_as}"


def _chapter_problems(plan: EncodePlan, source: MediaInfo, output: MediaInfo) -> Iterator[str]:
    yield from _mismatch("number of chapters", plan.chapters, len(output.chapters))
    if not len(source.chapters) == plan.chapters == len(output.chapters):
        return
    shift = min(0.0, source.start_s or 0.0) if is_mp4_family(plan.muxer) else 0.0
    for number, (old, new) in enumerate(zip(source.chapters, output.chapters, strict=True), 1):
        yield from _mismatch(
            f"title of chapter {number}", _single_spaced(old.title), _single_spaced(new.title)
        )
        late = abs(new.start_s - old.start_s) - abs(shift) - abs(source.start_s or 0.0)
        if late > CHAPTER_TOLERANCE_S:
            yield f"chapter {number} starts at {timecode(new.start_s, 2)}, not {timecode(old.start_s, 2)}"


def _title_problems(source: Mapping[str, str], output: Mapping[str, str]) -> Iterator[str]:
    # Matroska has a tag TITLE, which ffmpeg makes the file's title.
    named = [{n.lower(): v for n, v in reversed([*tags.items()])} for tags in (source, output)]
    kept, found = (_single_spaced(tags.get("title", "")) for tags in named)
    # A title that is not valid text has no single correct decoding.
    if "\ufffd" not in kept:
        yield from _mismatch("title of the file", kept, found)


def _creation_time_problems(
    muxer: str, source: Mapping[str, str], output: Mapping[str, str]
) -> Iterator[str]:
    """Require the same creation time, to the second: MP4 holds no fractions, and no time before 1970."""
    if muxer in TAGS:
        return  # the plan names the loss
    kept, found = _creation_second(source), _creation_second(output)
    if kept is not None and kept > 0 and kept != found:
        shown = "lost" if found is None else f"{output.get('creation_time')}"
        yield f"the creation time is {shown}, not {source.get('creation_time')}"


def _creation_second(tags: Mapping[str, str]) -> int | None:
    """Return the creation time in whole seconds since 1970, or None if there is no valid one."""
    text = tags.get("creation_time", "").strip().replace("Z", "+00:00")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())


def _single_spaced(text: str) -> str:
    return " ".join(text.split())


def _mismatch(name: str, expected: object, found: object) -> Iterator[str]:
    if expected != found:
        yield _difference(name, expected, found)


def _difference(name: str, expected: object, found: object) -> str:
    shown, wanted = ("none" if each is None or each == "" else each for each in (found, expected))
    return f"the {name} is {shown}, not {wanted}"
